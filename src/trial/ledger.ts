/** The ledger: what a client sent and what it was answered, and simple readings of that. */
import { z } from 'zod'

/** Who answered: the database says which pod it is, and so on which node. */
const server = z.strictObject({ pod: z.string(), node: z.string() })

const moment = {
  /** ISO 8601, in UTC: for people, and to compare with other clocks. */
  at: z.iso.datetime(),
  /** Milliseconds of a clock that never jumps; only differences mean something. */
  ms: z.number(),
}

const request = {
  ...moment,
  /** Such as `writer-1`; a client has one request at a time. */
  client: z.string(),
  operation: z.enum(['write', 'read']),
  /** A row of the database (of ZooKeeper a znode), or a line of a plain file on the LUN. */
  medium: z.enum(['row', 'file']),
  /** Of a write: its number, which its medium has only once. Of a read: the client's own count. */
  seq: z.int().nonnegative(),
  /** Where it was sent: `192.168.56.21:32306`. */
  address: z.string(),
}

export const recordSchema = z.discriminatedUnion('type', [
  /**
   * `fault`: right before it is injected; `acting`: all faults were seen to act; `healing`: `lab` begins to undo them;
   * `healed`: they are undone.
   */
  z.strictObject({
    type: z.literal('mark'),
    ...moment,
    mark: z.enum(['begin', 'fault', 'acting', 'healing', 'healed', 'end']),
  }),
  /** Written down before it is sent. A write that is tried again, at another address, is sent again. */
  z.strictObject({ type: z.literal('sent'), ...request, content: z.string().optional() }),
  z.strictObject({ type: z.literal('acknowledged'), ...request, server }),
  /** Whether a failed write took effect is unknown: the answer may have been lost on the way. */
  z.strictObject({ type: z.literal('failed'), ...request, error: z.string() }),
])

export type LedgerRecord = z.output<typeof recordSchema>

export type Server = z.output<typeof server>

export type Operation = 'write' | 'read'

export type Medium = 'row' | 'file'

/** A row of the database, or a line of the file, as it was read back. */
export interface ReadBack {
  readonly seq: number
  readonly content: string
  /** Who wrote it, where it says so itself. */
  readonly server?: Server | undefined
}

/** A time without an answer. */
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
  /** It did not end in an answer: the run ended first. */
  readonly open: boolean
}

/** When a client was answered: times in which no two answers are far apart. */
export interface Answers {
  readonly client: string
  readonly operation: Operation
  readonly medium: Medium
  /** From the first to the last answer of each, in milliseconds on the ledger's clock. */
  readonly spans: readonly (readonly [from: number, to: number])[]
}

type MarkRecord = Extract<LedgerRecord, { type: 'mark' }>

export type Mark = MarkRecord['mark']

export type Request = Exclude<LedgerRecord, MarkRecord>

export type Sent = Extract<LedgerRecord, { type: 'sent' }>

/** An acknowledged write: it took effect somewhere between its two times. */
export interface Acknowledged {
  readonly client: string
  readonly seq: number
  readonly server: Server
  /** Milliseconds. */
  readonly sent: number
  readonly answered: number
}

/** In order of appearance. */
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

/** The first of its kind. */
export const markIn = (records: readonly LedgerRecord[], mark: Mark): MarkRecord | undefined =>
  records.find((record): record is MarkRecord => record.type === 'mark' && record.mark === mark)

const isRequest = (record: LedgerRecord): record is Request => record.type !== 'mark'

export const writesTo = (records: readonly LedgerRecord[], medium: Medium): Request[] =>
  records.filter(isRequest).filter((record) => record.operation === 'write' && record.medium === medium)

export const acknowledgedIn = (writes: readonly Request[]): Acknowledged[] => {
  // A write that was tried several times may have taken effect at the first of them.
  const sent = new Map<number, number>()
  return writes.flatMap((record) => {
    const { type, client, seq, ms } = record
    if (type === 'sent' && !sent.has(seq)) sent.set(seq, ms)
    return type === 'acknowledged'
      ? [{ client, seq, server: record.server, sent: sent.get(seq) ?? ms, answered: ms }]
      : []
  })
}

/** The longest interval between two answers of each client; the first request and the end count as edges. */
export const longestGaps = (records: readonly LedgerRecord[]): Gap[] => {
  const last = records.reduce<LedgerRecord | undefined>(
    (latest, record) => (latest && latest.ms > record.ms ? latest : record),
    undefined,
  )
  // What a client has in hand when the run ends tells nothing after it.
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

/** What each medium is called in a sentence. */
export const media = { row: 'the database', file: 'the file' } as const

/** Milliseconds between two answers that are no pause yet. */
export const usualPause = 1000

/** Milliseconds for which writes must have been answered without a longer pause before the lab counts as recovered. */
export const calm = 3000
