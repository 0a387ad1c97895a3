/** The verdict of `lab watch`, which depends on what a person did, on a fake lab. */
import { expect, test, vi } from 'vitest'
import { shortReport } from '../../src/report/summary.js'
import { runReport } from '../../src/report/run.js'
import type { RunReport } from '../../src/report/schema.js'
import { claimChange } from '../../src/trial/by-hand.js'
import { runExercise } from '../../src/trial/exercise.js'
import { fakeLab } from './fake-lab.js'

vi.setConfig({ testTimeout: 120_000 })

const watch = async (
  record: boolean,
  act: (state: Awaited<ReturnType<typeof fakeLab>>['state']) => readonly string[],
): Promise<RunReport> => {
  const { request, state } = await fakeLab()
  const { scenario: _scenario, fencing: _fencing, ...common } = request
  return runReport(
    await runExercise({
      ...common,
      steadyLimit: 0,
      verb: 'watch',
      exercise: {
        name: 'watch',
        description: 'Changes made by hand',
        record,
        // Nothing could mend the fake lab.
        repair: 'person',
        run: (exercise) => claimChange(exercise, request.plan, act(state)),
      },
    }),
  )
}

const notPassed = ({ checks }: RunReport): readonly string[] =>
  checks.filter(({ outcome }) => outcome !== 'passed').map(({ outcome, title }) => `${outcome}: ${title}`)

for (const record of [true, false])
  test(`a healthy lab ${record ? 'with' : 'without'} a ledger to which nobody did anything proves nothing, and the report says why`, async () => {
    const report = await watch(record, () => [])
    expect(report.verdict).toBe('UNKNOWN')
    expect(notPassed(report)).toEqual(['unknown: somebody changed the lab while it was watched'])
    expect(shortReport(report)).toContain('nothing was seen to change')
  })

test('a change that was seen passes if the lab is healthy afterwards', async () => {
  const report = await watch(false, () => ['power on worker1, by lab power iscsi-ha worker1 off'])
  expect(notPassed(report)).toEqual([])
  expect(report.verdict).toBe('PASS')
})

test('a change that only the checks of the lab can see is seen before it is healed', async () => {
  const report = await watch(false, (state) => {
    state.off.add('worker1')
    return []
  })
  expect(report.checks.find(({ group }) => group === 'claims')).toMatchObject({
    outcome: 'passed',
    saw: expect.stringContaining('off: worker1') as unknown,
  })
})
