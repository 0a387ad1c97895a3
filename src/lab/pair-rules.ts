/** The rules for targets that two machines serve: their disks, their address, who votes, and their power switches. */
import { providerEntry, providerNames } from '../providers.js'
import { type DraftFile, type Found, type Path, items, lacks, pathText } from './draft.js'
import { serversOf } from './iscsi-rules.js'
import type { Role } from './lab.js'
import { addressProblem } from './subnets.js'
import { anyOf, didYouMean, shown } from './suggest.js'

type File = DraftFile

/** The fields of a target that only a pair has. */
const fieldsOfPairs = ['address', 'quorum'] as const

/**
 * The machine that votes if the lab file names none: a control plane, or else the first machine that is not in the
 * pair.
 */
export const defaultQuorum = (
  machines: readonly { readonly name?: string | undefined; readonly role?: Role | undefined }[],
  pair: readonly (string | undefined)[],
): string | undefined => {
  const others = machines.filter(({ name, role }) => !pair.includes(name) && role !== 'target')
  return (others.find(({ role }) => role === 'control-plane') ?? others[0])?.name
}

/** The portal's address belongs to neither machine: it moves between them. */
function* portalRules(file: File, index: number): Found {
  const path = ['iscsi', 'targets', index, 'address']
  const target = file.iscsi?.targets?.[index]
  if (target === undefined) return
  if (lacks(target, 'address')) {
    yield { path, message: 'missing; expected an address that moves between the two machines' }
    return
  }
  const { address } = target
  if (address === undefined) return
  const problem = addressProblem(file, address)
  if (problem !== undefined) yield { path, message: problem }
  const machine = items(file.machines).find(([, other]) => other.address === address)
  const other = items(file.iscsi?.targets).find(([place, each]) => place < index && each.address === address)
  const taken: Path | undefined = machine
    ? ['machines', machine[0], 'address']
    : file.kubernetes?.endpoint === address
      ? ['kubernetes', 'endpoint']
      : other && ['iscsi', 'targets', other[0], 'address']
  if (taken)
    yield {
      path,
      message: `${address} is taken by ${pathText(taken)}; choose an unused address`,
    }
}

/** A third machine breaks the tie. */
function* quorumRules(file: File, index: number, pair: readonly string[]): Found {
  const target = file.iscsi?.targets?.[index]
  const machines = items(file.machines).map(([, machine]) => machine)
  if (target === undefined || machines.some(({ name, role }) => name === undefined || role === undefined))
    return
  const at = (field: string): Path => ['iscsi', 'targets', index, field]
  if (lacks(target, 'quorum')) {
    if (defaultQuorum(machines, pair) === undefined)
      yield {
        path: at('machines'),
        message:
          'a third machine must decide which of the two continues when they cannot reach each other, but the lab has none; add a machine that is not a target',
      }
    return
  }
  const { quorum } = target
  if (quorum === undefined) return
  if (pair.includes(quorum))
    yield {
      path: at('quorum'),
      message: `${quorum} is one of the two machines itself; name a third machine`,
    }
  else if (!machines.some(({ name }) => name === quorum)) {
    const names = machines.filter(({ role }) => role !== 'target').map(({ name }) => String(name))
    yield {
      path: at('quorum'),
      message: `no machine is named ${shown(quorum)}${didYouMean(quorum, names) || `; expected ${names.join(' or ')}`}`,
    }
  } else if (machines.some(({ name, role }) => name === quorum && role === 'target'))
    yield { path: at('quorum'), message: `${quorum} is a target; name a machine with another role` }
}

/** The two fence each other by power, and a node that was shut out by one of them could log in at the other. */
function* powerRules(file: File, index: number): Found {
  const path = ['iscsi', 'targets', index, 'machines']
  const switched = providerNames.filter((name) => providerEntry(name).powerSwitches)
  const { provider } = file
  if (provider !== undefined && !switched.includes(provider))
    yield {
      path,
      message: `each of the two machines switches the other off before it takes over, but the provider ${provider} has no power switches for programs in the lab; choose provider: ${anyOf(switched)}, or use one machine`,
    }
  if (file.fencing === 'storage')
    yield {
      path: ['fencing'],
      message: `${pathText(path)} has two machines, and a node that one of them shuts out could log in at the other; write power`,
    }
}

export function* pairRules(file: File): Found {
  for (const [index, target] of items(file.iscsi?.targets)) {
    const at = (...rest: Path): Path => ['iscsi', 'targets', index, ...rest]
    if (lacks(target, 'machines')) {
      for (const field of fieldsOfPairs)
        if (!lacks(target, field))
          yield {
            path: at(field),
            message: 'is only for a target with two machines; remove it, or write machines',
            atKey: true,
          }
      continue
    }
    if (!lacks(target, 'machine'))
      yield {
        path: at('machine'),
        message: 'machines already names them; remove one of the two',
        atKey: true,
      }
    const pair = items(target.machines)
    const names = pair.map(([, name]) => name)
    if (pair.length === 2 && names[0] === names[1])
      yield {
        path: at('machines', 1),
        message: `${String(names[1])} is already the first of the two; name another machine`,
      }
    // DRBD copies disk by disk, so both need the same ones.
    for (const [place, name] of pair) {
      const other = items(file.iscsi?.targets).find(
        ([where, each]) => where !== index && serversOf(each).some(([, server]) => server === name),
      )
      if (!other) continue
      const [where, each] = other
      const same = names.every((server) => serversOf(each).some(([, found]) => found === server))
      if (same && where > index) continue
      yield {
        path: at('machines', place),
        message: same
          ? `${names.join(' and ')} already serve ${pathText(['iscsi', 'targets', where])}; add these LUNs to it`
          : `${name} also has the disks of ${pathText(['iscsi', 'targets', where])}, so the two machines would have different disks; name a machine that serves nothing else`,
      }
      if (same) break
    }
    yield* portalRules(file, index)
    yield* quorumRules(file, index, names)
    yield* powerRules(file, index)
  }
}
