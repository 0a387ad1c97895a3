/** The rules for targets, initiators, LUNs and file systems. */
import { providerEntry, providerNames } from '../providers.js'
import { type DraftFile, type Found, type Path, items, lacks, pathText, Taken } from './draft.js'
import { defaults, iqnProblem } from './fields.js'
import { byPathLink, type ProviderName } from './lab.js'
import { wantedServer } from './sections.js'
import { didYouMean, shown } from './suggest.js'
import { bytesOf, sizeText } from './units.js'

type File = DraftFile

/** The default name of an initiator: the first target's naming authority, then the machine's name. */
export const initiatorName = (targetIqn: string, machine: string): string =>
  `${targetIqn.includes(':') ? targetIqn.slice(0, targetIqn.lastIndexOf(':')) : targetIqn}:${machine}`

/** Why a machine of a provider cannot serve this many LUNs. Without a provider, one of them must be able to. */
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
    ? `${machine} serves ${String(luns)} LUNs; a machine of ${provider ?? 'any provider'} has room for ${String(most)}: spread the LUNs over more machines`
    : undefined
}

/** Ports on which a target machine itself listens. */
const portsInUse: Readonly<Record<number, string>> = { 22: 'SSH, which lab uses to reach the machine' }

/** The longest name of a file, in bytes. */
const longestFileName = 255

/** Room for MariaDB's system tables and redo log, for ext4's journal, and for some data. */
const leastDatabase = 512 * 1024 ** 2

const leastFilesystem = 16 * 1024 ** 2

/** The number of disks of a machine is limited, whichever of its targets serves them. */
function* diskRules(file: File): Found {
  if (!lacks(file, 'provider') && file.provider === undefined) return
  const served = new Map<string, number>()
  // Both machines of a pair have the same disks, and serve nothing else: the first one stands for both.
  for (const [index, { machine: alone, machines, luns }] of items(file.iscsi?.targets)) {
    const machine = alone ?? machines?.[0]
    if (machine === undefined || luns === undefined) continue
    const before = served.get(machine) ?? 0
    served.set(machine, before + luns.length)
    const problem = disksProblem(machine, before + luns.length, file.provider)
    if (problem === undefined || disksProblem(machine, before, file.provider) !== undefined) continue
    const total = items(file.iscsi?.targets)
      .filter(([, other]) => (other.machine ?? other.machines?.[0]) === machine)
      .reduce((sum, [, other]) => sum + (other.luns?.length ?? 0), 0)
    yield {
      path: ['iscsi', 'targets', index, 'luns'],
      message: disksProblem(machine, total, file.provider) ?? problem,
      atKey: true,
    }
  }
}

/** The machines that a LUN names must log in and include its users. */
export function* lunInitiatorRules(file: File): Found {
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
          yield {
            path: at(number),
            message: `${shown(name)} is already listed at ${pathText(same)}; remove one`,
          }
        else if (machine?.role && machine.role !== 'initiator' && machine.role !== 'worker')
          yield {
            path: at(number),
            message: `${name} has the role ${machine.role}; expected a machine with the role initiator or worker`,
          }
        else if (!machine && known) {
          const names = machines
            .filter(({ role }) => role === 'initiator' || role === 'worker')
            .map((candidate) => String(candidate.name))
          const wanted = didYouMean(name, names) || '; expected one with the role initiator or worker'
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

/** The machines that a target names, each with its path below the target. */
export const serversOf = (target: {
  readonly machine?: string | undefined
  readonly machines?: readonly (string | undefined)[] | undefined
}): readonly (readonly [place: Path, name: string])[] => [
  ...(target.machine === undefined ? [] : [[['machine'], target.machine] as const]),
  ...items(target.machines).map(([index, name]) => [['machines', index], name] as const),
]

type Target = ReturnType<typeof targetsOf>[number][1]
type Machine = ReturnType<typeof machinesOf>[number]
type At = (...rest: Path) => Path

const targetsOf = (file: File) => items(file.iscsi?.targets)
const machinesOf = (file: File) => items(file.machines).map(([, machine]) => machine)

/** The machines that serve a target exist, and have the role for it. */
function* serverRules(target: Target, machines: readonly Machine[], at: At): Found {
  if (lacks(target, 'machine') && lacks(target, 'machines'))
    yield { path: at('machine'), message: `missing; expected ${wantedServer}, or machines, two of them` }
  for (const [place, name] of serversOf(target)) {
    const machine = machines.find((candidate) => candidate.name === name)
    if (machine?.role && machine.role !== 'target') {
      yield {
        path: at(...place),
        message: `${name} has the role ${machine.role}; expected a machine with the role target`,
      }
    } else if (!machine && machines.every((candidate) => candidate.name !== undefined)) {
      const names = machines
        .filter(({ role }) => role === 'target')
        .map((candidate) => String(candidate.name))
      const wanted = didYouMean(name, names) || '; expected one with the role target'
      yield { path: at(...place), message: `no machine is named ${shown(name)}${wanted}` }
    }
  }
}

/** The links by which initiators know the LUNs of a target have names that are short enough. */
function* linkRules(target: Target, machines: readonly Machine[], at: At): Found {
  const address = target.address ?? machines.find(({ name }) => name === target.machine)?.address
  const portal = `${address ?? '192.168.56.70'}:${String(target.port ?? defaults.port)}`
  for (const [, { lun }] of items(target.luns)) {
    const link = byPathLink(portal, target.iqn ?? '', lun ?? 0)
    if (link.length <= longestFileName) continue
    yield {
      path: at('iqn'),
      message: `is too long by ${String(link.length - longestFileName)}: initiators know LUN ${String(lun)} by the link ${link.slice(0, 24)}…, and the name of a file has at most ${String(longestFileName)} bytes`,
    }
    break
  }
}

/** The LUNs of a target have numbers of their own, and a size that is possible. */
function* targetLunRules(target: Target, at: At): Found {
  const numbers = new Taken<number>()
  for (const [place, { lun, size }] of items(target.luns)) {
    const sameLun = lun === undefined ? undefined : numbers.by(lun, at('luns', place, 'lun'))
    if (sameLun)
      yield {
        path: at('luns', place, 'lun'),
        message: `LUN ${String(lun)} is already taken by ${pathText(sameLun)}; choose another number`,
      }
    if ((bytesOf(size ?? '') ?? 0) > 16 * 1024 ** 4) {
      yield {
        path: at('luns', place, 'size'),
        message: `${String(size)} is too large; expected at most 16TiB`,
      }
    }
  }
}

/** Every machine with the role target serves one. */
function* idleRules(file: File): Found {
  const targetsKnown =
    lacks(file, 'iscsi') ||
    file.iscsi?.targets?.every((target) => target?.machine !== undefined || target?.machines !== undefined)
  for (const [index, machine] of items(file.machines)) {
    if (machine.role !== 'target' || machine.name === undefined || !targetsKnown) continue
    const serves = items(file.iscsi?.targets).some(([, target]) =>
      serversOf(target).some(([, name]) => name === machine.name),
    )
    if (!serves) {
      yield {
        path: ['machines', index, 'role'],
        message: `${machine.name} serves nothing; add a target to iscsi.targets with machine: ${machine.name}`,
      }
    }
  }
}

export function* targetRules(file: File): Found {
  const machines = machinesOf(file)
  const iqns = new Taken<string>()
  for (const [index, target] of targetsOf(file)) {
    const at: At = (...rest) => ['iscsi', 'targets', index, ...rest]
    yield* serverRules(target, machines, at)
    const same = target.iqn === undefined ? undefined : iqns.by(target.iqn.toLowerCase(), at('iqn'))
    if (same)
      yield {
        path: at('iqn'),
        message: `${String(target.iqn)} is taken by ${pathText(same)}; every iSCSI name must be unique`,
      }
    const inUse = target.port === undefined ? undefined : portsInUse[target.port]
    if (inUse !== undefined)
      yield {
        path: at('port'),
        message: `${String(target.port)} is taken on the machine by ${inUse}; choose another port, such as ${String(defaults.port)}`,
      }
    yield* linkRules(target, machines, at)
    const { password, mutual } = target.chap ?? {}
    if (mutual?.password !== undefined && mutual.password === password)
      yield {
        path: at('chap', 'mutual', 'password'),
        message:
          'is also the password that initiators log in with, and open-iscsi refuses a target that answers with the same one; choose another',
      }
    yield* targetLunRules(target, at)
  }
  yield* diskRules(file)
  yield* idleRules(file)
}

export function* initiatorRules(file: File): Found {
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
          message: `${machine.iqn} is taken by ${pathText(same)}; every iSCSI name must be unique`,
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

/** The LUN of a file system or the database must be served, be large enough, and have one user. */
export function* lunRules(file: File): Found {
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
        message: `missing, and the lab has several targets; expected one of ${iqns.join(', ')}`,
      }
      continue
    }
    const target = user.target === undefined ? targets[0] : targets.find(({ iqn }) => iqn === user.target)
    if (!target) {
      const wanted = didYouMean(String(user.target), iqns) || `; expected ${iqns.join(' or ')}`
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
        message: `${String(target.iqn)} serves no LUN ${String(user.lun)}; expected ${numbers.join(' or ')}`,
      }
      continue
    }
    const bytes = bytesOf(lun.size ?? '')
    if (bytes !== undefined && bytes < least) {
      yield {
        path: [...path, 'lun'],
        message: `LUN ${String(user.lun)} has only ${String(lun.size)}; expected at least ${sizeText(least)}`,
      }
    }
    const same = taken.by(`${String(target.iqn)} ${String(user.lun)}`, [...path, 'lun'])
    if (same) {
      yield {
        path: [...path, 'lun'],
        message: `LUN ${String(user.lun)} of ${String(target.iqn)} is already used by ${pathText(same)}; two users would destroy its file system`,
      }
    }
  }
}

export function* filesystemRules(file: File): Found {
  const machines = items(file.machines).map(([, machine]) => machine)
  for (const [index, { initiator }] of items(file.filesystems)) {
    if (initiator === undefined) continue
    const path = ['filesystems', index, 'initiator']
    const machine = machines.find(({ name }) => name === initiator)
    if (machine?.role && machine.role !== 'initiator') {
      yield {
        path,
        message: `${initiator} has the role ${machine.role}; expected a machine with the role initiator`,
      }
    } else if (!machine && machines.every(({ name }) => name !== undefined)) {
      const names = machines.filter(({ role }) => role === 'initiator').map(({ name }) => String(name))
      const wanted = didYouMean(initiator, names) || '; expected one with the role initiator'
      yield { path, message: `no machine is named ${shown(initiator)}${wanted}` }
    }
  }
}
