/** A whole run against a lab that is made up: its database, its watches and its provider are stand-ins. */
import { appendFile, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { afterEach, beforeEach, describe, expect, it, test, vi } from 'vitest'
import { loadLab, registry } from '../../src/registry.js'
import type { WatchEvent } from '../../src/machine/kubectl.js'
import { CommandError } from '../../src/machine/machine.js'
import type { Context, Plan } from '../../src/context.js'
import type { Facts } from '../../src/trial/facts.js'
import type { RunReport } from '../../src/report/schema.js'
import { runReport } from '../../src/report/run.js'
import { type ScenarioRequest, runScenario } from '../../src/trial/scenario.js'
import { readJournal } from '../../src/journal.js'
import { pathsOf } from '../../src/state.js'
import { databaseServer, type FakeDatabase, type Mood } from '../helpers/database.js'
import { temporaryFolder } from '../helpers/folder.js'
import { ledgerServer } from '../helpers/ledger-server.js'

vi.setConfig({ testTimeout: 60_000 })

const lab = await loadLab('iscsi-ha')

const scenarioNamed = (name: string) => lab.scenarios.find((scenario) => scenario.name === name)!

const cleanUp: (() => void)[] = []
afterEach(() => {
  for (const each of cleanUp.splice(0)) each()
})
beforeEach(async () => {
  vi.stubEnv('LAB_STATE', await temporaryFolder())
  await mkdir(pathsOf(lab).root, { recursive: true })
})

const conditions = (ready: boolean): object => ({
  conditions: [{ type: 'Ready', status: ready ? 'True' : 'Unknown', reason: 'NodeStatusUnknown' }],
})

/** What a file system is like that was unmounted in an orderly way, as its check says it. */
const clean = {
  exitCode: 0,
  stdout: 'Filesystem state:         clean\nlun: 12/262144 files (0.0% non-contiguous), 9/1048576 blocks',
}

interface FakeOptions {
  /** Milliseconds after which the database moves to worker2; Infinity: it never does. */
  readonly moveAfter?: number
  /** Whether the database answers again once its old node is switched on. */
  readonly healed?: 'answers' | 'is silent'
  readonly patience?: number
}

/** A lab of which a power cut moves the database to worker2 after a while. */
const fakeLab = async ({ moveAfter = 1500, healed = 'is silent', patience = 1 }: FakeOptions = {}) => {
  const abort = new AbortController()
  const state = {
    pod: 'mysql-server-a',
    mood: 'answers' as Mood,
    off: new Set<string>(),
    applied: 0,
    taints: [] as string[],
    /** Port of the server of the plain file; undefined: it is gone. */
    ledgerPort: undefined as number | undefined,
    replicas: 1,
    scaled: [] as number[],
    boots: new Map(lab.machines.map(({ name }) => [name, 1])),
    /** What a machine answers to `systemctl reboot`, and whether it does it. */
    reboot: { exitCode: 0, happens: true },
    fileSystem: clean,
    /** By what the clocks of the machines are ahead, in milliseconds. */
    ahead: 0,
  }
  // The disk of both pods.
  const folder = await temporaryFolder()
  let server = await ledgerServer(folder, state.pod)
  state.ledgerPort = server.port
  const database: FakeDatabase = await databaseServer(
    () => state.pod,
    () => state.mood,
  )
  cleanUp.push(() => database.close())
  const watchers: { readonly what: string; readonly seen: (event: WatchEvent) => void }[] = []
  const tell = (what: string, type: WatchEvent['type'], object: object): void =>
    watchers.filter((one) => one.what === what).forEach(({ seen }) => seen({ type, object } as WatchEvent))
  const created = '2026-11-21T10:00:00Z'
  const pod = (name: string, nodeName: string, ready = true, more: object = {}): object => ({
    metadata: {
      name,
      creationTimestamp: name.endsWith('a') ? created : new Date(Date.now() + state.ahead).toISOString(),
      ...more,
    },
    spec: { nodeName },
    status: {
      ...conditions(ready),
      // In the order of their names, as Kubernetes tells them; the other container is no news.
      containerStatuses: [
        { name: 'ledger', state: { running: { startedAt: new Date().toISOString() } } },
        { name: 'mysql', state: ready ? { running: { startedAt: created } } : {} },
      ],
    },
  })
  const restartServer = async (name: string): Promise<void> => {
    state.pod = name
    state.mood = 'answers'
    server = await ledgerServer(folder, name)
    state.ledgerPort = server.port
  }
  const moveOn = (): void => {
    tell('nodes', 'MODIFIED', { metadata: { name: 'worker1' }, status: conditions(false) })
    tell('pods', 'MODIFIED', pod('mysql-server-a', 'worker1', true, { deletionTimestamp: created }))
    tell('pods', 'ADDED', pod('mysql-server-b', 'worker2', false))
    tell('pods', 'MODIFIED', pod('mysql-server-b', 'worker2'))
    void restartServer('mysql-server-b')
  }
  const answer = async (name: string, text: string): Promise<{ exitCode: number; stdout: string }> => {
    const says = (stdout: string, exitCode = 0) => ({ exitCode, stdout })
    if (text.includes('boot_id')) return says(`boot-${String(state.boots.get(name))}`)
    if (text.startsWith('date')) return says(String(Date.now() + state.ahead))
    if (text.includes('findmnt')) return says('', 1)
    if (text.includes('e2fsck')) return state.fileSystem
    if (text === 'systemctl reboot') {
      const { exitCode, happens } = state.reboot
      if (happens) state.boots.set(name, (state.boots.get(name) ?? 0) + 1)
      return says('', exitCode)
    }
    return text.startsWith('journalctl') && name === 'worker2'
      ? says(
          JSON.stringify({
            MESSAGE: 'EXT4-fs (sda): mounted filesystem 12 r/w with ordered data mode',
            __REALTIME_TIMESTAMP: String((Date.now() + state.ahead) * 1000),
          }),
        )
      : says('')
  }
  const contextWith = (signal: AbortSignal): Context =>
    ({
      lab,
      signal,
      provider: {
        name: 'uml',
        patience,
        states: async () =>
          lab.machines.map(({ name }) => ({
            name,
            status: state.off.has(name) ? 'stopped' : 'running',
            detail: '',
          })),
        power: {
          cut: async (_lab: unknown, name: string) => {
            if (name !== 'worker1' || state.off.has(name)) return
            state.off.add(name)
            state.mood = 'is silent'
            state.ledgerPort = undefined
            await server.stop()
            if (moveAfter !== Infinity) setTimeout(moveOn, moveAfter)
          },
        },
        machines: {
          start: async (_lab: unknown, { name }: { name: string }) => {
            state.off.delete(name)
            state.boots.set(name, (state.boots.get(name) ?? 0) + 1)
            if (healed === 'answers') await restartServer(state.pod)
          },
        },
        disks: { lunDevice: () => '/dev/ubdc' },
        dial: (_lab: unknown, _host: string, port: number): Promise<Duplex> =>
          new Promise((resolve, reject) => {
            const behind = port === lab.database?.ledgerPort ? state.ledgerPort : database.port
            if (behind === undefined) return
            const socket = connect(behind, '127.0.0.1', () => resolve(socket))
            socket.once('error', reject)
            cleanUp.push(() => socket.destroy())
          }),
      },
      kubectl: {
        run: async (words: readonly string[]) => {
          if (words[0] === 'get' && words[1] === 'node')
            return JSON.stringify({ metadata: { resourceVersion: '1' }, spec: {} })
          if (words[0] === 'patch') state.taints.push(words.at(-1) ?? '')
          if (words[0] === 'scale') {
            state.replicas = Number(words.at(-1)?.split('=')[1])
            state.scaled.push(state.replicas)
          }
          return ''
        },
        get: async (what: string) =>
          what === 'pods'
            ? { items: state.replicas === 0 ? [] : [pod('mysql-server-c', 'worker2')] }
            : { spec: { taints: [] } },
        watch: async (args: readonly string[], seen: (event: WatchEvent) => void) => {
          const objects =
            args[0] === 'pods'
              ? [pod('mysql-server-a', 'worker1')]
              : ['worker1', 'worker2'].map((name) => ({ metadata: { name }, status: conditions(true) }))
          for (const object of objects) seen({ type: 'ADDED', object } as WatchEvent)
          watchers.push({ what: args[0] ?? '', seen })
        },
      },
      machine: (name: string) => ({
        try: async ({ text }: { text: string }) => ({ stderr: '', ...(await answer(name, text)) }),
        run: async ({ text, shown }: { text: string; shown: string }) => {
          const result = { stderr: '', ...(await answer(name, text)) }
          if (result.exitCode !== 0) throw new CommandError(name, shown, result)
          return result.stdout
        },
      }),
    }) as unknown as Context
  const plan: Plan = {
    title: 'plan',
    steps: [
      {
        id: 'all',
        title: 'all machines',
        phase: 'machines',
        needs: [],
        checks: [
          {
            id: 'run',
            title: 'every machine runs',
            probe: async () => ({ ok: state.off.size === 0, saw: `off: ${[...state.off].join()}` }),
          },
        ],
      },
    ],
  }
  const saved: Facts[] = []
  const request: ScenarioRequest = {
    registry,
    scenario: scenarioNamed('power-cut'),
    context: contextWith(abort.signal),
    healer: contextWith(new AbortController().signal),
    plan,
    ledgerPath: join(await temporaryFolder(), 'ledger.ndjson'),
    versions: {},
    fencing: undefined,
    notice: () => {},
    save: async (facts) => {
      saved.push(facts)
    },
  }
  return { state, database, folder, request, saved, abort }
}

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
  ).toEqual(['container of mysql-server-b runs since 2026-11-21T10:00:00Z'])
  expect(report.faults[0]?.acting).toMatchObject({ ok: true, saw: 'worker1: stopped' })
  expect(report.faults[0]?.gone).toMatchObject({ ok: true, saw: 'worker1: boot boot-2, before boot-1' })
  expect(report.recovery?.by).toBe('itself')
  expect(report.looks.map(({ when, no }) => [when, no])).toEqual([
    ['before', []],
    ['after', []],
    ['after', []],
  ])
  // The server was ended before its rows were read, and there is one again.
  expect(state.scaled).toEqual([0, 1])
  expect(report.data?.readBack).toMatchObject({ fromDisk: true })
  // Nothing was found, so nothing is kept.
  expect(await readdir(folder)).toEqual([])
  // What was kept on the way says that it is not yet all.
  expect(saved[0]?.interrupted).toBe(true)
  expect(state.off.size).toBe(0)
  expect(await readJournal(lab)).toEqual([])
  expect(await readFile(request.ledgerPath, 'utf8')).toContain('"mark":"fault"')
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
  const { state, request } = await fakeLab({ patience: 0.05 })
  const said: string[] = []
  const { kubectl } = request.healer
  const ask = kubectl.run.bind(kubectl)
  Object.assign(kubectl, {
    run: async (...given: Parameters<typeof ask>) => {
      // The lab is well; once its database was ended, nobody answers any more.
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
  const { request } = await fakeLab({ patience: 0.05 })
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
    'uml cannot stop a machine where it stands',
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

/** Without a budget, only recovery can tell. */
const bare = { ...scenarioNamed('power-cut'), expect: {}, deadline: 8000 }
const complaintsOf = (report: RunReport): readonly string[] =>
  report.checks
    .filter(({ outcome }) => outcome !== 'passed')
    .map(({ title, outcome }) => `${outcome}: ${title}`)
const byItself = 'failed: the lab recovers by itself: writes are answered before lab heals anything'

describe('the verdict of a run without success', () => {
  it('is FAIL when the lab recovers only because lab heals it, though nothing is lost', async () => {
    const { request } = await fakeLab({ moveAfter: Infinity, healed: 'answers', patience: 0.1 })
    const report = runReport(await runScenario({ ...request, scenario: bare }))
    expect(report.verdict).toBe('FAIL')
    expect(complaintsOf(report)).toContain(byItself)
    expect(report.recovery).toEqual({ by: 'heal', ms: null })
    expect(report.data?.findings).toEqual([])
  })

  it('is PASS for the same lab when the scenario says that the fault lasts until the deadline', async () => {
    const { request } = await fakeLab({ moveAfter: Infinity, healed: 'answers', patience: 0.3 })
    const scenario = { ...bare, heal: 'deadline' as const, deadline: 3000 }
    const report = runReport(await runScenario({ ...request, scenario }))
    expect(complaintsOf(report)).toEqual([])
    expect(report.recovery).toEqual({ by: 'heal', ms: null })
  })

  it('is FAIL when the lab never recovers, not even after the heal', async () => {
    const { request } = await fakeLab({ moveAfter: Infinity, healed: 'is silent', patience: 0.05 })
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
  ])('is FAIL at once when a reboot does not happen (exit code $exitCode)', async ({ exitCode, saw }) => {
    const { state, request } = await fakeLab({ patience: 0.02 })
    state.reboot = { exitCode, happens: false }
    const scenario = { ...scenarioNamed('reboot'), expect: {} }
    const report = runReport(await runScenario({ ...request, scenario }))
    expect(report.verdict).toBe('FAIL')
    expect(report.interrupted).toBe(false)
    expect(
      report.checks.find(({ group, outcome }) => group === 'faults' && outcome === 'failed')?.saw,
    ).toContain(saw)
  })

  it('is FAIL when a line is in the file twice', async () => {
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

  it('is FAIL when the file system of the disk is not clean', async () => {
    const { state, request } = await fakeLab()
    state.fileSystem = { exitCode: 4, stdout: 'Filesystem state:         clean\nFree blocks count wrong' }
    const report = runReport(await runScenario(request))
    expect(complaintsOf(report)).toEqual(['failed: the file system of the disk is clean'])
  })
})

describe('a run during which the clock of this host is set back by 30 s', () => {
  it('measures takeovers correctly and omits moments that only a wall clock could date', async () => {
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
        // The machines go by their own.
        state.ahead = 30_000
      },
    })
    const report = runReport(await runScenario(request))
    const ms = Object.fromEntries(report.moments.map((moment) => [moment.name, moment.ms]))
    expect(ms['t6']).toBeGreaterThan(1400)
    expect(ms['t6']).toBeLessThan(6000)
    expect(report.budgets.find(({ name }) => name === 'takeover')?.measured).toBe(ms['t6'])
    // Of worker2 both clocks went on as before: its mount has its place.
    expect(ms['t4']).toBeGreaterThan(0)
    expect(report.skews['operator']).toEqual({ ms: 0, uncertainty: 0 })
  })
})
