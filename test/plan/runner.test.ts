import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { LabError, tooBusy } from '../../src/error.js'
import { CommandError } from '../../src/machine/machine.js'
import { succeeded } from '../../src/plan/runner.js'
import type { Check, Step } from '../../src/context.js'
import type { RunEvent } from '../../src/plan/step.js'
import { type World, checkOf, elapsed, no, runSteps, soon, stepIn, yes } from './wishes.js'

/** `started a`, `finished a`: the events, in the order in which they were reported. */
const story = (events: readonly RunEvent[]): readonly string[] =>
  events.flatMap((event) => {
    if (event.type === 'step-finished') return [`finished ${event.result.step.id}`]
    return 'step' in event ? [`${event.type.replace('step-', '')} ${event.step.id}`] : []
  })

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
    expect(result('a')).toMatchObject({
      outcome: 'failed',
      failedBy: 'error',
      reason: 'the disk is full',
      hint: 'df -h',
    })
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
      failedBy: 'check',
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
