import { z } from 'zod'
import { LabError } from '../error.js'
import type { MachineSpec } from '../lab/lab.js'
import { duration } from '../lab/fields.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import { lasting, where } from '../lab/fault-machines.js'
import { faultOfMachine } from './fault.js'
import { ofAll, printed, reunion, type Sign, soon } from './sign.js'
import { onRunning, undoAct } from './undo-act.js'

/** Timeout of a command on a machine that is about to be broken, in seconds. */
const timeout = 30

/** The kernel's netem delays what an interface sends. */
const removingQueue = undoAct(
  'remove-queue',
  { interface: z.string() },
  (context, { machine, interface: device }) =>
    onRunning(
      context,
      machine,
      shell`! tc qdisc show dev ${device} | grep -q netem || tc qdisc del dev ${device} root`,
    ),
)

/** The interface that has the machine's address. */
const interfaceOf = async (context: Context, machine: MachineSpec): Promise<string> =>
  context
    .machine(machine.name)
    .run(shell`ip -o -4 address show to ${machine.address} | awk '{ print $2; exit }'`, {
      signal: context.signal,
      timeout,
    })

/**
 * The shortest of several round trips from this host, in milliseconds.
 * @throws LabError if nothing comes back
 */
const roundTrip = async (context: Context, machine: string): Promise<number> => {
  const output = await printed(
    context,
    machine,
    shell`set -- $SSH_CONNECTION; LC_ALL=C ping -n -q -c 4 -i 0.2 -W 5 "$1" 2>&1`,
  )
  const [, least] = /= ([\d.]+)\//.exec(output) ?? []
  if (least === undefined)
    throw new LabError('no-answer', `${machine}: this host does not answer a ping from it: ${output}`)
  return Number(least)
}

/**
 * The observed delay must be at least this fraction of the requested one, and at most the rest may remain after the
 * undo.
 */
const clearly = 0.7

/**
 * @param before round trips of each machine before the fault
 * @param by milliseconds
 */
const isLate = (
  on: readonly { readonly name: string; readonly interface: string }[],
  before: ReadonlyMap<string, number>,
  by: number,
): Sign => ({
  title: `what ${on.map(({ name }) => name).join(', ')} sends is queued, and answers arrive later than before`,
  within: soon,
  probe: (context) =>
    ofAll(on, async (one) => {
      const queue = await printed(context, one.name, shell`tc qdisc show dev ${one.interface}`)
      const [now, then] = [await roundTrip(context, one.name), before.get(one.name) ?? Infinity]
      return {
        ok: queue.includes('netem') && now - then >= by * clearly,
        saw: `${one.name}: ${queue}; ${now.toFixed(1)} ms round trip, before ${then.toFixed(1)} ms`,
      }
    }),
})

const isPrompt = (
  on: readonly { readonly name: string; readonly interface: string }[],
  before: ReadonlyMap<string, number>,
  by: number,
): Sign => ({
  title: `what ${on.map(({ name }) => name).join(', ')} sends is no longer delayed`,
  within: reunion,
  probe: (context) =>
    ofAll(on, async (one) => {
      const queue = await printed(context, one.name, shell`tc qdisc show dev ${one.interface}`)
      const [now, then] = [await roundTrip(context, one.name), before.get(one.name) ?? 0]
      return {
        ok: !queue.includes('netem') && now - then < by * clearly,
        saw: `${one.name}: ${queue || 'no queue'}; ${now.toFixed(1)} ms round trip, before ${then.toFixed(1)} ms`,
      }
    }),
})

const fields = { machine: where(), by: duration('a delay', 'By how much.'), for: lasting }

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    delay: typeof fields
  }
}

export const delay = faultOfMachine({
  name: 'delay',
  description: 'Delays every packet that a machine sends on the lab network.',
  fields,
  undos: [removingQueue],
  aim: async ({ context, spec: { by }, machines, names, each }) => {
    const queues = await Promise.all(
      machines.map(async (machine) => ({
        name: machine.name,
        interface: await interfaceOf(context, machine),
      })),
    )
    const before = new Map<string, number>()
    return {
      detail: `what ${names} sends is delayed by ${String(by)} ms`,
      undo: queues.map((queue) => removingQueue.of(queue.name, { interface: queue.interface })),
      // Tried on the loopback interface, where it does no harm: the kernel may lack netem.
      possible: (now) =>
        each(async ({ name }) => {
          await now
            .machine(name)
            .run(shell`tc qdisc add dev lo root netem delay 0ms && tc qdisc del dev lo root`, { timeout })
          before.set(name, await roundTrip(now, name))
        }),
      act: async (now) => {
        await Promise.all(
          queues.map((queue) =>
            now
              .machine(queue.name)
              .run(shell`tc qdisc replace dev ${queue.interface} root netem delay ${`${String(by)}ms`}`, {
                timeout,
              }),
          ),
        )
      },
      acting: isLate(queues, before, by),
      gone: isPrompt(queues, before, by),
    }
  },
})
