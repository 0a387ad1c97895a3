/** How each fault is undone, and a fenced node let in again: what the journal says, done. */
import { messageOf } from '../error.js'
import { letIn } from '../fencing/access.js'
import { whileFencing } from '../fencing/fence.js'
import { returnToService } from '../fencing/taint.js'
import { type JournalEntry, readJournal, strike } from '../journal.js'
import { machineNamed } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import { groupOf } from '../provider/provider.js'
import { eventually } from '../steps/checks.js'
import { boot, fileOptions } from '../steps/machines.js'

/** Seconds for a command of an undo; the machine may be busy with coming back. */
const timeout = 30

/** Seconds until all that is in a namespace has ended. */
const longest = 180

const switchOn = async (context: Context, name: string): Promise<void> => {
  const { lab, provider } = context
  const options = await fileOptions(lab, provider)
  await boot(lab, machineNamed(lab, name), options).apply?.(context, () => undefined)
}

/** Seconds for a target machine that was switched on to answer. */
const targetDeadline = 60

const isOn = async ({ lab, provider }: Context, name: string): Promise<boolean> =>
  (await provider.states(lab)).find((state) => state.name === name)?.status === 'running'

/** Lets a node in at a target machine again, which is switched on for that where it is off. */
const admit = async (context: Context, target: string, node: string, fence: string): Promise<void> => {
  const { iqn } = machineNamed(context.lab, node)
  if (iqn === undefined) return
  const on = await isOn(context, target)
  if (!on) await switchOn(context, target)
  await eventually(context, on ? 0 : targetDeadline, () =>
    context.machine(target).run(letIn(iqn, fence), { signal: context.signal, timeout }),
  )
}

/** Undoes one thing. @throws when that could not be done; it may be tried again. */
const undoOne = async (context: Context, { id, undo, fault }: JournalEntry): Promise<void> => {
  const { lab, provider, kubectl, signal } = context
  if (undo.do === 'boot-afresh' || (undo.do === 'switch-on' && fault === 'fence')) {
    await groupOf(provider, 'power').cut(lab, undo.machine)
    await switchOn(context, undo.machine)
    return
  }
  if (undo.do === 'switch-on') {
    if (!(await isOn(context, undo.machine))) await switchOn(context, undo.machine)
    return
  }
  if (undo.do === 'readmit') {
    // Its kernel may still hold what it could not write. Without power, and not by an orderly end, that is gone.
    await groupOf(provider, 'power').cut(lab, undo.machine)
    for (const target of undo.targets) await admit(context, target, undo.machine, id)
    await switchOn(context, undo.machine)
    return
  }
  if (undo.do === 'resume') {
    await provider.pause?.end(lab, undo.machine)
    return
  }
  if (undo.do === 'uncordon') {
    await kubectl.run(['uncordon', undo.machine])
    return
  }
  if (undo.do === 'untaint') {
    await returnToService(kubectl, undo.machine)
    return
  }
  if (undo.do === 'delete-namespace') {
    await kubectl.run(['delete', 'namespace', undo.namespace, '--ignore-not-found'], { timeout: longest })
    return
  }
  if (undo.do === 'scale') {
    await kubectl.run(['scale', undo.workload, `--replicas=${String(undo.replicas)}`])
    return
  }
  if (undo.do === 'unlabel') {
    await kubectl.run(['label', 'node', undo.machine, `${undo.label}-`])
    return
  }
  // Rules, queues and clocks of a machine that is off are gone with it, and `up` starts its services.
  const gone = !(await isOn(context, undo.machine))
  if (gone && undo.do !== 'remove-file') return
  const on = context.machine(undo.machine)
  switch (undo.do) {
    case 'remove-table':
      await on.run(
        shell`! nft list table inet ${undo.table} >/dev/null 2>&1 || nft delete table inet ${undo.table}`,
        { signal, timeout },
      )
      return
    case 'remove-queue':
      await on.run(
        shell`! tc qdisc show dev ${undo.interface} | grep -q netem || tc qdisc del dev ${undo.interface} root`,
        { signal, timeout },
      )
      return
    case 'start-service':
      await on.run(shell`systemctl start ${undo.service}`, { signal, timeout })
      return
    case 'enable-targets':
      await on.run(
        shell`for tpg in /sys/kernel/config/target/iscsi/*/tpgt_1; do [ "$(cat "$tpg/enable")" = 1 ] || printf 1 > "$tpg/enable"; done`,
        { signal, timeout },
      )
      return
    case 'remove-file':
      await on.run(shell`rm -f ${undo.path}`, { signal, timeout })
      return
    case 'set-clock':
      await on.run(shell`date -s ${`@${(Date.now() / 1000).toFixed(3)}`}`, { signal, timeout })
      return
  }
}

/**
 * Undoes what the journal says, the last first, and strikes it out one by one. What fails stays in the journal,
 * and does not keep the others from being undone.
 * @param which of the entries; all, where nothing is said
 * @returns what went wrong, a sentence each
 */
export const undoAll = async (
  context: Context,
  which: (entry: JournalEntry) => boolean = () => true,
): Promise<readonly string[]> => {
  const failed: string[] = []
  for (const entry of [...(await readJournal(context.lab))].filter(which).reverse()) {
    try {
      const undo = async (): Promise<void> => {
        await undoOne(context, entry)
        await strike(context.lab, entry)
      }
      if (entry.fault === 'fence') await whileFencing(context.lab, entry.undo.machine, context.signal, undo)
      else await undo()
    } catch (error) {
      failed.push(`${entry.fault} on ${entry.undo.machine}: ${entry.undo.do}: ${messageOf(error)}`)
    }
  }
  return failed
}
