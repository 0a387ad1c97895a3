import { z } from 'zod'
import { LabError } from '../error.js'
import { type Draft, items, type DraftFile, type Found, type Path } from '../lab/draft.js'
import {
  type Lab,
  type MachineSpec,
  machinesWith,
  nodesOf,
  pairsOf,
  pairWith,
  podRangeOf,
  type Role,
  serversOf,
} from '../lab/lab.js'
import type { SpecOf, WrittenOf } from '../lab/fault-spec.js'
import { list } from '../lab/fields.js'
import { shown } from '../lab/suggest.js'
import { lasting, machinesAt, rolesAt, shares, where, whereProblem } from '../lab/fault-machines.js'
import { replicationPort } from '../machine/pair.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import { faultOf, tableOf } from './fault.js'
import { hasTable, listTables, loadTable, removingTable } from './packet-filter.js'
import { lookTimeout, ofAll, reunion, type Sign, soon } from './sign.js'

const machineSet = (description: string) =>
  list(where('What belongs to it'), 'a list of machines').min(1, 'at least one machine').meta({ description })

const fields = {
  between: z
    .tuple([machineSet('One side.'), machineSet('The other side.')], {
      error: 'two lists of machines, such as [[database], [control-plane]]',
    })
    .meta({ description: 'The two sides: two lists of machines.' }),
  protocol: z
    .enum(['all', 'api', 'storage', 'replication'], { error: 'all, api, storage or replication' })
    .default('all')
    .meta({
      description:
        'What is cut: `api`, only the way to the API server; `storage`, only iSCSI; `replication`, only what keeps the copies of a target on two machines the same; `all`, everything.',
    }),
  for: lasting,
}

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    partition: typeof fields
  }
}

type Protocol = SpecOf<'partition'>['protocol']

/** The addresses of the API server and of targets that move, if every machine that may have one is among these. */
const movingAddresses = (lab: Lab, machines: readonly MachineSpec[]): readonly string[] => {
  const endpoint = lab.kubernetes?.endpoint
  const all = machinesWith(lab, 'control-plane').every((machine) => machines.includes(machine))
  return [
    ...(endpoint !== undefined && all ? [endpoint] : []),
    ...pairsOf(lab)
      .filter(({ pair }) => pair.machines.every((name) => machines.some((machine) => machine.name === name)))
      .map(({ pair }) => pair.address),
  ]
}

/** All addresses from which machines send: their own, those of the pods of nodes, and those that move among them. */
const addressesOf = (lab: Lab, machines: readonly MachineSpec[]): string =>
  [
    ...machines.flatMap((machine) => [
      machine.address,
      ...(nodesOf(lab).includes(machine) ? [podRangeOf(lab, machine)] : []),
    ]),
    ...movingAddresses(lab, machines),
  ].join(', ')

/** A TCP port: of the machines on the other side, or of the machine that has the rules. */
type Port =
  { readonly remote: number; readonly local?: never } | { readonly local: number; readonly remote?: never }

/**
 * A table that cannot clash with anybody else's rules. Its hooks run before and after all others, so that it sees the
 * addresses on the wire. The operator's address is not blocked, so SSH keeps working.
 */
const partitionTable = (
  lab: Lab,
  table: string,
  others: readonly MachineSpec[],
  port: Port | undefined,
): string => {
  const addresses = `{ ${addressesOf(lab, others)} }`
  const [from, to] =
    port === undefined
      ? ['', '']
      : port.remote === undefined
        ? [`tcp dport ${String(port.local)} `, `tcp sport ${String(port.local)} `]
        : [`tcp sport ${String(port.remote)} `, `tcp dport ${String(port.remote)} `]
  return [
    `table inet ${table} {`,
    '  chain come {',
    '    type filter hook prerouting priority -350; policy accept;',
    `    ip saddr ${addresses} ${from}drop`,
    '  }',
    '  chain go {',
    '    type filter hook postrouting priority 350; policy accept;',
    `    ip daddr ${addresses} ${to}drop`,
    '  }',
    '}',
    '',
  ].join('\n')
}

type Sides = readonly [readonly MachineSpec[], readonly MachineSpec[]]

/** Whether a machine may have an address besides its own: one that moves between several. */
const mayHaveAnother = (lab: Lab, { name, role }: MachineSpec): boolean =>
  (lab.kubernetes?.endpoint !== undefined && role === 'control-plane') || pairWith(lab, name) !== undefined

/** Whether clients that know only these servers may use one of them at an address that also belongs to others. */
const usedAtAnother = (lab: Lab, machine: MachineSpec, among: readonly MachineSpec[]): boolean => {
  const address =
    machine.role === 'control-plane' ? lab.kubernetes?.endpoint : pairWith(lab, machine.name)?.pair.address
  return address !== undefined && !movingAddresses(lab, among).includes(address)
}

/** Which machines drop what, so that two sets of machines cannot reach each other. */
const cut = (
  lab: Lab,
  protocol: Protocol,
  [one, other]: Sides,
): readonly {
  readonly at: MachineSpec
  readonly others: readonly MachineSpec[]
  readonly port?: Port
}[] => {
  if (protocol === 'all')
    return [
      ...one.map((at) => ({ at, others: other })),
      // Any of them may have an address that moves, of the API server or a target: the one that has it drops the
      // packets to it.
      ...other.filter((machine) => mayHaveAnother(lab, machine)).map((at) => ({ at, others: one })),
    ]
  // Each copy of the disks may have called the other.
  if (protocol === 'replication') {
    const port = { remote: replicationPort }
    const mirrors = (side: readonly MachineSpec[]) => side.filter(({ name }) => pairWith(lab, name))
    return [
      ...mirrors(one).map((at) => ({ at, others: mirrors(other), port })),
      ...mirrors(other).map((at) => ({ at, others: mirrors(one), port })),
    ]
  }
  // For a single protocol, its clients drop it, since they know the server.
  const role = protocol === 'api' ? 'control-plane' : 'target'
  const port =
    protocol === 'api'
      ? 6443
      : (lab.targets.find((target) =>
          serversOf(target).some((server) => [...one, ...other].some(({ name }) => name === server)),
        )?.port ?? 3260)
  const clients = (side: readonly MachineSpec[], servers: readonly MachineSpec[]) => {
    const asked = servers.filter((machine) => machine.role === role)
    const asking = side.filter((machine) => machine.role !== role)
    if (asked.length === 0 || asking.length === 0) return []
    return [
      ...asking.map((at) => ({ at, others: asked, port: { remote: port } })),
      // If such an address moves away, its clients reach it again.
      ...asked
        .filter((machine) => usedAtAnother(lab, machine, asked))
        .map((at) => ({ at, others: asking, port: { local: port } })),
    ]
  }
  return [...clients(one, other), ...clients(other, one)]
}

/** A connection to test from one machine to another: any packet, or TCP to a port. */
interface Way {
  readonly from: string
  readonly to: MachineSpec
  readonly port?: number | undefined
}

/** Whether a packet comes back. */
const reaches = async (
  context: Context,
  { from, to, port }: Way,
): Promise<{ came: boolean; saw: string }> => {
  const ask =
    port === undefined
      ? shell`LC_ALL=C ping -n -q -c 2 -i 0.2 -W 1 ${to.address} 2>&1`
      : shell`LC_ALL=C timeout 2 bash -c '</dev/tcp/$0/$1' ${to.address} ${port} 2>&1`
  const { exitCode, stdout } = await context
    .machine(from)
    .try(ask, { signal: context.signal, timeout: lookTimeout })
  const name = `${from} to ${to.name}${port === undefined ? '' : `:${String(port)}`}`
  // A refused connection has reached the other side.
  const came = exitCode === 0 || (port !== undefined && stdout.includes('refused'))
  const lost = /\d+ packets transmitted, .* packet loss/.exec(stdout)?.[0] ?? 'no answer'
  return { came, saw: `${name}: ${came ? 'answered' : port === undefined ? lost : 'no answer'}` }
}

/** @throws LabError if a connection fails even before anything is broken: then its failure would prove nothing */
const mustReach = async (context: Context, ways: readonly Way[]): Promise<void> => {
  if (ways.length === 0)
    throw new LabError('fault-impossible', 'there is no traffic between the two sides to cut')
  const verdict = await ofAll(ways, async (way) => {
    const { came, saw } = await reaches(context, way)
    return { ok: came, saw }
  })
  if (!verdict.ok)
    throw new LabError(
      'fault-impossible',
      `some machines could not reach each other before the fault: ${verdict.saw}`,
      {
        hint: `lab verify ${context.lab.name}`,
      },
    )
}

/** @param at the machines with the rules */
const isCut = (at: readonly string[], ways: readonly Way[], table: string): Sign => ({
  title: `${at.join(', ')}: the rules are loaded, and no packet comes back`,
  within: soon,
  probe: async (context) => {
    const rules = await ofAll(at, async (name) => {
      const there = await hasTable(context, name, table)
      return { ok: there, saw: `${name}: ${there ? '' : 'no '}table ${table}` }
    })
    const packets = await ofAll(ways, async (way) => {
      const { came, saw } = await reaches(context, way)
      return { ok: !came, saw }
    })
    return { ok: rules.ok && packets.ok, saw: `${rules.saw}; ${packets.saw}` }
  },
})

const isJoined = (at: readonly string[], ways: readonly Way[], table: string): Sign => ({
  title: `${at.join(', ')}: the rules are gone, and packets come back`,
  within: reunion,
  probe: async (context) => {
    const rules = await ofAll(at, async (name) => {
      const there = await hasTable(context, name, table)
      return { ok: !there, saw: `${name}: ${there ? '' : 'no '}table ${table}` }
    })
    const packets = await ofAll(ways, async (way) => {
      const { came, saw } = await reaches(context, way)
      return { ok: came, saw }
    })
    return { ok: rules.ok && packets.ok, saw: `${rules.saw}; ${packets.saw}` }
  },
})

const nodes: readonly Role[] = ['control-plane', 'worker']

function* partitionRules(file: DraftFile, fault: Draft<WrittenOf<'partition'>>, path: Path): Found {
  const sides = (fault.between ?? []).map((side) => items(side))
  for (const [side, words] of sides.entries()) {
    for (const [index, where] of words) {
      const message = whereProblem(file, where)
      if (message) yield { path: [...path, 'between', side, index], message }
    }
  }
  const [one = [], other = []] = sides
  const same = other.find(([, where]) => one.some(([, first]) => shares(file, first, where)))
  if (same) {
    yield {
      path: [...path, 'between', 1, same[0]],
      message: `${shown(same[1])} is already on the other side; a machine can be on one side only`,
    }
  }
  const faces = (first: Role, second: readonly Role[]): boolean => {
    const has = (words: typeof one, wanted: readonly Role[]): boolean =>
      words.some(([, where]) => rolesAt(file, where).some((role) => wanted.includes(role)))
    return (has(one, [first]) && has(other, second)) || (has(other, [first]) && has(one, second))
  }
  const known = sides.length === 2 && [...one, ...other].every(([, where]) => rolesAt(file, where).length > 0)
  if (!known) return
  if (fault.protocol === 'api' && !faces('control-plane', nodes)) {
    yield {
      path: [...path, 'protocol'],
      message:
        'api is the traffic between nodes and the control plane; put the control plane on one side and nodes on the other',
    }
  } else if (fault.protocol === 'replication' && !faces('target', ['target'])) {
    yield {
      path: [...path, 'protocol'],
      message:
        'replication is the traffic between the two machines of a target; put one of them on each side',
    }
  } else if (fault.protocol === 'storage' && !faces('target', ['worker', 'initiator'])) {
    yield {
      path: [...path, 'protocol'],
      message:
        'storage is the traffic between initiators and targets; put a target on one side and workers or initiators on the other',
    }
  }
}

export const partition = faultOf({
  name: 'partition',
  description:
    'Drops all packets between two sets of machines. SSH from the host keeps working. Healed by removing the rules.',
  fields,
  rules: partitionRules,
  touches: ({ between }) => (between ?? [undefined]).flatMap((side) => side ?? [undefined]),
  // A node that is cut off from the API server is no longer heard.
  silences: ({ between, protocol }, file) =>
    protocol !== 'storage' &&
    protocol !== 'replication' &&
    (between ?? [undefined])
      .flatMap((side) => side ?? [undefined])
      .some((word) => word === undefined || rolesAt(file, word).includes('control-plane')),
  undos: [removingTable],
  aim: (context, { between, protocol }, { index, ...at }) => {
    const { lab } = context
    const [one, other] = between.map((side) => [
      ...new Set(side.flatMap((word) => machinesAt(lab, word, at))),
    ])
    const sides: Sides = [one ?? [], other ?? []]
    const table = tableOf(index)
    const cuts = cut(lab, protocol, sides)
    const names = sides.map((side) => side.map(({ name }) => name))
    const filtering = [...new Set(cuts.map(({ at }) => at.name))]
    // A machine that drops packets to a port of its own is tested from the other side.
    const ways = cuts.flatMap(({ at, others, port }) =>
      port?.local === undefined ? others.map((to) => ({ from: at.name, to, port: port?.remote })) : [],
    )
    return Promise.resolve({
      on: [...new Set(names.flat())],
      detail: `${names.map((side) => side.join(', ')).join(' and ')} no longer reach each other${protocol === 'all' ? '' : ` (${protocol})`}`,
      undo: cuts.map(({ at }) => removingTable.of(at.name, { table })),
      possible: async () => {
        await Promise.all(cuts.map(({ at }) => listTables(context, at.name)))
        await mustReach(context, ways)
      },
      act: async () => {
        await Promise.all(
          cuts.map(({ at, others, port }) =>
            loadTable(context, at.name, partitionTable(lab, table, others, port)),
          ),
        )
      },
      acting: isCut(filtering, ways, table),
      gone: isJoined(filtering, ways, table),
    })
  },
})
