/** The state that a running fencing agent publishes. `lab status` reads it without loading a schema parser. */
import type { LabId } from '../identity.js'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { holderOf } from '../lock.js'
import { pathsOf } from '../state.js'
import type { FenceMethod } from './fence.js'

/** The agent cannot ask Kubernetes, so it sees no node. */
export interface Blind {
  /** ISO 8601. */
  readonly since: string
  readonly why: string
}

export interface AgentNote {
  /** ISO 8601, of the last observation. */
  readonly at: string
  readonly method: FenceMethod
  /** Another command is changing the lab: no machine counts as lost meanwhile. */
  readonly suspended: boolean
  /** The workers that would be fenced if they were lost, and since when (ISO 8601). */
  readonly watched: readonly { readonly node: string; readonly since: string }[]
  /** The workers that are being fenced without a confirmation yet that they cannot write. */
  readonly fencing: readonly string[]
  readonly blind?: Blind | undefined
}

/** The last note of a running fencing agent. */
export interface AgentState extends AgentNote {
  readonly pid: number
}

export const filesOf = (lab: LabId) => {
  const { fencing } = pathsOf(lab)
  return {
    folder: fencing,
    /** Exists as long as the agent should run. */
    wanted: join(fencing, 'wanted'),
    /** Held by the agent. */
    lock: join(fencing, 'lock'),
    /** Held by the keeper. */
    keeperLock: join(fencing, 'keeper.lock'),
    state: join(fencing, 'state.json'),
    fenced: join(fencing, 'fenced.ndjson'),
    log: join(fencing, 'log'),
  }
}

const isListOf = (value: unknown, isOne: (one: unknown) => boolean): boolean =>
  Array.isArray(value) && value.every(isOne)
const isName = (one: unknown): boolean => typeof one === 'string'
const isWatched = (one: unknown): boolean => {
  const { node, since } = (one ?? {}) as { readonly node?: unknown; readonly since?: unknown }
  return isName(node) && isName(since)
}

const isBlind = (one: unknown): boolean => {
  const { since, why } = (one ?? {}) as { readonly since?: unknown; readonly why?: unknown }
  return isName(since) && isName(why)
}

const isNote = (value: unknown): value is AgentNote => {
  const note = value as Partial<Record<keyof AgentNote, unknown>> | null
  return (
    typeof note === 'object' &&
    typeof note?.at === 'string' &&
    !Number.isNaN(Date.parse(note.at)) &&
    (note.method === 'power' || note.method === 'storage') &&
    typeof note.suspended === 'boolean' &&
    isListOf(note.watched, isWatched) &&
    isListOf(note.fencing, isName) &&
    (note.blind === undefined || isBlind(note.blind))
  )
}

/** Milliseconds after which a silent agent counts as not working. */
const silence = 5000

/** Milliseconds since the last observation. */
export const quietOf = ({ at }: AgentNote): number => Date.now() - Date.parse(at)

export const isAtWork = (state: AgentNote): boolean => quietOf(state) < silence

/** The agent's last note; undefined if it does not run or has written none yet. */
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
