/**
 * What is still to be undone of a lab, as data: written down before a fault acts or a node is fenced, so that whoever
 * comes next, after a `kill -9` too, can do it.
 */
import type { LabId } from './identity.js'
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { LabError } from './error.js'
import { pathsOf, syncFolder } from './state.js'

/** What undoes something, as data: the code that carries it out is found by `do`, and reads the other fields. */
export interface Undo {
  readonly do: string
  readonly machine: string
  readonly [field: string]: unknown
}

const undoSchema = z.looseObject({ do: z.string(), machine: z.string() })

/** Who made what is to be undone: a fault, a fence, something that a run itself does, or a person by hand. */
const kindSchema = z.enum(['fault', 'fence', 'run', 'hand'])

export type EntryKind = z.output<typeof kindSchema>

const entrySchema = z.strictObject({
  /** Absent in journals of earlier versions. */
  kind: kindSchema.optional(),
  /** Who did it: `lab run iscsi-ha drain`, `the fencing agent`. */
  by: z.string(),
  /** The name of the fault; otherwise what it is about: `fence`, `read-back`, an experiment. */
  fault: z.string(),
  undo: undoSchema,
})

/** What journals of earlier versions had in the place of a kind. */
const kindOf = (fault: string): EntryKind => (fault === 'fence' ? 'fence' : 'fault')

export interface JournalEntry extends Omit<z.output<typeof entrySchema>, 'kind' | 'undo'> {
  readonly kind: EntryKind
  readonly undo: Undo
  /** The name of its file; in the order in which things were done. */
  readonly id: string
}

/** A file for each entry: a run and the fencing agent write at once, and neither must overwrite the other's. */
const journalOf = (lab: LabId): string => pathsOf(lab).faults

/** What is still to be undone, in the order in which it was done. */
export const readJournal = async (lab: LabId): Promise<readonly JournalEntry[]> => {
  const folder = journalOf(lab)
  const names = await readdir(folder).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  })
  const entries = await Promise.all(
    names
      .filter((name) => name.endsWith('.json'))
      .sort()
      .map(async (id): Promise<JournalEntry | undefined> => {
        const path = join(folder, id)
        // What was there a moment ago may be undone by now.
        const text = await readFile(path, 'utf8').catch(() => undefined)
        if (text === undefined) return undefined
        try {
          const { kind, ...entry } = entrySchema.parse(JSON.parse(text))
          return { id, kind: kind ?? kindOf(entry.fault), ...entry }
        } catch (error) {
          throw new LabError('bad-journal', `${path}: not a fault to undo`, {
            cause: error,
            hint: `lab down ${lab.name}`,
            log: path,
          })
        }
      }),
  )
  return entries.filter((entry) => entry !== undefined)
}

let written = 0

/** Notes down what will have to be undone, on the disk before it returns; to be awaited before it is done. */
export const noteUndo = async (
  lab: LabId,
  by: string,
  fault: string,
  undos: readonly Undo[],
  kind: EntryKind = kindOf(fault),
): Promise<readonly JournalEntry[]> => {
  const folder = journalOf(lab)
  // Not with its parents: a lab that was just removed must not get a folder again.
  await mkdir(folder, { mode: 0o700 }).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  })
  const fresh: JournalEntry[] = []
  for (const undo of undos) {
    const id = `${new Date().toISOString()}-${String(written++).padStart(6, '0')}-${String(process.pid)}.json`
    const next = join(folder, `${id}.new`)
    const handle = await open(next, 'w', 0o600)
    try {
      await handle.writeFile(JSON.stringify({ kind, by, fault, undo }, null, 2))
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(next, join(folder, id))
    fresh.push({ id, kind, by, fault, undo })
  }
  await syncFolder(folder)
  await syncFolder(dirname(folder))
  return fresh
}

/** It is undone. */
export const strike = async (lab: LabId, { id }: JournalEntry): Promise<void> => {
  await rm(join(journalOf(lab), id), { force: true })
  await syncFolder(journalOf(lab))
}

/** What is noted of one node's fence. */
export interface NotedFence {
  /**
   * How the node is let write again. Its id is the fence's own: a target keeps it, and lets nobody be fenced by it
   * once it was undone. Absent: only the taint is left to be undone.
   */
  readonly harm: JournalEntry | undefined
  readonly entries: readonly JournalEntry[]
}

/** Whether this is what makes a fenced node write again. */
const undoesHarm = ({ undo }: JournalEntry): boolean =>
  undo.do === 'readmit' || undo.do === 'boot-afresh' || undo.do === 'switch-on'

/** The nodes that are fenced, or about to be, as the journal has them. */
export const fencesIn = (journal: readonly JournalEntry[]): ReadonlyMap<string, NotedFence> => {
  const nodes = new Set(journal.filter(({ kind }) => kind === 'fence').map(({ undo }) => undo.machine))
  return new Map(
    [...nodes].map((node) => {
      const entries = journal.filter(({ kind, undo }) => kind === 'fence' && undo.machine === node)
      return [node, { harm: entries.findLast(undoesHarm), entries }]
    }),
  )
}

/**
 * To be asked before a lab is brought back by its plan, which lets every node into its targets.
 * @throws LabError while a node that was thrown out has not lost its memory: it would write what it still holds.
 */
export const refuseWhileFenced = async (lab: LabId): Promise<void> => {
  const fenced = (await readJournal(lab)).find(({ undo }) => undo.do === 'readmit')
  if (fenced)
    throw new LabError(
      'still-fenced',
      `${fenced.undo.machine} was thrown out by its target, and could not be switched off: it must not be let in`,
      { hint: `lab heal ${lab.name}, or lab down ${lab.name}` },
    )
}
