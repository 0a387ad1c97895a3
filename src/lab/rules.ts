import { hostNumber, nthRange, overlaps, parseAddress, parseSubnet, sizeOf, addressText } from './address.js'
import { providerEntry, providerNames } from '../providers.js'
import { byPathLink, type ProviderName, type Role } from './lab.js'
import { items, lacks, pathText, Taken, type DraftFile, type Found, type Path } from './draft.js'
import { scenarioRules } from './scenario-rules.js'
import type { Vocabulary } from './vocabulary.js'
import { bytesOf, defaults, iqnProblem, lastNodePort, shown, sizeText } from './schema.js'
import { anyOf, didYouMean } from './suggest.js'

/**
 * The rules of a lab file that need more than one field. They run on drafts (`draft.ts`), so that one run
 * reports everything.
 */

type File = DraftFile

/** Which versions of Kubernetes can be brought up. */
export interface Supported {
  /** The version that is built here, for machines of the provider uml; undefined when that is not known. */
  readonly built: string | undefined
  /** Minor versions that can be installed as packages, such as `1.36`. */
  readonly minors: readonly string[]
  /** What images a lab may ask for, `nginx:1.26`; undefined when that is not known. */
  readonly images?: readonly string[] | undefined
}

/** Why a provider cannot run this version of Kubernetes. No provider: it must do for all of them. */
export const versionProblem = (
  version: string,
  provider: ProviderName | undefined,
  { built, minors }: Supported,
): string | undefined => {
  const packages = providerNames.filter((name) => providerEntry(name).kubernetes === 'packages')
  if (!(provider && packages.includes(provider)) && built !== undefined) {
    return version === built
      ? undefined
      : `${version} is not built here; wanted ${built} (other versions need provider: ${anyOf(packages)})`
  }
  return minors.some((minor) => version.startsWith(`${minor}.`))
    ? undefined
    : `${version} is not supported; wanted a version of ${minors.join(', ')}`
}

/** The name an initiator gets when the file gives none: the first target's naming authority, then its own name. */
export const initiatorName = (targetIqn: string, machine: string): string =>
  `${targetIqn.includes(':') ? targetIqn.slice(0, targetIqn.lastIndexOf(':')) : targetIqn}:${machine}`

/** Why a machine of a provider cannot serve so many LUNs. No provider: it must do for one of them. */
export const disksProblem = (
  machine: string,
  luns: number,
  provider: ProviderName | undefined,
): string | undefined => {
  const limits = (provider === undefined ? providerNames : [provider]).flatMap(
    (name) => providerEntry(name).mostLuns ?? [],
  )
  const most = limits.length > 0 ? Math.max(...limits) : Infinity
  return luns > most
    ? `${machine} serves ${String(luns)} LUNs; a machine of ${provider ?? 'any provider'} has room for ${String(most)}: spread them over more machines`
    : undefined
}

/** Ports on which a machine with the role target itself listens. */
const portsInUse: Readonly<Record<number, string>> = { 22: 'SSH, over which lab reaches it' }

/** The longest name of a file, in bytes. */
const longestFileName = 255

/** The least memory, in bytes, that a machine of a role is given, and what would suffer with less. */
const leastMemory: Readonly<Record<Role, { readonly bytes: number; readonly why: string }>> = {
  'control-plane': { bytes: 1536 * 1024 ** 2, why: 'the API server and etcd run out of memory with less' },
  worker: { bytes: 768 * 1024 ** 2, why: 'the kubelet, containerd and a database do not fit in less' },
  target: { bytes: 128 * 1024 ** 2, why: 'its operating system does not fit in less' },
  initiator: { bytes: 128 * 1024 ** 2, why: 'its operating system does not fit in less' },
  nfs: { bytes: 192 * 1024 ** 2, why: 'its operating system and what it caches do not fit in less' },
}

/** Room for MariaDB's system tables and redo log and for ext4's journal, and some data. */
const leastDatabase = 512 * 1024 ** 2

const leastFilesystem = 16 * 1024 ** 2

/** A subnet of the file or its default; `path` leads to what the author wrote. */
const subnetAt = (file: File, section: 'network' | 'kubernetes', key: string, byDefault: string) => {
  const owner = file[section] as Readonly<Record<string, string | undefined>> | undefined
  const given = owner !== undefined && key in owner
  const text = given ? owner[key] : owner === undefined && section in file ? undefined : byDefault
  return { path: [section, key] as const, given, text, subnet: parseSubnet(text ?? '') }
}

const labSubnet = (file: File) => subnetAt(file, 'network', 'subnet', defaults.subnet)
const podSubnet = (file: File) => subnetAt(file, 'kubernetes', 'podSubnet', defaults.podSubnet)

/** What a word means to commands and to the machines themselves, so that no machine of this role can be called so. */
const meaningOf = (name: string, role: Role | undefined): string | undefined =>
  name === 'all'
    ? 'every machine in lab exec'
    : name in leastMemory && role !== undefined && role !== name
      ? `every machine with the role ${name} in lab exec`
      : undefined

function* machineRules(file: File): Found {
  const names = new Taken<string>()
  const addresses = new Taken<string>()
  const { subnet, text: subnetText = '' } = labSubnet(file)
  for (const [index, { name, address, role, memory }] of items(file.machines)) {
    const at = (field: string): Path => ['machines', index, field]
    const sameName = name === undefined ? undefined : names.by(name, at('name'))
    if (sameName)
      yield {
        path: at('name'),
        message: `${String(name)} is taken by ${pathText(sameName)}; wanted another name`,
      }
    const means = name === undefined ? undefined : meaningOf(name, role)
    if (means !== undefined)
      yield { path: at('name'), message: `${String(name)} means ${means}; wanted another name` }
    if (address !== undefined) {
      const same = addresses.by(address, at('address'))
      if (same)
        yield {
          path: at('address'),
          message: `${address} is taken by ${pathText(same)}; wanted another address`,
        }
      const host = subnet && hostNumber(subnet, parseAddress(address) ?? -1)
      const first = subnet && addressText(subnet.base + 2)
      const last = subnet && addressText(subnet.base + sizeOf(subnet) - 2)
      const range = `wanted one from ${String(first)} to ${String(last)}`
      if (subnet && host === undefined) {
        yield { path: at('address'), message: `${address} is outside the lab subnet ${subnetText}; ${range}` }
      } else if (host === 0) {
        yield { path: at('address'), message: `${address} is the subnet itself; ${range}` }
      } else if (host === 1) {
        yield { path: at('address'), message: `${address} belongs to this host; ${range}` }
      } else if (subnet && host === sizeOf(subnet) - 1) {
        yield { path: at('address'), message: `${address} is the broadcast address of the subnet; ${range}` }
      }
    }
    const bytes = memory === undefined ? undefined : bytesOf(memory)
    const least = role && leastMemory[role]
    if (bytes !== undefined && least && bytes < least.bytes) {
      yield {
        path: at('memory'),
        message: `${String(memory)} is too little for the role ${role}; wanted at least ${sizeText(least.bytes)}: ${least.why}`,
      }
    } else if (bytes !== undefined && bytes > 1024 ** 4) {
      yield {
        path: at('memory'),
        message: `${String(memory)} is more than any host has; wanted at most 1TiB`,
      }
    }
  }
}

/** A machine has room for so many disks, whichever of its targets serves them. */
function* diskRules(file: File): Found {
  if (!lacks(file, 'provider') && file.provider === undefined) return
  const served = new Map<string, number>()
  for (const [index, { machine, luns }] of items(file.iscsi?.targets)) {
    if (machine === undefined || luns === undefined) continue
    const before = served.get(machine) ?? 0
    served.set(machine, before + luns.length)
    const problem = disksProblem(machine, before + luns.length, file.provider)
    if (problem === undefined || disksProblem(machine, before, file.provider) !== undefined) continue
    const total = items(file.iscsi?.targets)
      .filter(([, other]) => other.machine === machine)
      .reduce((sum, [, other]) => sum + (other.luns?.length ?? 0), 0)
    yield {
      path: ['iscsi', 'targets', index, 'luns'],
      message: disksProblem(machine, total, file.provider) ?? problem,
      atKey: true,
    }
  }
}

/** Whom a LUN names: machines that log in, and whoever uses it among them. */
function* lunInitiatorRules(file: File): Found {
  const machines = items(file.machines).map(([, machine]) => machine)
  const known = machines.every(({ name, role }) => name !== undefined && role !== undefined)
  const only = file.iscsi?.targets?.length === 1 ? file.iscsi.targets[0]?.iqn : undefined
  for (const [index, target] of items(file.iscsi?.targets))
    for (const [place, { lun, initiators }] of items(target.luns)) {
      if (initiators === undefined) continue
      const at = (...rest: Path): Path => ['iscsi', 'targets', index, 'luns', place, 'initiators', ...rest]
      const named = new Taken<string>()
      for (const [number, name] of items(initiators)) {
        const same = named.by(name, at(number))
        const machine = machines.find((candidate) => candidate.name === name)
        if (same)
          yield { path: at(number), message: `${shown(name)} is ${pathText(same)} already; remove one` }
        else if (machine?.role && machine.role !== 'initiator' && machine.role !== 'worker')
          yield {
            path: at(number),
            message: `${name} has the role ${machine.role}; wanted a machine with the role initiator or worker`,
          }
        else if (!machine && known) {
          const names = machines
            .filter(({ role }) => role === 'initiator' || role === 'worker')
            .map((candidate) => String(candidate.name))
          const wanted = didYouMean(name, names) || '; wanted one with the role initiator or worker'
          yield { path: at(number), message: `no machine is named ${shown(name)}${wanted}` }
        }
      }
      if (!known || lun === undefined) continue
      const uses = (user: User): boolean => user.lun === lun && (user.target ?? only) === target.iqn
      const users = [
        ...items(file.filesystems)
          .filter(([, user]) => uses(user))
          .map(([, { initiator }]) => initiator),
        ...(file.database && uses(file.database)
          ? machines.filter(({ role }) => role === 'worker').map(({ name }) => name)
          : []),
      ]
      const left = users.find((name) => name !== undefined && !initiators.includes(name))
      if (left !== undefined)
        yield {
          path: at(),
          message: `leaves out ${left}, which uses the LUN${file.database && uses(file.database) ? ': the database may run on any worker' : ''}; add it`,
        }
    }
}

function* targetRules(file: File): Found {
  const machines = items(file.machines).map(([, machine]) => machine)
  const iqns = new Taken<string>()
  for (const [index, target] of items(file.iscsi?.targets)) {
    const at = (...rest: Path): Path => ['iscsi', 'targets', index, ...rest]
    if (target.machine !== undefined) {
      const machine = machines.find(({ name }) => name === target.machine)
      if (machine?.role && machine.role !== 'target') {
        yield {
          path: at('machine'),
          message: `${target.machine} has the role ${machine.role}; wanted a machine with the role target`,
        }
      } else if (!machine && machines.every(({ name }) => name !== undefined)) {
        const names = machines.filter(({ role }) => role === 'target').map(({ name }) => String(name))
        const wanted = didYouMean(target.machine, names) || '; wanted one with the role target'
        yield { path: at('machine'), message: `no machine is named ${shown(target.machine)}${wanted}` }
      }
    }
    const same = target.iqn === undefined ? undefined : iqns.by(target.iqn.toLowerCase(), at('iqn'))
    if (same)
      yield {
        path: at('iqn'),
        message: `${String(target.iqn)} is taken by ${pathText(same)}; every iSCSI name is used once`,
      }
    const inUse = target.port === undefined ? undefined : portsInUse[target.port]
    if (inUse !== undefined)
      yield {
        path: at('port'),
        message: `${String(target.port)} is taken on the machine by ${inUse}; wanted another port, such as ${String(defaults.port)}`,
      }
    const portal = `${machines.find(({ name }) => name === target.machine)?.address ?? '192.168.56.70'}:${String(target.port ?? defaults.port)}`
    for (const [, { lun }] of items(target.luns)) {
      const link = byPathLink(portal, target.iqn ?? '', lun ?? 0)
      if (link.length <= longestFileName) continue
      yield {
        path: at('iqn'),
        message: `is too long by ${String(link.length - longestFileName)}: initiators know LUN ${String(lun)} by the link ${link.slice(0, 24)}…, and the name of a file has at most ${String(longestFileName)} bytes`,
      }
      break
    }
    const { password, mutual } = target.chap ?? {}
    if (mutual?.password !== undefined && mutual.password === password)
      yield {
        path: at('chap', 'mutual', 'password'),
        message:
          'is the password that initiators log in with; open-iscsi refuses a target that answers with it, wanted another',
      }
    const numbers = new Taken<number>()
    for (const [place, { lun, size }] of items(target.luns)) {
      const sameLun = lun === undefined ? undefined : numbers.by(lun, at('luns', place, 'lun'))
      if (sameLun)
        yield {
          path: at('luns', place, 'lun'),
          message: `LUN ${String(lun)} is ${pathText(sameLun)} already; wanted another number`,
        }
      if ((bytesOf(size ?? '') ?? 0) > 16 * 1024 ** 4) {
        yield {
          path: at('luns', place, 'size'),
          message: `${String(size)} is too large; wanted at most 16TiB`,
        }
      }
    }
  }
  yield* diskRules(file)
  const targetsKnown =
    lacks(file, 'iscsi') || file.iscsi?.targets?.every((target) => target?.machine !== undefined)
  for (const [index, machine] of items(file.machines)) {
    if (machine.role !== 'target' || machine.name === undefined || !targetsKnown) continue
    if (!items(file.iscsi?.targets).some(([, target]) => target.machine === machine.name)) {
      yield {
        path: ['machines', index, 'role'],
        message: `${machine.name} serves nothing; add a target to iscsi.targets with machine: ${machine.name}`,
      }
    }
  }
}

function* initiatorRules(file: File): Found {
  const iqns = new Taken<string>()
  for (const [index, { iqn }] of items(file.iscsi?.targets)) {
    if (iqn !== undefined) iqns.by(iqn.toLowerCase(), ['iscsi', 'targets', index, 'iqn'])
  }
  const firstTarget = file.iscsi?.targets?.[0]?.iqn
  const withoutTargets = lacks(file, 'iscsi')
  for (const [index, machine] of items(file.machines)) {
    const at = (field: string): Path => ['machines', index, field]
    if (machine.role === undefined) continue
    const logsIn = machine.role === 'initiator' || machine.role === 'worker'
    if (machine.role === 'initiator' && withoutTargets) {
      yield { path: at('role'), message: 'an initiator has no target to log in to; add iscsi.targets' }
    } else if (!logsIn && !lacks(machine, 'iqn')) {
      yield {
        path: at('iqn'),
        message: `the role ${machine.role} has no initiator name; remove it`,
        atKey: true,
      }
    } else if (!lacks(machine, 'iqn') && withoutTargets) {
      yield { path: at('iqn'), message: 'a lab without targets has no initiators; remove it', atKey: true }
    } else if (logsIn && machine.iqn !== undefined) {
      const same = iqns.by(machine.iqn.toLowerCase(), at('iqn'))
      if (same)
        yield {
          path: at('iqn'),
          message: `${machine.iqn} is taken by ${pathText(same)}; every iSCSI name is used once`,
        }
    } else if (logsIn && lacks(machine, 'iqn') && firstTarget !== undefined && machine.name !== undefined) {
      const derived = initiatorName(firstTarget, machine.name)
      const same = iqns.by(derived.toLowerCase(), at('name'))
      if (same) {
        yield {
          path: at('name'),
          message: `its initiator name would be ${derived}, which is taken by ${pathText(same)}; give it an iqn`,
        }
      } else if (iqnProblem(derived)) {
        yield {
          path: at('name'),
          message: `no initiator name can be made from ${firstTarget}; give it an iqn`,
        }
      }
    }
  }
}

interface User {
  readonly target?: string | undefined
  readonly lun?: number | undefined
}

/** The LUN that a file system or the database uses: it must be served, be large enough, and have one user. */
function* lunRules(file: File): Found {
  const targets = items(file.iscsi?.targets).map(([, target]) => target)
  const known = lacks(file, 'iscsi') || file.iscsi?.targets?.every((target) => target?.iqn !== undefined)
  const iqns = targets.map(({ iqn }) => String(iqn))
  const taken = new Taken<string>()
  const users: (readonly [path: Path, user: User, least: number])[] = [
    ...items(file.filesystems).map(
      ([index, user]) => [['filesystems', index], user, leastFilesystem] as const,
    ),
    ...(file.database && !lacks(file.database, 'lun') && lacks(file.database, 'storage')
      ? [[['database'], file.database, leastDatabase] as const]
      : []),
  ]
  for (const [path, user, least] of users) {
    if (!known || ('target' in user && user.target === undefined)) continue
    if (targets.length === 0) {
      yield { path: [...path, 'lun'], message: 'no target serves a LUN; add iscsi.targets' }
      continue
    }
    if (user.target === undefined && targets.length > 1) {
      yield {
        path: [...path, 'target'],
        message: `missing; the lab has several targets, wanted one of ${iqns.join(', ')}`,
      }
      continue
    }
    const target = user.target === undefined ? targets[0] : targets.find(({ iqn }) => iqn === user.target)
    if (!target) {
      const wanted = didYouMean(String(user.target), iqns) || `; wanted ${iqns.join(' or ')}`
      yield { path: [...path, 'target'], message: `no target is named ${String(user.target)}${wanted}` }
      continue
    }
    if (user.lun === undefined || !target.luns) continue
    const lun = target.luns.find((candidate) => candidate?.lun === user.lun)
    if (!lun) {
      if (target.luns.some((candidate) => candidate?.lun === undefined)) continue
      const numbers = items(target.luns).map(([, served]) => String(served.lun))
      yield {
        path: [...path, 'lun'],
        message: `${String(target.iqn)} serves no LUN ${String(user.lun)}; wanted ${numbers.join(' or ')}`,
      }
      continue
    }
    const bytes = bytesOf(lun.size ?? '')
    if (bytes !== undefined && bytes < least) {
      yield {
        path: [...path, 'lun'],
        message: `LUN ${String(user.lun)} has only ${String(lun.size)}; wanted at least ${sizeText(least)}`,
      }
    }
    const same = taken.by(`${String(target.iqn)} ${String(user.lun)}`, [...path, 'lun'])
    if (same) {
      yield {
        path: [...path, 'lun'],
        message: `LUN ${String(user.lun)} of ${String(target.iqn)} is used by ${pathText(same)}; wanted one user, or both would destroy its file system`,
      }
    }
  }
}

function* filesystemRules(file: File): Found {
  const machines = items(file.machines).map(([, machine]) => machine)
  for (const [index, { initiator }] of items(file.filesystems)) {
    if (initiator === undefined) continue
    const path = ['filesystems', index, 'initiator']
    const machine = machines.find(({ name }) => name === initiator)
    if (machine?.role && machine.role !== 'initiator') {
      yield {
        path,
        message: `${initiator} has the role ${machine.role}; wanted a machine with the role initiator`,
      }
    } else if (!machine && machines.every(({ name }) => name !== undefined)) {
      const names = machines.filter(({ role }) => role === 'initiator').map(({ name }) => String(name))
      const wanted = didYouMean(initiator, names) || '; wanted one with the role initiator'
      yield { path, message: `no machine is named ${shown(initiator)}${wanted}` }
    }
  }
}

function* kubernetesRules(file: File, supported: Supported): Found {
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
    yield { path: ['kubernetes'], message: 'no machine has the role control-plane; wanted one', atKey: true }
  }
  for (const [index] of controlPlanes.slice(1)) {
    const first = pathText(['machines', controlPlanes[0]?.[0] ?? 0])
    yield {
      path: ['machines', index, 'role'],
      message: `more than one control plane is not supported yet; ${first} is one`,
    }
  }

  const version = file.kubernetes?.version
  // A bad provider says nothing about the version: the rule waits until it is mended.
  const providerKnown = lacks(file, 'provider') || file.provider !== undefined
  const problem =
    version !== undefined && providerKnown ? versionProblem(version, file.provider, supported) : undefined
  if (problem) yield { path: ['kubernetes', 'version'], message: problem }

  const lab = labSubnet(file)
  const pods = podSubnet(file)
  const services = subnetAt(file, 'kubernetes', 'serviceSubnet', defaults.serviceSubnet)
  for (const [one, other] of [[lab, pods] as const, [lab, services] as const, [pods, services] as const]) {
    if (!one.subnet || !other.subnet || !overlaps(one.subnet, other.subnet)) continue
    // The place is one that the author wrote; two defaults do not overlap.
    const [here, there] = other.given ? [other, one] : [one, other]
    const origin = there.given ? '' : ', the default'
    yield {
      path: here.path,
      message: `${String(here.text)} overlaps ${pathText(there.path)} (${String(there.text)}${origin}); wanted subnets apart`,
    }
  }
  if (!lab.subnet || !pods.subnet) return
  for (const [index, { role, address }] of machines) {
    if (role !== 'control-plane' && role !== 'worker') continue
    const host = hostNumber(lab.subnet, parseAddress(address ?? '') ?? -1)
    if (host === undefined || nthRange(pods.subnet, host)) continue
    yield {
      path: ['machines', index, 'address'],
      message: `is host ${String(host)} of the lab subnet, but the pod subnet ${String(pods.text)} has only ${String(sizeOf(pods.subnet) / 256)} ranges of /24, 0 to ${String(sizeOf(pods.subnet) / 256 - 1)}; wanted a lower address or a larger kubernetes.podSubnet`,
    }
  }
}

/** Kubernetes judges the name of an iSCSI target more strictly than the standard does. */
const kubernetesIqnProblem = (iqn: string): string | undefined => {
  if (/^iqn\.[^:]+$/.test(iqn))
    return `${iqn} has no part behind a colon, which Kubernetes wants; write ${iqn}:target00`
  if (/^naa\..{16}$/.test(iqn)) return `${iqn}: Kubernetes wants naa. and 32 hexadecimal digits`
  return undefined
}

/** Data is on a LUN, or on a volume that every worker reaches. */
function* databaseVolumeRules(file: File, database: NonNullable<File['database']>): Found {
  if (lacks(database, 'storage')) {
    if (lacks(database, 'lun'))
      yield {
        path: ['database', 'lun'],
        message: 'missing; wanted a logical unit number, 0 to 255, or storage, a class',
      }
    return
  }
  for (const field of ['lun', 'target'] as const)
    if (!lacks(database, field))
      yield { path: ['database', field], message: 'the data is on storage already; remove one of them' }
  if (file.fencing === 'storage' && !lacks(file, 'iscsi'))
    yield {
      path: ['fencing'],
      message: 'storage is fenced at a target, and the data of the database is on none; write power',
    }
  const classes = items(file.storage).map(([, storage]) => storage)
  const used = classes.find((storage) => storage.class === database.storage)
  const names = classes.map((storage) => String(storage.class))
  if (database.storage === undefined) return
  if (!used && classes.every((storage) => storage.class !== undefined))
    yield {
      path: ['database', 'storage'],
      message: `there is no class ${database.storage}${didYouMean(database.storage, names) || (names.length > 0 ? `; wanted ${names.join(' or ')}` : '; add it to storage')}`,
    }
  else if (used?.kind === 'local')
    yield {
      path: ['database', 'storage'],
      message: `${database.storage} is a folder of one node, so no other could take over; wanted a class of the kind nfs`,
    }
}

function* databaseRules(file: File): Found {
  if (lacks(file, 'database')) return
  const roles = (file.machines ?? [undefined]).map((machine) => machine?.role)
  if (lacks(file, 'kubernetes')) {
    yield { path: ['database'], message: 'runs in a cluster; add kubernetes, with a version', atKey: true }
  } else if (!roles.includes('worker') && !roles.includes(undefined)) {
    yield {
      path: ['database'],
      message: 'runs on a worker; wanted a machine with the role worker',
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
      message: `${String(nodePort)} is the port of the database (database.nodePort${origin}); wanted another port`,
    }
  } else if (nodePort === lastNodePort && lacks(database, 'ledgerPort')) {
    yield {
      path: ['database', 'nodePort'],
      message: `${String(nodePort)} is the last node port, and ledgerPort, without a value, is the one after it; give it a ledgerPort`,
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

function* clusterRules(file: File, { images }: Supported): Found {
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
        message: `${shown(name)} is not built here${didYouMean(name, images) || `; wanted one of ${images.join(', ')}`}`,
      }
  }
  const classes = new Taken<string>()
  const defaults = new Taken<boolean>()
  for (const [index, storage] of items(file.storage)) {
    const at = (field: string): Path => ['storage', index, field]
    const same = storage.class === undefined ? undefined : classes.by(storage.class, at('class'))
    if (same) yield { path: at('class'), message: `${String(storage.class)} is taken by ${pathText(same)}` }
    const other = storage.default === true ? defaults.by(true, at('default')) : undefined
    if (other) yield { path: at('default'), message: `${pathText(other)} is the default already` }
  }
  const kinds = items(file.storage).map(([, { kind }]) => kind)
  const servers = items(file.machines).filter(([, { role }]) => role === 'nfs')
  for (const [index, { kind }] of items(file.storage))
    if (kind === 'nfs' && servers.length === 0 && items(file.machines).every(([, { role }]) => role))
      yield {
        path: ['storage', index, 'kind'],
        message: 'no machine serves it; wanted a machine with the role nfs',
      }
  for (const [place, [index, { name }]] of servers.entries()) {
    const path = ['machines', index, 'role']
    if (place > 0) yield { path, message: 'more than one machine with the role nfs is not supported' }
    else if (!kinds.includes('nfs') && !kinds.includes(undefined))
      yield { path, message: `nobody uses ${String(name)}; add a storage class of the kind nfs` }
  }
  const done = new Taken<string>()
  for (const [index, name] of items(file.experiments)) {
    const same = done.by(name, ['experiments', index])
    if (same) yield { path: ['experiments', index], message: `${name} is ${pathText(same)} already` }
  }
  for (const [index, { name }] of items(file.scenarios))
    if (name !== undefined && items(file.experiments).some(([, experiment]) => experiment === name))
      yield { path: ['scenarios', index, 'name'], message: `${name} is an experiment; wanted another name` }
  if (lacks(file, 'manifests'))
    for (const field of ['workloads', 'experiments'] as const) {
      const given = file[field]
      if (given !== undefined && given.length > 0)
        yield { path: [field], message: 'needs manifests; say in which folder they are', atKey: true }
    }
}

/** Everything that is wrong with a file beyond its single fields. */
export function* crossCheck(file: File, supported: Supported, vocabulary: Vocabulary): Found {
  yield* machineRules(file)
  yield* targetRules(file)
  yield* initiatorRules(file)
  yield* filesystemRules(file)
  yield* lunRules(file)
  yield* lunInitiatorRules(file)
  yield* kubernetesRules(file, supported)
  yield* clusterRules(file, supported)
  yield* databaseRules(file)
  yield* scenarioRules(file, vocabulary)
}
