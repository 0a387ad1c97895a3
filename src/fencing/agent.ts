/**
 * Decides which workers to fence and when: it watches them through Kubernetes and the provider, and fences lost ones
 * concurrently. `fence.ts` describes the fence itself and why it is safe.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { messageOf } from '../error.js'
import { fencesIn, type NotedFence, readJournal } from '../journal.js'
import { machinesWith } from '../lab/lab.js'
import type { Context } from '../context.js'
import type { MachineState } from '../provider/provider.js'
import { attemptFence, type Fenced, type FenceMethod } from './fence.js'

/** Milliseconds between two observations. */
const pause = 200

/**
 * Milliseconds for which a kubelet must keep reporting itself as not ready. Such a kubelet is alive, and its report
 * may be old: it checks its runtime every 5 s and reports every 10 s (the default of nodeStatusUpdateFrequency).
 */
const ownWordStands = 15_000

/**
 * Milliseconds after a command that changed the lab in which a worker that was watched before it may become ready
 * again: the command may have paused all machines or restarted a kubelet, which renews its lease every 10 s.
 */
const settling = 30_000

/** Timeout of one attempt in milliseconds: a target may take 20 s to end a session, and the taint 10 s more. */
const attemptDeadline = 35_000

/** Milliseconds from a failed attempt to the next one: the first and the longest pause. */
const firstRest = 200
const longestRest = 5000

/** Milliseconds after which the same error is logged again. */
const sameComplaint = 60_000

/** A worker, as Kubernetes and the provider see it. */
interface Seen {
  readonly ready: boolean
  /** Since when the kubelet has reported itself as not ready, by `performance.now`; undefined if it does not. */
  readonly refusing: number | undefined
  /** Changes with every boot. */
  readonly bootId: string
}

/** One run of a machine, from power-on to power-off. */
interface Run {
  /** The provider's identifier of the run. */
  readonly since: string
  /** The boot that Kubernetes knew when this run began: reports about it are outdated. */
  readonly before: string | undefined
}

export interface Watching {
  readonly method: FenceMethod
  /** Recorded in the journal as the author. */
  readonly by: string
  /** Ids of fences that were confirmed earlier: other fences in the journal are continued. */
  readonly confirmed?: ReadonlySet<string>
  /** True while another command changes the lab on purpose: then no machine counts as lost. */
  readonly suspended: () => Promise<boolean>
  readonly fenced: (seen: Fenced) => void | Promise<void>
  readonly notice: (text: string) => void
  /** Called after every observation with the workers that would be fenced if they were lost, and those being fenced. */
  readonly looked?: (armed: readonly string[], fencing: readonly string[]) => void | Promise<void>
}

/** A node that is being fenced. */
interface Attempts {
  running: boolean
  /** The time of the next attempt, by `performance.now`. */
  next: number
  rest: number
  readonly complain: (text: string) => void
}

/** Passes on an error, but the same one as before only once a minute: the agent looks five times a second. */
const complaining = (notice: (text: string) => void): ((text: string) => void) => {
  let last: { readonly text: string; readonly at: number } | undefined
  return (text) => {
    if (last?.text === text && performance.now() - last.at < sameComplaint) return
    last = { text, at: performance.now() }
    notice(text)
  }
}

/**
 * Fences every lost worker until the signal. A worker is lost when its provider reports it as off, or when Kubernetes
 * calls it not ready although it may still write; if the kubelet itself reports that, only after `ownWordStands`.
 * Only a worker that was seen ready in this boot can be lost, and a fenced one is left alone. While no other worker
 * is ready, none could take over, so none is fenced. A fence that was recorded but never confirmed is continued,
 * whoever began it.
 *
 * While another command changes the lab, no worker counts as lost. When it has ended, a worker that could be lost
 * before can be lost again: at once if it is off, and after `settling` if it is not ready; unless it was switched on
 * meanwhile.
 */
export const fencingAgent = async (
  context: Context,
  { method, by, confirmed: before, suspended, fenced, notice, looked }: Watching,
  signal: AbortSignal,
): Promise<void> => {
  const { lab, provider, kubectl } = context
  const workers = machinesWith(lab, 'worker').map(({ name }) => name)
  const nodes = new Map<string, Seen>()
  const runs = new Map<string, Run>()
  const armed = new Set<string>()
  /** The workers that were armed when a command began to change the lab, with the run that each had. */
  const kept = new Map<string, string | undefined>()
  /** When the last such command ended, by `performance.now`; undefined while one works. */
  let resumed: number | undefined = 0
  const confirmed = new Set(before)
  const attempts = new Map<string, Attempts>()
  const working = new Set<Promise<void>>()
  const watching = kubectl.watch(
    ['nodes'],
    ({ type, object }) => {
      if (type === 'DELETED') {
        // Removed on purpose: there is no node to fence any more.
        nodes.delete(object.metadata.name)
        kept.delete(object.metadata.name)
        armed.delete(object.metadata.name)
      }
      if (type !== 'ADDED' && type !== 'MODIFIED') return
      const { conditions, nodeInfo } = object['status'] as {
        conditions?: readonly { type: string; status: string }[]
        nodeInfo?: { bootID?: string }
      }
      const { name } = object.metadata
      // Status Unknown comes from the control plane, about a silent kubelet.
      const status = conditions?.find((each) => each.type === 'Ready')?.status
      nodes.set(name, {
        ready: status === 'True',
        refusing: status === 'False' ? (nodes.get(name)?.refusing ?? performance.now()) : undefined,
        bootId: nodeInfo?.bootID ?? '',
      })
    },
    signal,
  )
  watching.catch(() => undefined)

  /** Follows the runs of all machines, even while fencing is suspended. */
  const follow = (states: readonly MachineState[]): void => {
    for (const { name, status, detail: since } of states) {
      const known = runs.get(name)
      if (status === 'running' && known?.since !== since)
        // At the first observation, Kubernetes already knows this run.
        runs.set(name, { since, before: known ? nodes.get(name)?.bootId : undefined })
    }
  }

  /** While a command changes the lab. */
  const suspend = (): void => {
    for (const name of armed) kept.set(name, runs.get(name)?.since)
    armed.clear()
    attempts.clear()
    resumed = undefined
  }

  /** When that command has ended: arms those whose fate it cannot have decided. */
  const resume = (states: readonly MachineState[]): void => {
    resumed ??= performance.now()
    const settled = performance.now() - resumed > settling * (provider.slowdown ?? 1)
    for (const [name, since] of kept) {
      const on = states.some((state) => state.name === name && state.status === 'running')
      if (on && !settled && runs.get(name)?.since === since && !nodes.get(name)?.ready) continue
      kept.delete(name)
      if (runs.get(name)?.since === since) armed.add(name)
    }
  }

  /** The workers to fence now, with the reasons. */
  const lostAmong = (
    states: readonly MachineState[],
    fences: ReadonlyMap<string, NotedFence>,
  ): ReadonlyMap<string, string> => {
    const lost = new Map<string, string>()
    const well = new Set<string>()
    for (const name of workers) {
      const on = states.some((state) => state.name === name && state.status === 'running')
      const node = nodes.get(name)
      if (fences.has(name)) armed.delete(name)
      else if (on && node?.ready) {
        if (node.bootId !== runs.get(name)?.before) armed.add(name)
        if (armed.has(name)) well.add(name)
      } else if (!armed.has(name)) continue
      else if (!on) lost.set(name, `${name} was found off`)
      else if (node?.refusing === undefined || performance.now() - node.refusing > ownWordStands)
        lost.set(name, `${name} is not ready`)
    }
    return well.size > 0 ? lost : new Map()
  }

  /** Whether a fence was recorded and never confirmed. */
  const isOpen = ({ harm }: NotedFence): boolean => harm !== undefined && !confirmed.has(harm.id)

  /**
   * Asked while the fence lock is held: a command that changes the lab from now on finds the next entry in the
   * journal.
   */
  const whyNow = async (node: string, noted: NotedFence | undefined): Promise<string | undefined> => {
    if (signal.aborted || (await suspended())) return undefined
    if (noted) return isOpen(noted) ? `fencing of ${node} was requested` : undefined
    const states = await provider.states(lab)
    follow(states)
    return lostAmong(states, fencesIn(await readJournal(lab))).get(node)
  }

  const attempt = async (node: string, now: Attempts): Promise<void> => {
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(attemptDeadline)])
    try {
      const done = await attemptFence(
        context,
        {
          node,
          method,
          by,
          why: (noted) => whyNow(node, noted),
          // It must be seen ready in another boot before it can be lost again.
          begun: () => armed.delete(node),
        },
        bounded,
      )
      if (done) {
        if (done.id !== undefined) confirmed.add(done.id)
        attempts.delete(node)
        await fenced(done)
        notice(`fence: ${done.detail}; its pods may be replaced`)
        return
      }
    } catch (error) {
      if (!signal.aborted)
        now.complain(
          `fence: ${node}: ${bounded.aborted ? `not confirmed within ${String(attemptDeadline / 1000)} s` : messageOf(error)}`,
        )
    } finally {
      now.running = false
      now.next = performance.now() + now.rest
      now.rest = Math.min(now.rest * 2, longestRest)
    }
  }

  const begin = (node: string): void => {
    const now = attempts.get(node) ?? {
      running: false,
      next: 0,
      rest: firstRest,
      complain: complaining(notice),
    }
    if (now.running || performance.now() < now.next) return
    attempts.set(node, now)
    now.running = true
    const work = attempt(node, now)
    working.add(work)
    work.finally(() => working.delete(work)).catch(() => undefined)
  }

  const complain = complaining(notice)
  while (!signal.aborted) {
    try {
      const states = await provider.states(lab)
      follow(states)
      if (await suspended()) suspend()
      else {
        resume(states)
        const fences = fencesIn(await readJournal(lab))
        const wanted = [
          ...lostAmong(states, fences).keys(),
          ...[...fences].filter(([, noted]) => isOpen(noted)).map(([node]) => node),
        ]
        for (const node of attempts.keys())
          if (!wanted.includes(node) && !attempts.get(node)?.running) attempts.delete(node)
        await looked?.([...armed], wanted)
        for (const node of wanted) begin(node)
      }
    } catch (error) {
      complain(`fence: ${messageOf(error)}`)
    }
    await delay(pause, undefined, { signal }).catch(() => undefined)
  }
  await Promise.all(working)
}
