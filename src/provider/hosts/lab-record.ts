/** Which hosts a lab has, as recorded in the lab's folder: with what is needed to reach them, and without secrets. */
import type { LabId } from '../../identity.js'
import { nthRange, parseSubnet, subnetText } from '../../lab/address.js'
import type { HostsFile } from '../../lab/hosts-file.js'
import { type Lab, nodesOf } from '../../lab/lab.js'
import { quote } from '../../machine/sh.js'
import { type Architecture, architectures } from '../../parts/architecture.js'
import { pathsOf, recordIfThere, writePrivate } from '../../state.js'
import { type Asked, interfaceOf } from './asked.js'

/** The real properties of a machine of the lab. */
export interface Placed {
  readonly name: string
  /** Its address in the lab, with the prefix length of its network. */
  readonly address: string
  readonly prefix: number
  /** Bytes. */
  readonly memory: number
  readonly cpus: number
  /** Absent in records of earlier versions, whose hosts are all of this computer's kind. */
  readonly architecture?: Architecture
}

export interface KeptHosts {
  readonly file: HostsFile
  readonly machines: readonly Placed[]
  /** Names of machines that were given back. */
  readonly returned: readonly string[]
}

/**
 * Undefined: the lab has no hosts.
 * @throws LabError `bad-state` if the record is damaged; the record on each host is then enough to give it back
 */
export const keptHosts = (lab: LabId): Promise<KeptHosts | undefined> =>
  recordIfThere<KeptHosts>(
    pathsOf(lab).hosts,
    `which hosts ${lab.name} has`,
    ({ file, machines, returned }) => {
      const { hosts, jumpHosts } = (file ?? {}) as Partial<HostsFile>
      return (
        [hosts, jumpHosts, machines].every(
          (list) =>
            Array.isArray(list) && list.every((one) => typeof (one as Placed | null)?.name === 'string'),
        ) && Array.isArray(returned)
      )
    },
    `to give them back: rm -r ${quote(pathsOf(lab).root)} && lab hosts release FILE, with its hosts.yaml`,
  )

export const keepHosts = (lab: LabId, kept: KeptHosts): Promise<void> =>
  writePrivate(pathsOf(lab).hosts, JSON.stringify(kept, null, 2))

/** Records that a host was given back, so that a later `down` tries only the others. */
export const keepReturned = async (lab: LabId, machine: string): Promise<void> => {
  const kept = await keptHosts(lab)
  if (kept && !kept.returned.includes(machine))
    await keepHosts(lab, { ...kept, returned: [...kept.returned, machine] })
}

/** Before a host that was given back is used again. */
export const keepTaken = async (lab: LabId, machine: string): Promise<void> => {
  const kept = await keptHosts(lab)
  if (kept?.returned.includes(machine))
    await keepHosts(lab, { ...kept, returned: kept.returned.filter((name) => name !== machine) })
}

export const placedHosts = (file: HostsFile, hosts: readonly Asked[]): KeptHosts => ({
  file,
  machines: hosts.map((asked) => {
    const own = interfaceOf(asked)
    const mebibyte = 1024 ** 2
    const architecture = architectures.find((each) => each === asked.facts.architecture)
    return {
      name: asked.spec.name,
      address: own?.address ?? '',
      prefix: own?.prefix ?? 32,
      memory: Math.ceil(asked.facts.memory / mebibyte) * mebibyte,
      cpus: asked.facts.cpus,
      ...(architecture ? { architecture } : {}),
    }
  }),
  returned: [],
})

/**
 * The lab with the addresses that its hosts really have. Its network is that of its first node, or of its first
 * machine; nodes get pod ranges in their order, because their last numbers may be the same.
 */
export const onHosts = (lab: Lab, { machines }: Pick<KeptHosts, 'machines'>): Lab => {
  const placed = (name: string): Placed | undefined => machines.find((each) => each.name === name)
  const nodes = nodesOf(lab)
  const first = placed(nodes[0]?.name ?? lab.machines[0]?.name ?? '')
  const subnet = first && parseSubnet(`${first.address}/${String(first.prefix)}`)
  const pods = parseSubnet(lab.kubernetes?.podSubnet ?? '')
  return {
    ...lab,
    provider: 'hosts',
    network: subnet ? { subnet: subnetText(subnet) } : lab.network,
    machines: lab.machines.map((machine) => {
      const place = placed(machine.name)
      if (!place) return machine
      const { address, memory, cpus } = place
      const range = pods && nodes.includes(machine) ? nthRange(pods, nodes.indexOf(machine) + 1) : undefined
      return { ...machine, address, memory, cpus, ...(range ? { podRange: subnetText(range) } : {}) }
    }),
  }
}
