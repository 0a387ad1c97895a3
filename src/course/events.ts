/** Events of the cluster: what Kubernetes' own components did to a pod or a node. */
import type { Verdict } from '../plan/step.js'
import type { PodSeen } from '../trial/history.js'

/** The fields of an Event that claims look at. */
export interface EventSeen {
  readonly reason: string
  /** The reporting component: `default-scheduler`, `kubelet`. */
  readonly by: string
  /** The node of the reporting component; components of the control plane name none. */
  readonly from: string | undefined
  readonly kind: string
  readonly name: string
  /** Empty if the reporter knows only the name, like the taint eviction controller. */
  readonly uid: string
  readonly message: string
  /** When it was last seen, in milliseconds of the API server's clock. */
  readonly at: number
}

/** An Event as the API server sends it. Two generations of recorders fill different fields. */
export interface EventObject {
  readonly reason?: string
  readonly message?: string
  readonly reportingComponent?: string
  readonly reportingInstance?: string
  readonly source?: { readonly component?: string; readonly host?: string }
  readonly involvedObject: { readonly kind: string; readonly name: string; readonly uid?: string }
  readonly eventTime?: string | null
  readonly lastTimestamp?: string | null
  readonly series?: { readonly lastObservedTime?: string }
  readonly metadata: { readonly creationTimestamp?: string }
}

const filled = (...texts: readonly (string | null | undefined)[]): string | undefined =>
  texts.find((text) => text !== undefined && text !== null && text !== '') ?? undefined

export const eventSeen = (event: EventObject): EventSeen => ({
  reason: event.reason ?? '',
  by: filled(event.source?.component, event.reportingComponent) ?? '',
  from: filled(event.source?.host),
  kind: event.involvedObject.kind,
  name: event.involvedObject.name,
  uid: event.involvedObject.uid ?? '',
  message: event.message ?? '',
  at: Date.parse(
    filled(
      event.series?.lastObservedTime,
      event.lastTimestamp,
      event.eventTime,
      event.metadata.creationTimestamp,
    ) ?? '',
  ),
})

/** Whether the node controller has reported a node as not ready, after a moment of the API server's clock. */
export const saidNotReady = (events: readonly EventSeen[], node: string, since: number): Verdict => {
  const said = events.find(
    ({ kind, name, reason, by, at }) =>
      kind === 'Node' &&
      name === node &&
      reason === 'NodeNotReady' &&
      by === 'node-controller' &&
      at >= since,
  )
  return said
    ? { ok: true, saw: `${said.by}: ${said.reason}: ${said.message}` }
    : { ok: false, saw: `no event NodeNotReady of the node controller about ${node}` }
}

interface Replacement {
  /** Pods of the node that was lost. */
  readonly lost: readonly PodSeen[]
  /** Pods in their place. */
  readonly fresh: readonly PodSeen[]
  /** Pods of other nodes. */
  readonly kept: readonly PodSeen[]
}

/**
 * Who recreated the pods. The eviction that follows a taint marked the pods of the lost node for deletion; the
 * ReplicaSet controller made each replacement, the scheduler assigned it to a node, and that node's kubelet started
 * it; none of them touched the other pods.
 */
export const revivedInTurn = (
  events: readonly EventSeen[],
  { lost, fresh, kept }: Replacement,
): readonly (Verdict & { readonly title: string })[] => {
  const of = (pod: PodSeen, reason: string, begin = ''): EventSeen | undefined =>
    events.find(
      (event) =>
        event.kind === 'Pod' &&
        (event.uid === '' ? event.name === pod.name : event.uid === pod.uid) &&
        event.reason === reason &&
        event.message.startsWith(begin),
    )
  // Cancelling the deletion is reported with the same reason.
  const marked = (pod: PodSeen): EventSeen | undefined =>
    of(pod, 'TaintManagerEviction', 'Marking for deletion')
  const created = (pod: PodSeen): EventSeen | undefined =>
    events.find(
      ({ kind, reason, message }) =>
        kind === 'ReplicaSet' && reason === 'SuccessfulCreate' && message.split(/\s+/).includes(pod.name),
    )
  /** The wanted event of every pod, from the expected component. */
  const eachSaid = (
    title: string,
    pods: readonly PodSeen[],
    find: (pod: PodSeen) => EventSeen | undefined,
    right: (event: EventSeen, pod: PodSeen) => boolean,
  ): Verdict & { readonly title: string } => {
    const found = pods.map((pod) => [pod, find(pod)] as const)
    const wrong = found.find(([pod, event]) => event === undefined || !right(event, pod))
    const [, example] = wrong ?? found[0] ?? []
    const words = example
      ? `${example.by}${example.from === undefined ? '' : ` of ${example.from}`}: ${example.reason}: ${example.message}`
      : 'no such event'
    return {
      title,
      ok: pods.length > 0 && wrong === undefined,
      saw: wrong ? `${wrong[0].name}: ${words}` : pods.length > 0 ? words : 'no pods to ask about',
    }
  }
  const evicted = kept.find((pod) => marked(pod))
  return [
    eachSaid(
      'Events: the pods of the lost node were marked for deletion by the eviction of tainted nodes',
      lost,
      marked,
      ({ by }) => by === 'taint-eviction-controller',
    ),
    eachSaid(
      "Events: each pod in their place was made by the ReplicaSet's controller",
      fresh,
      created,
      ({ by }) => by === 'replicaset-controller',
    ),
    eachSaid(
      'Events: the scheduler gave each of them its node',
      fresh,
      (pod) => of(pod, 'Scheduled'),
      ({ by, message }, pod) => by === 'default-scheduler' && message.endsWith(` to ${pod.node ?? ''}`),
    ),
    eachSaid(
      "Events: that node's kubelet started each of them",
      fresh,
      (pod) => of(pod, 'Started'),
      ({ by, from }, pod) => by === 'kubelet' && from === pod.node,
    ),
    {
      title: 'Events: nobody marked a pod of another node for deletion',
      ok: evicted === undefined,
      saw: evicted
        ? `${evicted.name}: ${marked(evicted)?.message ?? ''}`
        : `none about ${kept.map(({ name }) => name).join(', ') || 'no pods'}`,
    },
  ]
}
