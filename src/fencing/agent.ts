/**
 * Decides which workers to fence and when: it watches them through Kubernetes and the provider, and fences lost ones
 * concurrently. `fence.ts` describes the fence itself and why it is safe.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { messageOf } from '../error.js'
import { fencesIn, type NotedFence, readJournal } from '../journal.js'
import { machinesWith } from '../lab/lab.js'
import type { Context } from '../context.js'
import { attemptFence, type Fenced, type FenceMethod } from './fence.js'
import { Workers } from './lost.js'
import type { Blind } from './state.js'

/** Milliseconds between two observations. */
const pause = 200

/** Timeout of one attempt in milliseconds: a target may take 20 s to end a session, and the taint 10 s more. */
const attemptDeadline = 35_000

/** Milliseconds from a failed attempt to the next one: the first and the longest pause. */
const firstRest = 200
const longestRest = 5000

/** Milliseconds after which the same error is logged again. */
const sameComplaint = 60_000

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
  readonly looked?: (
    armed: readonly string[],
    fencing: readonly string[],
    blind: Blind | undefined,
  ) => void | Promise<void>
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

class Agent {
  readonly #context: Context
  readonly #watching: Watching
  readonly #signal: AbortSignal
  readonly #workers: Workers
  /** Ids of fences that were confirmed. */
  readonly #confirmed: Set<string>
  readonly #attempts = new Map<string, Attempts>()
  readonly #complain: (text: string) => void
  readonly #working = new Set<Promise<void>>()
  #blind: Blind | undefined

  constructor(context: Context, watching: Watching, signal: AbortSignal) {
    this.#context = context
    this.#watching = watching
    this.#signal = signal
    const { lab, provider } = context
    this.#workers = new Workers(
      machinesWith(lab, 'worker').map(({ name }) => name),
      lab.failover,
      provider,
    )
    this.#confirmed = new Set(watching.confirmed)
    this.#complain = complaining(watching.notice)
  }

  async run(): Promise<void> {
    const watch = this.#context.kubectl.watch(
      ['nodes'],
      (event) => {
        this.#blind = undefined
        this.#workers.takeNode(event)
      },
      this.#signal,
      (reason) => {
        this.#blind = { since: this.#blind?.since ?? new Date().toISOString(), why: messageOf(reason) }
        this.#complain(`watch: ${this.#blind.why}`)
      },
    )
    watch.catch(() => undefined)
    while (!this.#signal.aborted) {
      try {
        await this.#look()
      } catch (error) {
        this.#complain(`fence: ${messageOf(error)}`)
      }
      await delay(pause, undefined, { signal: this.#signal }).catch(() => undefined)
    }
    await Promise.all(this.#working)
  }

  /** One observation, and what follows from it. */
  async #look(): Promise<void> {
    const { lab, provider } = this.#context
    const states = await provider.states(lab)
    this.#workers.follow(states)
    if (await this.#watching.suspended()) {
      this.#workers.suspend()
      this.#attempts.clear()
      return
    }
    this.#workers.resume(states)
    const fences = fencesIn(await readJournal(lab))
    const wanted = [
      ...this.#workers.lostAmong(states, fences).keys(),
      ...[...fences].filter(([, noted]) => this.#isOpen(noted)).map(([node]) => node),
    ]
    for (const node of this.#attempts.keys())
      if (!wanted.includes(node) && !this.#attempts.get(node)?.running) this.#attempts.delete(node)
    await this.#watching.looked?.(this.#workers.armed, wanted, this.#blind)
    for (const node of wanted) this.#begin(node)
  }

  /** Whether a fence was recorded and never confirmed. */
  #isOpen({ harm }: NotedFence): boolean {
    return harm !== undefined && !this.#confirmed.has(harm.id)
  }

  /**
   * Asked while the fence lock is held: a command that changes the lab from now on finds the next entry in the
   * journal.
   */
  async #whyNow(node: string, noted: NotedFence | undefined): Promise<string | undefined> {
    const { lab, provider } = this.#context
    if (this.#signal.aborted || (await this.#watching.suspended())) return undefined
    if (noted) return this.#isOpen(noted) ? `fencing of ${node} was requested` : undefined
    const states = await provider.states(lab)
    this.#workers.follow(states)
    return this.#workers.lostAmong(states, fencesIn(await readJournal(lab))).get(node)
  }

  #begin(node: string): void {
    const now = this.#attempts.get(node) ?? {
      running: false,
      next: 0,
      rest: firstRest,
      complain: complaining(this.#watching.notice),
    }
    if (now.running || performance.now() < now.next) return
    this.#attempts.set(node, now)
    now.running = true
    const work = this.#attempt(node, now)
    this.#working.add(work)
    work.finally(() => this.#working.delete(work)).catch(() => undefined)
  }

  async #attempt(node: string, now: Attempts): Promise<void> {
    const { method, by, fenced, notice } = this.#watching
    const bounded = AbortSignal.any([this.#signal, AbortSignal.timeout(attemptDeadline)])
    const why = (noted: NotedFence | undefined): Promise<string | undefined> => this.#whyNow(node, noted)
    const begun = (): void => this.#workers.disarm(node)
    try {
      const done = await attemptFence(this.#context, { node, method, by, why, begun }, bounded)
      if (done) {
        if (done.id !== undefined) this.#confirmed.add(done.id)
        this.#attempts.delete(node)
        await fenced(done)
        notice(`fence: ${done.detail}; its pods may be replaced`)
        return
      }
    } catch (error) {
      if (!this.#signal.aborted)
        now.complain(
          `fence: ${node}: ${bounded.aborted ? `not confirmed within ${String(attemptDeadline / 1000)} s` : messageOf(error)}`,
        )
    } finally {
      now.running = false
      now.next = performance.now() + now.rest
      now.rest = Math.min(now.rest * 2, longestRest)
    }
  }
}

/**
 * Fences every lost worker until the signal. A worker is lost when its provider reports it as off, or when Kubernetes
 * calls it not ready although it may still write, and has heard another worker all the time; if the kubelet itself
 * reports that, only after `ownWordStands`.
 * Only a worker that was seen ready in this boot can be lost, and a fenced one is left alone. While no other worker
 * is ready, none could take over, so none is fenced. A fence that was recorded but never confirmed is continued,
 * whoever began it.
 *
 * While another command changes the lab, no worker counts as lost. When it has ended, a worker that could be lost
 * before can be lost again: at once if it is off, and after `settling` if it is not ready; unless it was switched on
 * meanwhile. `lost.ts` has both times.
 */
export const fencingAgent = (context: Context, watching: Watching, signal: AbortSignal): Promise<void> =>
  new Agent(context, watching, signal).run()
