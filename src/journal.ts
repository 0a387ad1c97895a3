/**
 * The undo journal of a lab, as data: each entry is written before a fault acts or a node is fenced, so that any
 * later command can undo it, even after `kill -9`.
 */
import type { LabId } from './identity.js'
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { LabError } from './error.js'
import { pathsOf, syncFolder } from './state.js'

/** An undo as data: its code is found by `do` and reads the other fields. */
export interface Undo {
  readonly do: string
  readonly machine: string
  readonly [field: string]: unknown
}

const undoSchema = z.looseObject({ do: z.string(), machine: z.string() })

/** The author of an entry: a fault, a fence, a run itself, or a person by hand. */
const kindSchema = z.enum(['fault', 'fence', 'run', 'hand'])

export type EntryKind = z.output<typeof kindSchema>

const entrySchema = z.strictObject({
  /** Absent in journals of earlier versions. */
  kind: kindSchema.optional(),
  /** The command that made the entry: `lab run iscsi-ha drain`, `the fencing agent`. */
  by: z.string(),
  /** The name of the fault, or else the subject: `fence`, `read-back`, an experiment. */
  fault: z.string(),
  undo: undoSchema,
})

/** The kind of an entry that an earlier version wrote without one. */
const kindOf = (fault: string): EntryKind => (fault === 'fence' ? 'fence' : 'fault')

export interface JournalEntry extends Omit<z.output<typeof entrySchema>, 'kind' | 'undo'> {
  readonly kind: EntryKind
  readonly undo: Undo
  /** The name of its file, which sorts in the order of the actions. */
  readonly id: string
}

/**
 * The journal is a folder with a file for each entry: a run and the fencing agent write at the same time and must not
 * overwrite each other.
 */
const journalOf = (lab: LabId): string => pathsOf(lab).faults

/** What must be undone is then unknown, so no command may act as if nothing were to be undone. */
const damaged = (lab: LabId, path: string, cause: unknown): LabError =>
  new LabError('bad-journal', `${path}: not a fault to undo`, {
    hint: `lab down ${lab.name}\nor undo by hand what it may be about, then: rm -r ${path}`,
    log: path,
    cause,
  })

/** All open entries, in the order of the actions. */
export const readJournal = async (lab: LabId): Promise<readonly JournalEntry[]> => {
  const folder = journalOf(lab)
  const names = await readdir(folder).catch((error: unknown) => {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return []
    if (code === 'ENOTDIR') throw damaged(lab, folder, error)
    throw error
  })
  const entries = await Promise.all(
    names
      .filter((name) => name.endsWith('.json'))
      .sort()
      .map(async (id): Promise<JournalEntry | undefined> => {
        const path = join(folder, id)
        try {
          const { kind, ...entry } = entrySchema.parse(JSON.parse(await readFile(path, 'utf8')))
          return { id, kind: kind ?? kindOf(entry.fault), ...entry }
        } catch (error) {
          // An entry that was listed a moment ago may have been undone since. One that cannot be read was not.
          if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
          throw damaged(lab, path, error)
        }
      }),
  )
  return entries.filter((entry) => entry !== undefined)
}

let written = 0

/** Records an undo on disk before it returns. Await it before the action itself. */
export const noteUndo = async (
  lab: LabId,
  by: string,
  fault: string,
  undos: readonly Undo[],
  kind: EntryKind = kindOf(fault),
): Promise<readonly JournalEntry[]> => {
  const folder = journalOf(lab)
  // Without its parents: a lab that was just removed must not get a folder again.
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

/** Removes an entry that has been undone. */
export const strike = async (lab: LabId, { id }: JournalEntry): Promise<void> => {
  await rm(join(journalOf(lab), id), { force: true })
  await syncFolder(journalOf(lab))
}

/** The entries of one node's fence. */
export interface NotedFence {
  /**
   * How the node is allowed to write again. Its id identifies the fence: the target keeps it and refuses a fence with
   * an id that was undone. Absent: only the taint is left to undo.
   */
  readonly harm: JournalEntry | undefined
  readonly entries: readonly JournalEntry[]
}

/** Whether this undo allows a fenced node to write again. */
const undoesHarm = ({ undo }: JournalEntry): boolean =>
  undo.do === 'readmit' || undo.do === 'boot-afresh' || undo.do === 'switch-on'

/** The nodes that are fenced or about to be, according to the journal. */
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
 * Called before a plan repairs a lab, since the plan gives every node access to its targets.
 * @throws LabError while a fenced node has not been restarted: it would write what it still holds in memory
 */
export const refuseWhileFenced = async (lab: LabId): Promise<void> => {
  const fenced = (await readJournal(lab)).find(({ undo }) => undo.do === 'readmit')
  if (fenced)
    throw new LabError(
      'still-fenced',
      `${fenced.undo.machine} was shut out by its target, but could not be switched off: it must not get access again`,
      { hint: `lab heal ${lab.name}, or lab down ${lab.name}` },
    )
}
