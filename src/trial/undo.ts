/** Undoing what the journal says: faults, fences, and what runs themselves have made. */
import { z } from 'zod'
import { bootingAfresh, fenceUndos } from '../fault/fence.js'
import { undoAct, type UndoAct } from '../fault/undo-act.js'
import { LabError, messageOf } from '../error.js'
import { whileFencing } from '../fencing/fence.js'
import { type JournalEntry, readJournal, strike } from '../journal.js'
import type { Context } from '../context.js'
import { scalingBack } from './read-back.js'
import type { Registry } from './registry.js'

/** Seconds until all that is in a namespace has ended. */
const longest = 180

/** With all that is in it; the machine that the journal names is that of the API server. */
export const deletingNamespace = undoAct(
  'delete-namespace',
  { namespace: z.string() },
  async ({ kubectl }, { namespace }) => {
    await kubectl.run(['delete', 'namespace', namespace, '--ignore-not-found'], { timeout: longest })
  },
)

/** Every way to undo something that a journal of this program may hold. */
const undosOf = ({ faults, experiments }: Registry): ReadonlyMap<string, UndoAct> =>
  new Map(
    [
      ...faults.flatMap(({ undos }) => undos),
      ...experiments.flatMap(({ undos }) => undos ?? []),
      ...fenceUndos,
      deletingNamespace,
      scalingBack,
    ].map((act) => [act.do, act]),
  )

/** @throws when it could not be undone; it may be tried again */
const undoOne = async (
  context: Context,
  entry: JournalEntry,
  undos: ReadonlyMap<string, UndoAct>,
): Promise<void> => {
  // Fences of earlier versions were noted as if the machine had only to be switched on.
  const name = entry.kind === 'fence' && entry.undo.do === 'switch-on' ? bootingAfresh.do : entry.undo.do
  const act = undos.get(name)
  if (!act)
    throw new LabError('bad-journal', `nothing is known that is called ${name}`, {
      hint: `lab down ${context.lab.name}`,
    })
  await act.carryOut(context, { ...entry, undo: { ...entry.undo, do: name } })
}

/**
 * Undoes what the journal says, the last first, and strikes it out one by one. What fails stays in the journal,
 * and does not keep the others from being undone.
 * @param which of the entries; all, where nothing is said
 * @returns what went wrong, a sentence each
 */
export const undoAll = async (
  context: Context,
  registry: Registry,
  which: (entry: JournalEntry) => boolean = () => true,
): Promise<readonly string[]> => {
  const undos = undosOf(registry)
  const failed: string[] = []
  for (const entry of [...(await readJournal(context.lab))].filter(which).reverse()) {
    try {
      const undo = async (): Promise<void> => {
        await undoOne(context, entry, undos)
        await strike(context.lab, entry)
      }
      if (entry.kind === 'fence') await whileFencing(context.lab, entry.undo.machine, context.signal, undo)
      else await undo()
    } catch (error) {
      failed.push(`${entry.fault} on ${entry.undo.machine}: ${entry.undo.do}: ${messageOf(error)}`)
    }
  }
  return failed
}
