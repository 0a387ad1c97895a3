/** When what happened in a takeover: from watches and the machines' own logs, put into the operator's clock. */

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

/** Something that was seen, as its source dated it. */
export interface Observation {
  readonly type: EventType
  /** ISO 8601, by the clock of the source. */
  readonly at: string
  /** Who saw it, and whose clock it was: `operator`, `master`, `worker2`. */
  readonly source: string
  /** What was seen, in the words of the source. */
  readonly detail: string
  /** The pod that it is about. */
  readonly pod?: string | undefined
  /** The node that it is about. */
  readonly node?: string | undefined
}

/** How far the clock of a source is ahead of the operator's. */
export interface Skew {
  /** Milliseconds; negative: it is behind. */
  readonly ms: number
  /** Milliseconds: the true skew is at most so much more or less. */
  readonly uncertainty: number
}

/** A clock that was asked: when the question left and the answer came, by the operator's clock, in ms since 1970. */
export interface ClockSample {
  readonly asked: number
  readonly said: number
  readonly answered: number
}

/**
 * The skew that the quickest answer shows: the source looked at its clock somewhere between question and answer.
 * Undefined without samples.
 */
export const skewOf = (samples: readonly ClockSample[]): Skew | undefined => {
  const [best] = [...samples].sort((a, b) => a.answered - a.asked - (b.answered - b.asked))
  return (
    best && {
      ms: best.said - (best.asked + best.answered) / 2,
      uncertainty: (best.answered - best.asked) / 2,
    }
  )
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
  /** All observations that could be dated, in order; of acknowledged writes only the one that is t6. */
  readonly events: readonly Moment[]
  /** Observations whose source has a clock that nobody measured: they cannot be dated. */
  readonly undated: readonly Observation[]
  /** As it was measured, for each source. */
  readonly skews: Readonly<Record<string, Skew>>
}

interface Dated extends Observation {
  /** Milliseconds since 1970, by the operator's clock. */
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
 * @param skews of each source; that of the operator is 0 and need not be given
 */
export const timelineOf = (
  observations: readonly Observation[],
  skews: Readonly<Record<string, Skew>>,
): Timeline => {
  const clocks: Readonly<Record<string, Skew>> = { operator: { ms: 0, uncertainty: 0 }, ...skews }
  const skewOfSource = (source: string): Skew | undefined =>
    Object.hasOwn(clocks, source) ? clocks[source] : undefined
  const dated = observations
    .flatMap((seen): Dated[] => {
      const skew = skewOfSource(seen.source)
      return skew ? [{ ...seen, time: Date.parse(seen.at) - skew.ms, uncertainty: skew.uncertainty }] : []
    })
    .sort((a, b) => a.time - b.time)
  const undated = observations.filter(({ source }) => !skewOfSource(source))

  const fault = dated.find(({ type }) => type === 'fault')
  const momentOf = (seen: Dated): Moment => {
    const { time, uncertainty, type, source, detail, pod, node } = seen
    return {
      type,
      at: new Date(time).toISOString(),
      ms: fault ? time - fault.time : 0,
      uncertainty: uncertainty + (fault?.uncertainty ?? 0),
      source,
      detail,
      ...(pod === undefined ? {} : { pod }),
      ...(node === undefined ? {} : { node }),
    }
  }
  const found = fault ? takeover(dated, fault) : {}
  const first = found.t6
  return {
    moments: Object.fromEntries(
      Object.entries(found).flatMap(([name, seen]) => (seen ? [[name, momentOf(seen)]] : [])),
    ),
    events: dated.filter((seen) => seen.type !== 'write-acknowledged' || seen === first).map(momentOf),
    undated,
    skews: clocks,
  }
}

const takeover = (dated: readonly Dated[], fault: Dated): Partial<Record<MomentName, Dated | undefined>> => {
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
