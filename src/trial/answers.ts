/** Acknowledged writes, as a running scenario and its timeline need them. */
import { calm, type LedgerRecord, type Medium, usualPause } from './ledger.js'
import type { Observation } from './timeline.js'

/** Acknowledged writes of one medium. */
class MediumAnswers {
  /** By the ledger's clock, in milliseconds. */
  last = -Infinity
  /** Since when writes have been answered without a pause. */
  steadySince = Infinity

  take(ms: number): void {
    if (ms - this.last > usualPause) this.steadySince = ms
    this.last = ms
  }
}

/** Acknowledged writes during the run. */
export class Answers {
  readonly #of: ReadonlyMap<Medium, MediumAnswers>
  #lastPod: string | undefined

  /** @param used what is written to */
  constructor(used: readonly Medium[] = ['row', 'file']) {
    this.#of = new Map(used.map((medium) => [medium, new MediumAnswers()]))
  }

  take(record: LedgerRecord): void {
    if (record.type !== 'acknowledged' || record.operation !== 'write') return
    this.#of.get(record.medium)?.take(record.ms)
    if (record.medium === 'row') this.#lastPod = record.server.pod
  }

  /** The media without an acknowledged write so far. */
  get missing(): readonly Medium[] {
    return [...this.#of].filter(([, { last }]) => last === -Infinity).map(([medium]) => medium)
  }

  /** Milliseconds since the last answer of the medium that has been silent the longest. */
  get silence(): number {
    return performance.now() - Math.min(...[...this.#of.values()].map(({ last }) => last))
  }

  /** The database pod that answered last. */
  get lastPod(): string | undefined {
    return this.#lastPod
  }

  /** Whether writes to every medium are answered now, and have been for a while, entirely after this moment. */
  calmSince(ms: number): boolean {
    return (
      this.silence < usualPause &&
      [...this.#of.values()].every(({ last, steadySince }) => last - Math.max(steadySince, ms) >= calm)
    )
  }
}

/** Whether a record is a write that the database acknowledged: a takeover is one of the database. */
export const isRowWritten = (
  record: LedgerRecord,
): record is Extract<LedgerRecord, { type: 'acknowledged' }> =>
  record.type === 'acknowledged' && record.operation === 'write' && record.medium === 'row'

export const writeObservations = (records: readonly LedgerRecord[]): readonly Observation[] =>
  records.flatMap((record): Observation[] =>
    isRowWritten(record)
      ? [
          {
            type: 'write-acknowledged',
            at: record.at,
            ms: record.ms,
            source: 'operator',
            detail: `row ${String(record.seq)} acknowledged by ${record.server.pod} on ${record.server.node}`,
            pod: record.server.pod,
            node: record.server.node,
          },
        ]
      : [],
  )

/** Adds the pod to a volume's events, which do not name it: it is the last pod assigned to the node. */
export const withPods = (
  seen: readonly Observation[],
  volumes: readonly Observation[],
): readonly Observation[] =>
  volumes.map((volume) => {
    const pod = seen.findLast(
      ({ type, node }) => type === 'replacement-scheduled' && node === volume.node,
    )?.pod
    return pod === undefined ? volume : { ...volume, pod }
  })
