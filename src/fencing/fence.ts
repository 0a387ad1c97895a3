/**
 * A fence: a node is made unable to write before another may take over.
 *
 * Why that is safe, step by step. (1) The undos are on the operator's disk before anything happens. (2) By power: the
 * provider cuts the machine's power, and says that its process is gone. By storage: the target drops the node's access
 * list, which ends its session and waits for what is under way in it, and lets the node in nowhere until the undo.
 * From here on nothing of that node reaches the disk, whatever it still believes. (3) Only what was confirmed counts;
 * then the node is tainted `out-of-service`, and Kubernetes makes the replacement. (4) A node that was fenced comes
 * back by a fresh boot, without session, mount and cache: what it has not written yet must never be written.
 *
 * Why a fence and its undo never cross. Both hold one lock for each node, and a command that changes the lab waits for
 * that lock before it reads the journal. What a fence asked for and then left behind, because it was killed or took
 * too long, may still arrive after the undo; then it is refused: by the target (`access.ts`), by the API server
 * (`taint.ts`), and by the provider, which cuts the run of the machine that was meant and none that was begun since.
 */
import type { LabId } from '../identity.js'
import { unlessAborted } from '../error.js'
import { fencesIn, noteUndo, type NotedFence, readJournal, type Undo } from '../journal.js'
import { type Lab, machinesWith } from '../lab/lab.js'
import { takeLock } from '../lock.js'
import type { Context } from '../context.js'
import { groupOf } from '../provider/provider.js'
import { pathsOf } from '../state.js'
import { forget, keptOut, targetMachinesOf, throwOut } from './access.js'
import { putOutOfService } from './taint.js'

export type FenceMethod = 'power' | 'storage'

/** A node that was fenced. */
export interface Fenced {
  /** ISO 8601, when Kubernetes had been told. */
  readonly at: string
  readonly node: string
  /** For people: why, and what confirms that it can no longer write. */
  readonly detail: string
  /** Of the fence: the journal's entry for how the node is let write again. */
  readonly id?: string | undefined
}

/**
 * Holds the lock of a node's fence while the body works; waits for whoever has it, who is done after one attempt.
 * @throws Interrupted by the signal while it waits
 */
export const whileFencing = async <T>(
  lab: LabId,
  node: string,
  signal: AbortSignal,
  body: () => Promise<T>,
): Promise<T> => {
  const release = await takeLock(pathsOf(lab).fenceLock(node), {
    command: `the fence of ${node} in ${lab.name}`,
    purpose: 'fence',
    wait: () => undefined,
    signal,
  })
  try {
    return await body()
  } finally {
    await release()
  }
}

/**
 * Waits until no fence of the lab is under way. Whoever holds the lab's lock to change it calls this before it reads
 * the journal: the agent begins no fence while that lock is held, and what it began before is noted then.
 */
export const settleFences = async (lab: Lab, signal: AbortSignal): Promise<void> => {
  for (const { name } of machinesWith(lab, 'worker'))
    await whileFencing(lab, name, signal, () => Promise.resolve())
}

/** The initiators that a target machine keeps out, and whether the journal knows of it. */
export const keptOutAt = async (
  context: Context,
  target: string,
): Promise<readonly { readonly initiator: string; readonly noted: boolean }[]> => {
  const { lab, signal } = context
  const names = (await context.machine(target).run(keptOut, { signal }))
    .split('\n')
    .filter((name) => name !== '')
  const fences = fencesIn(await readJournal(lab))
  const isNoted = (initiator: string): boolean =>
    lab.machines.some(({ name, iqn }) => iqn === initiator && fences.get(name)?.harm !== undefined)
  return names.map((initiator) => ({ initiator, noted: isNoted(initiator) }))
}

/**
 * Forgets the fences of a target machine that are in no journal: nothing would ever undo them. The lock of each node
 * is held meanwhile, so that none is forgotten that was just noted.
 */
export const forgetUnknownFences = async (context: Context, target: string): Promise<void> => {
  const { lab, signal } = context
  for (const { initiator } of await keptOutAt(context, target)) {
    const forgetIt = async (): Promise<void> => {
      const still = (await keptOutAt(context, target)).find((each) => each.initiator === initiator)
      if (still && !still.noted) await context.machine(target).run(forget(initiator), { signal })
    }
    const node = lab.machines.find(({ iqn }) => iqn === initiator)?.name
    await (node === undefined ? forgetIt() : whileFencing(lab, node, signal, forgetIt))
  }
}

export interface FenceRequest {
  readonly node: string
  readonly method: FenceMethod
  /** Recorded in the journal as the one who did it. */
  readonly by: string
  /**
   * Asked once the lock is held, because the world may be another one by then. Of a node that is not fenced: why it
   * is to be. Of one whose fence was begun and not confirmed: anything but undefined. Undefined: leave it.
   */
  readonly why: (noted: NotedFence | undefined) => Promise<string | undefined>
  /** Told once the undo is in the journal, before anything is done. */
  readonly begun?: () => void
}

/** @returns what confirms that the node cannot write; undefined: nothing does, or the fence was undone already. */
const makeHarmless = async (
  context: Context,
  { node, method }: FenceRequest,
  id: string,
  signal: AbortSignal,
): Promise<string | undefined> => {
  const { lab, provider } = context
  if (method === 'storage')
    return (await throwOut(context, node, id, signal)) ? `the target threw ${node} out` : undefined
  const state = async () =>
    (await unlessAborted(signal, provider.states(lab))).find(({ name }) => name === node)
  const before = await state()
  if (before?.status === 'running')
    await unlessAborted(signal, groupOf(provider, 'power').cut(lab, node, { run: before.detail }))
  const after = before?.status === 'running' ? await state() : before
  return after?.status === 'running' ? undefined : `${node} is off (${after?.detail ?? 'gone'})`
}

/**
 * One attempt to fence a node. Whatever becomes of it, its undo is in the journal before anything is done.
 * @param signal ends it, as after a time; what it asked for before that may still happen, and is refused once undone
 * @returns the fence; undefined: it is not wanted any more, or nothing confirmed it
 * @throws what kept it from being confirmed
 */
export const attemptFence = (
  context: Context,
  request: FenceRequest,
  signal: AbortSignal,
): Promise<Fenced | undefined> => {
  const { lab, kubectl } = context
  const { node, method, by } = request
  return whileFencing(lab, node, signal, async () => {
    const noted = fencesIn(await readJournal(lab)).get(node)
    const why = await request.why(noted)
    if (why === undefined) return undefined
    // The last is undone first: a taint that is still on its way must not come once the node may write again.
    const harmUndo: Undo =
      method === 'power'
        ? { do: 'boot-afresh', machine: node }
        : { do: 'readmit', machine: node, targets: [...targetMachinesOf(lab, node)] }
    const undos: readonly Undo[] = [
      ...(noted?.harm ? [] : [harmUndo]),
      ...(noted?.entries.some(({ undo }) => undo.do === 'untaint')
        ? []
        : [{ do: 'untaint', machine: node } as const]),
    ]
    const fresh = undos.length > 0 ? await noteUndo(lab, by, 'fence', undos, 'fence') : []
    request.begun?.()
    const harm = noted?.harm ?? fresh[0]
    if (harm === undefined || signal.aborted) return undefined
    const confirmed = await makeHarmless(context, request, harm.id, signal)
    // Not confirmed is not fenced.
    if (confirmed === undefined) return undefined
    await unlessAborted(
      signal,
      putOutOfService(kubectl, node, () => !signal.aborted),
    )
    return {
      at: new Date().toISOString(),
      node,
      detail: `${why}; ${confirmed}; tainted out-of-service`,
      id: harm.id,
    }
  })
}
