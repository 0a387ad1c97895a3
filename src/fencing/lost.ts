/**
 * Knows which workers are lost, from what Kubernetes and the provider say of them. `agent.ts` describes when a worker
 * counts as lost.
 */
import type { NotedFence } from '../journal.js'
import type { Failover } from '../lab/lab.js'
import type { WatchEvent } from '../machine/kubectl.js'
import type { MachineState, Provider } from '../provider/provider.js'

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

/**
 * Milliseconds for which a worker must be silent while another one is ready all the time. If the API server itself
 * hears nobody, all workers fall silent, but not at the same moment: each kubelet had renewed its lease at a time of its
 * own, and the node controller looks at them once a period. `failover: fast`: every 2 s, and every second; by default
 * every 10 s and 5 s.
 */
const apart: Readonly<Record<Failover, number>> = { fast: 4000, default: 16_000 }

/** A worker, as Kubernetes and the provider see it. */
interface Seen {
  readonly ready: boolean
  /** Since when it has been ready, or not, by `performance.now`; -Infinity: since before it was first seen ready. */
  readonly since: number
  /** When Kubernetes says that this began, by its clock. It shows that a worker was away while nobody could watch. */
  readonly turned: string | undefined
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

/** The part of a node's status that says how it is. */
interface NodeStatus {
  readonly conditions?: readonly {
    readonly type: string
    readonly status: string
    readonly lastTransitionTime?: string
  }[]
  readonly nodeInfo?: { readonly bootID?: string }
}

export class Workers {
  readonly #names: readonly string[]
  readonly #slowdown: number
  readonly #apart: number
  readonly #silentMayRun: boolean
  readonly #nodes = new Map<string, Seen>()
  readonly #runs = new Map<string, Run>()
  /** Those that would be fenced if they were lost. */
  readonly #armed = new Set<string>()
  /** The workers that were armed when a command began to change the lab, with the run that each had. */
  readonly #kept = new Map<string, string | undefined>()
  /** When the last such command ended, by `performance.now`; undefined while one works. */
  #resumed: number | undefined = 0

  constructor(
    names: readonly string[],
    failover: Failover,
    { slowdown = 1, silentMayRun = false }: Pick<Provider, 'slowdown' | 'silentMayRun'> = {},
  ) {
    this.#names = names
    this.#slowdown = slowdown
    this.#apart = apart[failover] * slowdown
    this.#silentMayRun = silentMayRun
  }

  /** Where a silent machine may run all the same, only Kubernetes can say that it is lost. */
  #isOn(states: readonly MachineState[], name: string): boolean {
    return this.#silentMayRun || states.some((state) => state.name === name && state.status === 'running')
  }

  get armed(): readonly string[] {
    return [...this.#armed]
  }

  /** It must be seen ready in another boot before it can be lost again. */
  disarm(name: string): void {
    this.#armed.delete(name)
  }

  /** What Kubernetes says of a node. */
  takeNode({ type, object }: WatchEvent): void {
    const { name } = object.metadata
    if (type === 'DELETED') {
      // Removed on purpose: there is no node to fence any more.
      this.#nodes.delete(name)
      this.#kept.delete(name)
      this.#armed.delete(name)
    }
    if (type !== 'ADDED' && type !== 'MODIFIED') return
    const { conditions, nodeInfo } = object['status'] as NodeStatus
    // Status Unknown comes from the control plane, about a silent kubelet.
    const { status, lastTransitionTime: turned } = conditions?.find(({ type }) => type === 'Ready') ?? {}
    const known = this.#nodes.get(name)
    const ready = status === 'True'
    this.#nodes.set(name, {
      ready,
      since:
        known?.ready === ready && known.turned === turned
          ? known.since
          : known || !ready
            ? performance.now()
            : -Infinity,
      turned,
      refusing: status === 'False' ? (known?.refusing ?? performance.now()) : undefined,
      bootId: nodeInfo?.bootID ?? '',
    })
  }

  /** Follows the runs of all machines, even while fencing is suspended. */
  follow(states: readonly MachineState[]): void {
    for (const { name, status, detail: since } of states) {
      const known = this.#runs.get(name)
      if (status === 'running' && known?.since !== since)
        // At the first observation, Kubernetes already knows this run.
        this.#runs.set(name, { since, before: known ? this.#nodes.get(name)?.bootId : undefined })
    }
  }

  /** While a command changes the lab. */
  suspend(): void {
    for (const name of this.#armed) this.#kept.set(name, this.#runs.get(name)?.since)
    this.#armed.clear()
    this.#resumed = undefined
  }

  /** When that command has ended: arms those whose fate it cannot have decided. */
  resume(states: readonly MachineState[]): void {
    this.#resumed ??= performance.now()
    const settled = performance.now() - this.#resumed > settling * this.#slowdown
    for (const [name, since] of this.#kept) {
      const same = this.#runs.get(name)?.since === since
      if (this.#isOn(states, name) && !settled && same && !this.#nodes.get(name)?.ready) continue
      this.#kept.delete(name)
      if (same) this.#armed.add(name)
    }
  }

  /**
   * Whether a worker is silent, and not merely unheard: another one is ready, and has been for `settling`. One that was
   * itself silent just now proves nothing, since kubelets are not heard again at the same moment.
   */
  #isSilent({ since, refusing }: Seen, well: ReadonlySet<string>): boolean {
    const now = performance.now()
    if (refusing !== undefined) return now - refusing > ownWordStands
    const steady = (name: string): boolean =>
      now - (this.#nodes.get(name)?.since ?? now) > settling * this.#slowdown
    return now - since > this.#apart && [...well].some(steady)
  }

  /** The workers to fence now, with the reasons. Also arms those that are well. */
  lostAmong(
    states: readonly MachineState[],
    fences: ReadonlyMap<string, NotedFence>,
  ): ReadonlyMap<string, string> {
    const lost = new Map<string, string>()
    const quiet = new Map<string, Seen>()
    const well = new Set<string>()
    for (const name of this.#names) {
      const on = this.#isOn(states, name)
      const node = this.#nodes.get(name)
      if (fences.has(name)) this.#armed.delete(name)
      else if (on && node?.ready) {
        if (node.bootId !== this.#runs.get(name)?.before) this.#armed.add(name)
        if (this.#armed.has(name)) well.add(name)
      } else if (!this.#armed.has(name)) continue
      else if (!on) lost.set(name, `${name} was found off`)
      else if (node) quiet.set(name, node)
    }
    for (const [name, node] of quiet) if (this.#isSilent(node, well)) lost.set(name, `${name} is not ready`)
    return well.size > 0 ? lost : new Map()
  }
}
