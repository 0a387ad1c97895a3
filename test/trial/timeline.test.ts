import { describe, expect, it, test } from 'vitest'
import { type Clock, clockOf, keptClocks } from '../../src/fault/clock.js'
import { timelineOf, type EventType, type Observation } from '../../src/trial/timeline.js'

const fault = Date.parse('2026-11-21T15:04:05.000Z')
/** The fault, on the operator's monotonic clock. */
const faultMs = 70_000

/** `ms` after the fault, by the clock of the source. */
const seen = (
  type: EventType,
  ms: number,
  source = 'operator',
  about: { pod?: string; node?: string } = {},
): Observation => ({
  type,
  at: new Date(fault + ms).toISOString(),
  ...(source === 'operator' ? { ms: faultMs + ms } : {}),
  source,
  detail: `${type} at ${String(ms)}`,
  ...about,
})

const old = { pod: 'mysql-a', node: 'worker1' }
const next = { pod: 'mysql-b', node: 'worker2' }

const clock = (ms: number, uncertainty: number): Clock => ({ ms, uncertainty, zero: fault - faultMs + ms })

const clocks: Readonly<Record<string, Clock>> = {
  master: clock(0, 0),
  worker2: clock(1000, 20),
}

const powerCut: readonly Observation[] = [
  seen('write-acknowledged', -900, 'operator', old),
  seen('write-acknowledged', -100, 'operator', old),
  seen('fault', 0, 'operator', { node: 'worker1' }),
  seen('node-not-ready', 15_000, 'master', { node: 'worker1' }),
  seen('node-fenced', 15_500, 'operator', { node: 'worker1' }),
  seen('pod-evicted', 16_000, 'master', old),
  seen('replacement-scheduled', 16_100, 'master', next),
  seen('volume-logged-in', 19_000, 'worker2', next),
  seen('volume-mounted', 20_000, 'worker2', next),
  seen('container-running', 21_500, 'worker2', next),
  seen('write-acknowledged', 23_000, 'operator', next),
  seen('write-acknowledged', 23_100, 'operator', next),
  seen('healed', 24_000),
]

const msOf = (observations: readonly Observation[], known = clocks): Record<string, number> =>
  Object.fromEntries(
    Object.entries(timelineOf(observations, known).moments).map(([name, moment]) => [name, moment.ms]),
  )

const without = (...types: readonly EventType[]): Observation[] =>
  powerCut.filter(({ type }) => !types.includes(type))

const whole = { t0: 0, t1: 15_000, t2: 15_500, t3: 16_100, t4: 19_000, t5: 20_500, t6: 23_000 }

describe('the timeline of a takeover', () => {
  const cases: readonly [string, readonly Observation[], Record<string, number>][] = [
    ['a power cut, with the clock of worker2 1 s ahead', powerCut, whole],
    ['in whatever order it was seen', [...powerCut].reverse(), whole],
    ['nothing', [], {}],
    ['no fault: nothing has a place', without('fault'), {}],
    ['only the fault', [seen('fault', 0)], { t0: 0 }],
    [
      'a drain: no node is ever NotReady',
      without('node-not-ready', 'node-fenced'),
      {
        t0: 0,
        t2: 16_000,
        t3: 16_100,
        t4: 19_000,
        t5: 20_500,
        t6: 23_000,
      },
    ],
    ['no fencing: t2 is the eviction', without('node-fenced'), { ...whole, t2: 16_000 }],
    [
      'it was never mounted',
      without('volume-mounted', 'container-running', 'write-acknowledged'),
      {
        t0: 0,
        t1: 15_000,
        t2: 15_500,
        t3: 16_100,
      },
    ],
    [
      'nobody saw it being scheduled',
      without('replacement-scheduled'),
      {
        t0: 0,
        t1: 15_000,
        t2: 15_500,
        t4: 19_000,
        t5: 20_500,
        t6: 23_000,
      },
    ],
    [
      'the old server writes on for a while',
      [...powerCut, seen('write-acknowledged', 5000, 'operator', old)],
      whole,
    ],
    [
      'the old server alone writes on: nothing is taken over',
      [
        seen('write-acknowledged', -100, 'operator', old),
        seen('fault', 0),
        seen('write-acknowledged', 50, 'operator', old),
        seen('write-acknowledged', 30_000, 'operator', old),
      ],
      { t0: 0 },
    ],
    [
      'the container of the same pod starts again',
      [
        seen('write-acknowledged', -100, 'operator', old),
        seen('fault', 0),
        seen('write-acknowledged', 50, 'operator', old),
        seen('container-running', 9000, 'master', old),
        seen('write-acknowledged', 9500, 'operator', old),
      ],
      { t0: 0, t5: 9000, t6: 9500 },
    ],
    [
      'a replacement that came to nothing before the one that wrote',
      [
        ...powerCut,
        seen('replacement-scheduled', 3000, 'master', { pod: 'mysql-x', node: 'worker2' }),
        seen('container-running', 4000, 'master', { pod: 'mysql-x', node: 'worker2' }),
      ],
      whole,
    ],
    [
      'another node and another pod are none of ours',
      [
        ...powerCut,
        seen('node-not-ready', 2000, 'master', { node: 'worker2' }),
        seen('pod-evicted', 2000, 'master', { pod: 'coredns-x', node: 'worker1' }),
        seen('container-running', 2000, 'worker2', { pod: 'coredns-x', node: 'worker2' }),
      ],
      whole,
    ],
    [
      'what was seen before the fault does not count',
      [...without('node-not-ready'), seen('node-not-ready', -1, 'master', { node: 'worker1' })],
      { t0: 0, t2: 15_500, t3: 16_100, t4: 19_000, t5: 20_500, t6: 23_000 },
    ],
    [
      'unless its clock is not known well enough to say so',
      [...without('volume-mounted'), seen('volume-mounted', 985, 'worker2', next)],
      { ...whole, t4: -15 },
    ],
    ['the first of several faults', [...powerCut, seen('fault', 60_000)], whole],
  ]
  test.each(cases)('the timeline shows its moments: %s', (_, observations, moments) => {
    expect(msOf(observations)).toEqual(moments)
  })

  test('the timeline includes what an unmeasured clock says, without a date', () => {
    const { moments, undated, events } = timelineOf(powerCut, { master: clock(0, 0) })
    expect(Object.keys(moments)).toEqual(['t0', 't1', 't2', 't3', 't6'])
    expect(undated.map(({ type }) => type)).toEqual([
      'volume-logged-in',
      'volume-mounted',
      'container-running',
    ])
    expect(events.every(({ source }) => source !== 'worker2')).toBe(true)
    expect(timelineOf([seen('healed', 0, 'constructor')], {}).undated).toHaveLength(1)
  })

  test('the timeline states time, source and precision of a moment', () => {
    expect(timelineOf(powerCut, clocks).moments.t4).toEqual({
      type: 'volume-mounted',
      at: '2026-11-21T15:04:24.000Z',
      ms: 19_000,
      uncertainty: 20,
      source: 'worker2',
      detail: 'volume-mounted at 20000',
      ...next,
    })
  })

  test('the timeline includes only the acknowledged write that matters', () => {
    const { events } = timelineOf(powerCut, clocks)
    expect(events.map(({ type, ms }) => [type, ms])).toEqual([
      ['fault', 0],
      ['node-not-ready', 15_000],
      ['node-fenced', 15_500],
      ['pod-evicted', 16_000],
      ['replacement-scheduled', 16_100],
      ['volume-logged-in', 18_000],
      ['volume-mounted', 19_000],
      ['container-running', 20_500],
      ['write-acknowledged', 23_000],
      ['healed', 24_000],
    ])
  })
})

describe('the timeline of a run during which a clock is set', () => {
  it("the timeline keeps the length of a takeover although this host's clock was set back by 30 s meanwhile", () => {
    const setBack = powerCut.map((each) =>
      each.source === 'operator' && (each.ms ?? 0) > faultMs + 15_200
        ? { ...each, at: new Date(Date.parse(each.at) - 30_000).toISOString() }
        : each,
    )
    expect(msOf(setBack)).toEqual(whole)
  })

  it('the timeline excludes what the fencing agent saw, whose only clock is the one that was set', () => {
    const agent: Observation = {
      ...seen('node-fenced', 15_500, 'operator', { node: 'worker1' }),
      ms: undefined,
    }
    const observations = [...without('node-fenced', 'pod-evicted'), agent]
    const own = { operator: clock(0, 0) }
    const kept = keptClocks(own, { operator: { ...clock(0, 0), zero: fault - faultMs - 30_000 } })
    expect(msOf(observations, { ...clocks, ...kept })).not.toHaveProperty('t2')
    expect(msOf(observations, { ...clocks, ...own })).toHaveProperty('t2', 15_500)
  })

  it('the timeline excludes what a machine dated whose clock changed after it was measured', () => {
    const before = { worker2: clock(1000, 20) }
    expect(Object.keys(keptClocks(before, { worker2: clock(1100, 20) }))).toEqual(['worker2'])
    expect(keptClocks(before, { worker2: clock(1100, 20) })['worker2']?.uncertainty).toBe(120)
    expect(keptClocks(before, { worker2: clock(301_000, 20) })).toEqual({})
    expect(keptClocks(before, {})).toEqual({})
    expect(keptClocks({}, before)).toEqual({})
  })
})

describe('the answer of a clock', () => {
  test.each([
    [[], undefined],
    [[{ asked: 100, said: 1110, answered: 120 }], { ms: 1000, uncertainty: 10 }],
    [[{ asked: 100, said: 60, answered: 100 }], { ms: -40, uncertainty: 0 }],
    [
      [
        { asked: 100, said: 1700, answered: 900 },
        { asked: 1000, said: 2002, answered: 1004 },
        { asked: 2000, said: 3100, answered: 2100 },
      ],
      { ms: 1000, uncertainty: 2 },
    ],
  ])('the answer of a clock is parsed: %j', (samples, wanted) => {
    // On this host, 1970 and the monotonic clock began together.
    expect(clockOf(samples, { ms: 0, uncertainty: 0, zero: 0 })).toEqual(
      wanted && { ...wanted, zero: wanted.ms },
    )
  })
})
