/**
 * The checks of a database on a LUN, with machines and a cluster that answer with the table. Other pods, LUNs and
 * sessions do not matter to the database; problems with its own are named.
 */
import { beforeAll, describe, expect, it } from 'vitest'
import type { Lab } from '../../src/lab/lab.js'
import { loadLab } from '../../src/registry.js'
import { serialOf } from '../../src/machine/digest.js'
import type { Command } from '../../src/machine/sh.js'
import type { Check, Context, Step } from '../../src/context.js'
import type { Verdict } from '../../src/plan/step.js'
import { deployDatabase } from '../../src/steps/database.js'
import { targetSees } from '../../src/steps/lun-use.js'

interface Now {
  /** What each worker reports about its disks. */
  readonly disks?: Readonly<Record<string, readonly string[]>>
  /** Names of the initiators that the target sees. */
  readonly loggedIn?: readonly string[]
  /** Pods of the database by name: on which node, ready or not. */
  readonly pods?: Readonly<Record<string, readonly [node: string, ready: boolean]>>
  readonly events?: readonly string[]
}

let lab: Lab
let ours: string
beforeAll(async () => {
  const shipped = await loadLab('iscsi-ha')
  const [target] = shipped.targets
  if (!target) throw new Error('no target')
  lab = { ...shipped, targets: [{ ...target, luns: [...target.luns, { lun: 1, size: 1024 ** 3 }] }] }
  ours = `naa.6001405${serialOf(target, 0).slice(0, 25)}`
})

const others = 'naa.60014050000000000000000000000000'
const mounted = (disk: string, options = 'rw,relatime'): string =>
  `mount ${disk} /var/lib/kubelet/plugins/kubernetes.io/iscsi/x ${options}`

const contextOf = (
  { disks = {}, loggedIn = [], pods = {}, events = [] }: Now,
  ran: string[][] = [],
  of = lab,
  /** The commands that ran on machines to change them. */
  did: string[] = [],
): Context => {
  const items = Object.entries(pods).map(([name, [node, ready]]) => ({
    metadata: { name, namespace: 'default', labels: { app: 'mysql-server' } },
    spec: { nodeName: node },
    status: {
      phase: ready ? 'Running' : 'Pending',
      conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }],
    },
  }))
  const run = (name: string, { text }: Command): Promise<string> => {
    if (text.includes('--logout')) did.push(`${name}: ${text.slice(text.lastIndexOf('&&') + 3)}`)
    return Promise.resolve(
      text.includes('LOGGED_IN')
        ? loggedIn.map((each) => `iqn.2016-04.world.srv:${each}`).join('\n')
        : text.includes('/sys/block')
          ? (disks[name] ?? []).join('\n')
          : '',
    )
  }
  const context: unknown = {
    lab: of,
    signal: new AbortController().signal,
    provider: {},
    machine: (name: string) => ({ run: (command: Command) => run(name, command) }),
    kubectl: {
      get: (what: string) =>
        Promise.resolve({
          items: what === 'events' ? events.map((message) => ({ reason: 'FailedMount', message })) : items,
        }),
      run: (words: string[]) => {
        ran.push(words)
        return Promise.resolve('')
      },
    },
  }
  return context as Context
}

const stepOf = (of = lab): Step => {
  if (!of.database) throw new Error('no database')
  return deployDatabase(of, of.database)
}
const checkOf = (id: string, { checks }: Step = stepOf()): Check => {
  const found = checks.find((check) => check.id === id)
  if (!found) throw new Error(`no check ${id}`)
  return found
}
const ask = (id: string, now: Now): Promise<Verdict> => checkOf(id).probe(contextOf(now))

/** The database on worker1, and an unrelated pod on worker2, with another LUN of the same target. */
const shared = (): Now => ({
  disks: {
    worker1: [`disk sda 1 running ${ours}`, mounted('sda')],
    worker2: [`disk sda 1 running ${others}`, mounted('sda')],
  },
  loggedIn: ['worker2', 'worker1'],
  pods: { one: ['worker1', true] },
})

describe('a pod of the user with another LUN of the target', () => {
  it.each(['volume-mounted-once', 'worker1-session', 'worker2-session', 'volume-writable', 'database-runs'])(
    'a pod of the user with another LUN does not make the check fail for %s',
    async (id) => {
      expect(await ask(id, shared())).toMatchObject({ ok: true })
    },
  )

  it('a pod of the user with another LUN may be logged in next to the node of the database, which is named first', async () => {
    if (lab.database?.volume.kind !== 'lun') throw new Error('no LUN')
    const { checks } = targetSees(lab, lab.database, lab.database.volume)
    expect(await checks[0].probe(contextOf(shared()))).toEqual({
      ok: true,
      saw: 'iqn.2016-04.world.srv:worker1, iqn.2016-04.world.srv:worker2',
    })
    expect(await checks[0].probe(contextOf({ ...shared(), loggedIn: ['worker2'] }))).toMatchObject({
      ok: false,
    })
  })

  it("a pod of the user with another LUN does not hide that its node has mounted the database's LUN as well", async () => {
    const now: Now = {
      ...shared(),
      disks: {
        ...shared().disks,
        worker2: [`disk sda 1 running ${others}`, `disk sdb 1 running ${ours}`, mounted('sdb')],
      },
    }
    expect(await ask('volume-mounted-once', now)).toMatchObject({ ok: false })
    expect(await ask('worker2-session', now)).toMatchObject({ ok: false })
  })

  it("the session of a pod with another LUN may have discovered the database's LUN as long as it does not use it", async () => {
    const disks = {
      ...shared().disks,
      worker2: [`disk sda 1 running ${others}`, `disk sdb 1 running ${ours}`],
    }
    expect(await ask('worker2-session', { ...shared(), disks })).toMatchObject({ ok: true })
  })
})

it('the check reports a session that was left behind on a node without the database', async () => {
  const disks = { ...shared().disks, worker2: [`disk sda 1 running ${ours}`] }
  expect(await ask('worker2-session', { ...shared(), disks })).toMatchObject({ ok: false })
})

describe('a session that a refused mount left behind', () => {
  const applied = async (now: Now): Promise<readonly string[]> => {
    const did: string[] = []
    await stepOf().apply?.(contextOf(now, [], lab, did), () => undefined)
    return did
  }
  const left = (): readonly string[] => [`disk sda 1 running ${others}`, `disk sdb 7 running ${ours}`]

  it('lab up logs out a session that a refused mount left behind, and no other session', async () => {
    const now: Now = { ...shared(), disks: { ...shared().disks, worker2: left() } }
    expect(await applied(now)).toEqual(['worker2: iscsiadm -m session -r 7 --logout'])
  })

  it('a session that a refused mount left behind stays when the database is about to use it', async () => {
    const now: Now = { disks: { worker1: [], worker2: left() }, pods: { one: ['worker2', false] } }
    expect(await applied(now)).toEqual([])
  })

  it('a session that a refused mount left behind stays when it shows other LUNs as well or its disk is mounted', async () => {
    for (const worker2 of [
      [`disk sda 7 running ${others}`, `disk sdb 7 running ${ours}`],
      [...left(), mounted('sdb')],
    ])
      expect(await applied({ ...shared(), disks: { ...shared().disks, worker2 } })).toEqual([])
  })
})

it("no other node may be logged in at a target whose only LUN is the database's", async () => {
  const [target] = lab.targets
  if (!target || lab.database?.volume.kind !== 'lun') throw new Error('no LUN')
  const alone = { ...lab, targets: [{ ...target, luns: target.luns.slice(0, 1) }] }
  const { checks } = targetSees(alone, lab.database, lab.database.volume)
  expect(await checks[0].probe(contextOf(shared(), [], alone))).toMatchObject({ ok: false })
})

describe('a file system that was shut down', () => {
  const dead = (): Now => ({
    disks: {
      worker1: [`disk sda 1 running ${ours}`, mounted('sda', 'rw,emergency_ro,relatime')],
      worker2: [],
    },
    pods: { one: ['worker1', false] },
  })

  it('a file system that was shut down is named, with its node, before the failures that follow from it', async () => {
    expect(stepOf().checks[0].id).toBe('volume-writable')
    expect(await ask('volume-writable', dead())).toEqual({
      ok: false,
      saw: "the database's file system on worker1 is shut down after an I/O error (emergency_ro)",
    })
  })

  it('a file system that was shut down is distinguished from one mounted read-only', async () => {
    const disks = { worker1: [`disk sda 1 running ${ours}`, mounted('sda', 'ro,relatime')], worker2: [] }
    expect(await ask('volume-writable', { ...dead(), disks })).toEqual({
      ok: false,
      saw: "the database's file system on worker1 is read-only",
    })
  })

  it('lab up mounts a file system that was shut down again by deleting its pod, since restarting a container does not', async () => {
    const ran: string[][] = []
    await stepOf().apply?.(contextOf(dead(), ran), () => undefined)
    expect(ran.map((words) => words.slice(0, 3))).toContainEqual(['delete', 'pod', 'one'])
  })

  it('lab up deletes a pod for no other reason than a file system that was shut down', async () => {
    const ran: string[][] = []
    await stepOf().apply?.(contextOf(shared(), ran), () => undefined)
    expect(ran.filter(([word]) => word === 'delete')).toEqual([])
  })
})

it('the check names a disk that does not answer', async () => {
  const disks = { worker1: [`disk sda 1 transport-offline ${ours}`, mounted('sda')], worker2: [] }
  expect(await ask('volume-writable', { disks })).toEqual({
    ok: false,
    saw: 'the disk does not answer on worker1: sda is transport-offline',
  })
})

it.each<[string, Now['pods'], string]>([
  ['there is no pod', {}, 'there is no pod of mysql-server to mount it for'],
  ['its pod is still waiting', { one: ['worker1', false] }, 'Pending, on worker1'],
])('the check says why no node has mounted the LUN when %s', async (_, waiting, why) => {
  expect(await ask('volume-writable', { pods: waiting ?? {} })).toEqual({
    ok: false,
    saw: `mounted on no node, and ${why}`,
  })
})

it('a superfluous pod is not counted as the expected one, and the check says what it waits for', async () => {
  const verdict = await ask('database-runs', {
    ...shared(),
    pods: { one: ['worker1', true], two: ['worker2', false] },
    events: [
      'mount failed: exit status 32\nOutput: scope\nlab: did not use /dev/sda, because only one node may use it at a time: worker1 is healthy and uses it',
    ],
  })
  expect(verdict.ok).toBe(false)
  expect(verdict.saw).toContain(
    'lab: did not use /dev/sda, because only one node may use it at a time: worker1 is healthy and uses it',
  )
})
