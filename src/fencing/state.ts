/** What the fencing agent says of itself while it lives. `lab status` reads this: no parser of schemas is loaded. */
import type { LabId } from '../identity.js'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { holderOf } from '../lock.js'
import { pathsOf } from '../state.js'
import type { FenceMethod } from './fence.js'

export interface AgentNote {
  /** ISO 8601, of the last look. */
  readonly at: string
  readonly method: FenceMethod
  /** Another command is at work on the lab: whatever goes now does so on purpose. */
  readonly suspended: boolean
  /** The workers that would be fenced if they went; since when, ISO 8601. */
  readonly watched: readonly { readonly node: string; readonly since: string }[]
  /** The workers that are being fenced, and of which nothing confirms yet that they cannot write. */
  readonly fencing: readonly string[]
}

/** What a fencing agent that lives said last. */
export interface AgentState extends AgentNote {
  readonly pid: number
}

export const filesOf = (lab: LabId) => {
  const { fencing } = pathsOf(lab)
  return {
    folder: fencing,
    /** There as long as the agent is to be at work. */
    wanted: join(fencing, 'wanted'),
    /** Held by the agent. */
    lock: join(fencing, 'lock'),
    /** Held by the process that starts it again. */
    keeperLock: join(fencing, 'keeper.lock'),
    state: join(fencing, 'state.json'),
    fenced: join(fencing, 'fenced.ndjson'),
    log: join(fencing, 'log'),
  }
}

const isNote = (value: unknown): value is AgentNote => {
  const note = value as Partial<Record<keyof AgentNote, unknown>> | null
  return (
    typeof note === 'object' &&
    typeof note?.at === 'string' &&
    !Number.isNaN(Date.parse(note.at)) &&
    (note.method === 'power' || note.method === 'storage') &&
    typeof note.suspended === 'boolean' &&
    Array.isArray(note.watched) &&
    Array.isArray(note.fencing)
  )
}

/** Milliseconds after which an agent that said nothing is not at work. */
const silence = 5000

/** Milliseconds since the last look. */
export const quietOf = ({ at }: AgentNote): number => Date.now() - Date.parse(at)

export const isAtWork = (state: AgentNote): boolean => quietOf(state) < silence

/** What the agent said last; undefined: there is none that lives, or it has not said anything yet. */
export const agentState = async (lab: LabId): Promise<AgentState | undefined> => {
  const files = filesOf(lab)
  const holder = await holderOf(files.lock)
  const text = await readFile(files.state, 'utf8').catch(() => undefined)
  if (!holder || text === undefined) return undefined
  try {
    const note: unknown = JSON.parse(text)
    return isNote(note) ? { ...note, pid: holder.pid } : undefined
  } catch {
    return undefined
  }
}
