/**
 * The estimate of the time left is right within a factor of two, or absent: with a model of builds that share
 * processors.
 */
import { describe, expect, test } from 'vitest'
import { Progress } from '../../src/parts/estimate.js'

const before = { seconds: 240, lines: 3000 }

/**
 * A build that gets this share, for each second, of the processor time that it had when it was measured; the
 * estimates, with the truth.
 */
const built = (shareAt: (second: number) => number, lines = before.lines) => {
  const done: number[] = [0]
  for (let at = 0; (done.at(-1) ?? 0) < before.seconds; at++) done.push((done.at(-1) ?? 0) + shareAt(at))
  const progress = new Progress({ ...before, lines })
  const end = done.length - 1
  return done.slice(1).map((work, index) => ({
    at: index + 1,
    left: end - index - 1,
    ...progress.at(index + 1, Math.floor((work / before.seconds) * lines)),
  }))
}

/** The factor by which the estimate was wrong; 1 if there was none. The last seconds do not count. */
const errors = (said: ReturnType<typeof built>): readonly number[] =>
  said.flatMap(({ left, remaining }) =>
    remaining === undefined || left < 5 ? [] : [Math.max(remaining / left, left / remaining)],
  )

describe('the estimate of the time left in a build', () => {
  test.each([
    ['alone, as when it was measured', 1],
    ['alone on a host that is twice as fast', 2],
    ['beside one other build', 1 / 2],
    ['beside nine other builds', 1 / 10],
  ])('the estimate is within a factor of two for a build %s, and is shown for most of it', (_, share) => {
    const said = built(() => share)
    const wrong = errors(said)
    expect(Math.max(...wrong)).toBeLessThan(2)
    expect(wrong.length).toBeGreaterThan(said.length * 0.8)
  })

  test.each([
    [2, 60, true],
    [7, 60, true],
    // So little was left that the earlier pace decides to the end: no estimate is possible.
    [10, 200, false],
  ])(
    'the estimate is within a factor of two, or absent, once %i other builds have started after %i s',
    (others, after, told) => {
      const said = built((second) => (second < after ? 1 : 1 / (1 + others)))
      const wrong = errors(said.filter(({ at }) => at > after + 15))
      expect(Math.max(1, ...wrong)).toBeLessThan(2)
      expect(wrong.length > 0).toBe(told)
    },
  )

  test('the estimate is within a factor of two, or absent, once the other builds have ended', () => {
    const said = built((second) => (second < 600 ? 1 / 10 : 1))
    const wrong = errors(said.filter(({ at }) => at > 600 + 15))
    expect(Math.max(1, ...wrong)).toBeLessThan(2)
  })

  test('the estimate is absent after the build has printed nothing for a long time', () => {
    const progress = new Progress(before)
    for (let at = 1; at <= 100; at++) progress.at(at, at * 12)
    expect(progress.at(101, 1200).remaining).toBeGreaterThan(0)
    for (let at = 102; at < 160; at++) progress.at(at, 1200)
    expect(progress.at(160, 1200)).not.toHaveProperty('remaining')
  })

  test('the estimate is absent for a part that prints too little, and its bar follows the clock', () => {
    const said = built(() => 1, 20)
    expect(said.filter(({ remaining }) => remaining !== undefined)).toEqual([])
    expect(said[119]?.fraction).toBeCloseTo(0.5)
  })

  test('the estimate is absent for a part that prints more than ever before', () => {
    expect(new Progress(before).at(300, 3000)).toEqual({ fraction: 0.99 })
  })
})
