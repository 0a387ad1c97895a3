/** The rules for Kubernetes, its database and its workloads. */
import { providerEntry, providerNames } from '../providers.js'
import { hostNumber, nthRange, overlaps, parseAddress, sizeOf } from './address.js'
import { type DraftFile, type Found, type Path, items, lacks, pathText, Taken } from './draft.js'
import { defaults, lastNodePort } from './fields.js'
import type { ProviderName } from './lab.js'
import { addressProblem, freeAddress, labSubnet, podSubnet, subnetAt } from './subnets.js'
import { anyOf, didYouMean, shown } from './suggest.js'

type File = DraftFile

/** The versions and images that a lab may ask for. */
export interface Supported {
  /** The version that is built for the provider uml; undefined when it is unknown. */
  readonly built: string | undefined
  /** Minor versions that can be installed as packages, such as `1.36`. */
  readonly minors: readonly string[]
  /** The images that a lab may ask for, such as `nginx:1.26`; undefined when they are unknown. */
  readonly images?: readonly string[] | undefined
}

/** Why a provider cannot run this version of Kubernetes. Without a provider, the version must suit all of them. */
export const versionProblem = (
  version: string,
  provider: ProviderName | undefined,
  { built, minors }: Supported,
): string | undefined => {
  const packages = providerNames.filter((name) => providerEntry(name).kubernetes === 'packages')
  if (!(provider && packages.includes(provider)) && built !== undefined) {
    return version === built
      ? undefined
      : `${version} is not built here; expected ${built} (other versions need provider: ${anyOf(packages)})`
  }
  return minors.some((minor) => version.startsWith(`${minor}.`))
    ? undefined
    : `${version} is not supported; expected a version of ${minors.join(', ')}`
}

/** As many members as etcd's own documentation recommends at most. */
const mostControlPlanes = 7

/** The address of the API server belongs to no machine: it moves between the control planes. */
function* endpointRules(file: File, controlPlanes: number): Found {
  const endpoint = file.kubernetes?.endpoint
  const path = ['kubernetes', 'endpoint']
  if (endpoint !== undefined) {
    const problem = addressProblem(file, endpoint)
    if (problem !== undefined) yield { path, message: problem }
    const machine = items(file.machines).find(([, { address }]) => address === endpoint)
    if (machine)
      yield {
        path,
        message: `${endpoint} is taken by ${pathText(['machines', machine[0], 'address'])}; choose an address that no machine has`,
      }
    return
  }
  const { subnet, text } = labSubnet(file)
  const addresses = [...items(file.machines), ...items(file.iscsi?.targets)].flatMap(
    ([, { address }]) => address ?? [],
  )
  if (
    subnet &&
    file.kubernetes !== undefined &&
    lacks(file.kubernetes, 'endpoint') &&
    controlPlanes > 1 &&
    freeAddress(text ?? '', addresses) === undefined
  )
    yield {
      path: ['kubernetes'],
      message: `several control planes need a shared address, and ${String(text)} has none left; choose a larger network.subnet`,
      atKey: true,
    }
}

export function* kubernetesRules(file: File, supported: Supported): Found {
  const machines = items(file.machines)
  const rolesKnown = (file.machines ?? [undefined]).every((machine) => machine?.role !== undefined)
  const controlPlanes = machines.filter(([, { role }]) => role === 'control-plane')
  if (lacks(file, 'kubernetes')) {
    for (const [index, { role }] of machines) {
      if (role !== 'control-plane' && role !== 'worker') continue
      yield {
        path: ['machines', index, 'role'],
        message: `a ${role} needs a cluster; add kubernetes, with a version`,
      }
    }
    return
  }
  if (controlPlanes.length === 0 && rolesKnown) {
    yield {
      path: ['kubernetes'],
      message: 'no machine has the role control-plane; at least one is required',
      atKey: true,
    }
  }
  const last = controlPlanes.at(-1)
  if (last && rolesKnown && controlPlanes.length % 2 === 0) {
    const count = controlPlanes.length
    yield {
      path: ['machines', last[0], 'role'],
      message: `${String(count)} control planes survive no more losses than ${String(count - 1)} do, because etcd needs more than half of its members; choose an odd number: ${String(count - 1)} or ${String(count + 1)}`,
    }
  } else if (controlPlanes.length > mostControlPlanes) {
    yield {
      path: ['machines', controlPlanes[mostControlPlanes]?.[0] ?? 0, 'role'],
      message: `every write waits for more than half of the members of etcd, so more than ${String(mostControlPlanes)} control planes only slow it down; choose 1, 3, 5 or ${String(mostControlPlanes)}`,
    }
  }
  yield* endpointRules(file, controlPlanes.length)

  const version = file.kubernetes?.version
  // With an invalid provider, nothing can be said about the version.
  const providerKnown = lacks(file, 'provider') || file.provider !== undefined
  const problem =
    version !== undefined && providerKnown ? versionProblem(version, file.provider, supported) : undefined
  if (problem) yield { path: ['kubernetes', 'version'], message: problem }

  const lab = labSubnet(file)
  const pods = podSubnet(file)
  const services = subnetAt(file, 'kubernetes', 'serviceSubnet', defaults.serviceSubnet)
  for (const [one, other] of [[lab, pods] as const, [lab, services] as const, [pods, services] as const]) {
    if (!one.subnet || !other.subnet || !overlaps(one.subnet, other.subnet)) continue
    // The problem is reported at a subnet from the file; two defaults do not overlap.
    const [here, there] = other.given ? [other, one] : [one, other]
    const origin = there.given ? '' : ', the default'
    yield {
      path: here.path,
      message: `${String(here.text)} overlaps ${pathText(there.path)} (${String(there.text)}${origin}); choose subnets that do not overlap`,
    }
  }
  if (!lab.subnet || !pods.subnet) return
  for (const [index, { role, address }] of machines) {
    if (role !== 'control-plane' && role !== 'worker') continue
    const host = hostNumber(lab.subnet, parseAddress(address ?? '') ?? -1)
    if (host === undefined || nthRange(pods.subnet, host)) continue
    yield {
      path: ['machines', index, 'address'],
      message: `is host ${String(host)} of the lab subnet, but the pod subnet ${String(pods.text)} has only ${String(sizeOf(pods.subnet) / 256)} ranges of /24, 0 to ${String(sizeOf(pods.subnet) / 256 - 1)}; choose a lower address or a larger kubernetes.podSubnet`,
    }
  }
}

/** Kubernetes is stricter about iSCSI target names than the standard. */
const kubernetesIqnProblem = (iqn: string): string | undefined => {
  if (/^iqn\.[^:]+$/.test(iqn))
    return `${iqn} has no part after a colon, which Kubernetes requires; write ${iqn}:target00`
  if (/^naa\..{16}$/.test(iqn)) return `${iqn}: Kubernetes requires naa. and 32 hexadecimal digits`
  return undefined
}

/** The database's data is on a LUN or on a volume that every worker can reach. */
function* databaseVolumeRules(file: File, database: NonNullable<File['database']>): Found {
  if (lacks(database, 'storage')) {
    if (lacks(database, 'lun'))
      yield {
        path: ['database', 'lun'],
        message: 'missing; expected a logical unit number from 0 to 255, or storage and the name of a class',
      }
    return
  }
  for (const field of ['lun', 'target'] as const)
    if (!lacks(database, field))
      yield { path: ['database', field], message: 'the data is already on storage; remove one of the two' }
  if (file.fencing === 'storage' && !lacks(file, 'iscsi'))
    yield {
      path: ['fencing'],
      message:
        'storage means that the target fences a node, but the data of the database is not on a target; write power',
    }
  const classes = items(file.storage).map(([, storage]) => storage)
  const used = classes.find((storage) => storage.class === database.storage)
  const names = classes.map((storage) => String(storage.class))
  if (database.storage === undefined) return
  if (!used && classes.every((storage) => storage.class !== undefined))
    yield {
      path: ['database', 'storage'],
      message: `there is no class ${database.storage}${didYouMean(database.storage, names) || (names.length > 0 ? `; expected ${names.join(' or ')}` : '; add it to storage')}`,
    }
  else if (used?.kind === 'local')
    yield {
      path: ['database', 'storage'],
      message: `${database.storage} is a folder on one node, so no other node could take over; choose a class of the kind nfs`,
    }
}

export function* databaseRules(file: File): Found {
  if (lacks(file, 'database')) return
  const roles = (file.machines ?? [undefined]).map((machine) => machine?.role)
  if (lacks(file, 'kubernetes')) {
    yield { path: ['database'], message: 'runs in a cluster; add kubernetes, with a version', atKey: true }
  } else if (!roles.includes('worker') && !roles.includes(undefined)) {
    yield {
      path: ['database'],
      message: 'the database runs on a worker, but no machine has the role worker',
      atKey: true,
    }
  }
  const { database = {} } = file
  if (file.database) yield* databaseVolumeRules(file, file.database)
  const nodePort = lacks(database, 'nodePort') ? defaults.nodePort : database.nodePort
  if (nodePort !== undefined && database.ledgerPort === nodePort) {
    const origin = lacks(database, 'nodePort') ? ', the default' : ''
    yield {
      path: ['database', 'ledgerPort'],
      message: `${String(nodePort)} is the port of the database (database.nodePort${origin}); choose another port`,
    }
  } else if (nodePort === lastNodePort && lacks(database, 'ledgerPort')) {
    yield {
      path: ['database', 'nodePort'],
      message: `${String(nodePort)} is the last node port, and ledgerPort defaults to the one after it; set ledgerPort`,
    }
  }
  const range = /^\s*(\d+)\s*([-+])\s*(\d+)\s*$/.exec(
    (file.kubernetes?.apiServer as Readonly<Record<string, unknown>> | undefined)?.[
      'service-node-port-range'
    ]?.toString() ?? '',
  )
  if (range) {
    const first = Number(range[1])
    const last = range[2] === '-' ? Number(range[3]) : first + Number(range[3])
    const ports = [
      ['nodePort', nodePort],
      ['ledgerPort', lacks(database, 'ledgerPort') ? nodePort && nodePort + 1 : database.ledgerPort],
    ] as const
    for (const [field, port] of ports)
      if (port !== undefined && (port < first || port > last))
        yield {
          path: lacks(database, field)
            ? ['kubernetes', 'apiServer', 'service-node-port-range']
            : ['database', field],
          message: `${String(port)}${lacks(database, field) ? ` (database.${field})` : ''} is outside the node ports ${String(first)} to ${String(last)} of service-node-port-range`,
        }
  }
  const targets = items(file.iscsi?.targets)
  const used =
    targets.find(([, { iqn }]) => iqn === file.database?.target) ??
    (targets.length === 1 ? targets[0] : undefined)
  const iqn = used?.[1].iqn
  const problem = iqn === undefined ? undefined : kubernetesIqnProblem(iqn)
  if (used && problem) yield { path: ['iscsi', 'targets', used[0], 'iqn'], message: problem }
}

export function* clusterRules(file: File, { images }: Supported): Found {
  const withoutCluster = lacks(file, 'kubernetes')
  for (const field of ['images', 'storage', 'workloads', 'experiments'] as const) {
    const given = file[field]
    if (withoutCluster && given !== undefined && given.length > 0)
      yield { path: [field], message: 'needs a cluster; add kubernetes, with a version', atKey: true }
  }
  const named = new Taken<string>()
  for (const [index, name] of items(file.images)) {
    const same = named.by(name, ['images', index])
    if (same) yield { path: ['images', index], message: `${shown(name)} is ${pathText(same)} already` }
    else if (images && !images.includes(name))
      yield {
        path: ['images', index],
        message: `${shown(name)} is not built here${didYouMean(name, images) || `; expected one of ${images.join(', ')}`}`,
      }
  }
  const classes = new Taken<string>()
  const defaults = new Taken<boolean>()
  for (const [index, storage] of items(file.storage)) {
    const at = (field: string): Path => ['storage', index, field]
    const same = storage.class === undefined ? undefined : classes.by(storage.class, at('class'))
    if (same) yield { path: at('class'), message: `${String(storage.class)} is taken by ${pathText(same)}` }
    const other = storage.default === true ? defaults.by(true, at('default')) : undefined
    if (other) yield { path: at('default'), message: `${pathText(other)} is already the default` }
  }
  const kinds = items(file.storage).map(([, { kind }]) => kind)
  const servers = items(file.machines).filter(([, { role }]) => role === 'nfs')
  for (const [index, { kind }] of items(file.storage))
    if (kind === 'nfs' && servers.length === 0 && items(file.machines).every(([, { role }]) => role))
      yield {
        path: ['storage', index, 'kind'],
        message: 'no machine serves it; add a machine with the role nfs',
      }
  for (const [place, [index, { name }]] of servers.entries()) {
    const path = ['machines', index, 'role']
    if (place > 0) yield { path, message: 'more than one machine with the role nfs is not supported' }
    else if (!kinds.includes('nfs') && !kinds.includes(undefined))
      yield { path, message: `nothing uses ${String(name)}; add a storage class of the kind nfs` }
  }
  const done = new Taken<string>()
  for (const [index, name] of items(file.experiments)) {
    const same = done.by(name, ['experiments', index])
    if (same) yield { path: ['experiments', index], message: `${name} is ${pathText(same)} already` }
  }
  for (const [index, { name }] of items(file.scenarios))
    if (name !== undefined && items(file.experiments).some(([, experiment]) => experiment === name))
      yield { path: ['scenarios', index, 'name'], message: `${name} is an experiment; choose another name` }
  if (lacks(file, 'manifests'))
    for (const field of ['workloads', 'experiments'] as const) {
      const given = file[field]
      if (given !== undefined && given.length > 0)
        yield { path: [field], message: 'needs manifests; name the folder that contains them', atKey: true }
    }
}
