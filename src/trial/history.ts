/** The history of pods according to the API server: every change, in order. Pure, so that claims can be tested. */

/** The fields of a pod that claims use. */
export interface PodSeen {
  readonly name: string
  readonly uid: string
  readonly node: string | undefined
  readonly phase: string
  /** Whether all its containers are ready and it is not being deleted. */
  readonly ready: boolean
  /** Whether its deletion was requested. */
  readonly terminating: boolean
  /** The image of the first container. */
  readonly image: string
  /** The restarts of all containers together. */
  readonly restarts: number
  readonly address: string | undefined
  readonly labels: Readonly<Record<string, string>>
  /** Why it has no node, according to the scheduler. */
  readonly unschedulable: string | undefined
}

export interface PodChange {
  /** Milliseconds since the history began. */
  readonly ms: number
  readonly kind: 'new' | 'changed' | 'gone'
  readonly pod: PodSeen
}

/** A pod as the API server sends it. */
export interface PodObject {
  readonly metadata: {
    readonly name: string
    readonly uid: string
    readonly deletionTimestamp?: string
    readonly labels?: Readonly<Record<string, string>>
  }
  readonly spec: { readonly nodeName?: string; readonly containers: readonly { readonly image: string }[] }
  readonly status: {
    readonly phase?: string
    readonly podIP?: string
    readonly conditions?: readonly {
      readonly type: string
      readonly status: string
      readonly message?: string
    }[]
    readonly containerStatuses?: readonly { readonly restartCount: number }[]
  }
}

/** `nginx:1.26` for `docker.io/library/nginx:1.26`, as people write it. */
const shortImage = (image: string): string => image.slice(image.lastIndexOf('/') + 1)

export const podSeen = ({ metadata, spec, status }: PodObject): PodSeen => {
  const terminating = metadata.deletionTimestamp !== undefined
  const condition = (type: string) => status.conditions?.find((candidate) => candidate.type === type)
  const scheduled = condition('PodScheduled')
  return {
    name: metadata.name,
    uid: metadata.uid,
    node: spec.nodeName,
    phase: status.phase ?? 'Pending',
    ready: !terminating && condition('Ready')?.status === 'True',
    terminating,
    image: shortImage(spec.containers[0]?.image ?? ''),
    restarts: status.containerStatuses?.reduce((sum, { restartCount }) => sum + restartCount, 0) ?? 0,
    address: status.podIP,
    labels: metadata.labels ?? {},
    unschedulable: scheduled?.status === 'False' ? scheduled.message : undefined,
  }
}

export type Which = (pod: PodSeen) => boolean

export const everyPod: Which = () => true

/** The pods at one moment: after a change and before the next. */
export interface Moment {
  readonly ms: number
  readonly pods: readonly PodSeen[]
}

const same = (one: PodSeen, other: PodSeen): boolean => JSON.stringify(one) === JSON.stringify(other)

export class PodHistory {
  readonly #changes: PodChange[] = []
  readonly #now = new Map<string, PodSeen>()
  readonly #missed: { readonly ms: number; readonly why: string }[] = []
  #blind: string | undefined

  /** Why changes are not seen at the moment: the pods are those that were seen last. Undefined: they are seen. */
  get blind(): string | undefined {
    return this.#blind
  }

  set blind(why: string | undefined) {
    this.#blind = why
  }

  /** Notes that changes before this moment were missed for good. */
  miss(ms: number, why: string): void {
    this.#missed.push({ ms, why })
  }

  /** Why something may have happened since a moment that is not in this history; undefined: everything was seen. */
  unseenSince(from = 0): string | undefined {
    const found = [
      ...this.#missed.filter(({ ms }) => ms > from).map(({ why }) => why),
      ...(this.#blind === undefined ? [] : [this.#blind]),
    ]
    return found.length === 0 ? undefined : found.join('; ')
  }

  /** Takes one event of a watch. An event without a difference in the used fields is no change. */
  take(ms: number, type: 'ADDED' | 'MODIFIED' | 'DELETED', object: PodObject): PodChange | undefined {
    const pod = podSeen(object)
    const before = this.#now.get(pod.uid)
    if (type !== 'DELETED' && before && same(before, pod)) return undefined
    if (type === 'DELETED' && !before) return undefined
    if (type === 'DELETED') this.#now.delete(pod.uid)
    else this.#now.set(pod.uid, pod)
    const change: PodChange = { ms, kind: type === 'DELETED' ? 'gone' : before ? 'changed' : 'new', pod }
    this.#changes.push(change)
    return change
  }

  get changes(): readonly PodChange[] {
    return this.#changes
  }

  /** The present pods. */
  get pods(): readonly PodSeen[] {
    return [...this.#now.values()]
  }

  /** The uids of all known pods: those missing in a new list were deleted meanwhile. */
  get uids(): readonly string[] {
    return [...this.#now.keys()]
  }

  /** The pods after each change since `from`, beginning with those at that moment. */
  since(from = 0): readonly Moment[] {
    const there = new Map<string, PodSeen>()
    const moments: Moment[] = []
    let begun = false
    for (const { ms, kind, pod } of this.#changes) {
      if (ms > from && !begun) {
        moments.push({ ms: from, pods: [...there.values()] })
        begun = true
      }
      if (kind === 'gone') there.delete(pod.uid)
      else there.set(pod.uid, pod)
      if (begun) moments.push({ ms, pods: [...there.values()] })
    }
    if (!begun) moments.push({ ms: from, pods: [...there.values()] })
    return moments
  }

  /** Changes since a moment. */
  changesSince(from: number): readonly PodChange[] {
    return this.#changes.filter(({ ms }) => ms > from)
  }
}

/** `web-0 is ready on worker1`, for the report. */
export const describeChange = ({ kind, pod }: PodChange, before: PodSeen | undefined): string | undefined => {
  const on = pod.node === undefined ? '' : ` on ${pod.node}`
  if (kind === 'gone') return `${pod.name} is gone`
  if (kind === 'new') return `${pod.name} is made (${pod.image})${on}`
  if (pod.terminating && before?.terminating !== true) return `${pod.name} is told to end${on}`
  if (pod.restarts > (before?.restarts ?? 0))
    return `${pod.name} was restarted${on}${pod.ready ? ', and is ready' : ''}`
  if (pod.ready && before?.ready !== true) return `${pod.name} is ready${on}`
  if (!pod.ready && before?.ready === true && !pod.terminating) return `${pod.name} is no longer ready${on}`
  if (pod.node !== undefined && before?.node === undefined) return `${pod.name} goes to ${pod.node}`
  if (pod.unschedulable !== undefined && before?.unschedulable === undefined)
    return `${pod.name} fits nowhere: ${pod.unschedulable}`
  return undefined
}
