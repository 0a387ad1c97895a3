/** Judges the ledger against what was read back: what is lost, corrupt, or written by two servers at once. */
import {
  allMedia,
  type Acknowledged,
  acknowledgedIn,
  type Gap,
  groupBy,
  type LedgerRecord,
  longestGaps,
  markIn,
  media,
  type Medium,
  nameOf,
  type ReadBack,
  type Request,
  type Sent,
  writesTo,
} from './ledger.js'

export interface Finding {
  readonly kind: 'LOST' | 'CORRUPT' | 'DOUBLE WRITER'
  readonly medium: Medium
  /** A sentence. */
  readonly message: string
  /** Ascending numbers of the writes concerned. */
  readonly seqs: readonly number[]
  /** The evidence for the first few. */
  readonly evidence: readonly string[]
}

/** Numbers of writes to one medium. */
export interface Tally {
  readonly sent: number
  readonly acknowledged: number
  /** Sent but never acknowledged: they may be there or not. */
  readonly unanswered: number
  readonly unansweredButThere: number
}

export type DataVerdict = 'PASS' | 'FAIL' | 'UNKNOWN'

export interface Judgement {
  readonly verdict: DataVerdict
  readonly findings: readonly Finding[]
  /** Why the result is unknown, one sentence per reason; not empty when the verdict is UNKNOWN. */
  readonly unknown: readonly string[]
  /** `config` only where ConfigMaps were written. */
  readonly tally: Readonly<Record<'row' | 'file', Tally>> & { readonly config?: Tally }
  /** The longest gap of each client, in order of appearance. */
  readonly gaps: readonly Gap[]
}

const mostEvidence = 10

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

const words = { row: 'row', file: 'line', config: 'ConfigMap' } as const

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
      saw: `${words[medium]} ${String(seq)} of ${client}: acknowledged by ${nameOf(server)}, but missing`,
    })),
  )
}

/** Each number is sent once, so no row may occur twice. */
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
    if (!wanted) return [{ seq, saw: `${name}: ${JSON.stringify(content)}, which no client sent` }]
    return wanted.content === undefined || wanted.content === content
      ? []
      : [{ seq, saw: `${name}: ${JSON.stringify(content)} instead of ${JSON.stringify(wanted.content)}` }]
  })
  return finding('CORRUPT', medium, `${counted(wrong.length, words[medium])} not what was sent`, wrong)
}

/**
 * Finds servers that alternate: one wrote, another one wrote, and then the first one again. A single change is a
 * takeover; and since no pod reuses the name of an earlier one, a change back is none. A write took effect at some
 * time between its request and its answer, so only writes that do not overlap have an order.
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
    'two servers acknowledged writes alternately',
    turns(writes).flatMap((three) =>
      three.map(({ seq, server, client, answered }) => ({
        seq,
        saw: `${words[medium]} ${String(seq)} of ${client}: acknowledged by ${nameOf(server)} at ${String(answered)} ms`,
      })),
    ),
  )

/** The order of lines in a file is that of their writes, so positions take the place of times. */
const takingTurnsInFile = (lines: readonly ReadBack[]): Finding[] => {
  const placed = lines.flatMap(({ seq, server }, place): Acknowledged[] =>
    server ? [{ client: 'file', seq, server, sent: place, answered: place }] : [],
  )
  return finding(
    'DOUBLE WRITER',
    'file',
    'two servers wrote to the file alternately',
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

const doubts = (
  medium: Medium,
  acknowledged: readonly Acknowledged[],
  there: readonly ReadBack[] | undefined,
  fault: number | undefined,
): string[] => [
  ...(acknowledged.length === 0 ? [`${media[medium]} acknowledged nothing during the run`] : []),
  // A write that was in progress when the fault came says nothing about what works after it.
  ...(acknowledged.length > 0 && fault !== undefined && !acknowledged.some(({ sent }) => sent >= fault)
    ? [`${media[medium]} acknowledged nothing that was sent after the fault`]
    : []),
  ...(there ? [] : [`${media[medium]} could not be read back`]),
]

/**
 * Judges whether everything that was acknowledged is there, unchanged, and written by one server at a time.
 * @param writers whether several servers may write at a time, like the members of a Cassandra ring
 * @param rows every row, read back after recovery; undefined if that was not possible
 * @param fileLines every line of the plain file, in order; undefined if there is no file or it could not be read
 * @param configs every ConfigMap, in any order and written by any API server; undefined if none could be read
 */
export const judge = (
  records: readonly LedgerRecord[],
  rows: readonly ReadBack[] | undefined,
  fileLines: readonly ReadBack[] | undefined,
  writers: 'one' | 'many' = 'one',
  configs?: readonly ReadBack[],
): Judgement => {
  const readBack = { row: rows, file: fileLines, config: configs }
  const written = {
    row: writesTo(records, 'row'),
    file: writesTo(records, 'file'),
    config: writesTo(records, 'config'),
  }
  const fault = (markIn(records, 'acting') ?? markIn(records, 'fault'))?.ms
  const used = allMedia.filter((medium) => written[medium].length > 0)
  const findings = allMedia.flatMap((medium) => {
    const acknowledged = acknowledgedIn(written[medium])
    const there = readBack[medium]
    return [
      ...(there ? lost(medium, acknowledged, there) : []),
      ...(there ? corrupt(medium, written[medium], there) : []),
      ...(there ? repeated(medium, there) : []),
      ...(writers === 'one' && medium !== 'config' ? takingTurns(medium, acknowledged) : []),
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
    tally: {
      row: tallyOf(written.row, rows),
      file: tallyOf(written.file, fileLines),
      ...(written.config.length > 0 ? { config: tallyOf(written.config, configs) } : {}),
    },
    gaps: longestGaps(records),
  }
}
