/** Plans as lists: what is left out, in which order steps come, and the reverse. */
import { describe, expect, test } from 'vitest'
import { backwards, inTurn, leftOutLines, planOf } from '../../src/plan/plan.js'
import { runPlan } from '../../src/plan/runner.js'
import type { Step, Surroundings } from '../../src/plan/step.js'

type AnyStep = Step<Surroundings>

/** The place where steps put what they make; a step whose name is in `broken` cannot be undone. */
const stepsIn = (world: Set<string>, broken: readonly string[] = []) => {
  const order: string[] = []
  const step = (id: string, needs: readonly string[] = [], rest: Partial<AnyStep> = {}): AnyStep => ({
    id,
    title: `Make ${id}`,
    phase: 'test',
    needs,
    apply: () => Promise.resolve(void world.add(id)),
    checks: [
      {
        id: `${id}-there`,
        title: `${id} is there`,
        probe: () => Promise.resolve({ ok: world.has(id), saw: '' }),
      },
    ],
    undo: {
      title: `Take ${id} away`,
      apply: () => {
        order.push(id)
        if (broken.includes(id)) return Promise.reject(new Error(`${id} is stuck`))
        return Promise.resolve(void world.delete(id))
      },
      gone: {
        id: `${id}-gone`,
        title: `${id} is gone`,
        within: 0,
        probe: () => Promise.resolve({ ok: !world.has(id), saw: '' }),
      },
    },
    ...rest,
  })
  return { step, order }
}

const signal = new AbortController().signal
const undo = (plan: Parameters<typeof backwards<Surroundings>>[0], abort = signal) =>
  runPlan(backwards(plan), 'undo', { signal: abort }, () => undefined)

describe('undoing a plan', () => {
  test('undoing a plan undoes the last step first, and only what exists', async () => {
    const world = new Set(['a', 'b', 'd'])
    const { step, order } = stepsIn(world)
    const plan = planOf('it', [step('a'), step('b', ['a']), step('c', ['b']), step('d', ['c'])])
    const { results } = await undo(plan)
    expect(order).toEqual(['d', 'b', 'a'])
    expect(results.map(({ step: { id }, outcome }) => `${id} ${outcome}`)).toEqual([
      'd changed',
      'c ok',
      'b changed',
      'a changed',
    ])
    expect(world.size).toBe(0)
  })

  test('undoing a plan keeps the order across a step without an undo', async () => {
    const world = new Set(['a', 'c'])
    const { step, order } = stepsIn(world)
    const { undo: none, ...bare } = step('b', ['a'])
    expect(none).toBeDefined()
    const plan = backwards(planOf('it', [step('a'), bare, step('c', ['b'])]))
    expect(plan.steps.map(({ id, needs }) => [id, needs])).toEqual([
      ['c', []],
      ['a', ['c']],
    ])
    await runPlan(plan, 'undo', { signal }, () => undefined)
    expect(order).toEqual(['c', 'a'])
  })

  test('undoing a plan continues when one undo fails, and collects the errors', async () => {
    const { step } = stepsIn(new Set(['a', 'b', 'c']), ['c', 'b'])
    const { results } = await undo(planOf('it', [step('a'), step('b', ['a']), step('c', ['b'])]))
    expect(results.map(({ outcome, reason }) => reason ?? outcome)).toEqual([
      'c is stuck',
      'b is stuck',
      'changed',
    ])
  })

  test('undoing a plan stops when it is interrupted', async () => {
    const world = new Set(['a', 'b'])
    const { step } = stepsIn(world)
    const abort = new AbortController()
    const last = step('b', ['a'])
    const interrupting: AnyStep = {
      ...last,
      undo: {
        ...last.undo!,
        apply: () => {
          abort.abort()
          return Promise.resolve()
        },
      },
    }
    const report = await undo(planOf('it', [step('a'), interrupting]), abort.signal)
    expect(report.interrupted).toBe(true)
    expect(report.results.map(({ outcome }) => outcome)).toEqual(['not-reached', 'not-reached'])
    expect(world.has('a')).toBe(true)
  })
})

describe('leaving steps out of a plan', () => {
  const { step } = stepsIn(new Set())

  test('leaving steps out of a plan keeps steps whose needs exist without the steps that were left out', () => {
    const plan = planOf('it', [
      step('a', [], { leftOut: { why: 'it is yours', given: true } }),
      step('b', ['a']),
    ])
    expect(plan.steps.map(({ id, needs }) => [id, needs])).toEqual([['b', []]])
    expect(leftOutLines(plan)).toEqual(['it is yours: left out: Make a'])
  })

  test('leaving steps out of a plan leaves out every step that needs one that was left out, for the same reason', () => {
    const plan = planOf('it', [
      step('c', ['b']),
      step('a', [], { leftOut: { why: 'it has none', given: false } }),
      step('b', ['a']),
      step('d'),
    ])
    expect(plan.steps.map(({ id }) => id)).toEqual(['d'])
    expect(leftOutLines(plan)).toEqual(['it has none: left out: Make c, Make a, Make b'])
  })

  test('a plan keeps groups in sequence across an empty group', () => {
    const steps = inTurn([step('a'), step('b')], [], [step('c', ['x'])])
    expect(steps.map(({ needs }) => needs)).toEqual([[], [], ['a', 'b']])
  })
})
