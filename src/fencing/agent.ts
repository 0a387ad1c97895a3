/**
 * Who is to be fenced, and when: watches the workers as Kubernetes and the provider see them, and fences those that
 * go, side by side. How one is fenced, and why that is safe, is in `fence.ts`.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { messageOf } from '../error.js'
import { fencesIn, type NotedFence, readJournal } from '../journal.js'
import { machinesWith } from '../lab/lab.js'
import type { Context } from '../context.js'
import type { MachineState } from '../provider/provider.js'
import { attemptFence, type Fenced, type FenceMethod } from './fence.js'

/** Milliseconds between two looks. */
const pause = 200

/**
 * Milliseconds for which a kubelet that says of itself that it is not ready must go on saying so. It lives, and its
 * word may be old: it looks at its runtime every 5 s, and tells every 10 s (nodeStatusUpdateFrequency, as it comes).
 */
const ownWordStands = 15_000

/** Milliseconds for one attempt: a target that ends a session may take 20 s, and the taint 10 s more. */
const attemptDeadline = 35_000

/** Milliseconds from an attempt that came to nothing to the next one: first, and at most. */
const firstRest = 200
const longestRest = 5000

/** Milliseconds after which the same complaint is worth another line. */
const sameComplaint = 60_000

/** A worker, as Kubernetes and the provider see it. */
interface Seen {
  readonly ready: boolean
  /** Since when the kubelet itself says that it is not ready, by `performance.now`; undefined: it does not. */
  readonly refusing: number | undefined
  /** Changes with every boot. */
  readonly bootId: string
}

/** A machine since it was last switched on. */
interface Run {
  /** The provider's word for it. */
  readonly since: string
  /** The boot that Kubernetes knew of when it began: what it says of that one is old news. */
  readonly before: string | undefined
}

export interface Watching {
  readonly method: FenceMethod
  /** Recorded in the journal as the one who did it. */
  readonly by: string
  /** Ids of fences that were confirmed before: those that the journal has and that are not among them are gone on with. */
  readonly confirmed?: ReadonlySet<string>
  /** True while another command changes the lab on purpose: nothing that goes then is lost. */
  readonly suspended: () => Promise<boolean>
  readonly fenced: (seen: Fenced) => void | Promise<void>
  readonly notice: (text: string) => void
  /** Told after every look which workers would be fenced if they went, and which are being fenced. */
  readonly looked?: (armed: readonly string[], fencing: readonly string[]) => void | Promise<void>
}

/** A node that is being fenced. */
interface Attempts {
  running: boolean
  /** By `performance.now`: no attempt before. */
  next: number
  rest: number
  complaint?: { readonly text: string; readonly at: number }
}

/**
 * Fences any worker that goes, until the signal: one that is off, as its provider sees it, or that Kubernetes calls
 * not ready, although it still writes, perhaps; where the kubelet itself says so, not before that has stood for
 * `ownWordStands`. Only a worker that was seen ready in this boot can go; one that is fenced is left alone; and while
 * no other worker is ready nobody could take over, so nothing is gained. A fence that was noted and never confirmed is
 * gone on with, whoever began it.
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
  const confirmed = new Set(before)
  const attempts = new Map<string, Attempts>()
  const working = new Set<Promise<void>>()
  const watching = kubectl.watch(
    ['nodes'],
    ({ type, object }) => {
      if (type !== 'ADDED' && type !== 'MODIFIED') return
      const { conditions, nodeInfo } = object['status'] as {
        conditions?: readonly { type: string; status: string }[]
        nodeInfo?: { bootID?: string }
      }
      const { name } = object.metadata
      // Unknown is the control plane's word, of a kubelet that is silent.
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

  /** Sees machines being switched on, also while nobody may be fenced. */
  const follow = (states: readonly MachineState[]): void => {
    for (const { name, status, detail: since } of states) {
      const known = runs.get(name)
      if (status === 'running' && known?.since !== since)
        // The first time, Kubernetes has had its say about this run.
        runs.set(name, { since, before: known ? nodes.get(name)?.bootId : undefined })
    }
  }

  /** The workers that are to be fenced now, with why. */
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

  /** A fence that was noted, and of which nobody knows whether it came about. */
  const isOpen = ({ harm }: NotedFence): boolean => harm !== undefined && !confirmed.has(harm.id)

  /** Asked with the lock held: a command that changes the lab now will find in the journal what is noted next. */
  const whyNow = async (node: string, noted: NotedFence | undefined): Promise<string | undefined> => {
    if (signal.aborted || (await suspended())) return undefined
    if (noted) return isOpen(noted) ? `${node} was to be fenced` : undefined
    const states = await provider.states(lab)
    follow(states)
    return lostAmong(states, fencesIn(await readJournal(lab))).get(node)
  }

  const attempt = async (node: string, now: Attempts): Promise<void> => {
    const complain = (text: string): void => {
      const last = now.complaint
      if (last?.text === text && performance.now() - last.at < sameComplaint) return
      now.complaint = { text, at: performance.now() }
      notice(text)
    }
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(attemptDeadline)])
    try {
      const done = await attemptFence(
        context,
        {
          node,
          method,
          by,
          why: (noted) => whyNow(node, noted),
          // It is to be seen ready again, in another boot, before it can go again.
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
        complain(
          `fence: ${node}: ${bounded.aborted ? `not confirmed within ${String(attemptDeadline / 1000)} s` : messageOf(error)}`,
        )
    } finally {
      now.running = false
      now.next = performance.now() + now.rest
      now.rest = Math.min(now.rest * 2, longestRest)
    }
  }

  const begin = (node: string): void => {
    const now = attempts.get(node) ?? { running: false, next: 0, rest: firstRest }
    if (now.running || performance.now() < now.next) return
    attempts.set(node, now)
    now.running = true
    const work = attempt(node, now)
    working.add(work)
    work.finally(() => working.delete(work)).catch(() => undefined)
  }

  while (!signal.aborted) {
    try {
      const states = await provider.states(lab)
      follow(states)
      if (await suspended()) {
        armed.clear()
        attempts.clear()
      } else {
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
      notice(`fence: ${messageOf(error)}`)
    }
    await delay(pause, undefined, { signal }).catch(() => undefined)
  }
  await Promise.all(working)
}
