/** A fake lab with a database: its database, its watches and its provider are stand-ins. */
import { mkdir } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { afterEach, beforeEach, vi } from 'vitest'
import { loadLab, registry } from '../../src/registry.js'
import type { WatchEvent } from '../../src/machine/kubectl.js'
import { CommandError } from '../../src/machine/machine.js'
import type { Context, Plan } from '../../src/context.js'
import type { Facts } from '../../src/trial/facts.js'
import { type ScenarioRequest } from '../../src/trial/scenario.js'
import { pathsOf } from '../../src/state.js'
import { databaseServer, type FakeDatabase, type Mood } from '../helpers/database.js'
import { temporaryFolder } from '../helpers/folder.js'
import { ledgerServer } from '../helpers/ledger-server.js'

export const lab = await loadLab('iscsi-ha')

export const scenarioNamed = (name: string) => lab.scenarios.find((scenario) => scenario.name === name)!

export const cleanUp: (() => void)[] = []
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

/** The output of the check of a file system that was unmounted cleanly. */
const clean = {
  exitCode: 0,
  stdout: 'Filesystem state:         clean\nlun: 12/262144 files (0.0% non-contiguous), 9/1048576 blocks',
}

interface FakeOptions {
  /** Milliseconds after which the database moves to worker2; Infinity: it never does. */
  readonly moveAfter?: number
  /** Whether the database answers again once its old node is switched on. */
  readonly healed?: 'answers' | 'is silent'
  readonly slowdown?: number
}

/** A lab in which a power cut moves the database to worker2 after a while. */
export const fakeLab = async ({ moveAfter = 1500, healed = 'is silent', slowdown = 1 }: FakeOptions = {}) => {
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
    /** The answer of a machine to `systemctl reboot`, and whether it reboots. */
    reboot: { exitCode: 0, happens: true },
    fileSystem: clean,
    /** How far the clocks of the machines are ahead, in milliseconds. */
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
      // In the order of their names, as Kubernetes lists them; the other container does not matter.
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
        slowdown,
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
    event: () => {},
    save: async (facts) => {
      saved.push(facts)
    },
  }
  return { state, database, folder, request, saved, abort }
}
