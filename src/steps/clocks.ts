/** Compares the machines' clocks with this host's, and corrects them. */
import { type Lab, type MachineSpec, nodesOf } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Check, Context } from '../context.js'
import type { Seconds } from '../plan/step.js'
import { answerDeadline } from './checks.js'

/** Seconds by which a machine's clock may differ from the operator's. */
const clockTolerance = 1.5

/** Seconds by which a machine's clock is ahead of this host's; 0 if the difference is too small to measure. */
const skewOf = async (context: Context, name: string): Promise<Seconds> => {
  const before = Date.now() / 1000
  const there = Number(
    await context.machine(name).run(shell`date +%s.%N`, { signal: context.signal, timeout: 30 }),
  )
  const after = Date.now() / 1000
  // The machine read its clock at some moment between the two.
  return there < before ? there - before : there > after ? there - after : 0
}

export const clockCheck = (lab: Lab, machine: MachineSpec): Check => ({
  id: `${machine.name}-clock`,
  title: `the clock of ${machine.name} agrees with this host's`,
  machine: machine.name,
  within: answerDeadline,
  hint: `lab up ${lab.name}`,
  probe: async (context) => {
    const skew = await skewOf(context, machine.name)
    return { ok: Math.abs(skew) <= clockTolerance, saw: `${skew.toFixed(3)} s apart` }
  },
})

/**
 * Sets a machine's clock to this host's if they differ: a machine's clock stops while its host sleeps. The kubelet
 * dated its last report by the wrong clock, so it is restarted and reports again; its pods keep running.
 * @returns the seconds by which the clock was wrong
 */
export const setClock = async (context: Context, name: string): Promise<Seconds> => {
  const skew = await skewOf(context, name)
  if (Math.abs(skew) <= clockTolerance) return 0
  const options = { signal: context.signal, timeout: 30 }
  await context.machine(name).run(shell`date -s ${`@${(Date.now() / 1000).toFixed(3)}`}`, options)
  if (nodesOf(context.lab).some((node) => node.name === name))
    await context.machine(name).run(shell`systemctl try-restart kubelet`, options)
  return skew
}

/**
 * Sets the clock of every machine that answers.
 * @returns a sentence for each machine whose clock was wrong
 */
export const setClocks = async (context: Context): Promise<readonly string[]> =>
  (
    await Promise.all(
      context.lab.machines.map(async ({ name }) => {
        // Other checks report a machine that does not answer.
        const skew = await setClock(context, name).catch(() => 0)
        return skew === 0
          ? []
          : [`the clock of ${name} was ${Math.abs(skew).toFixed(0)} s ${skew < 0 ? 'behind' : 'ahead'}`]
      }),
    )
  ).flat()
