/**
 * The times of the events in a takeover, from watches and the machines' own logs, converted to the operator's clock.
 */
import type { Clock, Skew } from '../fault/clock.js'

export const eventTypes = [
  'fault',
  'node-not-ready',
  'pod-evicted',
  'node-fenced',
  'replacement-scheduled',
  'volume-logged-in',
  'volume-mounted',
  'container-running',
  'write-acknowledged',
  'healed',
] as const

export type EventType = (typeof eventTypes)[number]

/** An observation with the time of its source. Wall clock times are for people and never used for durations. */
export interface Observation {
  readonly type: EventType
  /** ISO 8601, by the clock of the source. */
  readonly at: string
  /** Milliseconds of the operator's monotonic clock, if this process observed it: then no other clock matters. */
  readonly ms?: number | undefined
  /** The observer, whose clock was used: `operator`, `master`, `worker2`. */
  readonly source: string
  /** The observation in the words of its source. */
  readonly detail: string
  /** The pod that it is about. */
  readonly pod?: string | undefined
  /** The node that it is about. */
  readonly node?: string | undefined
}

export const moments = {
  t0: 'fault',
  t1: 'node NotReady',
  t2: 'evicted or fenced',
  t3: 'replacement scheduled',
  t4: 'volume mounted',
  t5: 'container running',
  t6: 'first acknowledged write',
} as const

export type MomentName = keyof typeof moments

/** An observation converted to the operator's clock. */
export interface Moment {
  readonly type: EventType
  /** ISO 8601, by the operator's clock. */
  readonly at: string
  /** Milliseconds since the fault; negative before it. */
  readonly ms: number
  /** The uncertainty of the source's clock in milliseconds, in both directions. */
  readonly uncertainty: number
  readonly source: string
  readonly detail: string
  readonly pod?: string | undefined
  readonly node?: string | undefined
}

export interface Timeline {
  /** Moments that were not observed are absent. */
  readonly moments: Readonly<Partial<Record<MomentName, Moment>>>
  /** Whether t6 belongs to another server; otherwise the same one restarted, and there was no takeover. */
  readonly takenOver: boolean
  /** All observations with a known time, in order; of the acknowledged writes only the one that is t6. */
  readonly events: readonly Moment[]
  /** Observations from a clock that was not measured, or that was set meanwhile. */
  readonly undated: readonly Observation[]
  /** The measured skew of each source. */
  readonly skews: Readonly<Record<string, Skew>>
}

interface Dated extends Observation {
  /** Milliseconds on the operator's monotonic clock. */
  readonly time: number
  readonly uncertainty: number
}

/**
 * The moments of a takeover.
 *
 * The successor is the pod that acknowledged a write after the fault, while another one had done so before; t3 to t5
 * are about that pod. Without such writes, it is the first pod that was scheduled after the fault. If the same pod
 * continues to write, there was no takeover: t6 is then the first write after a restart of a container, if there was
 * one.
 * @param clocks of the sources, as far as they are known; the operator's is needed for observations of other
 * processes
 */
export const timelineOf = (
  observations: readonly Observation[],
  clocks: Readonly<Record<string, Clock>>,
): Timeline => {
  const clockOf = (source: string): Clock | undefined =>
    Object.hasOwn(clocks, source) ? clocks[source] : undefined
  const dated: Dated[] = []
  const undated: Observation[] = []
  for (const seen of observations) {
    const clock = clockOf(seen.source)
    if (seen.ms !== undefined) dated.push({ ...seen, time: seen.ms, uncertainty: 0 })
    else if (clock)
      dated.push({ ...seen, time: Date.parse(seen.at) - clock.zero, uncertainty: clock.uncertainty })
    else undated.push(seen)
  }
  dated.sort((a, b) => a.time - b.time)

  const fault = dated.find(({ type }) => type === 'fault')
  const momentOf = (seen: Dated): Moment => {
    const { at, time, uncertainty, type, source, detail, pod, node } = seen
    const ms = fault ? time - fault.time : 0
    return {
      type,
      at: fault ? new Date(Date.parse(fault.at) + ms).toISOString() : at,
      ms,
      uncertainty: uncertainty + (fault?.uncertainty ?? 0),
      source,
      detail,
      ...(pod === undefined ? {} : { pod }),
      ...(node === undefined ? {} : { node }),
    }
  }
  const { takenOver, ...found } = fault ? takeover(dated, fault) : { takenOver: false, t6: undefined }
  const first = found.t6
  return {
    moments: Object.fromEntries(
      Object.entries(found).flatMap(([name, seen]) => (seen ? [[name, momentOf(seen)]] : [])),
    ),
    takenOver,
    events: dated.filter((seen) => seen.type !== 'write-acknowledged' || seen === first).map(momentOf),
    undated,
    skews: {
      operator: { ms: 0, uncertainty: 0 },
      ...Object.fromEntries(
        Object.entries(clocks).map(([source, { ms, uncertainty }]) => [source, { ms, uncertainty }]),
      ),
    },
  }
}

const takeover = (
  dated: readonly Dated[],
  fault: Dated,
): Partial<Record<MomentName, Dated | undefined>> & Pick<Timeline, 'takenOver'> => {
  // An inexact clock may place an effect before its cause.
  const after = dated.filter(
    (seen) => seen.time + seen.uncertainty + fault.uncertainty >= fault.time && seen !== fault,
  )
  const find = (type: EventType, about: (seen: Dated) => boolean = () => true): Dated | undefined =>
    after.find((seen) => seen.type === type && about(seen))

  const former = dated.findLast(({ type, time }) => type === 'write-acknowledged' && time < fault.time)
  const isFormer = ({ pod, node }: Dated): boolean =>
    former === undefined ||
    ((pod ?? former.pod) === former.pod && (node === undefined || node === former.node))

  const byAnother = former && find('write-acknowledged', ({ pod }) => pod !== undefined && pod !== former.pod)
  const successor =
    byAnother?.pod ??
    find('replacement-scheduled', ({ pod }) => pod !== undefined && pod !== former?.pod)?.pod
  const ofSuccessor = ({ pod }: Dated): boolean => successor === undefined || pod === successor

  const t5 = find('container-running', ofSuccessor)
  return {
    takenOver: byAnother !== undefined,
    t0: fault,
    t1: find(
      'node-not-ready',
      ({ node }) => node === undefined || former?.node === undefined || node === former.node,
    ),
    t2: after.find((seen) => (seen.type === 'pod-evicted' || seen.type === 'node-fenced') && isFormer(seen)),
    t3: successor === undefined ? undefined : find('replacement-scheduled', ofSuccessor),
    t4: find('volume-mounted', ofSuccessor),
    t5,
    t6: byAnother ?? (t5 && find('write-acknowledged', (seen) => seen.time >= t5.time && ofSuccessor(seen))),
  }
}
