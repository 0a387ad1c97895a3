/** The ledger: what clients sent and the answers they got, and simple evaluations of it. */
import { z } from 'zod'

/** The server that answered: the database names its pod, from which its node follows. */
const server = z.strictObject({ pod: z.string(), node: z.string() })

const moment = {
  /** ISO 8601, in UTC: for people, and for comparison with other clocks. */
  at: z.iso.datetime(),
  /** Milliseconds of a monotonic clock; only differences have a meaning. */
  ms: z.number(),
}

const request = {
  ...moment,
  /** Such as `writer-1`; a client has one request at a time. */
  client: z.string(),
  operation: z.enum(['write', 'read']),
  /**
   * A row of the database (of ZooKeeper a znode), a line of a plain file on the LUN, or a ConfigMap of the API server.
   */
  medium: z.enum(['row', 'file', 'config']),
  /** For a write: its number, which is unique in its medium. For a read: the client's own count. */
  seq: z.int().nonnegative(),
  /** The address of the request: `192.168.56.21:32306`. */
  address: z.string(),
}

export const recordSchema = z.discriminatedUnion('type', [
  /**
   * `fault`: right before it is injected; `acting`: all faults were observed to act; `healing`: `lab` begins to undo
   * them; `healed`: they are undone.
   */
  z.strictObject({
    type: z.literal('mark'),
    ...moment,
    mark: z.enum(['begin', 'fault', 'acting', 'healing', 'healed', 'end']),
  }),
  /** Recorded before it is sent. A write that is repeated at another address is recorded again. */
  z.strictObject({ type: z.literal('sent'), ...request, content: z.string().optional() }),
  z.strictObject({ type: z.literal('acknowledged'), ...request, server }),
  /** Whether a failed write took effect is unknown, since the answer may have been lost. */
  z.strictObject({ type: z.literal('failed'), ...request, error: z.string() }),
])

export type LedgerRecord = z.output<typeof recordSchema>

export type Server = z.output<typeof server>

export type Operation = 'write' | 'read'

export type Medium = 'row' | 'file' | 'config'

export const allMedia: readonly Medium[] = ['row', 'file', 'config']

/** A row of the database, a line of the file, or a ConfigMap that was read back. */
export interface ReadBack {
  readonly seq: number
  readonly content: string
  /** The server that wrote it, if it says so. */
  readonly server?: Server | undefined
}

/** A period without an answer. */
export interface Gap {
  readonly client: string
  readonly operation: Operation
  readonly medium: Medium
  /** Milliseconds on the ledger's clock. */
  readonly beginMs: number
  readonly endMs: number
  /** ISO 8601. */
  readonly begin: string
  readonly end: string
  /** Milliseconds. */
  readonly length: number
  /** Whether the run ended before the next answer. */
  readonly open: boolean
}

/** Periods in which a client was answered without long pauses. */
export interface Answers {
  readonly client: string
  readonly operation: Operation
  readonly medium: Medium
  /** First and last answer of each, in milliseconds on the ledger's clock. */
  readonly spans: readonly (readonly [from: number, to: number])[]
}

type MarkRecord = Extract<LedgerRecord, { type: 'mark' }>

export type Mark = MarkRecord['mark']

export type Request = Exclude<LedgerRecord, MarkRecord>

export type Sent = Extract<LedgerRecord, { type: 'sent' }>

/** An acknowledged write: it took effect at some time between request and answer. */
export interface Acknowledged {
  readonly client: string
  readonly seq: number
  readonly server: Server
  /** Milliseconds. */
  readonly sent: number
  readonly answered: number
}

/** Groups in order of appearance. */
export const groupBy = <T>(items: readonly T[], keyOf: (item: T) => string): Map<string, [T, ...T[]]> => {
  const groups = new Map<string, [T, ...T[]]>()
  for (const item of items) {
    const group = groups.get(keyOf(item))
    if (group) group.push(item)
    else groups.set(keyOf(item), [item])
  }
  return groups
}

export const nameOf = ({ pod, node }: Server): string => `${pod} on ${node}`

/** The first mark of a kind. */
export const markIn = (records: readonly LedgerRecord[], mark: Mark): MarkRecord | undefined =>
  records.find((record): record is MarkRecord => record.type === 'mark' && record.mark === mark)

const isRequest = (record: LedgerRecord): record is Request => record.type !== 'mark'

export const writesTo = (records: readonly LedgerRecord[], medium: Medium): Request[] =>
  records.filter(isRequest).filter((record) => record.operation === 'write' && record.medium === medium)

export const acknowledgedIn = (writes: readonly Request[]): Acknowledged[] => {
  // A write that was repeated may have taken effect at its first attempt.
  const sent = new Map<number, number>()
  return writes.flatMap((record) => {
    const { type, client, seq, ms } = record
    if (type === 'sent' && !sent.has(seq)) sent.set(seq, ms)
    return type === 'acknowledged'
      ? [{ client, seq, server: record.server, sent: sent.get(seq) ?? ms, answered: ms }]
      : []
  })
}

/** The longest interval between two answers of each client; its first request and the end of the run count as edges. */
export const longestGaps = (records: readonly LedgerRecord[]): Gap[] => {
  const last = records.reduce<LedgerRecord | undefined>(
    (latest, record) => (latest && latest.ms > record.ms ? latest : record),
    undefined,
  )
  // The outstanding request of a client at the end of the run says nothing.
  const end = records.findLast((record) => record.type === 'mark' && record.mark === 'end') ?? last
  const clients = groupBy(records.filter(isRequest), ({ client, operation }) => `${operation} ${client}`)
  return [...clients.values()].flatMap((requests) => {
    const [first] = requests
    if (!end) return []
    const answers = requests.filter(({ type, ms }) => type === 'acknowledged' && ms <= end.ms)
    const edges = [first, ...answers, ...(end.ms >= first.ms ? [end] : [])]
    const gaps = edges.slice(1).map((edge, index): Gap => {
      const before = edges[index] ?? first
      return {
        client: first.client,
        operation: first.operation,
        medium: first.medium,
        beginMs: before.ms,
        endMs: edge.ms,
        begin: before.at,
        end: edge.at,
        length: edge.ms - before.ms,
        open: index === answers.length,
      }
    })
    const longest = gaps.reduce<Gap | undefined>(
      (most, gap) => (most && most.length >= gap.length ? most : gap),
      undefined,
    )
    return longest ? [longest] : []
  })
}

/** @param apart milliseconds: answers that are no further apart belong to one span */
export const answersIn = (records: readonly LedgerRecord[], apart: number): Answers[] =>
  [...groupBy(records.filter(isRequest), ({ client, operation }) => `${operation} ${client}`).values()].map(
    (requests): Answers => {
      const spans: [number, number][] = []
      for (const { type, ms } of requests) {
        if (type !== 'acknowledged') continue
        const last = spans.at(-1)
        if (last && ms - last[1] <= apart) last[1] = ms
        else spans.push([ms, ms])
      }
      const [{ client, operation, medium }] = requests
      return { client, operation, medium, spans }
    },
  )

/** The name of each medium in a sentence. */
export const media = { row: 'the database', file: 'the file', config: 'the API' } as const

/** Milliseconds between two answers that do not count as a pause. */
export const usualPause = 1000

/** Milliseconds for which writes must have been answered without a longer pause for the lab to count as recovered. */
export const calm = 3000
