/** When what happened in a takeover: from watches and the machines' own logs, put into the operator's clock. */
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

/** Something that was seen, as its source dated it. Wall clocks are for people: durations do not come from them. */
export interface Observation {
  readonly type: EventType
  /** ISO 8601, by the clock of the source. */
  readonly at: string
  /** Milliseconds of the operator's monotonic clock, where this process saw it: then no other clock matters. */
  readonly ms?: number | undefined
  /** Who saw it, and whose clock it was: `operator`, `master`, `worker2`. */
  readonly source: string
  /** What was seen, in the words of the source. */
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

/** An observation in the operator's clock. */
export interface Moment {
  readonly type: EventType
  /** ISO 8601, by the operator's clock. */
  readonly at: string
  /** Milliseconds since the fault; before it, negative. */
  readonly ms: number
  /** Milliseconds, more or less: what is not known about the clock of the source. */
  readonly uncertainty: number
  readonly source: string
  readonly detail: string
  readonly pod?: string | undefined
  readonly node?: string | undefined
}

export interface Timeline {
  /** What was not seen is not there. */
  readonly moments: Readonly<Partial<Record<MomentName, Moment>>>
  /** Whether t6 is another server's: otherwise the same one started anew, and nothing was taken over. */
  readonly takenOver: boolean
  /** All observations that could be dated, in order; of acknowledged writes only the one that is t6. */
  readonly events: readonly Moment[]
  /** Observations whose source has a clock that nobody measured, or that was set meanwhile: they cannot be dated. */
  readonly undated: readonly Observation[]
  /** As it was measured, for each source. */
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
 * The successor is the pod that acknowledged a write after the fault while another one had done so before it;
 * t3 to t5 are about that pod. Where no write tells, it is the first pod that was scheduled after the fault.
 * When the same pod goes on writing, nothing was taken over: t6 is then the first write after a container
 * started again, if one did.
 * @param clocks of the sources, as far as they are known; the operator's is needed for what other processes saw
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
  // A clock that is not known exactly may date an effect before its cause.
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
