/** The last look at a lab that was brought up: everything must hold at one moment. */
import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { runPlan, succeeded } from '../../src/plan/runner.js'
import { together } from '../../src/plan/together.js'
import type { Check, Plan, Report, Step, Surroundings, Verdict } from '../../src/plan/step.js'

const yes: Verdict = { ok: true, saw: 'it is' }
const no: Verdict = { ok: false, saw: 'it is not' }

const step = (
  id: string,
  probe: () => Verdict,
  rest: Partial<Check<Surroundings>> = {},
): Step<Surroundings> => ({
  id,
  title: `Make ${id}`,
  phase: 'test',
  needs: [],
  checks: [{ id, title: `${id} is so`, within: 5, ...rest, probe: () => Promise.resolve(probe()) }],
})

const confirm = (...steps: readonly Step<Surroundings>[]): Promise<Report> => {
  const plan: Plan<Surroundings> = { title: 'Test', steps }
  const { signal } = new AbortController()
  return runPlan(together(plan, 'Check all', 'lab verify test'), 'apply', { signal }, () => undefined)
}

const sawIn = ({ results }: Report): string => results[0]?.checks[0]?.saw ?? ''

test('the last look says that all checks hold at one moment, with their number', async () => {
  const report = await confirm(
    step('a', () => yes),
    step('b', () => yes),
  )
  expect(succeeded(report)).toBe(true)
  expect(sawIn(report)).toBe('all 2')
})

test('the last look waits until an API server that was ready earlier in the run is ready again, and keeps what it saw', async () => {
  let asked = 0
  const report = await confirm(
    step('api', () => (++asked < 3 ? { ok: false, saw: 'not ready: etcd' } : yes)),
    step('node', () => yes),
  )
  expect(succeeded(report)).toBe(true)
  expect(sawIn(report)).toMatch(/^all 2, but not \d\.\d s after the run: api is so: no: not ready: etcd$/)
})

test('the last look does not accept two checks that hold only one after the other', async () => {
  let round = 0
  const report = await confirm(
    step('a', () => (++round % 2 === 1 || round > 4 ? yes : no)),
    step('b', () => (round % 2 === 0 || round > 4 ? yes : no)),
  )
  expect(succeeded(report)).toBe(true)
  expect(round).toBe(5)
})

test('the last look asks few of many checks at the same time, so the machines can do their work meanwhile', async () => {
  let [running, most, asked] = [0, 0, 0]
  const steps = Array.from({ length: 50 }, (_, index) => step(String(index), () => yes)).map((each) => ({
    ...each,
    checks: [
      {
        ...each.checks[0],
        probe: async () => {
          asked += 1
          most = Math.max(most, ++running)
          await delay(1)
          running -= 1
          return yes
        },
      },
    ] as const,
  }))
  expect(succeeded(await confirm(...steps))).toBe(true)
  expect([asked, most]).toEqual([50, 8])
})

test('the last look ends at once when a check says that waiting is of no use', async () => {
  const report = await confirm(
    step('a', () => yes),
    step('disk', () => ({ ok: false, saw: '0 MiB free', final: true })),
  )
  expect(report.results[0]).toMatchObject({
    outcome: 'failed',
    reason: 'all 2 checks hold at one moment: no: disk is so: no: 0 MiB free',
    hint: 'lab verify test',
  })
})

test('the last look names the first three checks that fail, and counts the others', async () => {
  const report = await confirm(
    ...['a', 'b', 'c', 'd', 'e'].map((id) => step(id, () => ({ ...no, final: true }))),
  )
  expect(sawIn(report)).toBe(
    'a is so: no: it is not; b is so: no: it is not; c is so: no: it is not; and 2 more',
  )
})
