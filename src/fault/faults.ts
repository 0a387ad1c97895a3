/** What each fault does to the lab, and what undoes it. */
import { LabError } from '../error.js'
import { CommandError } from '../machine/machine.js'
import type { Undo } from '../journal.js'
import {
  type FaultSpec,
  type Lab,
  type MachineSpec,
  machinesAt,
  nodesOf,
  podRangeOf,
  type Where,
} from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import { groupOf, lacks, lacksSwitch, type Provider } from '../provider/provider.js'
import {
  bootIdOf,
  dataFolderOn,
  hasNoTable,
  hasRestarted,
  hasRoom,
  isAhead,
  isAwake,
  isBack,
  isCut,
  isDrained,
  isFull,
  isJoined,
  isLate,
  isOff,
  isPaused,
  isPrompt,
  isRunning,
  isStopped,
  losesPackets,
  mustReach,
  roundTrip,
  servesAgain,
  servesNobody,
  type Sign,
  takesPods,
} from './signs.js'

/** A fault of a scenario, aimed: which machines it hits, what it does there and how that is undone. */
export interface Fault {
  readonly fault: FaultSpec['fault']
  /** Names of the machines. */
  readonly on: readonly string[]
  /** For people: `power of worker1 cut`. */
  readonly detail: string
  /** To be written down before it acts. */
  readonly undo: readonly Undo[]
  /** Milliseconds after which it is undone; absent: when the scenario heals. */
  readonly for?: number | undefined
  /**
   * Throws where this lab, here and now, cannot have it; and notes what its signs are compared with. Asked before
   * anything is touched.
   */
  readonly possible: (context: Context) => Promise<void>
  /** That it throws nothing proves nothing: what it did is seen by its sign. */
  readonly act: (context: Context) => Promise<void>
  readonly acting: Sign
  /** Asked once it is undone. */
  readonly gone: Sign
}

/** Seconds for a command on a machine that is about to be broken. */
const timeout = 30
/** Seconds that a drain may take: pods that do not end in time are a finding, not a reason to wait for ever. */
const drainDeadline = 120

const anyTime = (): Promise<void> => Promise.resolve()

/** Why a provider cannot have a fault; undefined: it can. Known before anything is touched. */
export const refusal = (provider: Provider, { fault }: FaultSpec): string | undefined =>
  fault === 'hang' ? lacks(provider, 'pause') : fault === 'power-cut' ? lacksSwitch(provider) : undefined

const allMachines = (lab: Lab, side: readonly Where[], server: string): readonly MachineSpec[] => [
  ...new Set(side.flatMap((where) => machinesAt(lab, where, server))),
]

/** All addresses that a machine sends from: its own, and where it is a node, its pods'. */
const addressesOf = (lab: Lab, machines: readonly MachineSpec[]): string =>
  machines
    .flatMap((machine) => [
      machine.address,
      ...(nodesOf(lab).includes(machine) ? [podRangeOf(lab, machine)] : []),
    ])
    .join(', ')

/**
 * A table of our own, which nobody else's rules know of. It sees packets before and behind all others: addresses
 * are those on the wire. The operator's address is none of a machine's, so SSH goes on.
 */
const partitionTable = (
  lab: Lab,
  table: string,
  others: readonly MachineSpec[],
  port: { readonly remote: number } | undefined,
): string => {
  const addresses = `{ ${addressesOf(lab, others)} }`
  const from = port ? `tcp sport ${String(port.remote)} ` : ''
  const to = port ? `tcp dport ${String(port.remote)} ` : ''
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

const lossTable = (table: string, loss: number, spare: string): string =>
  [
    `table inet ${table} {`,
    '  chain go {',
    '    type filter hook postrouting priority 350; policy accept;',
    // SSH from the host goes on: who broke it must be able to heal it.
    `    ip saddr ${spare} tcp sport 22 accept`,
    // Of all that it sends, and of what is dropped, it counts the packets: so it is seen to act.
    '    oifname != "lo" counter',
    `    oifname != "lo" numgen random mod 100 < ${String(loss)} counter drop`,
    '  }',
    '}',
    '',
  ].join('\n')

const loadTable = (context: Context, machine: string, table: string): Promise<string> =>
  context.machine(machine).run(shell`nft -f -`, { input: table, signal: context.signal, timeout })

/** The interface that has the machine's address. */
const interfaceOf = async (context: Context, machine: MachineSpec): Promise<string> =>
  context
    .machine(machine.name)
    .run(shell`ip -o -4 address show to ${machine.address} | awk '{ print $2; exit }'`, {
      signal: context.signal,
      timeout,
    })

type Sides = readonly [readonly MachineSpec[], readonly MachineSpec[]]

/** Who drops what, so that two sets of machines do not hear each other. */
const cut = (
  lab: Lab,
  protocol: Extract<FaultSpec, { fault: 'partition' }>['protocol'],
  [one, other]: Sides,
): readonly {
  readonly at: MachineSpec
  readonly others: readonly MachineSpec[]
  readonly port?: { readonly remote: number }
}[] => {
  if (protocol === 'all') return one.map((at) => ({ at, others: other }))
  // Of one protocol, its clients drop it: they are the ones who know whom they ask.
  const role = protocol === 'api' ? 'control-plane' : 'target'
  const port =
    protocol === 'api'
      ? 6443
      : (lab.targets.find(({ machine }) => [...one, ...other].some(({ name }) => name === machine))?.port ??
        3260)
  const clients = (side: readonly MachineSpec[], servers: readonly MachineSpec[]) => {
    const asked = servers.filter((machine) => machine.role === role)
    return asked.length === 0
      ? []
      : side
          .filter((machine) => machine.role !== role)
          .map((at) => ({ at, others: asked, port: { remote: port } }))
  }
  return [...clients(one, other), ...clients(other, one)]
}

/** What is stopped, and what is started again: whoever needs iscsid starts it through its socket. */
const units = {
  kubelet: { stop: ['kubelet'], start: 'kubelet' },
  containerd: { stop: ['containerd'], start: 'containerd' },
  iscsid: { stop: ['iscsid.socket', 'iscsid'], start: 'iscsid.socket' },
} as const

const disableTargets = shell`for tpg in /sys/kernel/config/target/iscsi/*/tpgt_1; do printf 0 > "$tpg/enable"; done`

/** Where the database's disk is mounted on its node: its own, whatever other disks are mounted there. */
const dataFolder = async (context: Context, machine: string): Promise<string> => {
  const found = await dataFolderOn(context, machine)
  if (found === '')
    throw new LabError('no-data-disk', `${machine} has not mounted the database's disk`, {
      hint: `lab verify ${context.lab.name}`,
    })
  return found
}

/** The file that fills a disk. */
const filler = 'lab-fault-fill'

/**
 * How a machine is told to restart: what it answers counts; that the answer gets lost on the way, or that the command
 * is ended by a signal while everything ends, does not. Whether it happened is seen afterwards.
 */
const restart = async (context: Context, machine: string): Promise<void> => {
  try {
    await context.machine(machine).run(shell`systemctl reboot`, { timeout })
  } catch (error) {
    if (!(error instanceof LabError) || (error instanceof CommandError && error.result.exitCode < 128))
      throw error
  }
}

/**
 * Aims the faults of a scenario, while the database runs on `server`.
 * @param index of the fault in its scenario, from 0: names of tables are made of it
 */
export const aim = async (
  context: Context,
  spec: FaultSpec,
  server: string,
  index: number,
): Promise<Fault> => {
  const { lab } = context
  const table = `lab_fault_${String(index)}`
  if (spec.fault === 'partition') {
    const [one, other] = spec.between
    const sides: Sides = [allMachines(lab, one, server), allMachines(lab, other, server)]
    const cuts = cut(lab, spec.protocol, sides)
    const names = sides.map((side) => side.map(({ name }) => name))
    const ways = cuts.flatMap(({ at, others, port }) =>
      others.map((to) => ({ from: at.name, to, port: port?.remote })),
    )
    return {
      fault: spec.fault,
      on: [...new Set(names.flat())],
      detail: `${names.map((side) => side.join(', ')).join(' and ')} no longer hear each other${spec.protocol === 'all' ? '' : ` (${spec.protocol})`}`,
      undo: cuts.map(({ at }) => ({ do: 'remove-table', machine: at.name, table })),
      for: spec.for,
      possible: async () => {
        await Promise.all(
          cuts.map(({ at }) => context.machine(at.name).run(shell`nft list tables`, { timeout })),
        )
        await mustReach(context, ways)
      },
      acting: isCut(ways, table),
      gone: isJoined(ways, table),
      act: async () => {
        await Promise.all(
          cuts.map(({ at, others, port }) =>
            loadTable(context, at.name, partitionTable(lab, table, others, port)),
          ),
        )
      },
    }
  }

  const machines = machinesAt(lab, spec.machine, server)
  const on = machines.map(({ name }) => name)
  const undo = (of: (machine: string) => Undo): readonly Undo[] => on.map(of)
  const each = async (run: (machine: MachineSpec) => Promise<unknown>): Promise<void> => {
    await Promise.all(machines.map(run))
  }
  const base = {
    fault: spec.fault,
    on,
    for: 'for' in spec ? spec.for : undefined,
    possible: anyTime,
  } as const
  const names = on.join(', ')
  const bootIds = new Map<string, string>()
  const noteBoots = (now: Context): Promise<void> =>
    each(async ({ name }) => {
      bootIds.set(name, await bootIdOf(now, name))
    })
  /** A target that is stopped, and one that vanishes: an initiator sees no difference. */
  const withoutTargets = {
    ...base,
    undo: undo((machine) => ({ do: 'enable-targets', machine })),
    act: (now: Context) => each(({ name }) => now.machine(name).run(disableTargets, { timeout })),
    acting: servesNobody(on),
    gone: servesAgain(on),
  }
  switch (spec.fault) {
    case 'drain':
      return {
        ...base,
        detail: `${names} drained`,
        undo: undo((machine) => ({ do: 'uncordon', machine })),
        act: ({ kubectl }) =>
          each(({ name }) =>
            kubectl.run(
              [
                'drain',
                name,
                '--ignore-daemonsets',
                '--delete-emptydir-data',
                '--force',
                `--timeout=${String(drainDeadline)}s`,
              ],
              { timeout: drainDeadline + 5 },
            ),
          ),
        acting: isDrained(on),
        gone: takesPods(on),
      }
    case 'power-cut':
      return {
        ...base,
        detail: `power of ${names} cut`,
        undo: undo((machine) => ({ do: 'switch-on', machine })),
        possible: noteBoots,
        act: ({ provider }) => each(({ name }) => groupOf(provider, 'power').cut(lab, name)),
        acting: isOff(on),
        gone: isBack(on, bootIds),
      }
    case 'reboot':
      return {
        ...base,
        detail: `${names} restarted`,
        undo: undo((machine) => ({ do: 'switch-on', machine })),
        possible: noteBoots,
        act: (now) => each(({ name }) => restart(now, name)),
        acting: hasRestarted(on, bootIds),
        gone: isBack(on, bootIds),
      }
    case 'hang':
      return {
        ...base,
        detail: `${names} stopped where it stood`,
        undo: undo((machine) => ({ do: 'resume', machine })),
        act: ({ provider }) => each(({ name }) => groupOf(provider, 'pause').begin(lab, name)),
        acting: isPaused(on),
        gone: isAwake(on),
      }
    case 'packet-loss':
      return {
        ...base,
        detail: `${names} loses ${String(spec.loss)} % of what it sends`,
        undo: undo((machine) => ({ do: 'remove-table', machine, table })),
        act: (now) => each(({ name, address }) => loadTable(now, name, lossTable(table, spec.loss, address))),
        acting: losesPackets(on, table),
        gone: hasNoTable(on, table),
      }
    case 'delay': {
      const interfaces = await Promise.all(machines.map((machine) => interfaceOf(context, machine)))
      const queues = on.map((name, place) => ({ name, interface: interfaces[place] ?? '' }))
      const before = new Map<string, number>()
      return {
        ...base,
        detail: `what ${names} sends is ${String(spec.by)} ms late`,
        undo: on.map((machine, place) => ({
          do: 'remove-queue',
          machine,
          interface: interfaces[place] ?? '',
        })),
        // Tried on the loopback, where nobody notices: the kernel may not have it.
        possible: (now) =>
          each(async ({ name }) => {
            await now
              .machine(name)
              .run(shell`tc qdisc add dev lo root netem delay 0ms && tc qdisc del dev lo root`, { timeout })
            before.set(name, await roundTrip(now, name))
          }),
        act: (now) =>
          each(({ name }) =>
            now
              .machine(name)
              .run(
                shell`tc qdisc replace dev ${interfaces[on.indexOf(name)] ?? ''} root netem delay ${`${String(spec.by)}ms`}`,
                { timeout },
              ),
          ),
        acting: isLate(queues, before, spec.by),
        gone: isPrompt(queues, before, spec.by),
      }
    }
    case 'stop-service': {
      const { service } = spec
      if (service === 'target') return { ...withoutTargets, detail: `targets of ${names} stopped` }
      return {
        ...base,
        detail: `${service} of ${names} stopped`,
        undo: undo((machine) => ({ do: 'start-service', machine, service: units[service].start })),
        act: (now) =>
          each(({ name }) =>
            now.machine(name).run(shell`systemctl stop ${units[service].stop}`, { timeout }),
          ),
        acting: isStopped(on, units[service].stop),
        gone: isRunning(on, units[service].start),
      }
    }
    case 'target-loss':
      return { ...withoutTargets, detail: `targets of ${names} vanished` }
    case 'disk-full': {
      const folders = await Promise.all(
        on.map((machine) =>
          spec.disk === 'data' ? dataFolder(context, machine) : Promise.resolve('/var/tmp'),
        ),
      )
      const places = on.map((name, place) => ({ name, folder: folders[place] ?? '' }))
      const path = (place: number): string => `${folders[place] ?? ''}/${filler}`
      return {
        ...base,
        detail: `${spec.disk} disk of ${names} filled`,
        undo: on.map((machine, place) => ({ do: 'remove-file', machine, path: path(place) })),
        // Blocks are claimed, not written: a full disk is what is wanted, not a busy one.
        act: (now) =>
          each(({ name }) => {
            const file = path(on.indexOf(name))
            return now
              .machine(name)
              .run(
                shell`free=$(df --output=avail -B1 "$(dirname ${file})" | tail -n 1); fallocate -l "$free" ${file}; dd if=/dev/zero of=${file} oflag=append conv=notrunc bs=4k 2>/dev/null; sync -f ${file}; test -s ${file}`,
                { timeout: 120 },
              )
          }),
        acting: isFull(places),
        gone: hasRoom(places, filler, spec.disk === 'data'),
      }
    }
    case 'clock-skew':
      return {
        ...base,
        detail: `clock of ${names} set ${spec.by > 0 ? '+' : ''}${String(spec.by / 1000)} s`,
        undo: undo((machine) => ({ do: 'set-clock', machine })),
        act: (now) =>
          each(({ name }) =>
            now
              .machine(name)
              .run(shell`date -s ${`@${((Date.now() + spec.by) / 1000).toFixed(3)}`}`, { timeout }),
          ),
        acting: isAhead(on, spec.by),
        gone: isAhead(on, 0),
      }
  }
}
