/**
 * A fault and an experiment are each one new file and one line in a list: this test adds both lines, a lab file names
 * them, and they run.
 */
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, expect, test, vi } from 'vitest'
import type { Context } from '../../src/context.js'
import { noteUndo, readJournal } from '../../src/journal.js'
import type { FaultSpec } from '../../src/lab/fault-spec.js'
import { jsonSchema, parseLab, readLab, registry } from '../../src/registry.js'
import { runReport } from '../../src/report/run.js'
import { pathsOf } from '../../src/state.js'
import { runExperiment } from '../../src/trial/experiment.js'
import { undoAll } from '../../src/trial/undo.js'
import { temporaryFolder } from '../helpers/folder.js'
import { planWith } from '../helpers/plan.js'
import { cooling } from './cooling.js'
import { startingFan, still } from './fan-failure.js'

vi.mock('../../src/fault/faults.js', async (original) => {
  const { faults }: typeof import('../../src/fault/faults.js') = await original()
  return { faults: [...faults, (await import('./fan-failure.js')).fanFailure] }
})
vi.mock('../../src/course/experiments.js', async (original) => {
  const { experiments }: typeof import('../../src/course/experiments.js') = await original()
  return { experiments: [...experiments, (await import('./cooling.js')).cooling] }
})

const { lab: shipped } = await readLab('deployment')
const text = (await readFile(shipped.file, 'utf8')).replace('experiments: [', 'experiments: [cooling, ')
const withScenario = `${text}
scenarios:
  - name: hot
    inject: [{ fault: fan-failure, machine: worker1, fan: 2, for: 5s }]
`
const lab = parseLab(withScenario, shipped.file)

const context = {
  lab,
  signal: new AbortController().signal,
  kubectl: {
    run: () => Promise.resolve(''),
    get: () => Promise.resolve({}),
    follow: () => Promise.resolve(),
  },
  provider: {
    name: 'uml',
    states: () => Promise.resolve(lab.machines.map(({ name }) => ({ name, status: 'running', detail: '' }))),
  },
} as unknown as Context

const plan = planWith({
  checks: [{ id: 'well', title: 'it is well', probe: () => Promise.resolve({ ok: true, saw: 'yes' }) }],
})

beforeEach(async () => {
  vi.stubEnv('LAB_STATE', await temporaryFolder())
  await mkdir(pathsOf(lab).root, { recursive: true })
  still.clear()
})

test('a lab file may name a fault and an experiment from a registry of its own', () => {
  expect(lab.scenarios[0]?.inject).toEqual([{ fault: 'fan-failure', machine: 'worker1', fan: 2, for: 5000 }])
  expect(lab.experiments[0]).toEqual({ name: 'cooling', description: cooling.description })
  expect(JSON.stringify(jsonSchema())).toContain('Stops a fan of a machine.')
})

test('the type of a fault knows the fields of an added one, and no others', () => {
  const known: FaultSpec = { fault: 'fan-failure', machine: 'worker1', fan: 2 }
  // @ts-expect-error -- a fan has a number
  const wrongField: FaultSpec = { fault: 'fan-failure', machine: 'worker1', fan: 'two' }
  // @ts-expect-error -- no record of a fault has this name
  const unknown: FaultSpec = { fault: 'fan-fire', machine: 'worker1' }
  expect([known, wrongField, unknown]).toHaveLength(3)
})

test('the rules for a lab file follow from the record of a fault', () => {
  const read = (inject: string): unknown =>
    parseLab(withScenario.replace(/inject: .*/, `inject: [${inject}]`), shipped.file)
  expect(() => read('{ fault: fan-failure, machine: master, fan: 1 }')).toThrow('only workers have fans')
  expect(() => read('{ fault: fan-failure, machine: worker1, fan: two }')).toThrow('the number of a fan')
  expect(() => read('{ fault: fan-failure, machine: worker1, fam: 1 }')).toThrow('fan')
})

test('the engine runs an added experiment with an added fault and undoes the fault', async () => {
  const facts = await runExperiment({
    registry,
    experiment: cooling,
    context,
    healer: context,
    plan,
    versions: {},
    steadyLimit: 0,
    ledgerPath: join(await temporaryFolder(), 'ledger.ndjson'),
    notice: () => undefined,
    event: () => undefined,
    save: () => Promise.resolve(),
  })
  const report = runReport(facts)
  expect(report.checks.filter(({ outcome }) => outcome !== 'passed')).toEqual([])
  expect(report).toMatchObject({ verdict: 'PASS', scenario: { name: 'cooling' } })
  expect(report.faults).toMatchObject([
    { fault: 'fan-failure', detail: 'fan 2 of worker1 stopped', acting: { ok: true }, gone: { ok: true } },
  ])
  expect(still.size).toBe(0)
})

test('an added fault that a killed run left is undone from the journal', async () => {
  still.add('worker1')
  await noteUndo(lab, 'lab run', 'fan-failure', [startingFan.of('worker1', { fan: 2 })])
  expect(await undoAll(context, registry)).toEqual([])
  expect(still.size).toBe(0)
  expect(await readJournal(lab)).toEqual([])
})
