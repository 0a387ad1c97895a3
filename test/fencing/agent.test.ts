/** Which node is fenced, and when: provider, API server and target are fakes that fail at a chosen moment. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { fencingAgent } from '../../src/fencing/agent.js'
import type { Fenced, FenceMethod } from '../../src/fencing/fence.js'
import { readJournal } from '../../src/journal.js'
import { machinesWith } from '../../src/lab/lab.js'
import { loadLab, registry } from '../../src/registry.js'
import type { WatchEvent } from '../../src/machine/kubectl.js'
import type { Provider } from '../../src/provider/provider.js'
import type { Context } from '../../src/context.js'
import { undoAll } from '../../src/trial/undo.js'
import { pathsOf } from '../../src/state.js'
import { temporaryFolder } from '../helpers/folder.js'

const iscsiHa = await loadLab('iscsi-ha')
const lab = iscsiHa
const threeWorkers = await loadLab(join(import.meta.dirname, '../lab/valid/three-workers.yaml'))
const ending: AbortController[] = []

const realNow = performance.now.bind(performance)
let passed = 0

/** Time passes for the agent, but not for its pauses. */
const later = (milliseconds: number): void => {
  passed += milliseconds
  vi.spyOn(performance, 'now').mockImplementation(() => realNow() + passed)
}

/** Milliseconds for which a worker must be silent while another one is ready. */
const apart = 4000
/** The same with `failover: default`, which three-workers.yaml has. */
const byDefault = 16_000

beforeEach(async () => {
  passed = 0
  vi.stubEnv('LAB_STATE', await temporaryFolder())
})
afterEach(() => {
  vi.restoreAllMocks()
  for (const each of ending.splice(0)) each.abort()
})

const watched = async (
  method: FenceMethod,
  lab = iscsiHa,
  { silentMayRun }: Pick<Provider, 'silentMayRun'> = {},
) => {
  await mkdir(pathsOf(lab).root, { recursive: true })
  const abort = new AbortController()
  ending.push(abort)
  const world = {
    /** The id of the machine's run; undefined: it is off. */
    runs: new Map(lab.machines.map(({ name }) => [name, 1])),
    suspended: false,
    targetAnswers: true,
    cutWorks: true,
    /** Its power switch never answers. */
    hangs: undefined as string | undefined,
    statesFail: false,
    notices: [] as string[],
    /** In order. */
    done: [] as string[],
    fenced: [] as Fenced[],
    armed: [] as readonly string[],
    blind: undefined as { readonly since: string; readonly why: string } | undefined,
  }
  let begun = 1
  let tell: (event: WatchEvent) => void = () => undefined
  let fail: (reason: unknown) => void = () => undefined
  const node = (name: string, ready: boolean, boot: number): void =>
    tell({
      type: 'MODIFIED',
      object: {
        metadata: { name },
        status: {
          conditions: [{ type: 'Ready', status: ready ? 'True' : 'Unknown' }],
          nodeInfo: { bootID: `${name} ${String(boot)}` },
        },
      },
    } as unknown as WatchEvent)
  const remove = (name: string): void =>
    tell({ type: 'DELETED', object: { metadata: { name } } } as unknown as WatchEvent)
  const context = {
    lab,
    signal: abort.signal,
    provider: {
      silentMayRun,
      states: async () => {
        if (world.statesFail) throw new Error('no supervisor')
        return lab.machines.map(({ name }) => ({
          name,
          status: world.runs.has(name) ? 'running' : 'stopped',
          detail: `run ${String(world.runs.get(name))}`,
        }))
      },
      power: {
        cut: async (_lab: unknown, name: string) => {
          world.done.push(`cut ${name}`)
          if (world.hangs === name) await new Promise(() => undefined)
          if (silentMayRun && !world.cutWorks) throw new Error('the switch does not answer')
          if (world.cutWorks) world.runs.delete(name)
        },
      },
      machines: {
        start: async (_lab: unknown, { name }: { name: string }) => {
          world.done.push(`start ${name}`)
          // A value that never occurred before.
          world.runs.set(name, (begun += 1))
        },
      },
      disks: { lunDevice: () => '/dev/ubdc' },
    },
    kubectl: {
      watch: async (_words: unknown, seen: typeof tell, _until: unknown, failed: typeof fail) => {
        tell = seen
        fail = failed
        for (const { name } of lab.machines) node(name, true, 1)
      },
      run: async ([verb = '', , node = '', , , patch = '']: readonly string[]) => {
        if (verb === 'get' && node === '--all-namespaces') return JSON.stringify({ items: [] })
        if (verb === 'get') return JSON.stringify({ metadata: { resourceVersion: '1' }, spec: {} })
        if (verb !== 'patch') return ''
        world.done.push(`${patch.includes('out-of-service') ? 'taint' : 'untaint'} node ${node}`)
        return ''
      },
    },
    machine: (name: string) => {
      const answer = async (): Promise<{ exitCode: number; stderr: string }> => {
        if (!world.targetAnswers) throw new Error('no answer')
        world.done.push(`asked ${name}`)
        return { exitCode: 0, stderr: '' }
      }
      return { try: answer, run: answer }
    },
  } as unknown as Context
  const agent = fencingAgent(
    context,
    {
      method,
      by: 'a test',
      suspended: async () => world.suspended,
      fenced: (seen) => void world.fenced.push(seen),
      notice: (text) => void world.notices.push(text),
      looked: (armed, _fencing, blind) => {
        world.armed = armed
        world.blind = blind
      },
    },
    abort.signal,
  )
  agent.catch(() => undefined)
  await vi.waitFor(() => expect(world.armed).toEqual(machinesWith(lab, 'worker').map(({ name }) => name)), {
    timeout: patience,
  })
  return { world, node, remove, context, fail: (reason: unknown) => fail(reason) }
}

/** Milliseconds for the agent to act, also on a host that is busy with other things. */
const patience = 20_000
vi.setConfig({ testTimeout: 60_000 })

/** Longer than three checks. */
const aWhile = (): Promise<void> => delay(700)
const oneIsFenced = (world: { readonly fenced: readonly Fenced[] }): Promise<void> =>
  vi.waitFor(() => expect(world.fenced).toHaveLength(1), { timeout: patience })

test('the agent fences a worker that is off, taints it afterwards, and records how to undo both', async () => {
  const { world } = await watched('power')
  world.runs.delete('worker1')
  await oneIsFenced(world)
  expect(world.done).toEqual(['taint node worker1'])
  expect(world.fenced[0]?.detail).toContain('worker1 was found off')
  expect((await readJournal(lab)).map(({ by, fault, undo }) => [by, fault, undo.do])).toEqual([
    ['a test', 'fence', 'boot-afresh'],
    ['a test', 'fence', 'untaint'],
  ])
})

test('the agent switches off a worker that runs but is not ready, since it may still write', async () => {
  const { world, node } = await watched('power')
  node('worker2', false, 1)
  later(apart - 1000)
  await aWhile()
  expect(world.done).toEqual([])
  later(1000)
  await oneIsFenced(world)
  expect(world.done).toEqual(['cut worker2', 'taint node worker2'])
  expect(world.runs.has('worker2')).toBe(false)
})

test('a host that only does not answer is not lost while Kubernetes finds it ready', async () => {
  const { world, node } = await watched('power', iscsiHa, { silentMayRun: true })
  world.runs.delete('worker1')
  await aWhile()
  expect(world.done).toEqual([])
  node('worker1', false, 1)
  await oneIsFenced(world)
  expect(world.done).toEqual(['cut worker1', 'taint node worker1'])
})

test('a host that does not answer counts as off only when its switch says so', async () => {
  const { world, node } = await watched('power', iscsiHa, { silentMayRun: true })
  world.cutWorks = false
  world.runs.delete('worker1')
  node('worker1', false, 1)
  await vi.waitFor(() => expect(world.notices).toEqual(['fence: worker1: the switch does not answer']), {
    timeout: patience,
  })
  expect(world.done.filter((what) => what.startsWith('taint'))).toEqual([])
  world.cutWorks = true
  await oneIsFenced(world)
  expect(world.done.at(-1)).toBe('taint node worker1')
})

test('a fence that is not confirmed does not count and is tried again', async () => {
  const { world, node } = await watched('power')
  world.cutWorks = false
  node('worker1', false, 1)
  later(apart)
  await vi.waitFor(() => expect(world.done).toContain('cut worker1'), { timeout: patience })
  await aWhile()
  expect(world.done.filter((what) => what.startsWith('taint'))).toEqual([])
  world.cutWorks = true
  await oneIsFenced(world)
})

test('the agent fences nobody without the target, and asks the target again before the taint', async () => {
  const { world, node } = await watched('storage')
  world.targetAnswers = false
  node('worker1', false, 1)
  later(apart)
  await aWhile()
  expect(world.done).toEqual([])
  world.targetAnswers = true
  await oneIsFenced(world)
  expect(world.done).toEqual(['asked target', 'taint node worker1'])
})

test('the agent fences nobody while no other worker is ready to take over', async () => {
  const { world, node } = await watched('power')
  node('worker1', false, 1)
  node('worker2', false, 1)
  later(60_000)
  await aWhile()
  expect(world.done).toEqual([])
})

test('the agent fences nobody while another command changes the lab', async () => {
  const { world } = await watched('power')
  world.suspended = true
  await aWhile()
  world.runs.delete('worker1')
  await aWhile()
  expect(world.done).toEqual([])
})

test('the agent fences a worker that lost its power during a command, when the command has ended', async () => {
  const { world } = await watched('power')
  world.suspended = true
  await aWhile()
  world.runs.delete('worker1')
  await aWhile()
  world.suspended = false
  await oneIsFenced(world)
  expect(world.done).toEqual(['taint node worker1'])
})

/** A command that has ended has left worker1 not ready. */
const disturbed = async () => {
  const { world, node } = await watched('power')
  world.suspended = true
  await aWhile()
  node('worker1', false, 1)
  world.suspended = false
  await aWhile()
  return { world, node }
}

test('the agent gives a worker that a command has disturbed 30 s to become ready, and fences it afterwards', async () => {
  const { world } = await disturbed()
  later(25_000)
  await aWhile()
  expect(world.done).toEqual([])
  later(6_000)
  await oneIsFenced(world)
  expect(world.done).toEqual(['cut worker1', 'taint node worker1'])
})

test('the agent fences a worker that became ready after a command, and then did not stay so, without waiting 30 s', async () => {
  const { world, node } = await disturbed()
  node('worker1', true, 1)
  await vi.waitFor(() => expect(world.armed).toContain('worker1'), { timeout: patience })
  node('worker1', false, 1)
  later(apart)
  await oneIsFenced(world)
})

test('the agent waits for the first report of a worker that a command has switched on', async () => {
  const { world, node } = await watched('power')
  world.suspended = true
  await aWhile()
  world.runs.set('worker1', 7)
  node('worker1', false, 1)
  await aWhile()
  world.suspended = false
  later(40_000)
  await aWhile()
  expect(world.done).toEqual([])
  node('worker1', true, 7)
  await vi.waitFor(() => expect(world.armed).toContain('worker1'), { timeout: patience })
})

test('the agent forgets a worker that a command has removed from the cluster', async () => {
  const { world, remove } = await watched('power')
  world.suspended = true
  await aWhile()
  world.runs.delete('worker1')
  remove('worker1')
  await aWhile()
  world.suspended = false
  await aWhile()
  expect(world.done).toEqual([])
})

test('the agent ignores what Kubernetes reports about an earlier boot, however often a node was fenced', async () => {
  const { world, node, context } = await watched('power')
  for (const run of [2, 3, 4]) {
    world.fenced.length = 0
    world.runs.delete('worker1')
    await oneIsFenced(world)
    // The machine is switched on; until its kubelet reports, Kubernetes calls it ready because it was ready before.
    expect(await undoAll(context, registry)).toEqual([])
    expect(world.runs.get('worker1')).toBe(run)
    await aWhile()
    node('worker1', false, run - 1)
    later(apart)
    await aWhile()
    expect(world.fenced).toHaveLength(1)
    node('worker1', true, run)
    await vi.waitFor(() => expect(world.armed).toContain('worker1'), { timeout: patience })
  }
})

test('a fence that hangs delays no other fence, is given up after a while, and is tried again', async () => {
  const giveUp = new AbortController()
  vi.spyOn(AbortSignal, 'timeout').mockReturnValueOnce(giveUp.signal)
  const { world, node } = await watched('power', threeWorkers)
  world.hangs = 'worker1'
  node('worker1', false, 1)
  later(byDefault)
  await vi.waitFor(() => expect(world.done).toEqual(['cut worker1']), { timeout: patience })
  node('worker2', false, 1)
  later(byDefault)
  await oneIsFenced(world)
  expect(world.done).toEqual(['cut worker1', 'cut worker2', 'taint node worker2'])
  world.hangs = undefined
  giveUp.abort()
  await vi.waitFor(() => expect(world.fenced).toHaveLength(2), { timeout: patience })
  expect(world.notices).toContain('fence: worker1: not confirmed within 35 s')
  expect(world.done.slice(3)).toEqual(['cut worker1', 'taint node worker1'])
  // The second attempt continues the fence of the first: there is one undo of each kind.
  const undos = (await readJournal(threeWorkers)).filter(({ undo }) => undo.machine === 'worker1')
  expect(undos.map(({ undo }) => undo.do)).toEqual(['boot-afresh', 'untaint'])
})

test('the agent reports an error that lasts once, not at every look, and works again afterwards', async () => {
  const { world } = await watched('power')
  world.statesFail = true
  await vi.waitFor(() => expect(world.notices).not.toEqual([]), { timeout: patience })
  await aWhile()
  expect(world.notices).toEqual(['fence: no supervisor'])
  world.statesFail = false
  world.runs.delete('worker1')
  await oneIsFenced(world)
})

test('the agent says since when and why it sees no node, until it sees one again', async () => {
  const { world, node, fail } = await watched('power')
  expect(world.blind).toBeUndefined()
  fail(new Error('connection refused'))
  await vi.waitFor(() => expect(world.blind?.why).toBe('connection refused'), { timeout: patience })
  const since = world.blind?.since
  fail(new Error('certificate has expired'))
  await vi.waitFor(() => expect(world.blind).toEqual({ since, why: 'certificate has expired' }), {
    timeout: patience,
  })
  expect(world.notices).toEqual(['watch: connection refused', 'watch: certificate has expired'])
  node('worker1', true, 1)
  await vi.waitFor(() => expect(world.blind).toBeUndefined(), { timeout: patience })
})
