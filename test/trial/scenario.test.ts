/** A whole run with a fake lab: its database, its watches and its provider are stand-ins. */
import { appendFile, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, test, vi } from 'vitest'
import type { Plan } from '../../src/context.js'
import type { RunReport } from '../../src/report/schema.js'
import { runReport } from '../../src/report/run.js'
import { runScenario } from '../../src/trial/scenario.js'
import type { TrialEvent } from '../../src/trial/trial-event.js'
import { readJournal } from '../../src/journal.js'
import { cleanUp, fakeLab, lab, scenarioNamed } from './fake-lab.js'

vi.setConfig({ testTimeout: 60_000 })

test('a power cut with a takeover passes with every moment recorded, and leaves nothing behind', async () => {
  const { state, folder, request, saved } = await fakeLab()
  const report = runReport(await runScenario(request))
  expect(report.checks.filter(({ outcome }) => outcome !== 'passed')).toEqual([])
  expect(report.verdict).toBe('PASS')
  const seen = report.moments.filter(({ ms }) => ms !== null).map(({ name }) => name)
  expect(seen).toEqual(['t0', 't1', 't2', 't3', 't4', 't5', 't6'])
  const gap = report.budgets.find(({ name }) => name === 'writeGap')?.measured ?? 0
  expect(gap).toBeGreaterThan(1400)
  expect(gap).toBeLessThan(6000)
  expect(report.interrupted).toBe(false)
  expect(report.data?.tally.file.acknowledged).toBeGreaterThan(50)
  expect(report.data?.gaps.map(({ client }) => client).sort()).toEqual([
    'file-reader',
    'file-writer',
    'reader-1',
    'writer-1',
    'writer-2',
  ])
  expect(
    report.events.filter(({ type }) => type === 'container-running').map(({ detail }) => detail),
  ).toEqual(['container of mysql-server-b has been running since 2026-11-21T10:00:00Z'])
  expect(report.faults[0]?.acting).toMatchObject({ ok: true, saw: 'worker1: stopped' })
  expect(report.faults[0]?.gone).toMatchObject({ ok: true, saw: 'worker1: boot boot-2, before boot-1' })
  expect(report.recovery?.by).toBe('itself')
  expect(report.looks.map(({ when, no }) => [when, no])).toEqual([
    ['before', []],
    ['after', []],
    ['after', []],
  ])
  // The server was stopped before its rows were read, and one runs again.
  expect(state.scaled).toEqual([0, 1])
  expect(report.data?.readBack).toMatchObject({ fromDisk: true })
  // There were no findings, so nothing is kept.
  expect(await readdir(folder)).toEqual([])
  // The intermediate report says that it is not complete.
  expect(saved[0]?.interrupted).toBe(true)
  expect(state.off.size).toBe(0)
  expect(await readJournal(lab)).toEqual([])
  expect(await readFile(request.ledgerPath, 'utf8')).toContain('"mark":"fault"')
})

test('a run reports every moment of its trial as data, with the fault, its machines and the result', async () => {
  const { request } = await fakeLab()
  const events: TrialEvent[] = []
  await runScenario({ ...request, event: (event) => events.push(event) })
  const told = events.filter(({ what }) => what !== 'seen')
  expect(told.map(({ what, ok }) => [what, ok])).toEqual([
    ['started', null],
    ['steady', true],
    ['writing', null],
    ['fault-started', null],
    ['fault-acting', true],
    ['recovered', true],
    ['fault-undone', null],
    ['healing', null],
    ['healed', null],
    ['fault-gone', true],
    ['steady', true],
    ['read-back', true],
    ['steady', true],
    ['finished', true],
  ])
  for (const event of told.filter(({ what }) => what.startsWith('fault-')))
    expect(event).toMatchObject({ trial: 'power-cut', fault: 'power-cut', machines: ['worker1'] })
  expect(events.filter(({ what }) => what === 'seen').map(({ detail }) => detail)).toContain(
    'node-not-ready: node worker1: Ready is Unknown, NodeStatusUnknown',
  )
  const times = events.map(({ ms }) => ms)
  expect(times).toEqual([...times].sort((a, b) => a - b))
})

test('a row that was changed by hand is CORRUPT, and a missing one is LOST', async () => {
  const { database, request } = await fakeLab()
  const healing = request.save
  const running = runScenario({
    ...request,
    save: async (facts) => {
      await healing(facts)
      const [first] = database.rows
      if (!first || !facts.checks.some(({ when }) => when === 'before')) return
      first.content = 'something else'
      database.rows.splice(1, 1)
    },
  })
  const report = runReport(await running)
  expect(report.data?.findings.map(({ kind }) => kind).sort()).toEqual(['CORRUPT', 'LOST'])
  expect(report.verdict).toBe('FAIL')
})

test('a line that was changed by hand is CORRUPT, a missing one is LOST, and the file is kept', async () => {
  const { folder, request } = await fakeLab()
  const save = request.save
  const running = runScenario({
    ...request,
    save: async (facts) => {
      await save(facts)
      const [file] = await readdir(folder)
      if (file === undefined || facts.faults.length === 0) return
      const [, changed = '', ...rest] = (await readFile(join(folder, file), 'utf8')).split('\n')
      await writeFile(join(folder, file), [changed.replace(/.$/, '!'), ...rest].join('\n'))
    },
  })
  const report = runReport(await running)
  expect(report.data?.findings.map(({ kind, medium }) => `${kind} ${medium}`).sort()).toEqual([
    'CORRUPT file',
    'LOST file',
  ])
  expect(report.verdict).toBe('FAIL')
  expect(await readdir(folder)).toHaveLength(1)
})

test('data that cannot be read back is UNKNOWN with a reason, and not a crash', async () => {
  const { state, request } = await fakeLab({ slowdown: 0.2 })
  const said: string[] = []
  const { kubectl } = request.healer
  const ask = kubectl.run.bind(kubectl)
  Object.assign(kubectl, {
    run: async (...given: Parameters<typeof ask>) => {
      // The lab is healthy, but after its database was stopped, no server answers any more.
      if (given[0][0] === 'scale') {
        state.mood = 'refuses'
        state.ledgerPort = undefined
      }
      return ask(...given)
    },
  })
  const running = runScenario({ ...request, notice: (text) => said.push(text) })
  const report = runReport(await running)
  expect(report.verdict).toBe('UNKNOWN')
  expect(report.interrupted).toBe(false)
  expect(report.data?.findings).toEqual([])
  expect(report.data?.unknown).toEqual([
    'the database could not be read back',
    'the file could not be read back',
  ])
  expect(said).toContain('the database could not be read back: disk full')
  expect(said).toContain('the file could not be read back: no answer')
})

test('Ctrl-C during a fault heals the lab, and the report says that the run was interrupted', async () => {
  const { state, request, saved, abort } = await fakeLab()
  const running = runScenario(request)
  const begun = vi.waitFor(() => expect(state.off.has('worker1')).toBe(true), { timeout: 20_000 })
  await begun
  abort.abort()
  await expect(running).rejects.toThrow('interrupted')
  expect(state.off.size).toBe(0)
  expect(await readJournal(lab)).toEqual([])
  const last = saved.at(-1)!
  expect(last.interrupted).toBe(true)
  expect(runReport(last).verdict).not.toBe('PASS')
})

test('an unhealthy lab gives UNKNOWN and is not broken further', async () => {
  const { request } = await fakeLab({ slowdown: 0.05 })
  const [step] = request.plan.steps
  const unwell: Plan = {
    title: '',
    steps: [
      {
        ...step!,
        checks: [{ id: 'x', title: 'all is well', probe: async () => ({ ok: false, saw: 'no' }) }],
      },
    ],
  }
  const report = runReport(await runScenario({ ...request, plan: unwell }))
  expect(report.verdict).toBe('UNKNOWN')
  expect(report.faults).toEqual([])
})

test('a lab that is off is refused, and so is a fault that the provider does not support', async () => {
  const { state, request, saved } = await fakeLab()
  await expect(runScenario({ ...request, scenario: scenarioNamed('hang') })).rejects.toThrow(
    'uml cannot pause a machine',
  )
  state.off.add('worker2')
  await expect(runScenario(request)).rejects.toThrow('iscsi-ha: not running: worker2')
  expect(saved).toEqual([])
})

test('with --fence, a node is tainted only after the provider confirms that it is off', async () => {
  const { state, request } = await fakeLab({ moveAfter: 4000 })
  const report = runReport(await runScenario({ ...request, fencing: { by: 'run', method: 'power' } }))
  expect(state.taints[0]).toContain('node.kubernetes.io/out-of-service')
  expect(report.fencing).toBe('power')
  expect(report.events.map(({ type }) => type)).toContain('node-fenced')
  expect(state.off.size).toBe(0)
  expect(await readJournal(lab)).toEqual([])
})

/** Without a limit, only recovery can decide. */
const bare = { ...scenarioNamed('power-cut'), expect: {}, deadline: 8000 }
const complaintsOf = (report: RunReport): readonly string[] =>
  report.checks
    .filter(({ outcome }) => outcome !== 'passed')
    .map(({ title, outcome }) => `${outcome}: ${title}`)
const byItself = 'failed: the lab recovers by itself: writes are answered before lab heals anything'

describe('the verdict of a run without success', () => {
  it('the verdict is FAIL when the lab recovers only because lab heals it, though nothing is lost', async () => {
    const { request } = await fakeLab({ moveAfter: Infinity, healed: 'answers', slowdown: 0.1 })
    const report = runReport(await runScenario({ ...request, scenario: bare }))
    expect(report.verdict).toBe('FAIL')
    expect(complaintsOf(report)).toContain(byItself)
    expect(report.recovery).toEqual({ by: 'heal', ms: null })
    expect(report.data?.findings).toEqual([])
  })

  it('the verdict is PASS for the same lab when the scenario says that the fault lasts until the deadline', async () => {
    const { request } = await fakeLab({ moveAfter: Infinity, healed: 'answers', slowdown: 0.3 })
    const scenario = { ...bare, heal: 'deadline' as const, deadline: 3000 }
    const report = runReport(await runScenario({ ...request, scenario }))
    expect(complaintsOf(report)).toEqual([])
    expect(report.recovery).toEqual({ by: 'heal', ms: null })
  })

  it('the verdict is FAIL when the lab never recovers, not even after the heal', async () => {
    const { request } = await fakeLab({ moveAfter: Infinity, healed: 'is silent', slowdown: 0.05 })
    const report = runReport(await runScenario({ ...request, scenario: bare }))
    expect(report.verdict).toBe('FAIL')
    expect(complaintsOf(report)).toEqual(
      expect.arrayContaining([byItself, 'failed: after the faults were undone, writes are answered']),
    )
    expect(report.recovery).toEqual({ by: null, ms: null })
  })

  it.each([
    { exitCode: 0, saw: 'worker1: still boot boot-1' },
    { exitCode: 1, saw: 'systemctl reboot: exit code 1' },
  ])(
    'the verdict is FAIL at once when a reboot does not happen (exit code $exitCode)',
    async ({ exitCode, saw }) => {
      const { state, request } = await fakeLab({ slowdown: 0.02 })
      state.reboot = { exitCode, happens: false }
      const scenario = { ...scenarioNamed('reboot'), expect: {} }
      const report = runReport(await runScenario({ ...request, scenario }))
      expect(report.verdict).toBe('FAIL')
      expect(report.interrupted).toBe(false)
      expect(
        report.checks.find(({ group, outcome }) => group === 'faults' && outcome === 'failed')?.saw,
      ).toContain(saw)
    },
  )

  it('the verdict is FAIL when a line is in the file twice', async () => {
    const { folder, request } = await fakeLab()
    const { save } = request
    let done = false
    const report = runReport(
      await runScenario({
        ...request,
        save: async (facts) => {
          await save(facts)
          const [file] = await readdir(folder)
          if (done || file === undefined || facts.faults.length === 0) return
          done = true
          const [first = ''] = (await readFile(join(folder, file), 'utf8')).split('\n')
          await appendFile(join(folder, file), `${first}\n`)
        },
      }),
    )
    expect(report.verdict).toBe('FAIL')
    expect(report.data?.findings.map(({ message }) => message)).toContain('1 line is there more than once')
  })

  it('the verdict is FAIL when the file system of the disk is not clean', async () => {
    const { state, request } = await fakeLab()
    state.fileSystem = { exitCode: 4, stdout: 'Filesystem state:         clean\nFree blocks count wrong' }
    const report = runReport(await runScenario(request))
    expect(complaintsOf(report)).toEqual(['failed: the file system of the disk is clean'])
  })
})

describe('a run during which the clock of this host is set back by 30 s', () => {
  it('a run measures takeovers correctly and omits moments that only a wall clock could date', async () => {
    const { state, request } = await fakeLab()
    const real = Date
    let back = 0
    class Clock extends real {
      constructor(...given: [] | [number | string]) {
        if (given.length === 0) super(real.now() - back)
        else super(...given)
      }
      static override now = (): number => real.now() - back
    }
    globalThis.Date = Clock as DateConstructor
    cleanUp.push(() => {
      globalThis.Date = real
    })
    const power = request.context.provider.power!
    const cut = power.cut.bind(power)
    Object.assign(power, {
      cut: async (...given: Parameters<typeof cut>) => {
        await cut(...given)
        back = 30_000
        // The machines' own clocks count.
        state.ahead = 30_000
      },
    })
    const report = runReport(await runScenario(request))
    const ms = Object.fromEntries(report.moments.map((moment) => [moment.name, moment.ms]))
    expect(ms['t6']).toBeGreaterThan(1400)
    expect(ms['t6']).toBeLessThan(6000)
    expect(report.budgets.find(({ name }) => name === 'takeover')?.measured).toBe(ms['t6'])
    // Both clocks of worker2 ran on as before, so its mount can be dated.
    expect(ms['t4']).toBeGreaterThan(0)
    expect(report.skews['operator']).toEqual({ ms: 0, uncertainty: 0 })
  })
})
