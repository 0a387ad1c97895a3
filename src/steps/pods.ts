/** Pods as the API server has them, compared with the containers that really run on each node. */
import { shell } from '../machine/sh.js'
import { shared } from './checks.js'
import { type Condition, type List, onNodes, Silence } from './nodes.js'

export interface Pod {
  readonly metadata: {
    readonly name: string
    readonly namespace: string
    readonly labels?: Readonly<Record<string, string>>
    readonly deletionTimestamp?: string
  }
  readonly spec: { readonly nodeName?: string }
  readonly status: {
    readonly phase: string
    readonly podIP?: string
    readonly conditions?: readonly Condition[]
    readonly containerStatuses?: readonly {
      readonly ready: boolean
      readonly restartCount: number
      /** `containerd://ID` of the running container, or of the last one if none runs. */
      readonly containerID?: string
      readonly state: {
        readonly waiting?: { readonly reason: string; readonly message?: string }
        readonly running?: { readonly startedAt: string }
      }
    }[]
  }
  /** Why this status is out of date: the API server keeps the last report, however old it is. */
  readonly outdated?: string
}

/**
 * The IDs of the running containers on each node: containerd keeps a folder for each, which does not survive a
 * reboot.
 */
const containers = shared((context) =>
  onNodes(
    context,
    shell`ls /run/containerd/io.containerd.runtime.v2.task/k8s.io 2>/dev/null || true`,
    (output): ReadonlySet<string> => new Set(output.split('\n')),
  ),
)

/**
 * Why a pod's status is out of date; undefined if it is current. It compares containers, not times: the clock of a
 * machine that slept is corrected later, and earlier timestamps would then seem to be from another boot.
 */
const outdated = (
  pod: Pod,
  running: ReadonlyMap<string, ReadonlySet<string> | Silence>,
): string | undefined => {
  const { nodeName } = pod.spec
  if (nodeName === undefined) return undefined
  const there = running.get(nodeName)
  if (!there) return `${nodeName} is not a node of this lab`
  if (there instanceof Silence) return `${nodeName} does not answer: ${there.reason}`
  const said = (pod.status.containerStatuses ?? []).filter(({ state }) => state.running !== undefined)
  return said.some(({ containerID = '' }) => !there.has(containerID.replace('containerd://', '')))
    ? `its container no longer runs on ${nodeName}, which has not reported this yet`
    : undefined
}

export const pods = shared(async (context): Promise<readonly Pod[]> => {
  // Of an existing cluster, only the lab's own namespace counts, and nobody looks into the nodes.
  if (context.lab.cluster) return (await context.kubectl.get<List<Pod>>('pods')).items
  // The pods first, then the containers: a container that starts in between makes no status out of date.
  const { items } = await context.kubectl.get<List<Pod>>('pods', '--all-namespaces')
  const running = await containers(context)
  return items.map((pod) => {
    const why = outdated(pod, running)
    return why === undefined ? pod : { ...pod, outdated: why }
  })
})

export const isReady = (pod: Pod): boolean =>
  pod.outdated === undefined &&
  pod.metadata.deletionTimestamp === undefined &&
  (pod.status.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false)

/** `Pending, ContainerCreating` */
export const describePod = (pod: Pod): string => {
  const waiting = pod.status.containerStatuses?.map(({ state }) => state.waiting?.reason).find(Boolean)
  const scheduled = pod.status.conditions?.find(
    ({ type, status }) => type === 'PodScheduled' && status !== 'True',
  )
  return [
    pod.metadata.deletionTimestamp === undefined ? pod.status.phase : 'Terminating',
    isReady(pod) ? 'ready' : undefined,
    waiting,
    scheduled?.message,
    pod.outdated,
    pod.spec.nodeName === undefined ? undefined : `on ${pod.spec.nodeName}`,
  ]
    .filter(Boolean)
    .join(', ')
}
