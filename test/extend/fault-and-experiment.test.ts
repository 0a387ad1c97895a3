/** A fault and an experiment that this program does not have, each one record: a lab file names them, and they run. */
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, expect, test, vi } from 'vitest'
import { z } from 'zod'
import type { Context } from '../../src/context.js'
import { faultOfMachine } from '../../src/fault/fault.js'
import { undoAct } from '../../src/fault/undo-act.js'
import { noteUndo, readJournal } from '../../src/journal.js'
import { lasting, where } from '../../src/lab/fault-machines.js'
import type { FaultSpec } from '../../src/lab/fault-spec.js'
import { readLab } from '../../src/lab/load.js'
import { parseLab } from '../../src/lab/parse.js'
import { jsonSchema } from '../../src/lab/schema.js'
import { registry as known } from '../../src/registry.js'
import { runReport } from '../../src/report/run.js'
import { pathsOf } from '../../src/state.js'
import type { Experiment } from '../../src/trial/experiment-context.js'
import { runExperiment } from '../../src/trial/experiment.js'
import type { Registry } from '../../src/trial/registry.js'
import { undoAll } from '../../src/trial/undo.js'
import { temporaryFolder } from '../helpers/folder.js'
import { planWith } from '../helpers/plan.js'

/** The fans that are stopped in this world. */
const still = new Set<string>()

const startingFan = undoAct('start-fan', { fan: z.int() }, (_context, { machine }) => {
  still.delete(machine)
  return Promise.resolve()
})

const fields = {
  machine: where(),
  fan: z.int({ error: 'the number of a fan' }).meta({ description: 'Which fan.' }),
  for: lasting,
}

declare module '../../src/lab/fault-spec.js' {
  interface FaultFields {
    'fan-failure': typeof fields
  }
}

const fanFailure = faultOfMachine({
  name: 'fan-failure',
  description: 'Stops a fan of a machine. Healed by starting it.',
  fields,
  sensible: [['worker'], 'only workers have fans'],
  undos: [startingFan],
  aim: ({ on, names, spec, undo, each }) => ({
    detail: `fan ${String(spec.fan)} of ${names} stopped`,
    undo: undo((machine) => startingFan.of(machine, { fan: spec.fan })),
    act: () => each(({ name }) => Promise.resolve(still.add(name))),
    acting: {
      title: `the fan of ${names} stands still`,
      within: 1,
      probe: () => Promise.resolve({ ok: on.every((name) => still.has(name)), saw: [...still].join() }),
    },
    gone: {
      title: `the fan of ${names} turns`,
      within: 1,
      probe: () => Promise.resolve({ ok: on.every((name) => !still.has(name)), saw: [...still].join() }),
    },
  }),
})

const cooling: Experiment = {
  name: 'cooling',
  description: 'A worker stays cool while its fan stands still',
  workers: 1,
  run: async (context) => {
    await context.fault({ fault: 'fan-failure', machine: 'worker1', fan: 2 })
    context.claim('the worker is cool', { ok: still.has('worker1'), saw: '40 °C' })
  },
}

const registry: Registry = {
  faults: [...known.faults, fanFailure],
  experiments: [...known.experiments, cooling],
}

const { lab: shipped } = await readLab('deployment', registry)
const text = (await readFile(shipped.file, 'utf8')).replace('experiments: [', 'experiments: [cooling, ')
const withScenario = `${text}
scenarios:
  - name: hot
    inject: [{ fault: fan-failure, machine: worker1, fan: 2, for: 5s }]
`
const lab = parseLab(withScenario, shipped.file, registry)

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
  expect(JSON.stringify(jsonSchema(registry))).toContain('Stops a fan of a machine.')
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
    parseLab(withScenario.replace(/inject: .*/, `inject: [${inject}]`), shipped.file, registry)
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
