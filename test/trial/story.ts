import { PodHistory, type PodObject } from '../../src/trial/history.js'

interface Pod {
  readonly uid?: string
  /** Its node: worker1 by default; none, if the text is empty. */
  readonly node?: string
  readonly ready?: boolean
  readonly ending?: boolean
  readonly image?: string
  readonly restarts?: number
  readonly labels?: Readonly<Record<string, string>>
  readonly why?: string
}

const object = (name: string, pod: Pod): PodObject => ({
  metadata: {
    name,
    uid: pod.uid ?? name,
    labels: pod.labels ?? {},
    ...(pod.ending ? { deletionTimestamp: '2026-01-01T00:00:00Z' } : {}),
  },
  spec: {
    ...(pod.node === '' ? {} : { nodeName: pod.node ?? 'worker1' }),
    containers: [{ image: `docker.io/library/${pod.image ?? 'nginx:1.22'}` }],
  },
  status: {
    phase: pod.ready ? 'Running' : 'Pending',
    conditions: [
      { type: 'Ready', status: pod.ready ? 'True' : 'False' },
      ...(pod.why === undefined ? [] : [{ type: 'PodScheduled', status: 'False', message: pod.why }]),
    ],
    containerStatuses: [{ restartCount: pod.restarts ?? 0 }],
  },
})

/** A history as a story: each line takes a second. */
export class Story {
  readonly history = new PodHistory()
  #ms = 0
  readonly #known = new Map<string, Pod>()

  #tell(type: 'ADDED' | 'MODIFIED' | 'DELETED', name: string, pod: Pod): this {
    this.#ms += 1000
    this.#known.set(name, pod)
    this.history.take(this.#ms, type, object(name, pod))
    return this
  }

  /** Now, in milliseconds: later lines happen after it. */
  get now(): number {
    return this.#ms
  }

  made(name: string, pod: Pod = {}): this {
    return this.#tell('ADDED', name, pod)
  }

  ready(name: string, more: Pod = {}): this {
    return this.#tell('MODIFIED', name, { ...this.#known.get(name), ready: true, ...more })
  }

  there(name: string, pod: Pod = {}): this {
    return this.made(name, pod).ready(name)
  }

  changed(name: string, more: Pod): this {
    return this.#tell('MODIFIED', name, { ...this.#known.get(name), ...more })
  }

  ending(name: string): this {
    return this.changed(name, { ending: true })
  }

  gone(name: string): this {
    return this.#tell('DELETED', name, this.#known.get(name) ?? {})
  }

  /** The pods that exist now. */
  pods(...names: readonly string[]) {
    return this.history.pods.filter(({ name }) => names.includes(name))
  }
}
