/** The end of a run that brings a lab up: everything that it has made holds at one moment. */
import { expect, test } from 'vitest'
import { confirmed } from '../../src/lifecycle/bring-up.js'
import { runPlan, succeeded } from '../../src/plan/runner.js'
import type { Plan, Step } from '../../src/context.js'
import type { Session } from '../../src/session.js'

const session = { lab: { name: 'iscsi' }, signal: new AbortController().signal } as unknown as Session

/** A step that is done once it was applied; `after` are the answers of its check from then on. */
const stepWith = (done: boolean, after: readonly boolean[]): { step: Step; asked: () => number } => {
  let [isDone, answered] = [done, 0]
  return {
    asked: () => answered,
    step: {
      id: 'serve',
      title: 'Serve the API',
      phase: 'test',
      needs: [],
      apply: () => Promise.resolve(void (isDone = true)),
      checks: [
        {
          id: 'api',
          title: 'the API server is ready',
          within: 5,
          probe: () => {
            const ok = isDone && (after[answered++] ?? true)
            return Promise.resolve({ ok, saw: ok ? 'ok' : 'not ready: etcd-readiness' })
          },
        },
      ],
    },
  }
}

const bring = async (step: Step) => {
  const plan: Plan = { title: 'Bring up', steps: [step] }
  const report = await runPlan(plan, 'apply', session, () => undefined)
  return confirmed(report, plan, session, () => undefined)
}

test('a lab is not called up while its API server, which was ready before, is not ready', async () => {
  // The first answer is that of its step: afterwards it fails twice.
  const { step } = stepWith(false, [true, false, false])
  const report = await bring(step)
  expect(succeeded(report)).toBe(true)
  expect(report.results.map(({ step: { id }, outcome }) => [id, outcome])).toEqual([
    ['serve', 'changed'],
    ['hold-together', 'ok'],
  ])
  expect(report.results[1]?.checks[0]?.saw).toContain(
    'the API server is ready: no: not ready: etcd-readiness',
  )
})

test('a lab that needed no change is not asked twice', async () => {
  const { step, asked } = stepWith(true, [])
  const report = await bring(step)
  expect(report.results).toHaveLength(1)
  expect(asked()).toBe(1)
})
