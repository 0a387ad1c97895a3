/** The longest gaps, and the recovery, according to a ledger. */
import { describe, expect, it, test } from 'vitest'
import { longestGaps } from '../../src/trial/ledger.js'
import { recoveryOf } from '../../src/trial/recovery.js'
import type { LedgerRecord } from '../../src/trial/ledger.js'
import { type Options, a, acked, answered, b, failed, mark, sent } from './records.js'

describe('the longest gaps', () => {
  const cases: readonly [string, readonly LedgerRecord[], readonly object[]][] = [
    ['without any record', [mark('begin', 0), mark('end', 10)], []],
    [
      'between two acknowledgements',
      [...acked(1, 0), ...acked(2, 10), ...acked(3, 1000, b), ...acked(4, 1010, b), mark('end', 1020)],
      [{ client: 'writer-1', operation: 'write', beginMs: 15, endMs: 1005, length: 990, open: false }],
    ],
    [
      'that the end of the run leaves open',
      [...acked(1, 0), sent(2, 10), failed(2, 3000), mark('end', 5005)],
      [{ beginMs: 5, endMs: 5005, length: 5000, open: true, end: '2026-11-21T15:04:10.005Z' }],
    ],
    [
      'without a mark, up to the last record of anybody',
      [...acked(1, 0), ...acked(1, 800, b, { client: 'writer-2' })],
      [
        { client: 'writer-1', beginMs: 5, endMs: 805, length: 800, open: true },
        { client: 'writer-2', beginMs: 800, endMs: 805, length: 5, open: false },
      ],
    ],
    [
      'of a client that never got through',
      [sent(1, 100), failed(1, 200), mark('end', 1000)],
      [{ beginMs: 100, endMs: 1000, length: 900, open: true }],
    ],
    [
      'before the first acknowledgement',
      [sent(1, 100), failed(1, 200), ...acked(1, 600), ...acked(2, 610), mark('end', 620)],
      [{ beginMs: 100, endMs: 605, length: 505, open: false }],
    ],
    [
      'an answer after the end of the run does not close it',
      [...acked(1, 0), sent(2, 10), mark('end', 500), answered(2, 900, a)],
      [{ beginMs: 5, endMs: 500, open: true }],
    ],
    [
      'of writers and readers, apart',
      [
        ...acked(1, 0),
        sent(1, 0, { client: 'reader-1', operation: 'read' }),
        answered(1, 2, a, { client: 'reader-1', operation: 'read' }),
        mark('end', 12),
      ],
      [
        { client: 'writer-1', operation: 'write', length: 7, open: true },
        { client: 'reader-1', operation: 'read', length: 10, open: true },
      ],
    ],
  ]
  test.each(cases)('the longest gaps are found in the ledger %s', (_, records, gaps) => {
    const found = longestGaps(records)
    expect(found).toMatchObject(gaps)
    expect(found).toHaveLength(gaps.length)
  })
})

describe('recovery', () => {
  /** Answered every 500 ms, in `from` to `to`. */
  const writes = (from: number, to: number, options: Options = {}): LedgerRecord[] =>
    Array.from({ length: (to - from) / 500 + 1 }, (_, n) =>
      acked(from + n * 500, from + n * 500, a, options),
    ).flat()
  const file = { client: 'file-writer', medium: 'file' } as const
  const marks = [mark('fault', 10_000), mark('acting', 11_000), mark('healing', 30_000), mark('end', 50_000)]

  it('recovery counts as automatic when writes are answered for 3 s before lab heals', () => {
    const records = [...marks, ...writes(0, 10_000), ...writes(20_000, 50_000)]
    expect(recoveryOf(records, 'itself')).toMatchObject({ outcome: 'passed', ms: 10_005 })
    expect(recoveryOf(records, 'heal')).toMatchObject({ outcome: 'passed' })
  })

  it.each([
    ['it never recovers', writes(0, 10_000), 'failed'],
    [
      'writes are answered again only after lab began to heal',
      [...writes(0, 10_000), ...writes(30_500, 50_000)],
      'failed',
    ],
    [
      'writes are answered between the mark and the moment when the fault is seen to act, and no more',
      writes(0, 10_500),
      'failed',
    ],
    [
      'a write that was sent before the fault acted is answered late',
      [...writes(0, 10_000), sent(99, 10_900), answered(99, 29_900, a)],
      'failed',
    ],
    ['a single write is answered', [...writes(0, 10_000), ...acked(99, 29_900)], 'failed'],
    [
      'writes are answered for a while, and then no more',
      [...writes(0, 10_000), ...writes(12_000, 22_000)],
      'failed',
    ],
    ['rows are written, lines are not', [...writes(0, 50_000), ...writes(0, 10_000, file)], 'failed'],
    ['both are written', [...writes(0, 50_000), ...writes(0, 50_000, file)], 'passed'],
  ] as const)('recovery counts as automatic where %s: %s', (_, records, outcome) => {
    expect(recoveryOf([...marks, ...records], 'itself').outcome).toBe(outcome)
  })

  it('recovery is unknown when the fault was never observed or the run ended earlier', () => {
    const records = writes(0, 50_000)
    expect(recoveryOf([...marks.filter((one) => one !== marks[1]), ...records], 'itself').outcome).toBe(
      'unknown',
    )
    expect(recoveryOf([...marks.slice(0, 2), ...records], 'itself').outcome).toBe('unknown')
    expect(recoveryOf(marks, 'itself').outcome).toBe('unknown')
  })
})
