import { describe, expect, test } from 'vitest'
import { answersIn, recordSchema } from '../../src/trial/ledger.js'
import { judge } from '../../src/trial/judge.js'
import type { LedgerRecord, ReadBack, Server } from '../../src/trial/ledger.js'
import { type Options, a, acked, answered, b, contentOf, failed, mark, sent } from './records.js'

const there = (...seqs: readonly number[]): ReadBack[] =>
  seqs.map((seq) => ({ seq, content: contentOf(seq) }))

describe('the judge', () => {
  const cases: readonly [
    name: string,
    records: readonly LedgerRecord[],
    rows: readonly ReadBack[] | undefined,
    wanted: { verdict: string; findings?: object[]; unknown?: string[] },
  ][] = [
    ['all acknowledged rows are there', [...acked(1, 0), ...acked(2, 10)], there(1, 2), { verdict: 'PASS' }],
    [
      'an acknowledged row is missing',
      [...acked(1, 0), ...acked(2, 10), ...acked(3, 20)],
      there(2),
      {
        verdict: 'FAIL',
        findings: [
          {
            kind: 'LOST',
            medium: 'row',
            message: '2 acknowledged rows are missing',
            seqs: [1, 3],
            evidence: [
              'row 1 of writer-1: acknowledged by mysql-a on worker1, but missing',
              'row 3 of writer-1: acknowledged by mysql-a on worker1, but missing',
            ],
          },
        ],
      },
    ],
    [
      'a row was changed by hand',
      [...acked(1, 0), ...acked(2, 10)],
      [...there(1), { seq: 2, content: 'by hand' }],
      {
        verdict: 'FAIL',
        findings: [{ kind: 'CORRUPT', seqs: [2], evidence: ['row 2: "by hand" instead of "content 2"'] }],
      },
    ],
    [
      'a row that nobody sent',
      acked(1, 0),
      there(1, 7),
      {
        verdict: 'FAIL',
        findings: [{ kind: 'CORRUPT', evidence: ['row 7: "content 7", which no client sent'] }],
      },
    ],
    [
      'a row number that appears twice',
      [...acked(1, 0), ...acked(2, 10)],
      there(1, 2, 1),
      {
        verdict: 'FAIL',
        findings: [
          {
            kind: 'CORRUPT',
            message: '1 row is there more than once',
            seqs: [1],
            evidence: ['row 1: 2 times, at 1, 3 of 3'],
          },
        ],
      },
    ],
    ['sent without answer, not there', [...acked(1, 0), sent(2, 10)], there(1), { verdict: 'PASS' }],
    ['sent without answer, there', [...acked(1, 0), sent(2, 10)], there(1, 2), { verdict: 'PASS' }],
    ['failed, there', [...acked(1, 0), sent(2, 10), failed(2, 20)], there(1, 2), { verdict: 'PASS' }],
    [
      'sent without answer, there with another content',
      [...acked(1, 0), sent(2, 10)],
      [...there(1), { seq: 2, content: 'half' }],
      { verdict: 'FAIL', findings: [{ kind: 'CORRUPT', seqs: [2] }] },
    ],
    [
      'failed, tried again at another address, and acknowledged',
      [sent(1, 0), failed(1, 10), ...acked(1, 20)],
      [],
      { verdict: 'FAIL', findings: [{ kind: 'LOST', seqs: [1] }] },
    ],
    [
      'a client that never got through',
      [sent(1, 0), failed(1, 10), sent(2, 20), failed(2, 30)],
      there(1),
      { verdict: 'UNKNOWN', unknown: ['the database acknowledged nothing during the run'] },
    ],
    ['no record at all', [], [], { verdict: 'UNKNOWN', unknown: ['nothing was written during the run'] }],
    [
      'reads alone',
      [sent(1, 0, { operation: 'read' }), answered(1, 1, a, { operation: 'read' })],
      [],
      { verdict: 'UNKNOWN', unknown: ['nothing was written during the run'] },
    ],
    [
      'nothing acknowledged after the fault',
      [...acked(1, 0), mark('fault', 10), sent(2, 20)],
      there(1),
      { verdict: 'UNKNOWN', unknown: ['the database acknowledged nothing that was sent after the fault'] },
    ],
    [
      'on its way when the fault came',
      [sent(1, 9), mark('fault', 10), answered(1, 11, a)],
      there(1),
      { verdict: 'UNKNOWN', unknown: ['the database acknowledged nothing that was sent after the fault'] },
    ],
    ['sent the moment the fault came', [mark('fault', 10), ...acked(1, 10)], there(1), { verdict: 'PASS' }],
    [
      'nothing after the fault, and something lost: what is certain counts',
      [...acked(1, 0), mark('fault', 10)],
      [],
      {
        verdict: 'FAIL',
        findings: [{ kind: 'LOST' }],
        unknown: ['the database acknowledged nothing that was sent after the fault'],
      },
    ],
    [
      'rows that could not be read back',
      acked(1, 0),
      undefined,
      { verdict: 'UNKNOWN', unknown: ['the database could not be read back'] },
    ],
    [
      'a takeover',
      [...acked(1, 0), ...acked(2, 10), ...acked(3, 100, b), ...acked(4, 110, b)],
      there(1, 2, 3, 4),
      { verdict: 'PASS' },
    ],
    [
      'the first server writes again after the other one',
      [...acked(1, 0), ...acked(2, 10, b), ...acked(3, 20)],
      there(1, 2, 3),
      {
        verdict: 'FAIL',
        findings: [
          {
            kind: 'DOUBLE WRITER',
            medium: 'row',
            message: 'two servers acknowledged writes alternately',
            seqs: [1, 2, 3],
            evidence: [
              'row 1 of writer-1: acknowledged by mysql-a on worker1 at 5 ms',
              'row 2 of writer-1: acknowledged by mysql-b on worker2 at 15 ms',
              'row 3 of writer-1: acknowledged by mysql-a on worker1 at 25 ms',
            ],
          },
        ],
      },
    ],
    [
      'an answer of the old server that was long on its way is no double writer',
      [
        ...acked(1, 0),
        sent(2, 10, { client: 'writer-2' }),
        ...acked(3, 50, b),
        answered(2, 60, a, { client: 'writer-2' }),
      ],
      there(1, 2, 3),
      { verdict: 'PASS' },
    ],
    [
      'sent at the very moment of the other answer is still no order',
      [...acked(1, 0), ...acked(2, 10, b), ...acked(3, 15, a, { client: 'writer-2' })],
      there(1, 2, 3),
      { verdict: 'PASS' },
    ],
    [
      'two writers, each at a server of its own',
      [0, 1, 2, 3].flatMap((n) => [
        sent(2 * n, n * 10),
        sent(2 * n + 1, n * 10 + 3, { client: 'writer-2' }),
        answered(2 * n, n * 10 + 6, a),
        answered(2 * n + 1, n * 10 + 9, b, { client: 'writer-2' }),
      ]),
      there(0, 1, 2, 3, 4, 5, 6, 7),
      { verdict: 'FAIL', findings: [{ kind: 'DOUBLE WRITER' }] },
    ],
    [
      'the same pod name on another node is another server',
      [...acked(1, 0), ...acked(2, 10, { ...a, node: 'worker2' }), ...acked(3, 20)],
      there(1, 2, 3),
      { verdict: 'FAIL', findings: [{ kind: 'DOUBLE WRITER' }] },
    ],
  ]

  test.each(cases)('the judge finds what the ledger shows: %s', (_, records, rows, wanted) => {
    const judgement = judge(records, rows, undefined)
    expect(judgement).toMatchObject(wanted)
    expect(judgement.findings.map(({ kind }) => kind)).toHaveLength(wanted.findings?.length ?? 0)
    expect(judgement.verdict === 'UNKNOWN').toBe(
      judgement.findings.length === 0 && judgement.unknown.length > 0,
    )
  })

  describe('the judge of a file on the LUN', () => {
    const file: Options = { client: 'file-writer', medium: 'file' }
    const line = (seq: number, server: Server, content = contentOf(seq)): ReadBack => ({
      seq,
      content,
      server,
    })
    const rows = acked(1, 0)

    test('the judge of a file accepts lines by one server after another', () => {
      const records = [...rows, ...acked(1, 0, a, file), ...acked(2, 10, b, file)]
      expect(judge(records, there(1), [line(1, a), line(2, b)])).toMatchObject({
        verdict: 'PASS',
        findings: [],
      })
    })

    test('the judge of a file does not accept a row in place of a line with the same number', () => {
      const records = [...rows, ...acked(1, 0, a, file)]
      expect(judge(records, there(1), []).findings).toMatchObject([
        { kind: 'LOST', medium: 'file', message: '1 acknowledged line is missing', seqs: [1] },
      ])
    })

    test('the judge of a file detects alternating lines of two nodes even when no client saw an answer', () => {
      const records = [...rows, sent(1, 0, file), sent(2, 1, file), sent(3, 2, file)]
      const { verdict, findings } = judge(records, there(1), [line(1, a), line(2, b), line(3, a)])
      expect(verdict).toBe('FAIL')
      expect(findings).toMatchObject([
        {
          kind: 'DOUBLE WRITER',
          medium: 'file',
          seqs: [1, 2, 3],
          evidence: [
            'line 1 of the file, number 1: written by mysql-a on worker1',
            'line 2 of the file, number 2: written by mysql-b on worker2',
            'line 3 of the file, number 3: written by mysql-a on worker1',
          ],
        },
      ])
    })

    test('the judge of a file accepts a partial line before its fsync was acknowledged, and rejects it afterwards', () => {
      const unanswered = [...rows, ...acked(1, 0, a, file), sent(2, 10, file)]
      const lines = [line(1, a), line(2, a, 'cont')]
      expect(judge(unanswered, there(1), lines).findings).toEqual([])
      expect(judge([...unanswered, answered(2, 20, a, file)], there(1), lines).findings).toMatchObject([
        { kind: 'CORRUPT', seqs: [2] },
      ])
    })

    test('the judge of a file reports a written file that could not be read back', () => {
      expect(judge([...rows, ...acked(1, 0, a, file)], there(1), undefined)).toMatchObject({
        verdict: 'UNKNOWN',
        unknown: ['the file could not be read back'],
      })
    })

    test('the judge of a file ignores a file without acknowledged lines next to a database that has some', () => {
      expect(judge([...rows, sent(1, 0, file)], there(1), [])).toMatchObject({
        verdict: 'UNKNOWN',
        unknown: ['the file acknowledged nothing during the run'],
      })
    })
  })

  test('the judge counts the records by outcome', () => {
    const records = [...acked(1, 0), sent(2, 10), failed(2, 20), sent(2, 21), sent(3, 30), ...acked(4, 40)]
    expect(judge(records, there(1, 3, 4), undefined).tally).toEqual({
      row: { sent: 4, acknowledged: 2, unanswered: 2, unansweredButThere: 1 },
      file: { sent: 0, acknowledged: 0, unanswered: 0, unansweredButThere: 0 },
    })
  })

  test('the judge names only the first of many findings', () => {
    const records = Array.from({ length: 30 }, (_, seq) => acked(seq, seq * 10)).flat()
    const [finding] = judge(records, [], undefined).findings
    expect(finding?.seqs).toHaveLength(30)
    expect(finding?.evidence).toHaveLength(11)
    expect(finding?.evidence.at(-1)).toBe('and 20 more')
  })

  test('the judge handles a long run quickly', () => {
    const count = 20_000
    const records = Array.from({ length: count }, (_, seq) =>
      acked(seq, seq * 10, seq < count / 2 ? a : b),
    ).flat()
    const rows = there(...Array.from({ length: count }, (_, seq) => seq))
    expect(judge(records, rows, undefined).verdict).toBe('PASS')
  })
})

test('the records of a ledger match the schema', () => {
  for (const record of [...acked(1, 0), failed(1, 2), mark('fault', 3)])
    expect(recordSchema.parse(record)).toEqual(record)
  expect(recordSchema.safeParse({ ...sent(1, 0), seq: -1 }).success).toBe(false)
  expect(recordSchema.safeParse({ ...sent(1, 0), at: 'yesterday' }).success).toBe(false)
})

test('answers that are close together are grouped', () => {
  const reader: Options = { client: 'reader-1', operation: 'read' }
  const records = [
    ...acked(1, 0),
    ...acked(2, 10),
    ...acked(3, 21),
    failed(4, 25),
    sent(1, 30, reader),
    ...acked(5, 100),
  ]
  expect(answersIn(records, 10)).toEqual([
    {
      client: 'writer-1',
      operation: 'write',
      medium: 'row',
      spans: [
        [5, 15],
        [26, 26],
        [105, 105],
      ],
    },
    { client: 'reader-1', operation: 'read', medium: 'row', spans: [] },
  ])
})
