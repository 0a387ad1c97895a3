/** Undoes the entries of the journal: faults, fences, and what runs themselves have made. */
import { bootingAfresh, fenceUndos } from '../fault/fence.js'
import type { UndoAct } from '../fault/undo-act.js'
import { LabError, messageOf } from '../error.js'
import { whileFencing } from '../fencing/fence.js'
import { type JournalEntry, readJournal, strike } from '../journal.js'
import type { Context } from '../context.js'
import { deletingNamespace, emptyingNamespace } from './own-namespace.js'
import { scalingBack } from './read-back.js'
import type { Registry } from './registry.js'

/** Every kind of undo that a journal of this program may contain. */
const undosOf = ({ faults, experiments }: Registry): ReadonlyMap<string, UndoAct> =>
  new Map(
    [
      ...faults.flatMap(({ undos }) => undos),
      ...experiments.flatMap(({ undos }) => undos ?? []),
      ...fenceUndos,
      deletingNamespace,
      emptyingNamespace,
      scalingBack,
    ].map((act) => [act.do, act]),
  )

/** @throws if it failed; it can be tried again */
const undoOne = async (
  context: Context,
  entry: JournalEntry,
  undos: ReadonlyMap<string, UndoAct>,
): Promise<void> => {
  // Earlier versions recorded a fence as if the machine only had to be switched on.
  const name = entry.kind === 'fence' && entry.undo.do === 'switch-on' ? bootingAfresh.do : entry.undo.do
  const act = undos.get(name)
  if (!act)
    throw new LabError('bad-journal', `unknown undo: ${name}`, {
      hint: `lab down ${context.lab.name}`,
    })
  await act.carryOut(context, { ...entry, undo: { ...entry.undo, do: name } })
}

/**
 * Undoes entries of the journal, the last first, and removes them one by one. An entry that fails stays in the
 * journal and does not prevent the others.
 * @param which selects entries; default: all
 * @returns the failures, one sentence each
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
