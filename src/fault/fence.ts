/** How a node that was fenced is let in again. Fencing itself is in src/fencing/; no lab file can ask for it as a fault. */
import { z } from 'zod'
import { letIn } from '../fencing/access.js'
import { returnToService } from '../fencing/taint.js'
import { machineNamed } from '../lab/lab.js'
import type { Context } from '../context.js'
import { groupOf } from '../provider/provider.js'
import { eventually } from '../steps/checks.js'
import { switchOn } from './power.js'
import { isOn, undoAct, undoTimeout, type UndoAct } from './undo-act.js'

/** Seconds for a target machine that was switched on to answer. */
const targetDeadline = 60

/** Lets a node in at a target machine again, which is switched on for that where it is off. */
const admit = async (context: Context, target: string, node: string, fence: string): Promise<void> => {
  const { iqn } = machineNamed(context.lab, node)
  if (iqn === undefined) return
  const on = await isOn(context, target)
  if (!on) await switchOn(context, target)
  await eventually(context, on ? 0 : targetDeadline, () =>
    context.machine(target).run(letIn(iqn, fence), { signal: context.signal, timeout: undoTimeout }),
  )
}

/**
 * Its power was cut to fence it. It is cut once more before it is switched on: a cut that an agent asked for and that
 * arrives late then finds a run of the machine that is over.
 */
export const bootingAfresh = undoAct('boot-afresh', {}, async (context, { machine }) => {
  await groupOf(context.provider, 'power').cut(context.lab, machine)
  await switchOn(context, machine)
})

/** It was thrown out by targets, and may come back once it remembers nothing of their disks. */
const readmitting = undoAct(
  'readmit',
  { targets: z.array(z.string()) },
  async (context, { machine, targets }, { id }) => {
    // Its kernel may still hold what it could not write. Without power, and not by an orderly end, that is gone.
    await groupOf(context.provider, 'power').cut(context.lab, machine)
    for (const target of targets) await admit(context, target, machine, id)
    await switchOn(context, machine)
  },
)

/** It had no taint of ours before. */
const untainting = undoAct('untaint', {}, async ({ kubectl }, { machine }) => {
  await returnToService(kubectl, machine)
})

export const fenceUndos: readonly UndoAct[] = [bootingAfresh, readmitting, untainting]
