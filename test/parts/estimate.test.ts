/**
 * The estimate of the time left is right within a factor of two, or absent: with a model of builds that share
 * processors.
 */
import { describe, expect, test } from 'vitest'
import type { Company } from '../../src/parts/company.js'
import { Progress } from '../../src/parts/estimate.js'

const before = { seconds: 240, lines: 3000 }

/**
 * A build that gets this share, for each second, of the processor time that it had when it was measured; the
 * estimates, with the truth.
 * @param companyAt the other builds that lab knows of; default: none, as when other programs use the processors
 */
const built = (
  shareAt: (second: number) => number,
  { lines = before.lines, companyAt }: { lines?: number; companyAt?: (second: number) => Company } = {},
) => {
  const done: number[] = [0]
  for (let at = 0; (done.at(-1) ?? 0) < before.seconds; at++) done.push((done.at(-1) ?? 0) + shareAt(at))
  const progress = new Progress({ ...before, lines })
  const end = done.length - 1
  return done.slice(1).map((work, index) => ({
    at: index + 1,
    left: end - index - 1,
    ...progress.at(index + 1, Math.floor((work / before.seconds) * lines), companyAt?.(index + 1)),
  }))
}

/** A build beside others that lab starts and ends: how many there are in each second, and how many may come. */
const builtBeside = (companyAt: (second: number) => Company) =>
  built((second) => 1 / (1 + companyAt(second).beside), { companyAt })

/** The factor by which the estimate was wrong; 1 if there was none. The last seconds do not count. */
const errors = (said: ReturnType<typeof built>): readonly number[] =>
  said.flatMap(({ left, remaining }) =>
    remaining === undefined || left < 10 ? [] : [Math.max(remaining / left, left / remaining)],
  )

describe('the estimate of the time left in a build', () => {
  test.each([
    ['alone, as when it was measured', 1],
    ['alone on a host that is twice as fast', 2],
    ['beside one other build', 1 / 2],
    ['beside two other builds', 1 / 3],
  ])('the estimate is within a factor of two for a build %s, and is shown for most of it', (_, share) => {
    const said = built(() => share)
    const wrong = errors(said)
    expect(Math.max(...wrong)).toBeLessThan(2)
    expect(wrong.length).toBeGreaterThan(said.length * 0.8)
  })

  test('the estimate is absent beside nine other builds, since they may end', () => {
    expect(built(() => 1 / 10).filter(({ remaining }) => remaining !== undefined)).toEqual([])
  })

  test.each([
    [1, 30, true],
    [2, 60, true],
    // The rest depends on whether the others end: no estimate is possible, neither before they start nor afterwards.
    [3, 120, false],
    [7, 60, false],
    [10, 200, false],
  ])(
    'every estimate is within a factor of two when lab starts %i other builds after %i s, or none is shown',
    (others, after, told) => {
      const said = builtBeside((second) =>
        second < after ? { beside: 0, coming: others } : { beside: others, coming: 0 },
      )
      const wrong = errors(said)
      expect(Math.max(1, ...wrong)).toBeLessThan(2)
      expect(wrong.length > 0).toBe(told)
    },
  )

  test('every estimate is within a factor of two when nine other builds of lab have ended', () => {
    const wrong = errors(builtBeside((second) => ({ beside: second < 600 ? 9 : 0, coming: 0 })))
    expect(Math.max(...wrong)).toBeLessThan(2)
    expect(wrong.length).toBeGreaterThan(100)
  })

  test('every estimate is within a factor of two when builds of lab begin and end one after the other', () => {
    for (const turn of [10, 40, 100, 250]) {
      const said = builtBeside((second) => ({ beside: Math.floor(second / turn) % 3, coming: 2 }))
      expect(Math.max(1, ...errors(said))).toBeLessThan(2)
    }
  })

  test.each([1, 2, 3, 7, 10])(
    'no wrong estimate is left 10 s after %i programs that lab does not know of have begun, or have ended',
    (others) => {
      for (let moment = 30; moment < 240; moment += 10) {
        const begun = built((second) => (second < moment ? 1 : 1 / (1 + others)))
        expect(Math.max(1, ...errors(begun.filter(({ at }) => at > moment + 10)))).toBeLessThan(2)
        const ended = built((second) => (second < moment ? 1 / (1 + others) : 1))
        expect(Math.max(1, ...errors(ended.filter(({ at }) => at > moment + 10)))).toBeLessThan(2)
      }
    },
  )

  test('the estimate is absent after the build has printed nothing for a long time', () => {
    const progress = new Progress(before)
    for (let at = 1; at <= 100; at++) progress.at(at, at * 12)
    expect(progress.at(101, 1200).remaining).toBeGreaterThan(0)
    for (let at = 102; at < 160; at++) progress.at(at, 1200)
    expect(progress.at(160, 1200)).not.toHaveProperty('remaining')
  })

  test('the estimate is absent for a part that prints too little, and its bar follows the clock', () => {
    const said = built(() => 1, { lines: 20 })
    expect(said.filter(({ remaining }) => remaining !== undefined)).toEqual([])
    expect(said[119]?.fraction).toBeCloseTo(0.5)
  })

  test('the estimate is absent for a part that prints more than ever before', () => {
    expect(new Progress(before).at(300, 3000)).toEqual({ fraction: 0.99 })
  })

  test.each([1, 2])(
    'the estimate is right within a factor of two also when %i other builds end at any later moment',
    (others) => {
      for (let end = 20; end < 500; end += 20) {
        const said = built((second) => (second < end ? 1 / (1 + others) : 1))
        expect(Math.max(1, ...errors(said))).toBeLessThan(2)
        const known = builtBeside((second) => ({ beside: second < end ? others : 0, coming: 0 }))
        expect(Math.max(1, ...errors(known))).toBeLessThan(2)
      }
    },
  )
})

/** A build as a log recorded it: every 15 s, the seconds since its start and the percentage that is done. */
interface Logged {
  readonly reference: { readonly seconds: number; readonly lines: number }
  readonly seen: readonly (readonly [elapsed: number, percent: number])[]
  /** Seconds. */
  readonly took: number
}

/** From one run of the preparation in CI, on two processors, at the same time as the unit tests. */
const logged: Readonly<Record<string, Logged>> = {
  // The others were built one after the other at the same time, until it had taken 13 min.
  kernel: {
    reference: { seconds: 500, lines: 1900 },
    seen: [
      [541, 24],
      [556, 24],
      [571, 24],
      [586, 25],
      [601, 25],
      [616, 25],
      [631, 26],
      [647, 27],
      [662, 27],
      [677, 27],
      [692, 27],
      [707, 28],
      [722, 28],
      [737, 28],
      [752, 29],
      [767, 30],
      [782, 31],
      [797, 32],
      [812, 34],
      [827, 37],
      [842, 40],
      [857, 42],
      [872, 44],
      [887, 47],
      [902, 48],
      [917, 51],
      [932, 55],
      [947, 62],
      [962, 66],
      [977, 68],
      [992, 71],
      [1007, 73],
      [1022, 74],
      [1037, 80],
      [1052, 87],
      [1067, 89],
      [1082, 90],
      [1097, 91],
      [1112, 93],
      [1127, 94],
      [1142, 96],
      [1157, 98],
      [1172, 99],
    ],
    took: 1175,
  },
  coredns: {
    reference: { seconds: 60, lines: 550 },
    seen: [
      [15, 26],
      [30, 51],
      [45, 65],
      [60, 77],
      [75, 92],
    ],
    took: 86,
  },
  containerd: {
    reference: { seconds: 60, lines: 880 },
    seen: [
      [15, 22],
      [30, 42],
      [45, 55],
      [60, 74],
      [75, 91],
    ],
    took: 86,
  },
  etcd: {
    reference: { seconds: 25, lines: 400 },
    seen: [
      [15, 45],
      [30, 84],
    ],
    took: 37,
  },
}

test.each(Object.entries(logged))(
  'the estimate of %s in the log of a real preparation is within a factor of two, or absent',
  (_, { reference, seen, took }) => {
    const progress = new Progress(reference)
    // Nine tenths of the percentage are from lines, and one tenth is from the clock.
    const linesAt = ([elapsed, percent]: readonly [number, number]): number =>
      ((percent / 100 - 0.1 * Math.min(1, elapsed / reference.seconds)) / 0.9) * reference.lines
    let before: readonly [number, number] = [0, 0]
    for (const now of seen) {
      const [from, to] = [before[0] === 0 ? 0 : linesAt(before), linesAt(now)]
      for (let elapsed = before[0] + 1; elapsed <= now[0]; elapsed++) {
        const part = (elapsed - before[0]) / (now[0] - before[0])
        const { remaining } = progress.at(elapsed, Math.floor(from + part * (to - from)))
        const left = took - elapsed
        // A few seconds, more or less, are said as "a few seconds".
        if (remaining !== undefined && left > 10)
          expect(Math.max(remaining / left, left / remaining), `after ${String(elapsed)} s`).toBeLessThan(2)
      }
      before = now
    }
  },
)
