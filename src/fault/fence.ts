/** How a fenced node is admitted again. Fencing itself is in src/fencing/; no lab file can request it as a fault. */
import { z } from 'zod'
import { LabError } from '../error.js'
import { letIn } from '../fencing/access.js'
import { returnToService } from '../fencing/taint.js'
import { machineNamed } from '../lab/lab.js'
import type { Context } from '../context.js'
import { groupOf } from '../provider/provider.js'
import { eventually } from '../steps/checks.js'
import { bootIdOf, switchOn } from './power.js'
import { isOn, undoAct, undoTimeout, type UndoAct } from './undo-act.js'

/** Seconds until a target machine that was started must answer. */
const targetDeadline = 60

/** Admits a node at a target machine, which is started for this if it is off. */
const admit = async (context: Context, target: string, node: string, fence: string): Promise<void> => {
  const { iqn } = machineNamed(context.lab, node)
  if (iqn === undefined) return
  const on = await isOn(context, target)
  if (!on) await switchOn(context, target)
  await eventually(context, on ? 0 : targetDeadline, () =>
    context.machine(target).run(letIn(iqn, fence), { signal: context.signal, timeout: undoTimeout }),
  )
}

/** Seconds until a machine that was forced to reboot must answer: an emulated Raspberry Pi needs three minutes. */
const rebootDeadline = 600

/**
 * Ends what a machine still holds in its memory for the targets' disks, without writing it: an orderly shutdown would
 * write it.
 * @throws if it is not certain that this run of the machine has ended
 */
const discardMemory = async (context: Context, machine: string): Promise<void> => {
  const { lab, provider } = context
  const power = groupOf(provider, 'power')
  if (power.onlyReboots?.(machine) !== true) return power.cut(lab, machine)
  // Nothing but another boot proves that it has rebooted: it may be silent because its network is cut.
  const before = await bootIdOf(context, machine)
  await power.cut(lab, machine)
  await eventually(context, rebootDeadline, async () => {
    const now = await bootIdOf(context, machine)
    if (now === before)
      throw new LabError('not-rebooted', `${machine} was forced to reboot, and is still in the boot ${now}`, {
        hint: `restart ${machine} by hand, then: lab heal ${lab.name}`,
      })
  })
}

/**
 * Undoes a fence by power. The power is cut once more before the machine starts: a late cut by an agent then finds a
 * run of the machine that has already ended.
 */
export const bootingAfresh = undoAct('boot-afresh', {}, async (context, { machine }) => {
  await groupOf(context.provider, 'power').cut(context.lab, machine)
  await switchOn(context, machine)
})

/** Undoes a fence by storage. The node may come back once its memory no longer holds data for the targets' disks. */
const readmitting = undoAct(
  'readmit',
  { targets: z.array(z.string()) },
  async (context, { machine, targets }, { id }) => {
    await discardMemory(context, machine)
    for (const target of targets) await admit(context, target, machine, id)
    await switchOn(context, machine)
  },
)

/** Removes the taint, which lab had set. */
const untainting = undoAct('untaint', {}, async ({ kubectl }, { machine }) => {
  await returnToService(kubectl, machine)
})

export const fenceUndos: readonly UndoAct[] = [bootingAfresh, readmitting, untainting]
