/** How a fault is seen: that it acts, and that it is gone. Each looks at the world, and not at what was typed. */
import { setTimeout as delay } from 'node:timers/promises'
import { Interrupted, LabError, messageOf } from '../error.js'
import { readJournal } from '../journal.js'
import {
  type DatabaseSpec,
  type Lab,
  type MachineSpec,
  machinesWith,
  portalOf,
  targetNamed,
} from '../lab/lab.js'
import { type Command, shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import type { Seconds, Verdict } from '../plan/step.js'
import type { MachineState } from '../provider/provider.js'
import { measureClocks } from './clock.js'

/** What shows something, asked until it says yes. */
export interface Sign {
  /** A fact in the present tense: `worker1 is off`. */
  readonly title: string
  /** Seconds that it may take; the provider's patience makes it longer. */
  readonly within: Seconds
  readonly probe: (context: Context) => Promise<Verdict>
}

/** What was seen of a sign in the end. */
export interface Seen extends Verdict {
  readonly title: string
  readonly at: Date
  /** Milliseconds on this host's monotonic clock. */
  readonly ms: number
}

/** Milliseconds between two looks. */
const pause = 250

/** Asks until it is so, or its time is over. What cannot be asked is not so. @throws Interrupted with the signal */
export const see = async ({ title, within, probe }: Sign, context: Context): Promise<Seen> => {
  const { signal, provider } = context
  const begun = performance.now()
  for (;;) {
    signal.throwIfAborted()
    const verdict = await probe(context).catch((error: unknown): Verdict => ({
      ok: false,
      saw: messageOf(error),
    }))
    if (signal.aborted) throw new Interrupted()
    const ms = performance.now()
    const late = ms - begun >= within * (provider.patience ?? 1) * 1000
    if (verdict.ok || verdict.final === true || late)
      return {
        title,
        ok: verdict.ok,
        saw: verdict.ok ? verdict.saw : `${verdict.saw} (waited ${((ms - begun) / 1000).toFixed(0)} s)`,
        at: new Date(),
        ms,
      }
    await delay(pause, undefined, { signal }).catch(() => undefined)
  }
}

/** Seconds for a command of a look. */
const timeout = 10
/** Seconds for a sign that needs no more than a look or two. */
const soon = 15
/** Seconds for a machine to come back. */
const comeback = 150

/** Of several, all must say yes. */
export const ofAll = async <T>(each: readonly T[], ask: (one: T) => Promise<Verdict>): Promise<Verdict> => {
  const verdicts = await Promise.all(each.map(ask))
  return {
    ok: verdicts.length > 0 && verdicts.every(({ ok }) => ok),
    saw: verdicts.map(({ saw }) => saw).join('; '),
  }
}

const said = async (context: Context, machine: string, command: Command): Promise<string> => {
  const { exitCode, stdout, stderr } = await context
    .machine(machine)
    .try(command, { signal: context.signal, timeout })
  return exitCode === 0 || stdout.trim() !== '' ? stdout.trim() : stderr.trim()
}

/** Changes with every boot. */
export const bootIdOf = (context: Context, machine: string): Promise<string> =>
  context
    .machine(machine)
    .run(shell`cat /proc/sys/kernel/random/boot_id`, { signal: context.signal, timeout: 5 })

const stateOf = async ({ lab, provider }: Context, machine: string): Promise<MachineState> =>
  (await provider.states(lab)).find(({ name }) => name === machine) ?? {
    name: machine,
    status: 'absent',
    detail: 'the provider does not know it',
  }

const described = ({ name, status, paused, detail }: MachineState): string =>
  `${name}: ${paused === true ? 'paused' : status}${detail === '' ? '' : ` (${detail})`}`

export const isOff = (names: readonly string[]): Sign => ({
  title: `${names.join(', ')} is off, as the provider sees it`,
  within: soon,
  probe: (context) =>
    ofAll(names, async (name) => {
      const state = await stateOf(context, name)
      return { ok: state.status === 'stopped' || state.status === 'absent', saw: described(state) }
    }),
})

/** @param before its boot ids, from before */
export const isBack = (names: readonly string[], before: ReadonlyMap<string, string>): Sign => ({
  title: `${names.join(', ')} is on again, and has booted`,
  within: comeback,
  probe: (context) =>
    ofAll(names, async (name) => {
      const state = await stateOf(context, name)
      if (state.status !== 'running') return { ok: false, saw: described(state) }
      const bootId = await bootIdOf(context, name)
      return {
        ok: bootId !== before.get(name),
        saw: `${name}: boot ${bootId}, before ${before.get(name) ?? 'unknown'}`,
      }
    }),
})

/** @param before its boot ids, from before */
export const hasRestarted = (names: readonly string[], before: ReadonlyMap<string, string>): Sign => ({
  title: `${names.join(', ')} has booted anew`,
  within: comeback,
  probe: (context) =>
    ofAll(names, async (name) => {
      const state = await stateOf(context, name)
      if (state.status !== 'running') {
        // Whoever fences by power does not wait until it is back: it went down, and that is what was wanted.
        const fenced = (await readJournal(context.lab)).some(
          ({ fault, undo }) => fault === 'fence' && undo.machine === name,
        )
        return { ok: fenced, saw: `${described(state)}${fenced ? ', fenced while it went down' : ''}` }
      }
      const bootId = await bootIdOf(context, name)
      const old = before.get(name)
      return {
        ok: old !== undefined && bootId !== old,
        saw:
          bootId === old
            ? `${name}: still boot ${bootId}`
            : `${name}: boot ${bootId}, before ${old ?? 'unknown'}`,
      }
    }),
})

export const isPaused = (names: readonly string[]): Sign => {
  // One that is fenced while it stands still is off a moment later.
  const seen = new Map<string, string>()
  return {
    title: `${names.join(', ')} stands still, as the provider sees it, and answers nobody`,
    within: soon,
    probe: (context) =>
      ofAll(names, async (name) => {
        const state = await stateOf(context, name)
        if (state.paused === true) seen.set(name, described(state))
        const paused = seen.get(name)
        if (paused === undefined) return { ok: false, saw: described(state) }
        try {
          await context.machine(name).try(shell`true`, { signal: context.signal, timeout: 2 })
          return { ok: false, saw: `${paused}, but it answers` }
        } catch (error) {
          return { ok: true, saw: `${paused}; ${error instanceof LabError ? error.code : messageOf(error)}` }
        }
      }),
  }
}

export const isAwake = (names: readonly string[]): Sign => ({
  title: `${names.join(', ')} goes on, and answers`,
  within: comeback,
  probe: (context) =>
    ofAll(names, async (name) => {
      const state = await stateOf(context, name)
      if (state.status !== 'running' || state.paused === true) return { ok: false, saw: described(state) }
      return { ok: true, saw: `${name}: boot ${await bootIdOf(context, name)}` }
    }),
})

/** A way from a machine to another one: any packet, or a connection to a port. */
export interface Way {
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
  const { exitCode, stdout } = await context.machine(from).try(ask, { signal: context.signal, timeout })
  const name = `${from} to ${to.name}${port === undefined ? '' : `:${String(port)}`}`
  // Somebody who refuses was reached.
  const came = exitCode === 0 || (port !== undefined && stdout.includes('refused'))
  const lost = /\d+ packets transmitted, .* packet loss/.exec(stdout)?.[0] ?? 'no answer'
  return { came, saw: `${name}: ${came ? 'answered' : port === undefined ? lost : 'no answer'}` }
}

/** @throws LabError where one does not reach the other even before anything is broken: then silence would prove nothing */
export const mustReach = async (context: Context, ways: readonly Way[]): Promise<void> => {
  if (ways.length === 0)
    throw new LabError('fault-impossible', 'there is nothing between the two sides to cut')
  const verdict = await ofAll(ways, async (way) => {
    const { came, saw } = await reaches(context, way)
    return { ok: came, saw }
  })
  if (!verdict.ok)
    throw new LabError('fault-impossible', `not everybody hears each other to begin with: ${verdict.saw}`, {
      hint: `lab verify ${context.lab.name}`,
    })
}

const hasTable = async (context: Context, machine: string, table: string): Promise<boolean> =>
  (
    await context
      .machine(machine)
      .try(shell`nft list table inet ${table}`, { signal: context.signal, timeout })
  ).exitCode === 0

const oneOfEach = (ways: readonly Way[]): readonly string[] => [...new Set(ways.map(({ from }) => from))]

export const isCut = (ways: readonly Way[], table: string): Sign => ({
  title: `${oneOfEach(ways).join(', ')}: the rules are loaded, and no packet comes back`,
  within: soon,
  probe: async (context) => {
    const rules = await ofAll(oneOfEach(ways), async (name) => {
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

/** Seconds for the first packets after a pause: those who were cut off wait longer and longer. */
const reunion = 60

export const isJoined = (ways: readonly Way[], table: string): Sign => ({
  title: `${oneOfEach(ways).join(', ')}: the rules are gone, and packets come back`,
  within: reunion,
  probe: async (context) => {
    const rules = await ofAll(oneOfEach(ways), async (name) => {
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

/** How many datagrams a look at lost packets sends: with one in a hundred lost, a few looks are enough. */
const datagrams = 200

export const losesPackets = (names: readonly string[], table: string): Sign => ({
  title: `${names.join(', ')} sends packets that are dropped, as the rule counts them`,
  within: 30,
  probe: (context) =>
    ofAll(names, async (name) => {
      const rules = await said(
        context,
        name,
        shell`set -- $SSH_CONNECTION; bash -c 'for n in $(seq $0); do echo lab > /dev/udp/$1/9; done' ${datagrams} "$1" 2>/dev/null; nft list table inet ${table}`,
      )
      const [sent, dropped] = [...rules.matchAll(/counter packets (\d+)/g)].map(([, count]) => Number(count))
      return {
        ok: sent !== undefined && dropped !== undefined && dropped > 0,
        saw: `${name}: ${dropped === undefined ? rules || 'no rule' : `${String(dropped)} of ${String(sent)} packets dropped`}`,
      }
    }),
})

export const hasNoTable = (names: readonly string[], table: string): Sign => ({
  title: `${names.join(', ')}: the rule is gone`,
  within: soon,
  probe: (context) =>
    ofAll(names, async (name) => {
      const there = await hasTable(context, name, table)
      return { ok: !there, saw: `${name}: ${there ? '' : 'no '}table ${table}` }
    }),
})

/**
 * Milliseconds until this host's answer is back, the quickest of some.
 * @throws LabError where nothing comes back
 */
export const roundTrip = async (context: Context, machine: string): Promise<number> => {
  const output = await said(
    context,
    machine,
    shell`set -- $SSH_CONNECTION; LC_ALL=C ping -n -q -c 4 -i 0.2 -W 5 "$1" 2>&1`,
  )
  const [, least] = /= ([\d.]+)\//.exec(output) ?? []
  if (least === undefined)
    throw new LabError('no-answer', `${machine}: this host does not answer its ping: ${output}`)
  return Number(least)
}

/** Of what a packet is made late by, at least so much must be seen, and at most so much may be left. */
const clearly = 0.7

/** @param before round trips of each, from before @param by milliseconds */
export const isLate = (
  on: readonly { readonly name: string; readonly interface: string }[],
  before: ReadonlyMap<string, number>,
  by: number,
): Sign => ({
  title: `what ${on.map(({ name }) => name).join(', ')} sends is queued, and answers come later than before`,
  within: soon,
  probe: (context) =>
    ofAll(on, async (one) => {
      const queue = await said(context, one.name, shell`tc qdisc show dev ${one.interface}`)
      const [now, then] = [await roundTrip(context, one.name), before.get(one.name) ?? Infinity]
      return {
        ok: queue.includes('netem') && now - then >= by * clearly,
        saw: `${one.name}: ${queue}; ${now.toFixed(1)} ms there and back, before ${then.toFixed(1)} ms`,
      }
    }),
})

export const isPrompt = (
  on: readonly { readonly name: string; readonly interface: string }[],
  before: ReadonlyMap<string, number>,
  by: number,
): Sign => ({
  title: `what ${on.map(({ name }) => name).join(', ')} sends is on its way at once again`,
  within: reunion,
  probe: (context) =>
    ofAll(on, async (one) => {
      const queue = await said(context, one.name, shell`tc qdisc show dev ${one.interface}`)
      const [now, then] = [await roundTrip(context, one.name), before.get(one.name) ?? 0]
      return {
        ok: !queue.includes('netem') && now - then < by * clearly,
        saw: `${one.name}: ${queue || 'no queue'}; ${now.toFixed(1)} ms there and back, before ${then.toFixed(1)} ms`,
      }
    }),
})

const unitStates = async (
  context: Context,
  machine: string,
  units: readonly string[],
): Promise<readonly string[]> =>
  (await said(context, machine, shell`systemctl is-active ${units}`)).split('\n')

export const isStopped = (names: readonly string[], units: readonly string[]): Sign => ({
  title: `${units.join(', ')} of ${names.join(', ')} does not run`,
  within: soon,
  probe: (context) =>
    ofAll(names, async (name) => {
      const states = await unitStates(context, name, units)
      return {
        ok:
          states.length === units.length &&
          states.every((state) => state === 'inactive' || state === 'failed'),
        saw: `${name}: ${states.join(', ')}`,
      }
    }),
})

export const isRunning = (names: readonly string[], unit: string): Sign => ({
  title: `${unit} of ${names.join(', ')} runs`,
  within: reunion,
  probe: (context) =>
    ofAll(names, async (name) => {
      const states = await unitStates(context, name, [unit])
      return { ok: states.join() === 'active', saw: `${name}: ${states.join(', ')}` }
    }),
})

/** `1 iqn… 2`: whether it is enabled, and how many are logged in. */
const portalGroups = shell`cd /sys/kernel/config/target/iscsi && for tpg in */tpgt_*; do [ -e "$tpg/enable" ] || continue; echo "$(cat "$tpg/enable") $tpg $(cat "$tpg"/acls/*/info 2>/dev/null | grep -c LOGGED_IN)"; done`

const groupsOf = async (
  context: Context,
  machine: string,
): Promise<readonly { readonly enabled: boolean; readonly name: string; readonly sessions: number }[]> =>
  (await said(context, machine, portalGroups))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [enabled, name = '', sessions] = line.split(' ')
      return { enabled: enabled === '1', name, sessions: Number(sessions) }
    })

export const servesNobody = (names: readonly string[]): Sign => ({
  title: `the targets of ${names.join(', ')} are disabled, and nobody is logged in`,
  within: soon,
  probe: (context) =>
    ofAll(names, async (machine) => {
      const groups = await groupsOf(context, machine)
      return {
        ok: groups.length > 0 && groups.every(({ enabled, sessions }) => !enabled && sessions === 0),
        saw: `${machine}: ${groups.map(({ name, enabled, sessions }) => `${name} ${enabled ? 'enabled' : 'disabled'}, ${String(sessions)} sessions`).join(', ') || 'no target'}`,
      }
    }),
})

export const servesAgain = (names: readonly string[]): Sign => ({
  title: `the targets of ${names.join(', ')} are enabled`,
  within: reunion,
  probe: (context) =>
    ofAll(names, async (machine) => {
      const groups = await groupsOf(context, machine)
      return {
        ok: groups.length > 0 && groups.every(({ enabled }) => enabled),
        saw: `${machine}: ${groups.map(({ name, enabled }) => `${name} ${enabled ? 'enabled' : 'disabled'}`).join(', ') || 'no target'}`,
      }
    }),
})

/** The database's own LUN as a node sees it, whatever other disks it has. */
export const deviceOf = (lab: Lab, { volume }: DatabaseSpec): string | undefined => {
  if (volume.kind !== 'lun') return undefined
  const target = targetNamed(lab, volume.target)
  return `/dev/disk/by-path/ip-${portalOf(lab, target)}-iscsi-${target.iqn}-lun-${String(volume.lun)}`
}

/** Where a node has mounted the database's LUN; empty: nowhere. */
export const dataFolderOn = async (context: Context, machine: string): Promise<string> => {
  const { lab } = context
  const device = lab.database && deviceOf(lab, lab.database)
  if (device === undefined) return ''
  const { stdout } = await context
    .machine(machine)
    .try(
      shell`test -b ${device} && findmnt --raw --noheadings --first-only --output TARGET --source "$(readlink -f ${device})"`,
      { signal: context.signal, timeout },
    )
  return stdout.trim()
}

/** Prints what is free, in bytes, and what becomes of a block that is written. */
const fill = (folder: string): Command =>
  shell`df --output=avail -B1 ${folder} | tail -n 1; LC_ALL=C dd if=/dev/zero of=${`${folder}/lab-fault-probe`} bs=4k count=1 conv=fsync 2>&1; rm -f ${`${folder}/lab-fault-probe`}`

const room = async (
  context: Context,
  machine: string,
  folder: string,
): Promise<{ readonly free: number; readonly refused: boolean; readonly saw: string }> => {
  // A disk that is full makes the write fail: that is an answer.
  const output = await context.machine(machine).run(fill(folder), { signal: context.signal, timeout: 30 })
  const [free = '', ...rest] = output.split('\n')
  const answer = rest.join(' ')
  return {
    free: free.trim() === '' ? NaN : Number(free),
    refused: output.includes('No space left on device'),
    saw: `${machine}: ${free.trim()} bytes free in ${folder}; a write: ${answer}`,
  }
}

export const isFull = (on: readonly { readonly name: string; readonly folder: string }[]): Sign => ({
  title: `the disk of ${on.map(({ name }) => name).join(', ')} has no byte left, and a write is refused`,
  within: soon,
  probe: (context) =>
    ofAll(on, async ({ name, folder }) => {
      const { free, refused, saw } = await room(context, name, folder)
      return { ok: free === 0 && refused, saw }
    }),
})

/**
 * @param file the name of what fills it
 * @param data whether it is the database's disk, which may be on another node by now
 */
export const hasRoom = (
  on: readonly { readonly name: string; readonly folder: string }[],
  file: string,
  data: boolean,
): Sign => ({
  title: `the disk of ${on.map(({ name }) => name).join(', ')} takes writes again`,
  within: reunion,
  probe: async (context) => {
    const places = data
      ? (
          await Promise.all(
            machinesWith(context.lab, 'worker').map(async ({ name }) => ({
              name,
              folder: await dataFolderOn(context, name),
            })),
          )
        ).filter(({ folder }) => folder !== '')
      : on
    if (places.length === 0) return { ok: false, saw: 'no node has mounted it' }
    return ofAll(places, async ({ name, folder }) => {
      const left = await context
        .machine(name)
        .try(shell`test -e ${`${folder}/${file}`}`, { signal: context.signal, timeout })
      if (left.exitCode === 0) return { ok: false, saw: `${name}: ${folder}/${file} is still there` }
      const { free, refused, saw } = await room(context, name, folder)
      return { ok: free > 0 && !refused, saw }
    })
  },
})

/** Milliseconds by which a clock may differ from what is wanted. */
const clockTolerance = 1500

/** @param by milliseconds ahead of this host's; 0: it is in step */
export const isAhead = (names: readonly string[], by: number): Sign => ({
  title:
    by === 0
      ? `the clock of ${names.join(', ')} is in step with this host's`
      : `the clock of ${names.join(', ')} is ${String(by / 1000)} s ahead`,
  within: soon,
  probe: async (context) => {
    const clocks = await measureClocks(context, names)
    const tolerance = by === 0 ? clockTolerance : Math.min(clockTolerance, Math.abs(by) / 2)
    return ofAll(names, (name) => {
      const clock = clocks[name]
      return Promise.resolve({
        ok: clock !== undefined && Math.abs(clock.ms - by) <= tolerance + clock.uncertainty,
        saw: `${name}: ${clock ? `${(clock.ms / 1000).toFixed(3)} s ahead` : 'it does not say'}`,
      })
    })
  },
})

interface NodeObject {
  readonly spec: { readonly unschedulable?: boolean }
}

interface PodList {
  readonly items: readonly {
    readonly metadata: {
      readonly name: string
      readonly annotations?: Readonly<Record<string, string>>
      readonly ownerReferences?: readonly { readonly kind: string }[]
    }
    readonly status: { readonly phase?: string }
  }[]
}

/** What a drain leaves: pods of every node, those of the kubelet itself, and those that have ended. */
const staysOn = ({ metadata, status }: PodList['items'][number]): boolean =>
  metadata.ownerReferences?.some(({ kind }) => kind === 'DaemonSet' || kind === 'Node') === true ||
  metadata.annotations?.['kubernetes.io/config.mirror'] !== undefined ||
  status.phase === 'Succeeded' ||
  status.phase === 'Failed'

const isCordoned = async (context: Context, node: string): Promise<boolean> =>
  (await context.kubectl.get<NodeObject>('node', node)).spec.unschedulable === true

export const isDrained = (names: readonly string[]): Sign => ({
  title: `${names.join(', ')} takes no pods, and has none that could be elsewhere`,
  within: soon,
  probe: (context) =>
    ofAll(names, async (name) => {
      const cordoned = await isCordoned(context, name)
      const { items } = await context.kubectl.get<PodList>(
        'pods',
        '--all-namespaces',
        '--field-selector',
        `spec.nodeName=${name}`,
      )
      const left = items.filter((pod) => !staysOn(pod)).map(({ metadata }) => metadata.name)
      return {
        ok: cordoned && left.length === 0,
        saw: `${name}: ${cordoned ? 'unschedulable' : 'takes pods'}, ${left.length === 0 ? 'empty' : `still there: ${left.join(', ')}`}`,
      }
    }),
})

export const takesPods = (names: readonly string[]): Sign => ({
  title: `${names.join(', ')} takes pods again`,
  within: reunion,
  probe: (context) =>
    ofAll(names, async (name) => {
      const cordoned = await isCordoned(context, name)
      return { ok: !cordoned, saw: `${name}: ${cordoned ? 'unschedulable' : 'takes pods'}` }
    }),
})
