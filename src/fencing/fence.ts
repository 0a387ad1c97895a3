/**
 * A fence: a node loses its ability to write before another node may take over.
 *
 * Why it is safe, step by step. (1) The undos are on the operator's disk before anything happens. (2) By power: the
 * provider cuts the machine's power and confirms that its process is gone. By storage: the target removes the node's
 * access list, which ends its session and waits for outstanding commands, and denies the node until the undo. From
 * here on nothing from that node reaches the disk, whatever it still believes. (3) Only a confirmed fence counts;
 * then the node gets the taint `out-of-service`, and Kubernetes creates the replacement. (4) A fenced node comes back
 * by a fresh boot, without session, mount and cache: data it has not written yet must never be written.
 *
 * Why a fence and its undo never interleave. Both hold one lock for each node, and a command that changes the lab
 * waits for that lock before it reads the journal. A request that a killed or timed-out fence left behind may still
 * arrive after the undo; then it is refused: by the target (`access.ts`), by the API server (`taint.ts`), and by the
 * provider, which cuts only the requested run of the machine and no later one.
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
  /** ISO 8601, when Kubernetes had confirmed the taint. */
  readonly at: string
  readonly node: string
  /** For people: the reason, and what confirms that the node can no longer write. */
  readonly detail: string
  /** The id of the journal entry that undoes the fence. */
  readonly id?: string | undefined
}

/**
 * Holds the lock of a node's fence while the body runs. It waits for another holder, which is done after one attempt.
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
 * Waits until no fence of the lab is in progress. A command that holds the lab's lock for a change calls this before
 * it reads the journal: the agent begins no fence while that lock is held, and earlier ones are then in the journal.
 */
export const settleFences = async (lab: Lab, signal: AbortSignal): Promise<void> => {
  for (const { name } of machinesWith(lab, 'worker'))
    await whileFencing(lab, name, signal, () => Promise.resolve())
}

/** The initiators that a target machine denies, and whether the journal knows of each. */
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
 * Forgets the fences of a target machine that are in no journal, since nothing would ever undo them. It holds the
 * lock of each node meanwhile, so that no fence is forgotten that was just recorded.
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
  /** Recorded in the journal as the author. */
  readonly by: string
  /**
   * Asked once the lock is held, because the situation may have changed. For a node that is not fenced: the reason to
   * fence it. For a fence that was begun and not confirmed: anything but undefined. Undefined: do nothing.
   */
  readonly why: (noted: NotedFence | undefined) => Promise<string | undefined>
  /** Called once the undo is in the journal, before anything is done. */
  readonly begun?: () => void
}

/** @returns what confirms that the node cannot write; undefined if nothing does or the fence was already undone */
const makeHarmless = async (
  context: Context,
  { node, method }: FenceRequest,
  id: string,
  signal: AbortSignal,
): Promise<string | undefined> => {
  const { lab, provider } = context
  if (method === 'storage')
    return (await throwOut(context, node, id, signal)) ? `the target shut ${node} out` : undefined
  const state = async () =>
    (await unlessAborted(signal, provider.states(lab))).find(({ name }) => name === node)
  const before = await state()
  const mayRun = before !== undefined && (before.status === 'running' || provider.silentMayRun === true)
  if (mayRun) await unlessAborted(signal, groupOf(provider, 'power').cut(lab, node, { run: before.detail }))
  const after = mayRun ? await state() : before
  return after?.status === 'running' ? undefined : `${node} is off (${after?.detail ?? 'gone'})`
}

/**
 * One attempt to fence a node. Its undo is in the journal before anything is done, whatever comes of it.
 * @param signal ends the attempt, for example after a timeout; earlier requests may still take effect, and are
 * refused once undone
 * @returns the fence; undefined if it is no longer wanted or nothing confirmed it
 * @throws what prevented the confirmation
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
    // The last entry is undone first: a taint that is still on its way must not arrive once the node may write again.
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
    // An unconfirmed fence does not count.
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
