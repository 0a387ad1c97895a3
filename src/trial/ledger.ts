import { z } from 'zod'

/**
 * What a client outside the cluster sent, and what it was answered: written down by the client itself, one
 * record a line, before anybody asks what survived. `judge` compares it with what is there afterwards.
 */

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

export interface Finding {
  readonly kind: 'LOST' | 'CORRUPT' | 'DOUBLE WRITER'
  readonly medium: Medium
  /** A sentence. */
  readonly message: string
  /** Numbers of the writes concerned, ascending. */
  readonly seqs: readonly number[]
  /** What was seen, of the first few. */
  readonly evidence: readonly string[]
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

/** Numbers of writes, of one medium. */
export interface Tally {
  readonly sent: number
  readonly acknowledged: number
  /** Sent, and never acknowledged: there or not, both are right. */
  readonly unanswered: number
  readonly unansweredButThere: number
}

export type DataVerdict = 'PASS' | 'FAIL' | 'UNKNOWN'

export interface Judgement {
  readonly verdict: DataVerdict
  readonly findings: readonly Finding[]
  /** Why nobody can know, a sentence each; not empty when the verdict is UNKNOWN. */
  readonly unknown: readonly string[]
  readonly tally: Readonly<Record<Medium, Tally>>
  /** The longest of each client, in order of appearance. */
  readonly gaps: readonly Gap[]
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
type Request = Exclude<LedgerRecord, MarkRecord>
type Sent = Extract<LedgerRecord, { type: 'sent' }>

/** An acknowledged write: it took effect somewhere between its two times. */
interface Acknowledged {
  readonly client: string
  readonly seq: number
  readonly server: Server
  /** Milliseconds. */
  readonly sent: number
  readonly answered: number
}

const mostEvidence = 10

/** In order of appearance. */
const groupBy = <T>(items: readonly T[], keyOf: (item: T) => string): Map<string, [T, ...T[]]> => {
  const groups = new Map<string, [T, ...T[]]>()
  for (const item of items) {
    const group = groups.get(keyOf(item))
    if (group) group.push(item)
    else groups.set(keyOf(item), [item])
  }
  return groups
}

const nameOf = ({ pod, node }: Server): string => `${pod} on ${node}`

/** The first of its kind. */
export const markIn = (records: readonly LedgerRecord[], mark: Mark): MarkRecord | undefined =>
  records.find((record): record is MarkRecord => record.type === 'mark' && record.mark === mark)

const isRequest = (record: LedgerRecord): record is Request => record.type !== 'mark'

const writesTo = (records: readonly LedgerRecord[], medium: Medium): Request[] =>
  records.filter(isRequest).filter((record) => record.operation === 'write' && record.medium === medium)

const acknowledgedIn = (writes: readonly Request[]): Acknowledged[] => {
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

const finding = (
  kind: Finding['kind'],
  medium: Medium,
  message: string,
  cases: readonly { readonly seq: number; readonly saw: string }[],
): Finding[] =>
  cases.length === 0
    ? []
    : [
        {
          kind,
          medium,
          message,
          seqs: [...new Set(cases.map(({ seq }) => seq))].sort((a, b) => a - b),
          evidence: [
            ...cases.slice(0, mostEvidence).map(({ saw }) => saw),
            ...(cases.length > mostEvidence ? [`and ${String(cases.length - mostEvidence)} more`] : []),
          ],
        },
      ]

const words = { row: 'row', file: 'line' } as const

/** `1 acknowledged row is`, `2 acknowledged rows are` */
const counted = (count: number, noun: string): string =>
  `${String(count)} ${noun}${count === 1 ? ' is' : 's are'}`

const lost = (
  medium: Medium,
  acknowledged: readonly Acknowledged[],
  there: readonly ReadBack[],
): Finding[] => {
  const seqs = new Set(there.map(({ seq }) => seq))
  const missing = acknowledged.filter(({ seq }) => !seqs.has(seq))
  return finding(
    'LOST',
    medium,
    `${counted(missing.length, `acknowledged ${words[medium]}`)} missing`,
    missing.map(({ seq, client, server }) => ({
      seq,
      saw: `${words[medium]} ${String(seq)} of ${client}: acknowledged by ${nameOf(server)}, not there`,
    })),
  )
}

/** Each number is sent once: whatever is there twice, nobody sent twice. */
const repeated = (medium: Medium, there: readonly ReadBack[]): Finding[] => {
  const places = groupBy(
    there.map(({ seq, content }, place) => ({ seq, content, place: place + 1 })).filter(({ seq }) => seq > 0),
    ({ seq }) => String(seq),
  )
  const several = [...places.values()].filter(({ length }) => length > 1)
  return finding(
    'CORRUPT',
    medium,
    `${counted(several.length, words[medium])} there more than once`,
    several.map((same) => ({
      seq: same[0].seq,
      saw: `${words[medium]} ${String(same[0].seq)}: ${String(same.length)} times, at ${same.map(({ place }) => String(place)).join(', ')} of ${String(there.length)}`,
    })),
  )
}

const corrupt = (medium: Medium, writes: readonly Request[], there: readonly ReadBack[]): Finding[] => {
  const sent = new Map(
    writes.filter((record): record is Sent => record.type === 'sent').map((record) => [record.seq, record]),
  )
  const acknowledged = new Set(writes.filter(({ type }) => type === 'acknowledged').map(({ seq }) => seq))
  const wrong = there.flatMap(({ seq, content }) => {
    const wanted = sent.get(seq)
    const name = `${words[medium]} ${String(seq)}`
    // A plain file promises nothing about a line before its fsync returns, not even that it is whole.
    if (medium === 'file' && !acknowledged.has(seq) && wanted?.content?.startsWith(content)) return []
    if (!wanted) return [{ seq, saw: `${name}: ${JSON.stringify(content)}, which nobody sent` }]
    return wanted.content === undefined || wanted.content === content
      ? []
      : [{ seq, saw: `${name}: ${JSON.stringify(content)}, sent was ${JSON.stringify(wanted.content)}` }]
  })
  return finding('CORRUPT', medium, `${counted(wrong.length, words[medium])} not what was sent`, wrong)
}

/**
 * Servers that took turns: one wrote, another wrote, and then the first one wrote again. A single change is a
 * takeover; and as a pod never has the name of an earlier one, a change back to the same server is none.
 * A write took effect somewhere between its two times, so only writes that do not overlap have an order.
 */
const turns = (
  writes: readonly Acknowledged[],
): readonly (readonly [Acknowledged, Acknowledged, Acknowledged])[] => {
  const byServer = [...groupBy(writes, ({ server }) => nameOf(server)).values()]
  const earliest = (among: readonly Acknowledged[], after = -Infinity): Acknowledged | undefined =>
    among.reduce<Acknowledged | undefined>(
      (first, write) => (write.sent > after && (!first || write.answered < first.answered) ? write : first),
      undefined,
    )
  return byServer.flatMap((ones) =>
    byServer.flatMap((others) => {
      const first = earliest(ones)
      const other = ones === others ? undefined : earliest(others, first?.answered)
      const again = other && earliest(ones, other.answered)
      return first && other && again ? [[first, other, again] as const] : []
    }),
  )
}

const takingTurns = (medium: Medium, writes: readonly Acknowledged[]): Finding[] =>
  finding(
    'DOUBLE WRITER',
    medium,
    'two servers acknowledged writes in turns',
    turns(writes).flatMap((three) =>
      three.map(({ seq, server, client, answered }) => ({
        seq,
        saw: `${words[medium]} ${String(seq)} of ${client}: acknowledged by ${nameOf(server)} at ${String(answered)} ms`,
      })),
    ),
  )

/** A file's lines stand in the order in which they were appended: their places take the part of times. */
const takingTurnsInFile = (lines: readonly ReadBack[]): Finding[] => {
  const placed = lines.flatMap(({ seq, server }, place): Acknowledged[] =>
    server ? [{ client: 'file', seq, server, sent: place, answered: place }] : [],
  )
  return finding(
    'DOUBLE WRITER',
    'file',
    'two servers wrote to the file in turns',
    turns(placed).flatMap((three) =>
      three.map(({ seq, server, answered }) => ({
        seq,
        saw: `line ${String(answered + 1)} of the file, number ${String(seq)}: written by ${nameOf(server)}`,
      })),
    ),
  )
}

const tallyOf = (writes: readonly Request[], there: readonly ReadBack[] | undefined): Tally => {
  const seqs = (type: Request['type']): Set<number> =>
    new Set(writes.filter((record) => record.type === type).map(({ seq }) => seq))
  const acknowledged = seqs('acknowledged')
  const unanswered = [...seqs('sent')].filter((seq) => !acknowledged.has(seq))
  const present = new Set(there?.map(({ seq }) => seq))
  return {
    sent: seqs('sent').size,
    acknowledged: acknowledged.size,
    unanswered: unanswered.length,
    unansweredButThere: unanswered.filter((seq) => present.has(seq)).length,
  }
}

/** What each medium is called in a sentence. */
export const media = { row: 'the database', file: 'the file' } as const

const doubts = (
  medium: Medium,
  acknowledged: readonly Acknowledged[],
  there: readonly ReadBack[] | undefined,
  fault: number | undefined,
): string[] => [
  ...(acknowledged.length === 0 ? [`${media[medium]} acknowledged nothing during the run`] : []),
  // One that was on its way when the fault came says nothing about what works after it.
  ...(acknowledged.length > 0 && fault !== undefined && !acknowledged.some(({ sent }) => sent >= fault)
    ? [`${media[medium]} acknowledged nothing that was sent after the fault`]
    : []),
  ...(there ? [] : [`${media[medium]} could not be read back`]),
]

/** Milliseconds between two answers that are no pause yet. */
export const usualPause = 1000
/** Milliseconds for which writes must have been answered without a longer pause before the lab counts as recovered. */
export const calm = 3000

/** Whether writes were answered again, and since when. */
export interface Recovery {
  readonly outcome: 'passed' | 'failed' | 'unknown'
  /** Milliseconds from the fault until every medium was written to for good; undefined: it was not. */
  readonly ms?: number | undefined
  readonly saw: string
}

/**
 * Whether the lab recovered: in the end, writes to every medium are answered, and were for a while. Only those count
 * that were sent after the faults were seen to act; and where the lab is to recover by itself, only those that were
 * answered before `lab` began to heal it.
 * @param by `itself`, or `heal` where the scenario keeps its faults until a deadline
 */
export const recoveryOf = (records: readonly LedgerRecord[], by: 'itself' | 'heal'): Recovery => {
  const fault = markIn(records, 'fault')
  const acting = markIn(records, 'acting')
  const end = markIn(records, by === 'itself' ? 'healing' : 'end')
  const used = (['row', 'file'] as const).filter((medium) => writesTo(records, medium).length > 0)
  if (!fault || used.length === 0)
    return { outcome: 'unknown', saw: 'nothing was written when the fault came' }
  if (!acting) return { outcome: 'unknown', saw: 'nobody saw the faults act' }
  if (!end) return { outcome: 'unknown', saw: 'the run ended before that could be seen' }
  const found = used.map((medium) => {
    const answers = acknowledgedIn(writesTo(records, medium))
      .filter(({ sent, answered }) => sent >= acting.ms && answered <= end.ms)
      .map(({ answered }) => answered)
      .sort((a, b) => a - b)
    const last = answers.at(-1)
    // The first of those that followed each other without a pause until the end.
    const since = answers.findLast((ms, place) => ms - (answers[place - 1] ?? -Infinity) > usualPause)
    const seconds = (ms: number): string => `${((ms - fault.ms) / 1000).toFixed(1)} s`
    if (last === undefined || since === undefined)
      return { medium, ok: false, ms: undefined, saw: `${media[medium]} acknowledged nothing` }
    const steady = last - since >= calm && end.ms - last <= 2 * usualPause
    return {
      medium,
      ok: steady,
      ms: since - fault.ms,
      saw: steady
        ? `${media[medium]}: from ${seconds(since)} on`
        : `${media[medium]}: the last answer at ${seconds(last)}, ${((end.ms - last) / 1000).toFixed(1)} s before the end`,
    }
  })
  const ok = found.every((one) => one.ok)
  return {
    outcome: ok ? 'passed' : 'failed',
    ms: ok ? Math.max(...found.map(({ ms }) => ms ?? 0)) : undefined,
    saw: found.map(({ saw }) => saw).join('; '),
  }
}

/**
 * Whether all that was acknowledged is there, unchanged, and written by one server at a time.
 * @param writers whether more than one server may write at a time, as the members of a Cassandra ring do
 * @param rows every row, read back after recovery; undefined when that was not possible
 * @param fileLines every line of the plain file, in its order; undefined when there is none, or it could not be read
 */
export const judge = (
  records: readonly LedgerRecord[],
  rows: readonly ReadBack[] | undefined,
  fileLines: readonly ReadBack[] | undefined,
  writers: 'one' | 'many' = 'one',
): Judgement => {
  const readBack = { row: rows, file: fileLines }
  const written = { row: writesTo(records, 'row'), file: writesTo(records, 'file') }
  const fault = (markIn(records, 'acting') ?? markIn(records, 'fault'))?.ms
  const used = (['row', 'file'] as const).filter((medium) => written[medium].length > 0)
  const findings = (['row', 'file'] as const).flatMap((medium) => {
    const acknowledged = acknowledgedIn(written[medium])
    const there = readBack[medium]
    return [
      ...(there ? lost(medium, acknowledged, there) : []),
      ...(there ? corrupt(medium, written[medium], there) : []),
      ...(there ? repeated(medium, there) : []),
      ...(writers === 'one' ? takingTurns(medium, acknowledged) : []),
      ...(medium === 'file' && there ? takingTurnsInFile(there) : []),
    ]
  })
  const unknown = [
    ...(used.length === 0 ? ['nothing was written during the run'] : []),
    ...used.flatMap((medium) => doubts(medium, acknowledgedIn(written[medium]), readBack[medium], fault)),
  ]
  return {
    verdict: findings.length > 0 ? 'FAIL' : unknown.length > 0 ? 'UNKNOWN' : 'PASS',
    findings,
    unknown,
    tally: { row: tallyOf(written.row, rows), file: tallyOf(written.file, fileLines) },
    gaps: longestGaps(records),
  }
}
