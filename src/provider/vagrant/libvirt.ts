/** libvirt, through virsh. */
import { type LabId, wordOf } from '../../identity.js'
import { availableParallelism } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { addressText, sizeOf } from '../../lab/address.js'
import type { Lab } from '../../lab/lab.js'
import { pathsOf, writePrivate } from '../../state.js'
import type { Leftover } from '../provider.js'
import { type Found, type Hypervisor, prefixOf, subnetOf } from './hypervisor.js'
import { answer, ask, must } from './tools.js'

/** The default of vagrant-libvirt. */
const connection = ['--connect', 'qemu:///system', '--quiet']

const virsh = (lab: LabId, machine: string | undefined, ...args: readonly string[]) =>
  must(lab.name, 'virsh', [...connection, ...args], machine === undefined ? {} : { machine })

const tryVirsh = (...args: readonly string[]) => ask('virsh', [...connection, ...args])

/** Empty if virsh is not installed and the lab was not made with it. */
const told = async (lab: LabId, ...args: readonly string[]): Promise<string> =>
  (await answer(lab, 'libvirt', 'virsh', [...connection, ...args])) ?? ''

const linesOf = (text: string): readonly string[] =>
  text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')

const domainOf = (lab: LabId, machine: string): string => `${prefixOf(lab)}${machine}`

const networkOf = (lab: LabId): string => `lab_${wordOf(lab)}`

/**
 * States and reasons of virDomainState, by number. A domain in any other state than these two may write, also one that
 * its guest has suspended and that wakes up again.
 */
const shutOff = '5'
const crashed = '6'
const pausedState = '3'
const offReasons: Readonly<Record<string, string>> = {
  '1': 'shut down',
  '2': 'its power was cut',
  '3': 'it crashed',
  '6': 'it could not be started',
}

/** Parses `Domain: 'NAME'` followed by `  key=value` lines, for each domain. */
const parseStats = (text: string): readonly (ReadonlyMap<string, string> & { readonly domain?: string })[] =>
  text
    .split(/^Domain: /m)
    .slice(1)
    .map((block) => {
      const [first = '', ...lines] = block.split('\n')
      const values = new Map([['domain', first.trim().replace(/^'|'$/g, '')]])
      for (const line of lines) {
        const at = line.indexOf('=')
        if (at > 0) values.set(line.slice(0, at).trim(), line.slice(at + 1).trim())
      }
      return values
    })

/** Parses lines of a number or UUID and a name into a map from name to the former. */
const byName = (lines: string): ReadonlyMap<string, string> =>
  new Map(
    lines.split('\n').map((line) => {
      const [id = '', name = ''] = line.trim().split(/\s+/)
      return [name, id]
    }),
  )

const machines: Hypervisor['machines'] = async (lab) => {
  const prefix = prefixOf(lab)
  // One virsh for three questions, since starting and connecting takes longer than the answers. No name contains a
  // slash.
  const said = await told(
    lab,
    ['domstats --state --balloon --vcpu --nowait', 'list --all --uuid --name', 'list'].join('; echo /; '),
  )
  const [stats = '', ids = '', active = ''] = said.split('/')
  const idOf = byName(ids)
  // A domain gets a new number every time it is switched on: `  7   lab_iscsi_target   running`.
  const numberOf = byName(active)
  return parseStats(stats)
    .filter((values) => values.get('domain')?.startsWith(prefix))
    .map((values): Found => {
      const domain = values.get('domain') ?? ''
      const state = values.get('state.state') ?? ''
      const on = state !== shutOff && state !== crashed
      const reason = values.get('state.reason') ?? ''
      const number = (key: string): number | undefined =>
        values.has(key) ? Number(values.get(key)) : undefined
      const kibibytes = number('balloon.maximum')
      return {
        name: domain.slice(prefix.length),
        id: idOf.get(domain) ?? '',
        running: on,
        ...(state === pausedState ? { paused: true } : {}),
        detail: on
          ? `domain ${domain}, number ${numberOf.get(domain) ?? 'unknown'}`
          : state === crashed
            ? 'it crashed'
            : (offReasons[reason] ?? 'it is off'),
        memory: kibibytes === undefined ? undefined : kibibytes * 1024,
        cpus: number('vcpu.maximum'),
      }
    })
}

/** Escapes every byte with a meaning in XML, so that any lab name stays text. */
const xml = (text: string): string =>
  text.replaceAll(/[&<>"']/g, (letter) => `&#${String(letter.charCodeAt(0))};`)

/** The network that vagrant-libvirt would create with the first machine; it uses an existing one. */
const networkXml = (lab: Lab): string => {
  const subnet = subnetOf(lab.network.subnet)
  const netmask = addressText(2 ** 32 - sizeOf(subnet))
  return `<network>
  <name>${xml(networkOf(lab))}</name>
  <bridge stp='on' delay='0'/>
  <ip address='${addressText(subnet.base + 1)}' netmask='${netmask}'/>
</network>
`
}

interface NetworkState {
  readonly defined: boolean
  readonly active: boolean
  readonly bridge: string
}

const networkState = async (lab: LabId): Promise<NetworkState> => {
  const name = networkOf(lab)
  if (!linesOf(await told(lab, 'net-list', '--all', '--name')).includes(name))
    return { defined: false, active: false, bridge: '' }
  const info = await told(lab, 'net-info', name)
  return {
    defined: true,
    active: /^Active:\s+yes/m.test(info),
    bridge: /^Bridge:\s+(\S+)/m.exec(info)?.[1] ?? '',
  }
}

const volumes = async (lab: LabId): Promise<readonly { pool: string; name: string }[]> => {
  const found = await Promise.all(
    linesOf(await told(lab, 'pool-list', '--name')).map(async (pool) =>
      linesOf(await told(lab, 'vol-list', pool))
        .map((line) => line.split(/\s+/)[0] ?? '')
        .filter((name) => name.startsWith(prefixOf(lab)))
        .map((name) => ({ pool, name })),
    ),
  )
  return found.flat()
}

const remove: Hypervisor['remove'] = async (lab, machine) => {
  const domain = domainOf(lab, machine)
  await tryVirsh('destroy', domain)
  if ((await machines(lab)).some(({ name }) => name === machine))
    await virsh(lab, machine, 'undefine', domain, '--managed-save', '--snapshots-metadata', '--nvram')
  for (const { pool, name } of await volumes(lab))
    // Vagrant names them NAME.img and NAME-vdb.qcow2.
    if (name.startsWith(`${domain}.`) || name.startsWith(`${domain}-vd`))
      await virsh(lab, machine, 'vol-delete', '--pool', pool, name)
}

const releaseNetwork = async (lab: LabId): Promise<void> => {
  if ((await machines(lab)).some((machine) => machine.running)) return
  if ((await networkState(lab)).active) await virsh(lab, undefined, 'net-destroy', networkOf(lab))
}

const createNetwork: Hypervisor['createNetwork'] = async (lab) => {
  const { defined, active } = await networkState(lab)
  if (!defined) {
    // virsh opens the file by name, which does not work for a socket as its standard input.
    const file = pathsOf(lab).vagrant.network
    await writePrivate(file, networkXml(lab))
    await virsh(lab, undefined, 'net-define', file)
  }
  if (!active) await virsh(lab, undefined, 'net-start', networkOf(lab))
}

export const libvirt: Hypervisor = {
  program: 'virsh',
  together: Math.max(2, availableParallelism()),
  machines,
  createNetwork,
  releaseNetwork,
  network: async (lab) => {
    const { active, bridge } = await networkState(lab)
    return active
      ? { ok: true, saw: `libvirt network ${networkOf(lab)} on ${bridge}` }
      : { ok: false, saw: `libvirt has no active network ${networkOf(lab)}` }
  },
  start: async (lab, machine) => {
    const domain = domainOf(lab, machine.name)
    const found = (await machines(lab)).find(({ name }) => name === machine.name)
    const kibibytes = String(Math.ceil(machine.memory / 1024))
    if (found?.memory !== machine.memory) {
      await virsh(lab, machine.name, 'setmaxmem', domain, kibibytes, '--config')
      await virsh(lab, machine.name, 'setmem', domain, kibibytes, '--config')
    }
    const cpus = String(Math.ceil(machine.cpus))
    if (String(found?.cpus) !== cpus) {
      await virsh(lab, machine.name, 'setvcpus', domain, cpus, '--maximum', '--config')
      await virsh(lab, machine.name, 'setvcpus', domain, cpus, '--config')
    }
    await virsh(lab, machine.name, 'start', domain)
  },
  cut: async (lab, machine) => {
    await tryVirsh('destroy', domainOf(lab, machine))
    if ((await machines(lab)).some(({ name, running: on }) => name === machine && on))
      await virsh(lab, machine, 'destroy', domainOf(lab, machine))
  },
  pause: async (lab, machine) => {
    await virsh(lab, machine, 'suspend', domainOf(lab, machine))
  },
  resume: async (lab, machine) => {
    await virsh(lab, machine, 'resume', domainOf(lab, machine))
  },
  remove,
  destroy: async (lab) => {
    const names = new Set((await machines(lab)).map(({ name }) => name))
    await Promise.all([...names].map((name) => remove(lab, name).catch(() => undefined)))
    // Volumes of machines that were only partly created or removed.
    for (const { pool, name } of await volumes(lab)) await tryVirsh('vol-delete', '--pool', pool, name)
    await tryVirsh('net-destroy', networkOf(lab))
    await tryVirsh('net-undefine', networkOf(lab))
    for (let tries = 0; tries < 20 && (await machines(lab)).length > 0; tries++) await delay(100)
  },
  leftovers: async (lab) => {
    const [found, network, disks] = await Promise.all([machines(lab), networkState(lab), volumes(lab)])
    return [
      ...found.map(({ name, running: on }): Leftover => ({
        kind: on ? 'process' : 'file',
        what: `libvirt domain ${domainOf(lab, name)}`,
      })),
      ...(network.active
        ? [{ kind: 'interface', what: network.bridge } as const]
        : network.defined
          ? [{ kind: 'file', what: `libvirt network ${networkOf(lab)}` } as const]
          : []),
      ...disks.map(({ pool, name }): Leftover => ({
        kind: 'file',
        what: `libvirt volume ${name} in pool ${pool}`,
      })),
    ]
  },
}
