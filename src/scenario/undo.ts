/**
 * How a fault is undone, as data: written down before the fault acts, so that whoever comes next, after a
 * `kill -9` too, can do it. Each is idempotent, and one of a machine that is off has nothing to do.
 */
import { open, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { LabError, messageOf } from '../error.js'
import { machineNamed } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../plan/step.js'
import { pathsOf, secretsOf } from '../state.js'
import { boot } from '../steps/machines.js'

const machine = z.string()

const undoSchema = z.discriminatedUnion('do', [
  z.strictObject({ do: z.literal('uncordon'), machine }),
  /** It had no taint of ours before. */
  z.strictObject({ do: z.literal('untaint'), machine }),
  z.strictObject({ do: z.literal('switch-on'), machine }),
  /** It was thrown out by targets, and may come back once it remembers nothing of their disks. */
  z.strictObject({ do: z.literal('readmit'), machine, targets: z.array(z.string()) }),
  z.strictObject({ do: z.literal('resume'), machine }),
  z.strictObject({ do: z.literal('remove-table'), machine, table: z.string() }),
  z.strictObject({ do: z.literal('remove-queue'), machine, interface: z.string() }),
  z.strictObject({ do: z.literal('start-service'), machine, service: z.string() }),
  z.strictObject({ do: z.literal('enable-targets'), machine }),
  z.strictObject({ do: z.literal('remove-file'), machine, path: z.string() }),
  z.strictObject({ do: z.literal('set-clock'), machine }),
  /** With all that is in it; the machine is that of the API server. */
  z.strictObject({ do: z.literal('delete-namespace'), machine, namespace: z.string() }),
  /** The node had no such label before. */
  z.strictObject({ do: z.literal('unlabel'), machine, label: z.string() }),
])

export type Undo = z.output<typeof undoSchema>

const entrySchema = z.strictObject({
  /** Unique in the journal. */
  id: z.int(),
  scenario: z.string(),
  fault: z.string(),
  undo: undoSchema,
})

export type JournalEntry = z.output<typeof entrySchema>

/** The taint that tells Kubernetes that a node is off for certain: its pods may be replaced at once. */
export const outOfService = 'node.kubernetes.io/out-of-service'

const journalOf = (lab: string): string => join(pathsOf(lab).root, 'faults.json')

/** What is still to be undone, in the order in which it was done. */
export const readJournal = async (lab: string): Promise<readonly JournalEntry[]> => {
  const path = journalOf(lab)
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '[]'
    throw error
  })
  try {
    return z.array(entrySchema).parse(JSON.parse(text))
  } catch (error) {
    throw new LabError('bad-journal', `${path}: not a list of faults to undo`, {
      cause: error,
      hint: `lab down ${lab}`,
      log: path,
    })
  }
}

const syncFolder = async (folder: string): Promise<void> => {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** On the disk, as a whole, before it returns. */
const writeJournal = async (lab: string, entries: readonly JournalEntry[]): Promise<void> => {
  const path = journalOf(lab)
  if (entries.length === 0) await rm(path, { force: true })
  else {
    const next = `${path}.${String(process.pid)}.new`
    const handle = await open(next, 'w', 0o600)
    try {
      await handle.writeFile(JSON.stringify(entries, null, 2))
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(next, path)
  }
  await syncFolder(dirname(path))
}

/** Notes down what will have to be undone; to be awaited before it is done. */
export const noteUndo = async (
  lab: string,
  scenario: string,
  fault: string,
  undos: readonly Undo[],
): Promise<readonly JournalEntry[]> => {
  const known = await readJournal(lab)
  const first = Math.max(0, ...known.map(({ id }) => id)) + 1
  const fresh = undos.map((undo, index): JournalEntry => ({ id: first + index, scenario, fault, undo }))
  await writeJournal(lab, [...known, ...fresh])
  return fresh
}

/** Seconds for a command of an undo; the machine may be busy with coming back. */
const timeout = 30

/** Seconds until all that is in a namespace has ended. */
const longest = 180

const switchOn = async (context: Context, name: string): Promise<void> => {
  const { lab, provider } = context
  const secrets = await secretsOf(pathsOf(lab.name))
  const options = { secrets, lunDevice: (index: number) => provider.lunDevice(index) }
  await boot(lab, machineNamed(lab, name), options).apply?.(context, () => undefined)
}

/** Undoes one thing. @throws when that could not be done; it may be tried again. */
const undoOne = async (context: Context, undo: Undo): Promise<void> => {
  const { lab, provider, kubectl, signal } = context
  if (undo.do === 'switch-on') {
    const found = (await provider.states(lab)).find(({ name }) => name === undo.machine)
    if (found?.status === 'running') return
    await switchOn(context, undo.machine)
    return
  }
  if (undo.do === 'readmit') {
    // Its kernel may still hold what it could not write. Without power, and not by an orderly end, that is gone.
    await provider.cut(lab, undo.machine)
    for (const target of undo.targets)
      await context.machine(target).run(shell`/etc/lab/boot.d/50-target`, { signal, timeout })
    await switchOn(context, undo.machine)
    return
  }
  if (undo.do === 'resume') {
    await provider.resume?.(lab, undo.machine)
    return
  }
  if (undo.do === 'uncordon') {
    await kubectl.run(['uncordon', undo.machine])
    return
  }
  if (undo.do === 'untaint') {
    const node = await kubectl.get<{ spec: { taints?: { key: string }[] } }>('node', undo.machine)
    if (node.spec.taints?.some(({ key }) => key === outOfService))
      await kubectl.run(['taint', 'node', undo.machine, `${outOfService}-`])
    return
  }
  if (undo.do === 'delete-namespace') {
    await kubectl.run(['delete', 'namespace', undo.namespace, '--ignore-not-found'], { timeout: longest })
    return
  }
  if (undo.do === 'unlabel') {
    await kubectl.run(['label', 'node', undo.machine, `${undo.label}-`])
    return
  }
  const states = await provider.states(lab)
  // Rules, queues and clocks of a machine that is off are gone with it, and `up` starts its services.
  const gone = states.find(({ name }) => name === undo.machine)?.status !== 'running'
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
        shell`for tpg in /sys/kernel/config/target/iscsi/iqn.*/tpgt_1; do [ "$(cat "$tpg/enable")" = 1 ] || printf 1 > "$tpg/enable"; done`,
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
  for (const entry of [...(await readJournal(context.lab.name))].filter(which).reverse()) {
    try {
      await undoOne(context, entry.undo)
      const left = await readJournal(context.lab.name)
      await writeJournal(
        context.lab.name,
        left.filter(({ id }) => id !== entry.id),
      )
    } catch (error) {
      failed.push(`${entry.fault} on ${entry.undo.machine}: ${entry.undo.do}: ${messageOf(error)}`)
    }
  }
  return failed
}

/**
 * To be asked before a lab is brought back by its plan, which lets every node into its targets.
 * @throws LabError while a node that was thrown out has not lost its memory: it would write what it still holds.
 */
export const refuseWhileFenced = async (lab: string): Promise<void> => {
  const fenced = (await readJournal(lab)).find(({ undo }) => undo.do === 'readmit')
  if (fenced)
    throw new LabError(
      'still-fenced',
      `${fenced.undo.machine} was thrown out by its target, and could not be switched off: it must not be let in`,
      { hint: `lab heal ${lab}, or lab down ${lab}` },
    )
}
