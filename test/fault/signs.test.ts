/**
 * The signs of every fault: what they say about a machine on which the fault acts, and about one on which it does not.
 */
import { mkdir } from 'node:fs/promises'
import { beforeEach, describe, expect, it, test, vi } from 'vitest'
import type { FaultSpec } from '../../src/lab/lab.js'
import { loadLab, registry } from '../../src/registry.js'
import { noteUndo } from '../../src/journal.js'
import { LabError } from '../../src/error.js'
import type { Context } from '../../src/context.js'
import type { MachineState } from '../../src/provider/provider.js'
import { faultNamed, Injections } from '../../src/trial/injection.js'
import { see } from '../../src/fault/sign.js'
import { pathsOf } from '../../src/state.js'
import { temporaryFolder } from '../helpers/folder.js'

const lab = await loadLab('iscsi-ha')

const aim = (context: Context, spec: FaultSpec, server: string) =>
  faultNamed(registry, spec.fault).aim(context, spec, { server, index: 0 })

beforeEach(async () => {
  vi.stubEnv('LAB_STATE', await temporaryFolder())
  await mkdir(pathsOf(lab).root, { recursive: true })
})

/** The machine does not answer. */
const silence = { silent: true } as const

/** The answer of a command: its output, or output with an exit code, or no answer. */
type Answer =
  | string
  | { readonly exitCode: number; readonly stdout?: string }
  | { readonly ahead: number }
  | typeof silence

interface World {
  /** The first entry whose words are in the command. */
  readonly answers?: readonly (readonly [words: string, answer: Answer])[]
  readonly states?: Readonly<Record<string, Partial<MachineState>>>
  readonly node?: object
  readonly pods?: readonly object[]
  readonly drain?: () => Promise<string>
}

/** A lab that can be changed through `world.now`. */
const labOf = (first: World) => {
  const world = { now: first }
  const commands: string[] = []
  const exec = async (name: string, text: string) => {
    commands.push(`${name}: ${text}`)
    const answer = world.now.answers?.find(([words]) => text.includes(words))?.[1] ?? ''
    if (answer === silence) throw new LabError('command-timeout', `${name}: no answer`)
    if (typeof answer === 'object' && 'ahead' in answer)
      return { exitCode: 0, stdout: String(Date.now() + answer.ahead), stderr: '' }
    return typeof answer === 'string'
      ? { exitCode: 0, stdout: answer, stderr: '' }
      : { stdout: '', stderr: '', ...answer }
  }
  const context = {
    lab,
    signal: new AbortController().signal,
    provider: {
      // All deadlines expire at once.
      slowdown: 0,
      states: async () =>
        Promise.resolve(
          lab.machines.map(({ name }) => ({
            name,
            status: 'running',
            detail: '',
            ...world.now.states?.[name],
          })),
        ),
      pause: { begin: async () => Promise.resolve(), end: async () => Promise.resolve() },
      power: { cut: async () => Promise.resolve() },
    },
    kubectl: {
      run: async () => world.now.drain?.() ?? Promise.resolve(''),
      get: async (what: string) =>
        Promise.resolve(what === 'node' ? world.now.node : { items: world.now.pods ?? [] }),
    },
    machine: (name: string) => ({
      name,
      try: ({ text }: { text: string }) => exec(name, text),
      run: async ({ text }: { text: string }) => {
        const { exitCode, stdout } = await exec(name, text)
        if (exitCode !== 0) throw new LabError('command-failed', `${name}: exit code ${String(exitCode)}`)
        return stdout.trim()
      },
    }),
  } as unknown as Context
  return { context, world, commands }
}

const ping = '2 packets transmitted, 2 received, 0% packet loss, time 200ms'
const noPing = '2 packets transmitted, 0 received, 100% packet loss, time 200ms'
const rtt = (ms: number): string => `rtt min/avg/max/mdev = ${String(ms)}/1/1/0 ms`
const groups = (enabled: number, sessions: number): string =>
  `${String(enabled)} iqn.2016-04.world.srv:target00/tpgt_1 ${String(sessions)}`
const counters = (dropped: number): string =>
  `table inet lab_fault_0 {\n oifname != "lo" counter packets 402 bytes 9\n numgen counter packets ${String(dropped)} bytes 9 drop\n}`
/** The output of a clock that is this many milliseconds ahead when it is read. */
const clock = (ahead: number): Answer => ({ ahead })
const daemon = { metadata: { name: 'kube-proxy', ownerReferences: [{ kind: 'DaemonSet' }] }, status: {} }
const server = { metadata: { name: 'mysql-server-a', ownerReferences: [{ kind: 'ReplicaSet' }] }, status: {} }

interface Case {
  readonly spec: FaultSpec
  /** Before it is injected. */
  readonly before: World
  /** While it acts, and what that shows. */
  readonly acting: World
  /** Worlds in which the fault's command ran, but the fault does not act. */
  readonly typed: readonly World[]
  /** Worlds in which the undo ran, but the fault still acts. */
  readonly stays: readonly World[]
  /** After it was undone. */
  readonly gone: World
}

const boot = (id: string): World => ({ answers: [['boot_id', id]] })
const off: World = { states: { worker1: { status: 'stopped' } } }
const disk = (free: string, write: string, left = 1): World => ({
  answers: [
    ['findmnt', '/var/lib/kubelet/plugins/kubernetes.io/iscsi/x'],
    ['lab-fault-fill', { exitCode: left }],
    ['df --output', `${free}\n${write}`],
  ],
})
const full = "dd: error writing '/x': No space left on device"

const cases: readonly Case[] = [
  {
    spec: { fault: 'power-cut', machine: 'worker1' },
    before: boot('a'),
    acting: off,
    typed: [boot('a')],
    stays: [off, boot('a'), { answers: [['boot_id', silence]] }],
    gone: boot('b'),
  },
  {
    spec: { fault: 'reboot', machine: 'worker1' },
    before: boot('a'),
    acting: boot('b'),
    typed: [boot('a'), off, { answers: [['boot_id', silence]] }],
    stays: [off, boot('a')],
    gone: boot('b'),
  },
  {
    spec: { fault: 'hang', machine: 'worker1' },
    before: {},
    acting: { states: { worker1: { paused: true } }, answers: [['true', silence]] },
    typed: [{}, { states: { worker1: { paused: true } } }, { answers: [['true', silence]] }, off],
    stays: [{ states: { worker1: { paused: true } } }, off, { answers: [['boot_id', silence]] }],
    gone: boot('a'),
  },
  {
    spec: { fault: 'partition', between: [['worker1'], ['target']], protocol: 'all' },
    before: { answers: [['ping', ping]] },
    acting: { answers: [['ping', { exitCode: 1, stdout: noPing }]] },
    typed: [
      { answers: [['ping', ping]] },
      {
        answers: [
          ['list table', { exitCode: 1 }],
          ['ping', { exitCode: 1, stdout: noPing }],
        ],
      },
    ],
    stays: [
      { answers: [['ping', ping]] },
      {
        answers: [
          ['list table', { exitCode: 1 }],
          ['ping', { exitCode: 1, stdout: noPing }],
        ],
      },
    ],
    gone: {
      answers: [
        ['list table', { exitCode: 1 }],
        ['ping', ping],
      ],
    },
  },
  {
    spec: { fault: 'partition', between: [['worker1'], ['target']], protocol: 'storage' },
    before: {},
    acting: { answers: [['/dev/tcp', { exitCode: 124 }]] },
    // A machine that refuses a connection was still reached.
    typed: [{}, { answers: [['/dev/tcp', { exitCode: 1, stdout: 'bash: connect: Connection refused' }]] }],
    stays: [{}],
    gone: { answers: [['list table', { exitCode: 1 }]] },
  },
  {
    spec: { fault: 'packet-loss', machine: 'worker1', loss: 10 },
    before: {},
    acting: { answers: [['list table', counters(41)]] },
    typed: [{}, { answers: [['list table', counters(0)]] }],
    stays: [{ answers: [['list table', counters(41)]] }],
    gone: { answers: [['list table', { exitCode: 1 }]] },
  },
  {
    spec: { fault: 'delay', machine: 'worker1', by: 50 },
    before: { answers: [['ping', rtt(1)]] },
    acting: {
      answers: [
        ['tc qdisc', 'qdisc netem 8001: root'],
        ['ping', rtt(51)],
      ],
    },
    typed: [
      {
        answers: [
          ['tc qdisc', 'qdisc netem 8001: root'],
          ['ping', rtt(2)],
        ],
      },
      { answers: [['ping', rtt(51)]] },
    ],
    stays: [
      {
        answers: [
          ['tc qdisc', 'qdisc netem 8001: root'],
          ['ping', rtt(51)],
        ],
      },
      { answers: [['ping', rtt(51)]] },
    ],
    gone: { answers: [['ping', rtt(3)]] },
  },
  {
    spec: { fault: 'stop-service', machine: 'worker1', service: 'iscsid' },
    before: {},
    acting: { answers: [['is-active', { exitCode: 3, stdout: 'inactive\nfailed' }]] },
    typed: [
      { answers: [['is-active', { exitCode: 3, stdout: 'active\ninactive' }]] },
      { answers: [['is-active', { exitCode: 3, stdout: 'inactive\nactivating' }]] },
    ],
    stays: [{ answers: [['is-active', { exitCode: 3, stdout: 'inactive' }]] }],
    gone: { answers: [['is-active', 'active']] },
  },
  {
    spec: { fault: 'target-loss', machine: 'target' },
    before: {},
    acting: { answers: [['tpgt_', groups(0, 0)]] },
    typed: [{ answers: [['tpgt_', groups(1, 1)]] }, { answers: [['tpgt_', groups(0, 1)]] }, {}],
    stays: [{ answers: [['tpgt_', groups(0, 0)]] }, {}],
    gone: { answers: [['tpgt_', groups(1, 0)]] },
  },
  {
    spec: { fault: 'disk-full', machine: 'worker1', disk: 'data' },
    before: disk('1000', '1+0 records out'),
    acting: disk('0', full),
    typed: [disk('0', '4096 bytes copied'), disk('4096', full), {}],
    stays: [disk('0', full), disk('4096', 'copied', 0), {}],
    gone: disk('4096', '4096 bytes copied'),
  },
  {
    spec: { fault: 'clock-skew', machine: 'worker1', by: 300_000 },
    before: {},
    acting: { answers: [['date +', clock(300_000)]] },
    typed: [{ answers: [['date +', clock(0)]] }, { answers: [['date +', clock(250_000)]] }],
    stays: [{ answers: [['date +', clock(300_000)]] }],
    gone: { answers: [['date +', clock(100)]] },
  },
  {
    spec: { fault: 'drain', machine: 'worker1' },
    before: {},
    acting: { node: { spec: { unschedulable: true } }, pods: [daemon] },
    typed: [
      { node: { spec: {} }, pods: [daemon] },
      { node: { spec: { unschedulable: true } }, pods: [daemon, server] },
    ],
    stays: [{ node: { spec: { unschedulable: true } } }],
    gone: { node: { spec: {} } },
  },
]

describe.each(cases)('the fault $spec.fault', ({ spec, before, acting, typed, stays, gone }) => {
  const aimed = async () => {
    const { context, world } = labOf(before)
    const fault = await aim(context, spec, 'worker1')
    await fault.possible?.(context)
    return { context, world, fault }
  }

  it('the fault counts as injected when its effect is observed', async () => {
    const { context, world, fault } = await aimed()
    world.now = acting
    const seen = await see(fault.acting, context)
    expect(seen, seen.saw).toMatchObject({ ok: true })
  })

  test.each(typed.map((one) => ({ one })))(
    'the fault does not count as injected when it was only requested (%#)',
    async ({ one }) => {
      const { context, world, fault } = await aimed()
      world.now = one
      expect(await see(fault.acting, context)).toMatchObject({ ok: false })
    },
  )

  it('the fault counts as undone when its effect is gone', async () => {
    const { context, world, fault } = await aimed()
    world.now = gone
    const seen = await see(fault.gone, context)
    expect(seen, seen.saw).toMatchObject({ ok: true })
  })

  test.each(stays.map((one) => ({ one })))(
    'the fault does not count as undone when it was only requested (%#)',
    async ({ one }) => {
      const { context, world, fault } = await aimed()
      world.now = one
      expect(await see(fault.gone, context)).toMatchObject({ ok: false })
    },
  )
})

it('a machine that was fenced while it rebooted counts as restarted', async () => {
  const { context, world } = labOf(boot('a'))
  const fault = await aim(context, { fault: 'reboot', machine: 'worker1' }, 'worker1')
  await fault.possible?.(context)
  world.now = off
  await noteUndo(lab, 'the fencing agent', 'fence', [{ do: 'switch-on', machine: 'worker1' }])
  expect(await see(fault.acting, context)).toMatchObject({ ok: true })
})

describe('a power cut of a machine without a power switch', () => {
  const forced = async (spec: FaultSpec) => {
    const { context, world } = labOf(boot('a'))
    Object.assign(context.provider.power!, { onlyReboots: (name: string) => name === 'worker1' })
    return { context, world, fault: await aim(context, spec, 'worker1') }
  }

  it('a power cut without a power switch says that it is a forced reboot, and less than a power cut', async () => {
    const { fault } = await forced({ fault: 'power-cut', machine: 'worker1' })
    expect(fault.detail).toBe(
      'worker1 forced to reboot by sysrq, which is less than a power cut: worker1 has no power switch, stays under power, and comes back by itself',
    )
    expect(fault.acting.title).toBe('worker1 is off, or has booted again')
  })

  it('a power cut without a power switch acts once the machine is away or has booted again, and not before', async () => {
    const { context, world, fault } = await forced({ fault: 'power-cut', machine: 'worker1' })
    await fault.possible?.(context)
    expect(await see(fault.acting, context)).toMatchObject({ ok: false })
    world.now = off
    expect(await see(fault.acting, context)).toMatchObject({ ok: true })
    world.now = boot('b')
    expect(await see(fault.acting, context)).toMatchObject({ ok: true })
    expect(await see(fault.gone, context)).toMatchObject({ ok: true })
  })

  it('a power cut without a power switch cannot last', async () => {
    const { context, fault } = await forced({ fault: 'power-cut', machine: 'worker1', for: 30 })
    await expect(fault.possible?.(context)).rejects.toMatchObject({
      code: 'fault-impossible',
      hint: 'power: { agent: fence_… } in hosts.yaml',
    })
  })

  it('a power cut of a machine with a switch is none of that', async () => {
    const { context } = await forced({ fault: 'power-cut', machine: 'worker1' })
    const fault = await aim(context, { fault: 'power-cut', machine: 'worker2' }, 'worker1')
    expect(fault.detail).toBe('power of worker2 cut')
    expect(fault.acting.title).toBe('worker2 is off, as the provider reports it')
  })
})

it('a partition between machines that could not reach each other before is refused', async () => {
  const { context } = labOf({ answers: [['ping', { exitCode: 1, stdout: noPing }]] })
  const spec: FaultSpec = { fault: 'partition', between: [['worker1'], ['target']], protocol: 'all' }
  const fault = await aim(context, spec, 'worker1')
  await expect(fault.possible?.(context)).rejects.toMatchObject({ code: 'fault-impossible' })
})

it('an action that fails reports the reason, and its effect is not looked for', async () => {
  const { context } = labOf({ drain: () => Promise.reject(new Error('error: global timeout reached')) })
  const faults = new Injections(lab, 'lab run iscsi-ha drain', registry, () => {})
  const injection = await faults.aim(context, { fault: 'drain', machine: 'worker1' }, 'worker1')
  expect(await faults.inject(context, injection, () => Promise.resolve())).toBe(false)
  expect(faults.facts()).toMatchObject([{ error: 'error: global timeout reached', acting: undefined }])
})

it("the fault disk-full fills the database's LUN, whatever other disks the node has mounted", async () => {
  const { context, commands } = labOf({ answers: [['findmnt', '/data']] })
  const fault = await aim(context, { fault: 'disk-full', machine: 'database', disk: 'data' }, 'worker2')
  expect(commands).toHaveLength(1)
  expect(commands[0]).toContain(
    'worker2: test -b /dev/disk/by-path/ip-192.168.56.70:3260-iscsi-iqn.2016-04.world.srv:target00-lun-0',
  )
  expect(fault.undo).toEqual([{ do: 'remove-file', machine: 'worker2', path: '/data/lab-fault-fill' }])
})
