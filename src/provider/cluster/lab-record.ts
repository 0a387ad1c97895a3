/**
 * Which existing cluster a lab uses, as recorded in the lab's folder. The kubeconfig next to it has the credentials.
 */
import type { LabId } from '../../identity.js'
import type { DatabaseSpec, ExistingCluster, Lab, MachineSpec } from '../../lab/lab.js'
import { quote } from '../../machine/sh.js'
import { pathsOf, recordIfThere, writePrivate } from '../../state.js'

/** A node as a machine of the lab. */
export interface ClusterNode {
  readonly name: string
  /** Its internal address. */
  readonly address: string
  /** Whether it accepts pods: it has no taint against them, and is not cordoned. */
  readonly takesPods: boolean
  readonly cpus: number
  /** Bytes. */
  readonly memory: number
  /** References of its images, as far as it reports them: it lists 50. */
  readonly images: readonly string[]
}

export interface KeptCluster extends ExistingCluster {
  /** Without a leading v. */
  readonly version: string
  readonly nodes: readonly Omit<ClusterNode, 'images'>[]
}

/** Undefined: the lab uses no existing cluster. */
export const keptCluster = (lab: LabId): Promise<KeptCluster | undefined> =>
  recordIfThere<KeptCluster>(
    pathsOf(lab).cluster,
    `which cluster ${lab.name} uses`,
    ({ context, server, owner, version, nodes }) =>
      [context, server, owner, version].every((each) => typeof each === 'string') &&
      Array.isArray(nodes) &&
      nodes.every((node) => typeof (node as ClusterNode | null)?.name === 'string'),
    `rm ${quote(pathsOf(lab).cluster)} && lab up ${lab.name} --kubeconfig FILE`,
  )

export const keepCluster = (lab: LabId, kept: KeptCluster): Promise<void> =>
  writePrivate(pathsOf(lab).cluster, JSON.stringify(kept, null, 2))

/** The fields of a node object in the API that are used here. */
export interface NodeObject {
  readonly metadata: { readonly name: string }
  readonly spec: {
    readonly unschedulable?: boolean
    readonly taints?: readonly { readonly key: string; readonly effect: string }[]
  }
  readonly status: {
    readonly addresses?: readonly { readonly type: string; readonly address: string }[]
    readonly capacity?: Readonly<Record<string, string>>
    readonly images?: readonly { readonly names?: readonly string[] }[]
  }
}

/** `2039Ki` as bytes. */
const bytesOf = (quantity: string | undefined): number => {
  const [, number = '0', unit = ''] = /^(\d+)([KMGT]i)?$/.exec(quantity ?? '') ?? []
  return Number(number) * 1024 ** ['', 'Ki', 'Mi', 'Gi', 'Ti'].indexOf(unit)
}

export const nodeOf = ({ metadata, spec, status }: NodeObject): ClusterNode => ({
  name: metadata.name,
  address: status.addresses?.find(({ type }) => type === 'InternalIP')?.address ?? '',
  takesPods:
    spec.unschedulable !== true &&
    !(spec.taints ?? []).some(({ effect }) => effect === 'NoSchedule' || effect === 'NoExecute'),
  cpus: Number(status.capacity?.['cpu'] ?? 1),
  memory: bytesOf(status.capacity?.['memory']),
  images: (status.images ?? []).flatMap(({ names }) => names ?? []),
})

/** The namespace of what `lab up` deploys on an existing cluster; undefined if it deploys nothing there. */
export const homeOf = ({ name, database }: Pick<Lab, 'name' | 'database'>): string | undefined =>
  database?.volume.kind === 'claim' ? `lab-${name}` : undefined

/** The database with a claim of the cluster's class. A cluster that somebody else made has none of the lab's LUNs. */
const databaseOn = ({ database }: Lab, { storageClass }: ExistingCluster): DatabaseSpec | undefined =>
  database?.volume.kind === 'claim'
    ? { ...database, volume: { ...database.volume, class: storageClass ?? database.volume.class } }
    : undefined

/**
 * The lab on the nodes of the cluster. Nodes that accept pods are its workers. What `lab` would otherwise make, such
 * as targets, storage classes and a quick failover, the cluster has or lacks.
 */
export const onCluster = (lab: Lab, { nodes, version, ...cluster }: KeptCluster): Lab => ({
  ...lab,
  database: databaseOn(lab, cluster),
  provider: 'cluster',
  cluster,
  machines: nodes.map(({ takesPods, ...node }): MachineSpec => ({
    ...node,
    role: takesPods ? 'worker' : 'control-plane',
  })),
  targets: [],
  filesystems: [],
  fencing: 'none',
  failover: 'default',
  ...(lab.kubernetes ? { kubernetes: { ...lab.kubernetes, version, endpoint: undefined } } : {}),
})
