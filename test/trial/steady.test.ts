import { setTimeout as delay } from 'node:timers/promises'
import { expect, it } from 'vitest'
import type { Context } from '../../src/context.js'
import { steadyDeadline, steadyState } from '../../src/trial/steady.js'
import { planWith } from '../helpers/plan.js'

/** A lab in which one check fails this many times. */
const labThat = (saysNo: number) => {
  let asked = 0
  const abort = new AbortController()
  const context = { signal: abort.signal, provider: {} } as unknown as Context
  const plan = planWith({
    checks: [
      {
        id: 'node',
        title: 'the node is ready',
        probe: async () => Promise.resolve({ ok: true, saw: 'Ready' }),
      },
      {
        id: 'api',
        title: 'the API server is ready',
        machine: 'master',
        probe: async () => {
          const ok = asked++ >= saysNo
          return Promise.resolve({ ok, saw: ok ? 'ok' : 'etcd: not ready' })
        },
      },
    ],
  })
  return { context, plan, abort }
}

it('the lab is steady when a check that failed once passes the next time, and both results are kept', async () => {
  const { context, plan } = labThat(1)
  const { ok, checks, looks } = await steadyState(plan, 'after', context, 10_000)
  expect(ok).toBe(true)
  expect(checks).toEqual([
    { when: 'after', title: 'the node is ready', machine: undefined, ok: true, saw: 'Ready' },
    { when: 'after', title: 'the API server is ready', machine: 'master', ok: true, saw: 'ok' },
  ])
  expect(looks.map(({ when, no }) => [when, no])).toEqual([
    ['after', [{ title: 'the API server is ready', machine: 'master', saw: 'etcd: not ready' }]],
    ['after', []],
  ])
  expect(looks[0]?.ms).toBeLessThan(100)
  expect(looks[1]?.ms).toBeGreaterThanOrEqual(500)
})

it('the lab is not steady when an API server stays unready until the time is over', async () => {
  const { context, plan } = labThat(Infinity)
  const { ok, checks, looks } = await steadyState(plan, 'after', context, 1200)
  expect(ok).toBe(false)
  expect(checks.filter((check) => !check.ok).map(({ saw }) => saw)).toEqual(['etcd: not ready'])
  expect(looks.length).toBeGreaterThan(1)
  expect(looks.every(({ no }) => no.length === 1)).toBe(true)
})

it('few of many checks are asked at the same time, so the database can answer meanwhile', async () => {
  let [running, most] = [0, 0]
  const [first, ...others] = Array.from({ length: 50 }, (_, index) => ({
    id: String(index),
    title: `check ${String(index)}`,
    probe: async () => {
      most = Math.max(most, ++running)
      await delay(1)
      running -= 1
      return { ok: true, saw: 'yes' }
    },
  }))
  const { ok, checks } = await steadyState(
    planWith({ checks: [first!, ...others] }),
    'after',
    labThat(0).context,
    10_000,
  )
  expect([ok, checks.length, most]).toEqual([true, 50, 8])
})

it('after a round of slow checks, half of its time passes before the next round', async () => {
  const { context, plan } = labThat(1)
  const slow = {
    ...plan,
    steps: plan.steps.map((step) => ({
      ...step,
      checks: step.checks.map((check) => ({
        ...check,
        probe: async (around: Context) => {
          await delay(1400)
          return check.probe(around)
        },
      })),
    })),
  } as unknown as typeof plan
  const { ok, looks } = await steadyState(slow, 'after', context, 10_000)
  expect(ok).toBe(true)
  expect(looks[1]?.ms).toBeGreaterThanOrEqual(1400 + 700)
})

it('the check runs once when no time is given, and for a minute by default', async () => {
  const { context, plan } = labThat(1)
  expect((await steadyState(plan, 'before', context, 0)).looks).toHaveLength(1)
  expect(steadyDeadline).toBe(60)
})

it('the lab is not steady when the check is interrupted', async () => {
  const { context, plan, abort } = labThat(Infinity)
  setTimeout(() => {
    abort.abort()
  }, 700)
  expect((await steadyState(plan, 'before', context, 60_000)).ok).toBe(false)
})
