/**
 * The contract that every provider must keep, whatever its machines are. A provider that boots machines must pass all
 * of it, on real machines; one that does not boot any must pass the parts that need none.
 *
 * Over 400 lines because a provider is judged by all of it.
 */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Lab, MachineSpec } from '../../src/lab/lab.js'
import { parseLab } from '../../src/registry.js'
import { machineFiles } from '../../src/machine/files.js'
import type { CommandResult, Transport } from '../../src/machine/machine.js'
import {
  apiEndpointOf,
  type Groups,
  lacks,
  type Leftover,
  type MachineState,
  type Provider,
} from '../../src/provider/provider.js'
import { transportTo } from '../../src/session.js'
import { pathsOf } from '../../src/state.js'

const MiB = 1024 ** 2

/**
 * The lab for the contract on real machines.
 * @param memory of each machine: a box has a larger kernel
 * @param file the path of the lab file that this stands for
 */
export const contractLab = (memory: string, file: string): Lab =>
  parseLab(
    `
apiVersion: lab/v1
name: contract
machines:
  - { name: store, role: target, address: 192.168.56.70, memory: ${memory} }
  - { name: other, role: initiator, address: 192.168.56.71, memory: ${memory} }
iscsi:
  targets:
    - machine: store
      iqn: iqn.2016-04.world.srv:target00
      chap: { username: username, password: password }
      luns: [{ lun: 0, size: 64MiB }]
`,
    file,
  )

/** Every member of the core, and of each group; the compiler makes sure that none is missing here. */
const core = {
  name: 1,
  probe: 1,
  preflight: 1,
  prepare: 1,
  states: 1,
  dial: 1,
  destroy: 1,
  leftovers: 1,
} satisfies Record<
  Exclude<keyof Provider, keyof Groups | 'slowdown' | 'sshServer' | 'silentMayRun' | 'withoutSsh' | 'forLab'>,
  1
>

const groups = {
  machines: ['start', 'remove', 'parts', 'partsInUse'],
  power: ['cut', 'on', 'onlyReboots', 'redfish'],
  pause: ['begin', 'end'],
  network: ['create', 'release', 'observe', 'apiEndpoint', 'proxyCommand'],
  disks: ['lunDevice'],
  images: ['archive'],
  console: ['log'],
  snapshots: ['size', 'save', 'load'],
  loan: ['taken', 'take', 'giveBack', 'returned'],
  equipment: ['needed', 'equipped', 'equip'],
} satisfies { [Name in keyof Groups]: readonly (keyof Groups[Name])[] }

/** The questions to a provider that need no machine. */
export const contractOfAny = (
  name: string,
  makeProvider: () => Provider,
  makeLab: () => Promise<Lab>,
): void => {
  describe(`the provider ${name}, without a machine`, () => {
    const provider = makeProvider()

    test('the provider has the whole core, its own name, and no member that the contract does not know', () => {
      expect(provider.name).toBe(name)
      const known = [
        ...Object.keys(core),
        'slowdown',
        'sshServer',
        'silentMayRun',
        'withoutSsh',
        'forLab',
        ...Object.keys(groups),
      ]
      expect(Object.keys(provider)).toEqual(expect.arrayContaining(Object.keys(core)))
      expect(known).toEqual(expect.arrayContaining(Object.keys(provider)))
    })

    test('the provider has only known members in each capability group', () => {
      for (const [group, members] of Object.entries(groups))
        expect(members).toEqual(expect.arrayContaining(Object.keys(provider[group as keyof Groups] ?? {})))
    })

    test('the provider names a stable disk of its own for every LUN', ({ skip }) => {
      const { disks } = provider
      if (!disks) return skip(lacks(provider, 'disks'))
      const devices = Array.from({ length: 20 }, (_, index) => disks.lunDevice(index))
      expect(new Set(devices).size).toBe(20)
      for (const device of devices) expect(device).toMatch(/^\/dev\/[\w/-]+$/)
      expect(Array.from({ length: 20 }, (_, index) => disks.lunDevice(index))).toEqual(devices)
    })

    test('the provider says whether it works here, on what evidence, and otherwise what would make it work', async () => {
      const { usable, evidence, remedy } = await provider.probe(new AbortController().signal)
      expect(evidence.trim()).not.toBe('')
      if (!usable) expect(remedy?.trim()).toBeTruthy()
    })

    test('the provider says before it begins that a lab needs more than this host has', async () => {
      const lab = await makeLab()
      const big = { ...lab, machines: lab.machines.map((each) => ({ ...each, memory: 1024 ** 5 })) }
      const problems = await provider.preflight(big)
      expect(problems.map(({ problem }) => problem).join('\n')).toMatch(/memory/)
      for (const { hint } of problems) expect(hint).not.toBe('')
    })
  })
}

/** A provider that makes machines has these groups, too. */
type MachineMaker = Provider & Pick<Groups, 'machines' | 'power' | 'network' | 'disks' | 'console'>

export interface Bench {
  readonly provider: Provider
  /** Two small machines; the first one has a LUN. */
  readonly lab: Lab
  /**
   * Breaks a machine that was never started, so that it cannot boot, by destroying its disk. Undefined: it does not
   * end then.
   */
  breakDisk?(machine: string): Promise<void>
  /** Permanently removes what machines of the lab were made from. Undefined: they depend on nothing of ours. */
  loseBase?(machine: string): Promise<void>
  /** How many times slower everything is than on User-Mode Linux. Default: 1. */
  readonly slowdown?: number
  /** Bytes of a machine's memory that its kernel reserves before it counts. Default: 48 MiB. */
  readonly kernelTakes?: number
  /** A power cut ends one run of a machine, and no later one. */
  readonly tellsRuns?: boolean
  /** What a running lab consists of. */
  readonly runsAs: readonly Leftover['kind'][]
  /** The network costs nothing, and stays while the machines are off. */
  readonly networkStays?: boolean
}

/** The whole contract, on real machines. The tests are one story: each begins where the one before it ended. */
export const contract = (name: string, makeBench: () => Promise<Bench>): void => {
  describe(`the provider ${name}`, () => {
    let bench: Bench
    let provider: MachineMaker
    let lab: Lab
    let first: MachineSpec
    let second: MachineSpec
    let slowdown = 1
    let kernelTakes = 48 * MiB
    const open: Transport[] = []

    beforeAll(async () => {
      bench = await makeBench()
      ;({ lab, slowdown = slowdown, kernelTakes = kernelTakes } = bench)
      provider = bench.provider as MachineMaker
      ;[first, second] = lab.machines as [MachineSpec, MachineSpec]
    })
    afterAll(async () => {
      await Promise.all(open.map((transport) => transport.close()))
      await provider.destroy(lab)
    })

    const start = (machine: MachineSpec, of = lab): Promise<void> =>
      provider.machines.start(
        of,
        machine,
        machineFiles(of, machine, {
          secrets: { bootstrapToken: 'abcdef.0123456789abcdef', clusterKey: 'key-of-clusters' },
          lunDevice: (index) => provider.disks.lunDevice(index),
        }),
      )
    /** If it had a control plane; nothing else of the lab matters to the test. */
    const apiEndpoint = (): Promise<string> =>
      apiEndpointOf(provider, { ...lab, machines: [{ ...first, role: 'control-plane' }, second] })
    const stateOf = async (machine: string, of = lab): Promise<MachineState | undefined> =>
      (await provider.states(of)).find((state) => state.name === machine)
    const becomes = (machine: string, status: MachineState['status']): Promise<void> =>
      vi.waitFor(
        async () => {
          expect((await stateOf(machine))?.status).toBe(status)
        },
        { timeout: 20_000 * slowdown, interval: 50 },
      )

    let ssh: Transport
    const run = async (command: string): Promise<string> => {
      const result = await ssh.exec(command, { timeout: 20 * slowdown })
      expect(result).toMatchObject({ exitCode: 0 })
      return result.stdout.trim()
    }
    /** Its first answer after a boot. */
    const answers = async (machine: MachineSpec): Promise<void> => {
      ssh = await transportTo(lab, machine, provider)
      open.push(ssh)
      let last: unknown
      for (const until = Date.now() + 60_000 * slowdown; Date.now() < until;) {
        await delay(100)
        const answer: CommandResult | undefined = await ssh
          .exec('true', { timeout: 20 * slowdown })
          .catch((error: unknown) => {
            last = error
            return undefined
          })
        if (answer?.exitCode === 0) return
      }
      throw last
    }
    const bootId = (): Promise<string> => run('cat /proc/sys/kernel/random/boot_id')

    test('the provider works on this host', async () => {
      expect(await provider.probe(new AbortController().signal)).toMatchObject({ usable: true })
      expect(await provider.preflight(lab)).toEqual([])
    })

    test('the provider knows nothing of a lab that was never made, and removing it succeeds silently', async () => {
      expect(await provider.states(lab)).toEqual([
        { name: first.name, status: 'absent', detail: expect.any(String) },
        { name: second.name, status: 'absent', detail: expect.any(String) },
      ])
      expect(await provider.network.observe(lab)).toMatchObject({ ok: false })
      expect(await provider.leftovers(lab)).toEqual([])
      await provider.power.cut(lab, first.name)
      await provider.machines.remove(lab, first.name)
      await provider.network.release(lab)
      await provider.destroy(lab)
      await expect(provider.dial(lab, first.address, 22)).rejects.toThrow()
      expect(await provider.leftovers(lab)).toEqual([])
    })

    test('the provider makes the network once', async () => {
      await provider.network.create(lab)
      expect(await provider.network.observe(lab)).toMatchObject({ ok: true })
      const endpoint = await apiEndpoint()
      const before = await provider.leftovers(lab)
      await provider.network.create(lab)
      expect(await provider.leftovers(lab)).toEqual(before)
      expect(await apiEndpoint()).toBe(endpoint)
      expect(endpoint).toMatch(/^https:\/\/[\d.]+:\d+$/)
      // A port of this host answers; what it leads to is up to the cluster.
      if (!endpoint.includes('//127.')) return
      const socket = connect(Number(new URL(endpoint).port), '127.0.0.1')
      await once(socket, 'connect')
      socket.destroy()
    })

    test('the provider boots a machine, which gets its files and accepts root with its generated key', async () => {
      await start(first)
      expect(await stateOf(first.name)).toEqual({
        name: first.name,
        status: 'running',
        detail: expect.stringMatching(/./),
      })
      expect((await stateOf(second.name))?.status).toBe('absent')
      await answers(first)
      expect(await run('hostname; id -u')).toBe(`${first.name}\n0`)
      expect(await run('cat /etc/hosts')).toContain(`${second.address} ${second.name}`)
      expect(await run('hostname -I')).toContain(first.address)
    })

    test('the provider gives the machine the requested memory', async () => {
      const has = Number(await run(`awk '/^MemTotal/ { print $2 * 1024 }' /proc/meminfo`))
      expect(has).toBeLessThanOrEqual(first.memory)
      // The kernel reserves some memory for itself.
      expect(has).toBeGreaterThan(first.memory - kernelTakes)
    })

    test('the provider gives the machine its LUN as a disk of the requested size', async () => {
      const { size } = lab.targets[0]!.luns[0]!
      expect(await run(`blockdev --getsize64 ${provider.disks.lunDevice(0)}`)).toBe(String(size))
    })

    test('the provider opens connections into the network, and reports when nothing answers', async () => {
      const socket = await provider.dial(lab, first.address, 22)
      const [greeting] = (await once(socket, 'data')) as [Buffer]
      expect(String(greeting)).toMatch(/^SSH-2\.0-/)
      socket.destroy()
      await expect(provider.dial(lab, first.address, 1)).rejects.toThrow(/ECONNREFUSED/)
      await expect(provider.dial(lab, second.address, 22)).rejects.toThrow(/EHOSTUNREACH|ETIMEDOUT/)
    })

    test('the provider leaves a machine that already runs alone', async () => {
      const [id, state] = [await bootId(), await stateOf(first.name)]
      await start(first)
      expect(await stateOf(first.name)).toEqual(state)
      expect(await bootId()).toBe(id)
    })

    test('the provider keeps the console output in the place that it names', async () => {
      expect(existsSync(provider.console.log(lab, first.name))).toBe(true)
      const parts = (await provider.machines.partsInUse?.()) ?? []
      expect(parts.length > 0).toBe(bench.loseBase !== undefined)
      expect(parts.filter((path) => !existsSync(path))).toEqual([])
      expect(await readFile(provider.console.log(lab, first.name), 'utf8')).toMatch(/Linux version/)
    })

    test('the provider detects a machine that runs with settings other than those of the lab file', async () => {
      const wanted = { ...first, memory: first.memory + 64 * MiB }
      const edited = { ...lab, machines: [wanted, second] }
      expect((await stateOf(first.name, edited))?.differs).toMatch(/mem/)
      expect(await stateOf(first.name)).not.toHaveProperty('differs')
      // It also reports a machine that is no longer in the file at all.
      expect(await provider.states({ ...lab, machines: [second] })).toContainEqual(
        expect.objectContaining({ name: first.name, status: 'running' }),
      )
    })

    test('the provider keeps the network while a machine uses it', async () => {
      await provider.network.release(lab)
      expect(await provider.network.observe(lab)).toMatchObject({ ok: true })
      expect((await stateOf(first.name))?.status).toBe('running')
    })

    test('the provider cuts the power at once and keeps the disks', async () => {
      const id = await bootId()
      await run(
        `echo kept > /root/kept && printf %s kept-too | dd of=${provider.disks.lunDevice(0)} conv=fsync status=none && sync`,
      )
      const begun = Date.now()
      await provider.power.cut(lab, first.name)
      expect(Date.now() - begun).toBeLessThan(3000 * slowdown)
      expect((await stateOf(first.name))?.status).toBe('stopped')
      await expect(ssh.exec('true', { timeout: 5 })).rejects.toThrow()
      await provider.power.cut(lab, first.name)

      // And it comes back with the settings that the lab file has now.
      const wanted = { ...first, memory: first.memory + 64 * MiB }
      lab = { ...lab, machines: [wanted, second] }
      first = wanted
      await start(first)
      await answers(first)
      expect(await bootId()).not.toBe(id)
      expect(await run('cat /root/kept')).toBe('kept')
      expect(await run(`head -c 8 ${provider.disks.lunDevice(0)}`)).toBe('kept-too')
      const has = Number(await run(`awk '/^MemTotal/ { print $2 * 1024 }' /proc/meminfo`))
      expect(has).toBeGreaterThan(first.memory - kernelTakes)
      expect(await stateOf(first.name)).not.toHaveProperty('differs')
    })

    test('the provider gives each run of a machine an identifier of its own', async () => {
      const details = new Set([(await stateOf(first.name))?.detail])
      for (let times = 0; times < 2; times++) {
        await provider.power.cut(lab, first.name)
        await start(first)
        details.add((await stateOf(first.name))?.detail)
      }
      expect(details.size).toBe(3)
      await answers(first)
    })

    test.for([
      ['in an orderly way', 'systemctl reboot'],
      ['at once', 'echo b > /proc/sysrq-trigger'],
    ] as const)(
      'the provider brings a machine that restarts itself %s back to its network',
      async ([, command]) => {
        const before = await bootId()
        // The connection ends with the machine.
        await ssh.exec(command, { timeout: 20 * slowdown }).catch(() => undefined)
        await vi.waitFor(
          async () => {
            await answers(first)
            expect(await bootId()).not.toBe(before)
          },
          { timeout: 60_000 * slowdown },
        )
      },
    )

    test('the provider ends the requested run of a machine and spares a later one, where runs can be distinguished', async ({
      skip,
    }) => {
      if (!bench.tellsRuns) return skip('it cannot tell runs apart')
      const before = (await stateOf(first.name))!.detail
      await provider.power.cut(lab, first.name, { run: before })
      expect((await stateOf(first.name))?.status).toBe('stopped')
      await start(first)
      const after = await stateOf(first.name)
      await provider.power.cut(lab, first.name, { run: before })
      expect(await stateOf(first.name)).toEqual(after)
      await answers(first)
    })

    test('the provider pauses a machine and resumes it', async ({ skip }) => {
      if (!provider.pause) return skip('it cannot')
      const { pause: group } = provider
      const pause = (name: string): Promise<void> => group.begin(lab, name)
      const resume = (name: string): Promise<void> => group.end(lab, name)
      const [id, before] = [await bootId(), await stateOf(first.name)]
      expect(before).not.toHaveProperty('paused')
      for (const act of [pause, pause]) await act(first.name)
      expect(await stateOf(first.name)).toMatchObject({
        status: 'running',
        detail: before?.detail,
        paused: true,
      })
      const silent = await transportTo(lab, first, provider)
      open.push(silent)
      await expect(silent.exec('true', { timeout: 2 })).rejects.toThrow()
      for (const act of [resume, resume]) await act(first.name)
      await answers(first)
      expect(await stateOf(first.name)).toEqual(before)
      expect(await bootId()).toBe(id)
      // A machine that does not run is left alone.
      for (const act of [pause, resume]) await act(second.name)
      expect((await stateOf(second.name))?.status).toBe('absent')
    })

    test('the provider cuts the power of a paused machine', async ({ skip }) => {
      if (!provider.pause) return skip('it cannot')
      await provider.pause.begin(lab, first.name)
      await provider.power.cut(lab, first.name)
      expect((await stateOf(first.name))?.status).toBe('stopped')
      await start(first)
      await answers(first)
    })

    test('the provider cuts the power of a machine that has just begun to start, and releases its disks', async () => {
      for (const wait of [0, 0, 5, 20, 50]) {
        await provider.power.cut(lab, first.name)
        await start(first)
        await delay(wait)
        await provider.power.cut(lab, first.name)
        expect((await stateOf(first.name))?.status).toBe('stopped')
      }
      await start(first)
      await answers(first)
      expect(await run('echo fine')).toBe('fine')
    })

    test('the provider reports the last console output of a machine that cannot boot, and where to find the rest', async ({
      skip,
    }) => {
      if (!bench.breakDisk) return skip('here a machine that cannot boot goes on running')
      await bench.breakDisk(second.name)
      await start(second)
      await becomes(second.name, 'stopped')
      const { detail } = (await stateOf(second.name))!
      expect(detail).toMatch(/Kernel panic|root/)
      const log = provider.console.log(lab, second.name)
      expect(log.startsWith('/')).toBe(true)
      expect(await readFile(log, 'utf8')).toContain(/console: (.*)$/.exec(detail)?.[1] ?? 'nothing')
      // The other machine is not affected.
      expect(await run('echo fine')).toBe('fine')
    })

    test('the provider says what to do about a machine whose base disk is gone', async ({ skip }) => {
      if (!bench.loseBase) return skip('here it stands on nothing of ours')
      await bench.loseBase(second.name)
      await expect(start(second)).rejects.toMatchObject({
        code: 'base-gone',
        message: expect.stringContaining(second.name),
        hint: expect.stringContaining(`lab down ${lab.name}`),
      })
    })

    test('the provider removes a machine with its disks', async () => {
      await provider.machines.remove(lab, second.name)
      expect((await stateOf(second.name))?.status).toBe('absent')
      expect(existsSync(pathsOf(lab).machine(second.name))).toBe(false)
      await provider.machines.remove(lab, second.name)
      expect((await stateOf(first.name))?.status).toBe('running')
    })

    test('the provider reports a machine that shut itself down as off, with its disks kept', async () => {
      await ssh
        .exec('nohup systemctl poweroff --force >/dev/null 2>&1 &', { timeout: 10 * slowdown })
        .catch(() => undefined)
      await becomes(first.name, 'stopped')
      const endpoint = await apiEndpoint()
      await provider.network.release(lab)
      if (!bench.networkStays)
        await vi.waitFor(
          async () => expect(await provider.network.observe(lab)).toMatchObject({ ok: false }),
          5000 * slowdown,
        )
      expect((await stateOf(first.name))?.status).toBe('stopped')
      await vi.waitFor(async () => {
        expect(new Set((await provider.leftovers(lab)).map(({ kind }) => kind))).toEqual(new Set(['file']))
      }, 5000 * slowdown)
      await provider.network.create(lab)
      expect(await apiEndpoint()).toBe(endpoint)
      await start(first)
      await answers(first)
      expect(await run('cat /root/kept')).toBe('kept')
    })

    test('the provider removes a running lab completely, and again without an error', async () => {
      expect(new Set((await provider.leftovers(lab)).map(({ kind }) => kind))).toEqual(new Set(bench.runsAs))
      for (const times of [1, 2]) {
        await provider.destroy(lab)
        expect([times, await provider.leftovers(lab)]).toEqual([times, []])
      }
      expect(await provider.network.observe(lab)).toMatchObject({ ok: false })
      expect((await provider.states(lab)).map(({ status }) => status)).toEqual(['absent', 'absent'])
      expect(existsSync(pathsOf(lab).root)).toBe(false)
    })
  })
}
