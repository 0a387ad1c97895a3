/** Trials whose actor is a person, on a fake lab. */
import { setTimeout as delay } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import { noteUndo, readJournal } from '../../src/journal.js'
import { runPage } from '../../src/report/documents.js'
import { runMarkdown } from '../../src/report/markdown.js'
import { runReport } from '../../src/report/run.js'
import { type Exercise, type ExerciseRequest, runExercise } from '../../src/trial/exercise.js'
import type { TrialEvent } from '../../src/trial/trial-event.js'
import { switchingOn } from '../../src/fault/power.js'
import { until } from '../../src/trial/until.js'
import { fakeLab, lab } from './fake-lab.js'

vi.setConfig({ testTimeout: 60_000 })

const requestFor = async (exercise: Partial<Exercise>, options: Parameters<typeof fakeLab>[0] = {}) => {
  const fake = await fakeLab(options)
  const { scenario: _scenario, fencing: _fencing, ...common } = fake.request
  const request: ExerciseRequest = {
    ...common,
    verb: 'learn',
    exercise: {
      name: 'pull-the-plug',
      description: 'A person cuts the power of the database',
      record: true,
      repair: 'lab',
      run: async () => {},
      ...exercise,
    },
  }
  return { ...fake, request }
}

/** The person pulls the plug, as `lab power` does: the undo is written down first. */
const pullThePlug = async ({ context }: ExerciseRequest): Promise<void> => {
  await noteUndo(lab, 'lab power iscsi-ha worker1 off', 'power', [switchingOn.of('worker1', {})], 'hand')
  await context.provider.power?.cut(lab, 'worker1')
}

test('an exercise measures what a person broke, undoes it, reads everything back and passes', async () => {
  const fake = await requestFor({
    run: async (exercise) => {
      await exercise.acted('worker1 lost its power by hand')
      await pullThePlug(fake.request)
      const before = exercise.records.length
      await until(
        () =>
          exercise.records
            .slice(before)
            .some((record) => record.type === 'acknowledged' && record.server.pod === 'mysql-server-b'),
        20_000,
        exercise.context.signal,
      )
      exercise.claim('another server answers', { ok: true, saw: exercise.watch?.server() ?? 'none' })
      exercise.figure('my prediction of the gap', 3000)
      await delay(2500)
    },
  })
  const events: TrialEvent[] = []
  const report = runReport(await runExercise({ ...fake.request, event: (event) => events.push(event) }))
  expect(report.checks.filter(({ outcome }) => outcome !== 'passed')).toEqual([])
  expect(report.verdict).toBe('PASS')
  expect(report.scenario.name).toBe('pull-the-plug')
  expect(report.interrupted).toBe(false)
  const measured = (name: string): number =>
    report.budgets.find((budget) => budget.name === name)?.measured ?? 0
  expect(measured('writeGap')).toBeGreaterThan(1400)
  expect(measured('takeover')).toBeGreaterThan(1400)
  expect(report.budgets.every(({ wanted }) => wanted === null)).toBe(true)
  expect(report.moments.filter(({ ms }) => ms !== null).map(({ name }) => name)).toContain('t6')
  expect(report.events.find(({ type }) => type === 'act')).toMatchObject({ ms: 0, source: 'operator' })
  expect(report.figures).toEqual([{ title: 'my prediction of the gap', ms: 3000, seed: null }])
  expect(report.data?.readBack).toMatchObject({ fromDisk: true })
  expect(fake.state.off.size).toBe(0)
  expect(await readJournal(lab)).toEqual([])
  expect(events.map(({ what }) => what).filter((what) => what !== 'seen')).toEqual([
    ...[
      'started',
      'steady',
      'writing',
      'acted',
      'claimed',
      'healing',
      'healed',
      'steady',
      'read-back',
      'steady',
    ],
    'finished',
  ])
  for (const document of [runMarkdown([report]), runPage([report])]) {
    expect(document).toContain('worker1 lost its power by hand')
    expect(document).toContain('another server answers')
  }
})

test('an exercise that the person has to repair fails when the lab is unhealthy afterwards', async () => {
  const fake = await requestFor({
    record: false,
    repair: 'person',
    run: async (exercise) => {
      await exercise.acted('worker1 lost its power by hand')
      await pullThePlug(fake.request)
      exercise.claim('the lab is repaired', { ok: true, saw: 'the person says so' })
    },
  })
  const report = runReport(await runExercise({ ...fake.request, steadyLimit: 0 }))
  expect(report.verdict).toBe('FAIL')
  expect(report.checks.find(({ group }) => group === 'after')).toMatchObject({
    outcome: 'failed',
    saw: 'off: worker1',
  })
  expect(fake.state.off.size).toBe(1)
  expect(report.data).toBeNull()
  expect(report.moments).toEqual([])
})

test('a claim that could not be asked makes the verdict of an exercise UNKNOWN', async () => {
  const { request } = await requestFor({
    record: false,
    run: async (exercise) => {
      exercise.claim('the node is drained', { ok: undefined, saw: 'kubectl got no answer' })
    },
  })
  const report = runReport(await runExercise(request))
  expect(report.verdict).toBe('UNKNOWN')
  expect(report.checks.find(({ group }) => group === 'claims')).toMatchObject({ outcome: 'unknown' })
})

test('an exercise without claims and records proves nothing', async () => {
  const { request } = await requestFor({ record: false })
  expect(runReport(await runExercise(request)).verdict).toBe('UNKNOWN')
})
