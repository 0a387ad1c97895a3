/**
 * The lab file as the rest of the program sees it: complete with defaults, validated, read-only. Its types are inferred
 * from the schema; only what `parse.ts` fills in is declared here. Sizes are bytes, durations milliseconds, addresses
 * dotted IPv4, subnets CIDR.
 */
import type { LabId } from '../identity.js'
import { hostNumber, nthRange, parseAddress, parseSubnet, subnetText } from './address.js'
import type { ProviderName } from '../providers.js'
import type { ReadOnly } from './read-only.js'
import type { Role } from './roles.js'
import type { CompleteLabFile } from './schema.js'

export type { ProviderName }

/** What the schema reads. */
type File = ReadOnly<CompleteLabFile>
type Written<Section extends keyof File> = NonNullable<File[Section]>
type Item<Section extends keyof File> = Written<Section> extends readonly (infer T)[] ? T : never

export type { FaultSpec } from './fault-spec.js'
export { type Role, roles } from './roles.js'

/** `iqn` is set for the role `initiator`, and for workers of a lab with targets. */
export interface MachineSpec extends Item<'machines'> {
  /** CIDR. Set where the range of its pods does not follow from its address. */
  readonly podRange?: string | undefined
}

type WrittenTarget = Written<'iscsi'>['targets'][number]

/** Two machines that serve one target: each has a copy of its disks, and one of them serves at a time. */
export interface PairSpec {
  readonly machines: readonly [string, string]
  /** IPv4 address of the portal, which moves between the two. */
  readonly address: string
  /** The machine whose vote decides which of the two continues when they cannot reach each other. */
  readonly quorum: string
}

export interface TargetSpec extends Omit<WrittenTarget, 'machine' | 'machines' | 'address' | 'quorum'> {
  /** Name of the machine that serves it; for a pair, the first one. See `serversOf`. */
  readonly machine: string
  readonly pair?: PairSpec | undefined
}
/** See `initiatorsOfLun` for a LUN without `initiators`. */
export type LunSpec = TargetSpec['luns'][number]
export type Chap = TargetSpec['chap']

/** A LUN with a file system that an initiator machine uses without Kubernetes, as in the walkthrough. */
export interface FilesystemSpec extends Omit<Item<'filesystems'>, 'target'> {
  /** IQN of the target. */
  readonly target: string
}

/** Without an `endpoint`, the lab has one control plane, and its own address is used. */
export type KubernetesSpec = Written<'kubernetes'>
export type ExtraArgs = KubernetesSpec['etcd']

/** The volume of a database: a LUN of the target with this IQN, or a claim of this storage class. */
export type DatabaseVolume =
  | { readonly kind: 'lun'; readonly target: string; readonly lun: number }
  | { readonly kind: 'claim'; readonly class: string }

export interface DatabaseSpec extends Omit<Written<'database'>, 'target' | 'lun' | 'storage' | 'ledgerPort'> {
  readonly volume: DatabaseVolume
  readonly ledgerPort: number
}

/**
 * The machines of a fault: the name of a machine, a role (all its machines), `database` (the worker that runs the
 * database at that moment) or `standby` (the workers that do not).
 */
export type Where = string

export type ScenarioSpec = Item<'scenarios'>
/** A limit that is absent is measured but not judged. */
export type BudgetName = keyof ScenarioSpec['expect']

/** An experiment that the lab file names; its code is in src/course/. */
export type ExperimentSpec = Item<'experiments'>
export type WorkloadSpec = Item<'workloads'>

export type Failover = File['failover']
export type Fencing = File['fencing']

type AsWritten =
  | 'description'
  | 'network'
  | 'failover'
  | 'fencing'
  | 'images'
  | 'storage'
  | 'workloads'
  | 'experiments'
  | 'scenarios'

/** A cluster that somebody else made. */
export interface ExistingCluster {
  /** Name of the context in the kubeconfig. */
  readonly context: string
  /** `https://10.0.0.11:6443` */
  readonly server: string
  /** Identifies the owner of a namespace: no other lab has it. */
  readonly owner: string
  /** The storage class of claims. Absent: the cluster has no default, and none was named. */
  readonly storageClass?: string | undefined
  /** The namespace of what `lab up` deploys. Absent: it deploys nothing. */
  readonly namespace?: string | undefined
}

export interface Lab extends LabId, Pick<File, AsWritten> {
  /** Absolute path of the file it was read from. */
  readonly file: string
  /** The provider in the file; absent: the first that works here. */
  readonly provider?: ProviderName | undefined
  /** The Vagrant box that its machines are made of, and that has nothing of lab. Absent: lab's own box. */
  readonly box?: string | undefined
  /** The cluster whose nodes are the machines. Absent: the machines and the cluster belong to the lab. */
  readonly cluster?: ExistingCluster | undefined
  readonly machines: readonly MachineSpec[]
  readonly targets: readonly TargetSpec[]
  readonly filesystems: readonly FilesystemSpec[]
  readonly kubernetes?: KubernetesSpec | undefined
  readonly database?: DatabaseSpec | undefined
  /** Absolute path of the folder with its manifests, if it has one. */
  readonly manifests?: string | undefined
}

/** What `lab run` can do with a lab, in the order of its file. */
export const runsOf = ({
  scenarios,
  experiments,
}: Pick<Lab, 'scenarios' | 'experiments'>): readonly ExperimentSpec[] =>
  [...scenarios, ...experiments].map(({ name, description }) => ({ name, description }))

export const machinesWith = (lab: Lab, ...roles: readonly Role[]): readonly MachineSpec[] =>
  lab.machines.filter((machine) => roles.includes(machine.role))

/** @throws if the lab has no such machine; the loader has checked every reference */
export const machineNamed = (lab: Lab, name: string): MachineSpec => {
  const machine = lab.machines.find((candidate) => candidate.name === name)
  if (!machine) throw new Error(`no machine ${name} in lab ${lab.name}`)
  return machine
}

/**
 * The address at which nodes and this host reach the API server.
 * @throws for a lab without a control plane: the loader has checked that a cluster has one.
 */
export const apiAddressOf = (lab: Lab): string => {
  const address = lab.kubernetes?.endpoint ?? machinesWith(lab, 'control-plane')[0]?.address
  if (address === undefined) throw new Error(`${lab.name} has no control plane`)
  return address
}

/** Machines that are Kubernetes nodes. */
export const nodesOf = (lab: Lab): readonly MachineSpec[] =>
  lab.kubernetes ? machinesWith(lab, 'control-plane', 'worker') : []

export type Initiator = MachineSpec & { readonly iqn: string }

/** Machines that log in to targets. */
export const initiatorsOf = (lab: Lab): readonly Initiator[] =>
  lab.machines.filter((machine): machine is Initiator => machine.iqn !== undefined)

/**
 * The machines that see a LUN. The lab file may name them. Otherwise, these are all workers for the database's LUN,
 * since it may run on any, and the users of its file systems. A LUN without a known user is for volumes that people
 * make in the cluster: all workers see it, or every initiator in a lab without a cluster.
 */
export const initiatorsOfLun = (
  lab: Lab,
  target: TargetSpec,
  { lun, initiators }: LunSpec,
): readonly Initiator[] => {
  const all = initiatorsOf(lab)
  if (initiators) return all.filter(({ name }) => initiators.includes(name))
  const workers = all.filter(({ role }) => role === 'worker')
  const volume = lab.database?.volume
  if (volume?.kind === 'lun' && volume.target === target.iqn && volume.lun === lun) return workers
  const users = lab.filesystems
    .filter((filesystem) => filesystem.target === target.iqn && filesystem.lun === lun)
    .map(({ initiator }) => initiator)
  if (users.length > 0) return all.filter(({ name }) => users.includes(name))
  return workers.length > 0 ? workers : all
}

/** The initiators that may log in to a target, with the LUNs that each sees: one without LUNs may not log in. */
export const accessTo = (
  lab: Lab,
  target: TargetSpec,
): readonly { readonly initiator: Initiator; readonly luns: readonly number[] }[] => {
  const seen = target.luns.map((lun) => ({ lun: lun.lun, by: new Set(initiatorsOfLun(lab, target, lun)) }))
  return initiatorsOf(lab)
    .map((initiator) => ({
      initiator,
      luns: seen
        .filter(({ by }) => by.has(initiator))
        .map(({ lun }) => lun)
        .sort((a, b) => a - b),
    }))
    .filter(({ luns }) => luns.length > 0)
}

/**
 * The credentials with which an initiator discovers the targets of a machine. The kernel has one setting for all
 * targets of a machine: lab uses the CHAP of the first one in the lab file.
 * @throws for a machine without a target; the loader has checked that it has one
 */
export const discoveryChapOf = (lab: Lab, machine: string): Chap => {
  const [first] = targetsOn(lab, machine)
  if (!first) throw new Error(`no target on ${machine} in lab ${lab.name}`)
  return first.chap
}

/** The machine whose file system every node mounts. */
export const nfsServerOf = (lab: Lab): MachineSpec | undefined => machinesWith(lab, 'nfs')[0]

/** The machines that have the disks of a target: one, or a pair. */
export const serversOf = ({ machine, pair }: TargetSpec): readonly string[] => pair?.machines ?? [machine]

/** The targets whose disks a machine has. */
export const targetsOn = (lab: Lab, machine: string): readonly TargetSpec[] =>
  lab.targets.filter((target) => serversOf(target).includes(machine))

export type PairedTarget = TargetSpec & { readonly pair: PairSpec }

/** Targets that two machines serve. */
export const isPaired = (target: TargetSpec): target is PairedTarget => target.pair !== undefined

export const pairsOf = (lab: Lab): readonly PairedTarget[] => lab.targets.filter(isPaired)

/** The pair that a machine belongs to. */
export const pairWith = (lab: Lab, machine: string): PairedTarget | undefined =>
  pairsOf(lab).find(({ pair }) => pair.machines.includes(machine))

/** The other machine of a pair. */
export const peerOf = ({ pair }: PairedTarget, machine: string): string =>
  pair.machines.find((name) => name !== machine) ?? ''

/**
 * Bytes of the disk behind a LUN. DRBD keeps its metadata at the end of each copy: 4 KiB for 128 MiB, and some more
 * (drbd.conf(5), "internal"); this leaves room to spare.
 */
export const diskSizeOf = ({ pair }: TargetSpec, { size }: LunSpec): number =>
  pair ? Math.ceil((size + size / 16_384) / 1024 ** 2 + 1) * 1024 ** 2 : size

/** The disks that a machine serves as LUNs, in the order of the lab file. `size` is the size of the disk. */
export const disksOn = (lab: Lab, machine: string): readonly (LunSpec & { readonly target: TargetSpec })[] =>
  targetsOn(lab, machine).flatMap((target) =>
    target.luns.map((lun) => ({ ...lun, size: diskSizeOf(target, lun), target })),
  )

/** The address at which initiators find a target. */
export const portalAddressOf = (lab: Lab, { machine, pair }: TargetSpec): string =>
  pair?.address ?? machineNamed(lab, machine).address

/** `192.168.56.70:3260` */
export const portalOf = (lab: Lab, target: TargetSpec): string =>
  `${portalAddressOf(lab, target)}:${String(target.port)}`

/** The link below `/dev/disk/by-path` that udev makes for a LUN on an initiator. */
export const byPathLink = (portal: string, iqn: string, lun: number): string =>
  `ip-${portal}-iscsi-${iqn}-lun-${String(lun)}`

/** @throws if the lab has no such target; the loader has checked every reference */
export const targetNamed = (lab: Lab, iqn: string): TargetSpec => {
  const target = lab.targets.find((candidate) => candidate.iqn === iqn)
  if (!target) throw new Error(`no target ${iqn} in lab ${lab.name}`)
  return target
}

/**
 * The pod range of a node: the n-th /24 of the pod subnet, where n is the node's host number in the lab subnet.
 * `192.168.56.21` gives `10.244.21.0/24`. It follows from the lab file alone, so routes can be written before any
 * node is up.
 * @throws for a lab without Kubernetes; the loader has checked that the range fits
 */
export const podRangeOf = (lab: Lab, machine: MachineSpec): string => {
  if (machine.podRange !== undefined) return machine.podRange
  const subnet = parseSubnet(lab.network.subnet)
  const pods = parseSubnet(lab.kubernetes?.podSubnet ?? '')
  const address = parseAddress(machine.address)
  const host = subnet && address !== undefined ? hostNumber(subnet, address) : undefined
  const range = pods && host !== undefined ? nthRange(pods, host) : undefined
  if (!range) throw new Error(`no pod range for ${machine.name} in lab ${lab.name}`)
  return subnetText(range)
}
