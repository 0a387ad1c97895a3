import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { LabError, tooBusy } from '../../src/error.js'
import { CommandError } from '../../src/machine/machine.js'
import { type Mode, runPlan, succeeded } from '../../src/plan/runner.js'
import type { Check, Context, Step } from '../../src/context.js'
import type { Report, RunEvent, StepResult, Verdict } from '../../src/plan/step.js'

/** The runner uses only the signal and the provider's slowdown; the rest is for steps, which need none of it here. */
const contextWith = (signal: AbortSignal, slowdown?: number): Context =>
  ({ signal, slowdown }) as unknown as Context

const yes: Verdict = { ok: true, saw: 'it is' }
const no: Verdict = { ok: false, saw: 'it is not' }

/** The state of the world, by the name of the step that makes it. */
type World = Set<string>

interface Wish extends Partial<Omit<Step, 'checks' | 'apply'>> {
  readonly id: string
  readonly apply?: Step['apply'] | undefined
  readonly checks?: readonly Check[]
}

const checkOf = (id: string, probe: Check['probe'], rest: Partial<Check> = {}): Check => ({
  id,
  title: `${id} is so`,
  probe,
  ...rest,
})

/** A step that is done once it was applied, unless the test says otherwise. */
const stepIn = (world: World, { id, ...wish }: Wish): Step => {
  const [first, ...more] = wish.checks ?? [
    checkOf(`${id}-check`, () => Promise.resolve(world.has(id) ? yes : no), { within: 1 }),
  ]
  if (!first) throw new Error('a step has a check')
  const apply = 'apply' in wish ? wish.apply : () => Promise.resolve(void world.add(id))
  return {
    title: `Make ${id}`,
    phase: 'test',
    needs: [],
    ...wish,
    id,
    checks: [first, ...more],
    ...(apply === undefined ? {} : { apply }),
  } as Step
}

interface Run {
  readonly report: Report
  readonly events: readonly RunEvent[]
  readonly outcomes: Readonly<Record<string, string>>
  readonly result: (id: string) => StepResult
}

const runSteps = async (
  steps: readonly Step[],
  {
    mode = 'apply',
    signal = new AbortController().signal,
    slowdown,
  }: { mode?: Mode; signal?: AbortSignal; slowdown?: number } = {},
): Promise<Run> => {
  const events: RunEvent[] = []
  const report = await runPlan({ title: 'Test', steps }, mode, contextWith(signal, slowdown), (event) =>
    events.push(event),
  )
  return {
    report,
    events,
    outcomes: Object.fromEntries(report.results.map(({ step, outcome }) => [step.id, outcome])),
    result: (id) => {
      const found = report.results.find(({ step }) => step.id === id)
      if (!found) throw new Error(`no result of ${id}`)
      return found
    },
  }
}

/** `started a`, `finished a`: the events, in the order in which they were reported. */
const story = (events: readonly RunEvent[]): readonly string[] =>
  events.flatMap((event) => {
    if (event.type === 'step-finished') return [`finished ${event.result.step.id}`]
    return 'step' in event ? [`${event.type.replace('step-', '')} ${event.step.id}`] : []
  })

/**
 * How many seconds an immediate end may take, also on a machine that builds a kernel meanwhile. If one of these tests
 * had to wait for something, it would take longer.
 */
const soon = 8

const elapsed = async <T>(action: () => Promise<T>): Promise<readonly [T, number]> => {
  const since = performance.now()
  return [await action(), (performance.now() - since) / 1000]
}

describe('the order of steps', () => {
  test('the runner runs steps in the order of their needs, not of their place in the plan', async () => {
    const world: World = new Set()
    const applied: string[] = []
    const step = (id: string, ...needs: readonly string[]): Step =>
      stepIn(world, {
        id,
        needs,
        apply: async () => {
          applied.push(id)
          await delay(5)
          world.add(id)
        },
      })
    const { outcomes } = await runSteps([
      step('roof', 'walls', 'chimney'),
      step('chimney', 'walls'),
      step('walls', 'floor'),
      step('floor'),
    ])
    expect(applied).toEqual(['floor', 'walls', 'chimney', 'roof'])
    expect(new Set(Object.values(outcomes))).toEqual(new Set(['changed']))
  })

  test('the runner starts a step only when all that it needs has been checked, and not merely applied', async () => {
    const world: World = new Set()
    let seen: boolean | undefined
    await runSteps([
      stepIn(world, {
        id: 'slow',
        // It starts at once, and is done later.
        apply: () => Promise.resolve(void setTimeout(() => world.add('slow'), 250)),
        checks: [checkOf('slow-check', () => Promise.resolve(world.has('slow') ? yes : no), { within: 5 })],
      }),
      stepIn(world, {
        id: 'next',
        needs: ['slow'],
        apply: () => {
          seen = world.has('slow')
          return Promise.resolve(void world.add('next'))
        },
      }),
    ])
    expect(seen).toBe(true)
  })

  test('the runner runs steps that do not need each other at the same time', async () => {
    const world: World = new Set()
    let waiting = 0
    let open: () => void = () => undefined
    const all = new Promise<void>((resolve) => (open = resolve))
    // Each waits for the four others: in sequence they would wait for ever.
    const steps = ['a', 'b', 'c', 'd', 'e'].map((id) =>
      stepIn(world, {
        id,
        apply: async () => {
          if (++waiting === 5) open()
          await all
          world.add(id)
        },
      }),
    )
    expect((await runSteps(steps)).report.results.map(({ outcome }) => outcome)).toEqual(
      Array(5).fill('changed'),
    )
  })

  test('the runner carries out a step once, however many others need it', async () => {
    const world: World = new Set()
    let times = 0
    const base = stepIn(world, {
      id: 'base',
      apply: () => {
        times++
        return Promise.resolve(void world.add('base'))
      },
    })
    const others = ['a', 'b', 'c'].map((id) => stepIn(world, { id, needs: ['base'] }))
    const { events } = await runSteps([...others, base])
    expect(times).toBe(1)
    expect(story(events).filter((line) => line.endsWith(' base'))).toEqual([
      'started base',
      'applying base',
      'finished base',
    ])
  })

  test('the runner reports steps in the order of the plan, whichever finished first', async () => {
    const world: World = new Set()
    const slow = stepIn(world, { id: 'slow', apply: async () => void (await delay(100), world.add('slow')) })
    const quick = stepIn(world, { id: 'quick' })
    const { report, events } = await runSteps([slow, quick])
    expect(report.results.map(({ step }) => step.id)).toEqual(['slow', 'quick'])
    expect(story(events).filter((line) => line.startsWith('finished'))).toEqual([
      'finished quick',
      'finished slow',
    ])
  })

  test('the runner throws a defect when a step needs one that is not in the plan', async () => {
    await expect(runSteps([stepIn(new Set(), { id: 'a', needs: ['nowhere'] })])).rejects.toThrow(
      'step a needs nowhere, which is not in the plan',
    )
  })
})

describe('a step', () => {
  test('the runner leaves a step alone when its checks already hold', async () => {
    const apply = (): Promise<void> => Promise.reject(new Error('it was touched'))
    const { outcomes, events, result } = await runSteps([stepIn(new Set(['a']), { id: 'a', apply })])
    expect(outcomes).toEqual({ a: 'ok' })
    expect(story(events)).toEqual(['started a', 'finished a'])
    expect(result('a').checks).toMatchObject([{ ok: true, saw: 'it is' }])
  })

  test('the runner applies a step whose check fails, says why, and checks it again', async () => {
    const { outcomes, events, result } = await runSteps([stepIn(new Set(), { id: 'a' })])
    expect(outcomes).toEqual({ a: 'changed' })
    expect(events.find(({ type }) => type === 'step-applying')).toMatchObject({
      why: 'a-check is so: no: it is not',
    })
    expect(result('a').checks).toMatchObject([{ ok: true, saw: 'it is' }])
    expect(result('a')).not.toHaveProperty('reason')
  })

  test('the runner applies a step when one of its three checks fails, and asks all three again', async () => {
    const world: World = new Set(['left', 'right'])
    const asked: string[] = []
    const check = (id: string): Check =>
      checkOf(id, () => {
        asked.push(id)
        return Promise.resolve(world.has(id) ? yes : no)
      })
    const { outcomes, events } = await runSteps([
      stepIn(world, {
        id: 'a',
        apply: () => Promise.resolve(void world.add('middle')),
        checks: ['left', 'middle', 'right'].map(check),
      }),
    ])
    expect(outcomes).toEqual({ a: 'changed' })
    expect(asked).toEqual(['left', 'middle', 'right', 'left', 'middle', 'right'])
    expect(events.find(({ type }) => type === 'step-applying')).toMatchObject({
      why: 'middle is so: no: it is not',
    })
  })

  test('the runner fails a step when applying it breaks a check that held before', async () => {
    const world: World = new Set(['left'])
    const { outcomes, result } = await runSteps([
      stepIn(world, {
        id: 'a',
        apply: () => Promise.resolve(void (world.add('right'), world.delete('left'))),
        checks: ['left', 'right'].map((id) =>
          checkOf(id, () => Promise.resolve(world.has(id) ? yes : no), { within: 0.2 }),
        ),
      }),
    ])
    expect(outcomes).toEqual({ a: 'failed' })
    expect(result('a').reason).toMatch(/^left is so: no: it is not \(waited \d+ s\)$/)
  })

  test('the runner passes on the progress that a step reports', async () => {
    const world: World = new Set()
    const { events } = await runSteps([
      stepIn(world, {
        id: 'a',
        apply: (_, progress) => {
          progress('half')
          progress('whole')
          return Promise.resolve(void world.add('a'))
        },
      }),
    ])
    expect(events.flatMap((event) => (event.type === 'step-progress' ? [event.note] : []))).toEqual([
      'half',
      'whole',
    ])
  })

  test('the runner waits for a step that has checks only, and never applies it', async () => {
    const since = performance.now()
    const looks = checkOf('late', () => Promise.resolve(performance.now() - since > 300 ? yes : no), {
      within: 10,
    })
    const { outcomes, events } = await runSteps([
      stepIn(new Set(), { id: 'a', apply: undefined, checks: [looks] }),
    ])
    expect(outcomes).toEqual({ a: 'ok' })
    expect(story(events)).not.toContain('applying a')
    expect(story(events)).toContain('waiting a')
  })

  test('the runner fails a step at once when applying it throws, with what was thrown', async () => {
    const [{ result }, seconds] = await elapsed(() =>
      runSteps([
        stepIn(new Set(), {
          id: 'a',
          apply: () => Promise.reject(new Error('the disk is full')),
          checks: [checkOf('check', () => Promise.resolve(no), { within: 60, hint: 'df -h' })],
        }),
      ]),
    )
    expect(result('a')).toMatchObject({ outcome: 'failed', reason: 'the disk is full', hint: 'df -h' })
    expect(result('a').checks).toMatchObject([{ ok: false, saw: 'it is not' }])
    expect(seconds).toBeLessThan(soon)
  })

  test('the runner passes on the hint of the error that applying a step threw', async () => {
    const error = new LabError('full', 'the disk is full', { hint: 'lab down old' })
    const { result } = await runSteps([
      stepIn(new Set(), {
        id: 'a',
        apply: () => Promise.reject(error),
        checks: [checkOf('check', () => Promise.resolve(no), { hint: 'df -h' })],
      }),
    ])
    expect(result('a')).toMatchObject({ reason: 'the disk is full', hint: 'lab down old' })
  })

  test('the runner fails a step when applying it throws something that is no Error', async () => {
    // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors
    const apply = (): Promise<void> => Promise.reject('just text')
    const { result } = await runSteps([stepIn(new Set(), { id: 'a', apply })])
    expect(result('a')).toMatchObject({ outcome: 'failed', reason: 'just text' })
    expect(result('a')).not.toHaveProperty('hint')
  })

  test('the runner gives the words of the failed command as the reason', async () => {
    const refused = new CommandError('worker1', 'kubeadm join', {
      exitCode: 1,
      stdout: '',
      stderr: 'no token\n',
    })
    const { result } = await runSteps([stepIn(new Set(), { id: 'a', apply: () => Promise.reject(refused) })])
    expect(result('a').reason).toBe('worker1: kubeadm join: exit code 1: no token')
  })

  test('the runner applies a step again when the other side was too busy, and says so', async () => {
    let tries = 0
    const done = new Set<string>()
    const { result, events } = await runSteps([
      stepIn(done, {
        id: 'a',
        apply: () => {
          tries += 1
          if (tries < 3) return Promise.reject(new LabError(tooBusy, 'etcdserver: request timed out'))
          done.add('a')
          return Promise.resolve()
        },
      }),
    ])
    expect(result('a').outcome).toBe('changed')
    expect(tries).toBe(3)
    expect(events.flatMap((event) => (event.type === 'step-progress' ? [event.note] : []))).toEqual([
      'trying again, because it was too busy: etcdserver: request timed out',
      'trying again, because it was too busy: etcdserver: request timed out',
    ])
  })

  test('the runner fails a step when the other side stays too busy until the deadline of its check', async () => {
    const [{ result }, seconds] = await elapsed(() =>
      runSteps([
        stepIn(new Set(), {
          id: 'a',
          apply: () => Promise.reject(new LabError(tooBusy, 'etcdserver: request timed out')),
          checks: [checkOf('check', () => Promise.resolve(no), { within: 1 })],
        }),
      ]),
    )
    expect(result('a')).toMatchObject({ outcome: 'failed', reason: 'etcdserver: request timed out' })
    expect(seconds).toBeGreaterThan(1)
    expect(seconds).toBeLessThan(soon)
  })

  test('the runner reports how long a step took', async () => {
    const world: World = new Set()
    const { report, result } = await runSteps([
      stepIn(world, { id: 'a', apply: async () => void (await delay(200), world.add('a')) }),
    ])
    expect(result('a').seconds).toBeGreaterThan(0.19)
    expect(report.seconds).toBeGreaterThanOrEqual(result('a').seconds)
    expect(report.seconds).toBeLessThan(5)
  })
})

describe('a step that failed', () => {
  test('the runner skips every step that needs a failed one, directly or not, and no other', async () => {
    const world: World = new Set()
    const broken = stepIn(world, { id: 'broken', apply: () => Promise.reject(new Error('broken')) })
    const { outcomes, result, report } = await runSteps([
      broken,
      stepIn(world, { id: 'near', needs: ['broken', 'other'] }),
      stepIn(world, { id: 'far', needs: ['near'] }),
      stepIn(world, { id: 'other' }),
      stepIn(world, { id: 'beside', needs: ['other'] }),
    ])
    expect(outcomes).toEqual({
      broken: 'failed',
      near: 'not-reached',
      far: 'not-reached',
      other: 'changed',
      beside: 'changed',
    })
    expect(result('near')).toMatchObject({ reason: 'needs: Make broken', checks: [], seconds: 0 })
    expect(result('far').reason).toBe('needs: Make near')
    expect(world).toEqual(new Set(['other', 'beside']))
    expect(succeeded(report)).toBe(false)
    expect(report.interrupted).toBe(false)
  })

  test('the runner skips a step that needs a failed one even if its own checks hold', async () => {
    const world: World = new Set(['next'])
    const { outcomes } = await runSteps([
      stepIn(world, { id: 'broken', apply: () => Promise.reject(new Error('broken')) }),
      stepIn(world, { id: 'next', needs: ['broken'] }),
    ])
    expect(outcomes).toEqual({ broken: 'failed', next: 'not-reached' })
  })
})

describe('waiting', () => {
  test('the runner waits until the check holds, and tells what it sees meanwhile', async () => {
    const world: World = new Set()
    let looks = 0
    const { outcomes, events, result } = await runSteps([
      stepIn(world, {
        id: 'a',
        apply: () => Promise.resolve(void setTimeout(() => world.add('a'), 500)),
        checks: [
          checkOf('pods', () => Promise.resolve({ ok: world.has('a'), saw: `look ${String(++looks)}` }), {
            within: 10,
          }),
        ],
      }),
    ])
    expect(outcomes).toEqual({ a: 'changed' })
    const waits = events.flatMap((event) => (event.type === 'step-waiting' ? [event] : []))
    expect(waits.map(({ saw }) => saw)).toEqual(waits.map((_, n) => `look ${String(n + 2)}`))
    expect(waits[0]).toMatchObject({ waitingFor: 'pods is so' })
    expect(result('a').checks).toMatchObject([{ ok: true, saw: `look ${String(looks)}` }])
  })

  test('the runner stops waiting at the deadline, with what was seen last', async () => {
    let looks = 0
    const [{ result, outcomes }, seconds] = await elapsed(() =>
      runSteps([
        stepIn(new Set(), {
          id: 'a',
          checks: [
            checkOf('pods', () => Promise.resolve({ ok: false, saw: `${String(++looks)} of 99 pods` }), {
              within: 0.5,
              hint: 'lab kubectl get pods',
            }),
          ],
        }),
      ]),
    )
    expect(outcomes).toEqual({ a: 'failed' })
    const saw = `${String(looks)} of 99 pods (waited 1 s)`
    expect(result('a')).toMatchObject({ reason: `pods is so: no: ${saw}`, hint: 'lab kubectl get pods' })
    expect(result('a').checks).toMatchObject([{ ok: false, saw }])
    expect(looks).toBeGreaterThan(2)
    expect(seconds).toBeGreaterThan(0.5)
    expect(seconds).toBeLessThan(soon)
  })

  test('the runner starts the deadline when the step was applied, however long that took', async () => {
    const world: World = new Set()
    const { outcomes } = await runSteps([
      stepIn(world, {
        id: 'a',
        apply: async () => {
          await delay(2100)
          setTimeout(() => world.add('a'), 200)
        },
        checks: [checkOf('check', () => Promise.resolve(world.has('a') ? yes : no), { within: 2 })],
      }),
    ])
    expect(outcomes).toEqual({ a: 'changed' })
  })

  test('the runner stops waiting at once when a check says that waiting is of no use', async () => {
    let looks = 0
    const [{ result }, seconds] = await elapsed(() =>
      runSteps([
        stepIn(new Set(), {
          id: 'a',
          checks: [
            checkOf(
              'pod',
              () => Promise.resolve({ ok: false, saw: `crashed ${String(++looks)}`, final: looks > 1 }),
              {
                within: 60,
              },
            ),
          ],
        }),
      ]),
    )
    expect(result('a')).toMatchObject({ outcome: 'failed', reason: 'pod is so: no: crashed 2' })
    expect(seconds).toBeLessThan(soon)
  })

  test('the runner applies a step first, even when its check says that waiting is of no use', async () => {
    const world: World = new Set()
    const { outcomes } = await runSteps([
      stepIn(world, {
        id: 'a',
        checks: [checkOf('pod', () => Promise.resolve(world.has('a') ? yes : { ...no, final: true }))],
      }),
    ])
    expect(outcomes).toEqual({ a: 'changed' })
  })

  test('the runner keeps waiting when a check throws, since it could not ask yet', async () => {
    let looks = 0
    const check = checkOf(
      'api',
      () => (++looks < 4 ? Promise.reject(new Error('connection refused')) : Promise.resolve(yes)),
      { within: 10 },
    )
    const { outcomes, events } = await runSteps([stepIn(new Set(), { id: 'a', checks: [check] })])
    expect(outcomes).toEqual({ a: 'changed' })
    expect(events.find(({ type }) => type === 'step-waiting')).toMatchObject({ saw: 'connection refused' })
  })

  test('the runner ends with the error of a check that throws until the deadline', async () => {
    const check = checkOf('api', () => Promise.reject(new Error('connection refused')), { within: 0.2 })
    const { result } = await runSteps([stepIn(new Set(), { id: 'a', checks: [check] })])
    expect(result('a').reason).toMatch(/^api is so: no: connection refused \(waited 0 s\)$/)
  })

  test('the runner treats a check that throws synchronously like one that rejects', async () => {
    const check = checkOf(
      'api',
      () => {
        throw new Error('thrown at once')
      },
      { within: 0.2 },
    )
    const { result } = await runSteps([stepIn(new Set(), { id: 'a', checks: [check] })])
    expect(result('a').reason).toContain('thrown at once')
  })

  test('the runner multiplies deadlines by the factor of a slow provider', async () => {
    const begun = performance.now()
    const late = checkOf('late', () => Promise.resolve(performance.now() - begun > 1000 ? yes : no), {
      within: 0.2,
    })
    const wish = () => stepIn(new Set(), { id: 'a', checks: [late] })
    expect((await runSteps([wish()], { slowdown: 10 })).outcomes).toEqual({ a: 'changed' })
  })

  test('the runner waits for several checks at the same time, each until its own deadline', async () => {
    const since = performance.now()
    const after = (id: string, seconds: number, within: number): Check =>
      checkOf(id, () => Promise.resolve(performance.now() - since > seconds * 1000 ? yes : no), {
        within,
        hint: `hint of ${id}`,
      })
    const [{ result }, seconds] = await elapsed(() =>
      runSteps([
        stepIn(new Set(), {
          id: 'a',
          checks: [after('one', 0.3, 10), after('never', 99, 0.5), after('two', 0.6, 10)],
        }),
      ]),
    )
    expect(result('a')).toMatchObject({ outcome: 'failed', hint: 'hint of never' })
    expect(result('a').reason).toMatch(/^never is so/)
    expect(result('a').checks.map(({ check, ok }) => [check.id, ok])).toEqual([
      ['one', true],
      ['never', false],
      ['two', true],
    ])
    expect(seconds).toBeLessThan(soon)
  })

  test('the runner never asks a check twice at a time, and pauses between two attempts', async () => {
    let asking = 0
    let most = 0
    const times: number[] = []
    const check = checkOf(
      'slow',
      async () => {
        times.push(performance.now())
        most = Math.max(most, ++asking)
        await delay(50)
        asking--
        return no
      },
      { within: 1 },
    )
    await runSteps([stepIn(new Set(), { id: 'a', checks: [check] })])
    expect(most).toBe(1)
    const pauses = times.slice(2).map((time, n) => time - (times[n + 1] ?? 0))
    // The first check comes soon; a slow step is not checked all the time.
    expect(Math.min(...pauses)).toBeGreaterThan(150)
    expect(pauses.at(-1)).toBeGreaterThan(pauses[0] ?? 0)
  })

  test('the runner pauses before asking again for as long as a slow machine took to answer', async () => {
    const pauses: number[] = []
    let answered = 0
    const check = checkOf(
      'late',
      async () => {
        if (answered > 0) pauses.push(performance.now() - answered)
        await delay(700)
        answered = performance.now()
        return pauses.length === 2 ? yes : no
      },
      { within: 1 },
    )
    await runSteps([stepIn(new Set(), { id: 'a', checks: [check] })], { slowdown: 20 })
    // The one before it reports the check that decides whether there is anything to do.
    expect(pauses[1]).toBeGreaterThan(650)
  })
})

describe('an interruption', () => {
  test('the runner stops trying again when it is interrupted while the other side is too busy', async () => {
    const abort = new AbortController()
    setTimeout(() => {
      abort.abort()
    }, 300)
    const [{ outcomes }, seconds] = await elapsed(() =>
      runSteps(
        [
          stepIn(new Set(), {
            id: 'a',
            apply: () => Promise.reject(new LabError(tooBusy, 'busy')),
            checks: [checkOf('check', () => Promise.resolve(no), { within: 60 })],
          }),
        ],
        { signal: abort.signal },
      ),
    )
    expect(outcomes).toEqual({ a: 'not-reached' })
    expect(seconds).toBeLessThan(soon)
  })

  test('the runner ends an apply that listens to the interruption, and reports it', async () => {
    const abort = new AbortController()
    const world: World = new Set(['before'])
    setTimeout(() => abort.abort(), 100)
    const [{ report, outcomes, result, events }, seconds] = await elapsed(() =>
      runSteps(
        [
          stepIn(world, { id: 'before' }),
          stepIn(world, { id: 'during', apply: ({ signal }) => delay(60_000, undefined, { signal }) }),
          stepIn(world, { id: 'after', needs: ['during'] }),
        ],
        { signal: abort.signal },
      ),
    )
    expect(seconds).toBeLessThan(soon)
    expect(outcomes).toEqual({ before: 'ok', during: 'not-reached', after: 'not-reached' })
    expect(result('during').reason).toBe('interrupted')
    expect(result('after').reason).toBe('interrupted')
    expect(report.interrupted).toBe(true)
    expect(succeeded(report)).toBe(false)
    expect(events.at(-1)).toEqual({ type: 'run-finished', report })
  })

  test('the runner lets an apply finish that does not listen to the interruption', async () => {
    const abort = new AbortController()
    const world: World = new Set()
    setTimeout(() => abort.abort(), 50)
    const { report } = await runSteps(
      [stepIn(world, { id: 'deaf', apply: async () => void (await delay(300), world.add('deaf')) })],
      { signal: abort.signal },
    )
    expect(world.has('deaf')).toBe(true)
    expect(report.interrupted).toBe(true)
  })

  test('the runner ends waiting when it is interrupted', async () => {
    const abort = new AbortController()
    setTimeout(() => abort.abort(), 300)
    const [{ outcomes, report }, seconds] = await elapsed(() =>
      runSteps(
        [
          stepIn(new Set(), {
            id: 'a',
            checks: [checkOf('never', () => Promise.resolve(no), { within: 600 })],
          }),
        ],
        {
          signal: abort.signal,
        },
      ),
    )
    expect(seconds).toBeLessThan(soon)
    expect(outcomes).toEqual({ a: 'not-reached' })
    expect(report.interrupted).toBe(true)
  })

  test('the runner ends a check that never answers when it is interrupted', async () => {
    const abort = new AbortController()
    setTimeout(() => abort.abort(), 100)
    const hangs = checkOf('hangs', () => new Promise<never>(() => undefined), { within: 5 })
    const running = runSteps([stepIn(new Set(), { id: 'a', checks: [hangs] })], { signal: abort.signal })
    const finished = await Promise.race([
      running.then(({ report }) => report.interrupted),
      delay(2000, 'still waiting'),
    ])
    expect(finished).toBe(true)
  })

  test('the runner does nothing when it is interrupted before the first step', async () => {
    const { outcomes, report } = await runSteps(
      [stepIn(new Set(), { id: 'a' }), stepIn(new Set(), { id: 'b' })],
      {
        signal: AbortSignal.abort(),
      },
    )
    expect(outcomes).toEqual({ a: 'not-reached', b: 'not-reached' })
    expect(report.interrupted).toBe(true)
  })

  test('the runner does not apply a step when it is interrupted during the first checks', async () => {
    const abort = new AbortController()
    const world: World = new Set()
    const check = checkOf('check', () => {
      abort.abort()
      return Promise.resolve(no)
    })
    const { outcomes } = await runSteps([stepIn(world, { id: 'a', checks: [check] })], {
      signal: abort.signal,
    })
    expect(outcomes).toEqual({ a: 'not-reached' })
    expect(world.size).toBe(0)
  })
})

describe('checking without applying', () => {
  test('the runner asks every check of every step once, and changes nothing', async () => {
    const world: World = new Set(['a'])
    const asked: string[] = []
    const check = (id: string, ok: boolean): Check =>
      checkOf(id, () => {
        asked.push(id)
        return Promise.resolve(ok ? yes : no)
      })
    const { outcomes, events, report } = await runSteps(
      [
        stepIn(world, { id: 'a', checks: [check('a1', true), check('a2', true)] }),
        stepIn(world, {
          id: 'b',
          checks: [check('b1', false), check('b2', true)],
          apply: () => Promise.reject(new Error()),
        }),
        // A step that it needs is broken, but its own state is still useful.
        stepIn(world, { id: 'c', needs: ['b'], checks: [check('c1', true)] }),
        stepIn(world, { id: 'd', needs: ['c'], checks: [check('d1', false)], apply: undefined }),
      ],
      { mode: 'check' },
    )
    expect(asked.sort()).toEqual(['a1', 'a2', 'b1', 'b2', 'c1', 'd1'])
    expect(outcomes).toEqual({ a: 'ok', b: 'failed', c: 'ok', d: 'failed' })
    expect(events.some(({ type }) => type === 'step-applying' || type === 'step-waiting')).toBe(false)
    expect(report.results.flatMap(({ checks }) => checks)).toHaveLength(6)
    expect(succeeded(report)).toBe(false)
  })

  test('the runner does not wait for a deadline when it only checks', async () => {
    const check = checkOf('never', () => Promise.resolve(no), { within: 600, hint: 'look here' })
    const [{ result }, seconds] = await elapsed(() =>
      runSteps([stepIn(new Set(), { id: 'a', checks: [check] })], { mode: 'check' }),
    )
    expect(seconds).toBeLessThan(soon)
    expect(result('a')).toMatchObject({
      outcome: 'failed',
      reason: 'never is so: no: it is not',
      hint: 'look here',
    })
  })

  test('the runner counts a check that cannot be asked as failed, with the reason', async () => {
    const check = checkOf('api', () => Promise.reject(new Error('connection refused')))
    const { result } = await runSteps([stepIn(new Set(), { id: 'a', checks: [check] })], { mode: 'check' })
    expect(result('a').checks).toMatchObject([{ ok: false, saw: 'connection refused' }])
  })

  test('the runner reports success when every check holds', async () => {
    const world: World = new Set(['a', 'b'])
    const { report } = await runSteps(
      [stepIn(world, { id: 'a' }), stepIn(world, { id: 'b', needs: ['a'] })],
      {
        mode: 'check',
      },
    )
    expect(succeeded(report)).toBe(true)
  })
})

describe('the events of a run', () => {
  test('the runner emits the plan first, every step once, and the report last', async () => {
    const world: World = new Set(['b'])
    const steps = [
      stepIn(world, { id: 'a' }),
      stepIn(world, { id: 'b', needs: ['a'] }),
      stepIn(world, { id: 'c', apply: () => Promise.reject(new Error('broken')) }),
      stepIn(world, { id: 'd', needs: ['c'] }),
    ]
    const { events, report } = await runSteps(steps)
    expect(events[0]).toEqual({ type: 'run-started', plan: { title: 'Test', steps } })
    expect(events.at(-1)).toEqual({ type: 'run-finished', report })
    const finished = events.flatMap((event) => (event.type === 'step-finished' ? [event.result] : []))
    expect(finished.map(({ step }) => step.id).sort()).toEqual(['a', 'b', 'c', 'd'])
    for (const result of finished) expect(report.results).toContain(result)
    expect(report.title).toBe('Test')
    expect(Date.now() - report.started.getTime()).toBeLessThan(60_000)
  })

  test('the runner reports success for a plan without steps', async () => {
    const { report, events } = await runSteps([])
    expect(succeeded(report)).toBe(true)
    expect(events.map(({ type }) => type)).toEqual(['run-started', 'run-finished'])
  })
})
