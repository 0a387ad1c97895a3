/** How the runner waits, and how it is interrupted. */
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { LabError, tooBusy } from '../../src/error.js'
import { succeeded } from '../../src/plan/runner.js'
import type { Check } from '../../src/context.js'
import { type World, checkOf, elapsed, no, runSteps, soon, stepIn, yes } from './wishes.js'

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
