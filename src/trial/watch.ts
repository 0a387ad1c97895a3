/** Observes a takeover through the API server's watches and the machines' own journals. */
import { machinesWith, type DatabaseSpec, type Lab } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import { type Clocks, keptClocks, measureClocks } from '../fault/clock.js'
import type { WatchEvent } from '../machine/kubectl.js'
import { serverApp } from '../steps/database-pods.js'
import type { Observation } from './timeline.js'

interface NodeObject {
  readonly metadata: { readonly name: string }
  readonly status: {
    readonly conditions?: readonly {
      readonly type: string
      readonly status: string
      readonly reason?: string
    }[]
  }
}

interface PodObject {
  readonly metadata: { readonly name: string; readonly deletionTimestamp?: string }
  readonly spec: { readonly nodeName?: string }
  readonly status: {
    readonly conditions?: readonly { readonly type: string; readonly status: string }[]
    readonly containerStatuses?: readonly {
      readonly name: string
      readonly state: { readonly running?: { readonly startedAt: string } }
    }[]
  }
}

/** Its name in the Deployment's template; another container of the pod writes the plain file. */
const databaseContainer = 'mysql'

export interface Watch {
  readonly observations: readonly Observation[]
  /** The last known node of a pod; `an unknown node` before it was observed. */
  nodeOf(pod: string): string
  /** The node whose database pod is ready and not being deleted; undefined if none is known. */
  server(): string | undefined
}

const conditionOf = (
  object: {
    readonly status: { readonly conditions?: readonly { type: string; status: string; reason?: string }[] }
  },
  type: string,
) => object.status.conditions?.find((condition) => condition.type === type)

const startOf = (object: PodObject | undefined): string | undefined =>
  object?.status.containerStatuses?.find(({ name }) => name === databaseContainer)?.state.running?.startedAt

/** Turns the states of nodes and pods into observations of what changed. */
class Observer implements Watch {
  readonly observations: Observation[] = []
  readonly #news: (seen: Observation) => void
  readonly #nodes = new Map<string, NodeObject>()
  readonly #pods = new Map<string, PodObject>()
  readonly #places = new Map<string, string>()
  readonly #begun = Date.now()

  constructor(news: (seen: Observation) => void) {
    this.#news = news
  }

  nodeOf(pod: string): string {
    return this.#places.get(pod) ?? 'an unknown node'
  }

  server(): string | undefined {
    return [...this.#pods.values()].find(
      (object) =>
        object.metadata.deletionTimestamp === undefined && conditionOf(object, 'Ready')?.status === 'True',
    )?.spec.nodeName
  }

  takeNode({ type, object }: WatchEvent): void {
    if (type === 'ADDED' || type === 'MODIFIED') this.#node(object as unknown as NodeObject)
  }

  takePod({ type, object }: WatchEvent): void {
    if (type !== 'ADDED' && type !== 'MODIFIED' && type !== 'DELETED') return
    const seen = object as unknown as PodObject
    const first = type === 'ADDED' && !this.#pods.has(seen.metadata.name) && this.#isOld(seen)
    this.#pod(seen, type === 'DELETED', first)
  }

  /** Existing pods and new ones both arrive as ADDED; their age distinguishes them. */
  #isOld(object: { readonly metadata: object }): boolean {
    const created = (object.metadata as { creationTimestamp?: string }).creationTimestamp
    return created !== undefined && Date.parse(created) < this.#begun - 2000
  }

  /** Observed by this process, so the clock is the operator's. */
  #see(seen: Omit<Observation, 'at' | 'ms' | 'source'>): void {
    const observation = { at: new Date().toISOString(), ms: performance.now(), source: 'operator', ...seen }
    this.observations.push(observation)
    this.#news(observation)
  }

  #node(object: NodeObject): void {
    const { name } = object.metadata
    const before = this.#nodes.get(name)
    this.#nodes.set(name, object)
    const ready = conditionOf(object, 'Ready')
    if (before && conditionOf(before, 'Ready')?.status === 'True' && ready?.status !== 'True')
      this.#see({
        type: 'node-not-ready',
        node: name,
        detail: `node ${name}: Ready is ${ready?.status ?? 'missing'}, ${ready?.reason ?? ''}`,
      })
  }

  #pod(object: PodObject, gone: boolean, first: boolean): void {
    const { name, deletionTimestamp } = object.metadata
    const before = this.#pods.get(name)
    const at = object.spec.nodeName
    if (gone) this.#pods.delete(name)
    else this.#pods.set(name, object)
    if (at !== undefined) this.#places.set(name, at)
    if (first) return
    const about = { pod: name, ...(at === undefined ? {} : { node: at }) }
    if (gone || (deletionTimestamp !== undefined && before?.metadata.deletionTimestamp === undefined)) {
      if (before?.metadata.deletionTimestamp === undefined)
        this.#see({ type: 'pod-evicted', ...about, detail: `pod ${name} is deleted` })
      return
    }
    if (at !== undefined && before?.spec.nodeName === undefined)
      this.#see({ type: 'replacement-scheduled', ...about, detail: `pod ${name} is bound to ${at}` })
    const start = startOf(object)
    if (start !== undefined && start !== startOf(before))
      this.#see({
        type: 'container-running',
        ...about,
        detail: `container of ${name} has been running since ${start}`,
      })
  }
}

/**
 * Watches nodes and the database's pods until the signal. The initial state is not reported.
 * @param news called with each observation when it is made
 */
export const watchLab = (
  context: Context,
  database: DatabaseSpec,
  signal: AbortSignal,
  news: (seen: Observation) => void,
): Watch => {
  const observer = new Observer(news)
  const running = [
    context.kubectl.watch(['nodes'], (event) => observer.takeNode(event), signal),
    context.kubectl.watch(
      ['pods', '--selector', `app=${serverApp(database)}`],
      (event) => observer.takePod(event),
      signal,
    ),
  ]
  // A watch runs until the signal, and how it ended does not matter.
  for (const one of running) one.catch(() => undefined)
  return observer
}

/** What a journal line says about the disk; undefined if nothing. */
export const volumeEvent = (message: string): 'volume-logged-in' | 'volume-mounted' | undefined => {
  if (/^Connection\d+:\d+ to \[target: .*\] is operational now/.test(message)) return 'volume-logged-in'
  if (/^EXT4-fs \(sd[a-z]+\): mounted filesystem/.test(message)) return 'volume-mounted'
  return undefined
}

/** The workers, whose journals say when a disk was available. Nobody reads those of an existing cluster. */
export const witnesses = (lab: Lab): readonly string[] =>
  lab.cluster ? [] : machinesWith(lab, 'worker').map(({ name }) => name)

/**
 * Logins and mounts of the workers since a moment, with times of their own clocks; and those clocks, if they did not
 * change meanwhile.
 * @param since on this host's monotonic clock
 * @param before the clocks, measured before anything was broken
 */
export const readJournals = async (
  context: Context,
  lab: Lab,
  since: number,
  before: Clocks,
): Promise<{ readonly observations: readonly Observation[]; readonly clocks: Clocks }> => {
  const after = await measureClocks(context, witnesses(lab))
  const found = await Promise.all(
    witnesses(lab).map(async (name): Promise<readonly Observation[]> => {
      try {
        const from = (since + (after[name]?.zero ?? Date.now() - performance.now())) / 1000
        const text = await context
          .machine(name)
          .run(
            shell`journalctl --boot --output=json --output-fields=MESSAGE --since=${`@${from.toFixed(3)}`} --identifier=kernel --identifier=iscsid`,
            { signal: context.signal, timeout: 30 },
          )
        return text.split('\n').flatMap((line): Observation[] => {
          if (line === '') return []
          const { MESSAGE: said, __REALTIME_TIMESTAMP: at } = JSON.parse(line) as Record<string, unknown>
          const type = typeof said === 'string' ? volumeEvent(said) : undefined
          return type === undefined || typeof said !== 'string'
            ? []
            : [
                {
                  type,
                  at: new Date(Number(at) / 1000).toISOString(),
                  source: name,
                  node: name,
                  detail: said,
                },
              ]
        })
      } catch {
        // A machine that does not answer cannot contribute observations.
        return []
      }
    }),
  )
  return { observations: found.flat(), clocks: keptClocks(before, after) }
}
