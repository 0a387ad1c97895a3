/** Shared by the kinds whose controllers keep a number of pods. */
import type { Verdict } from '../plan/step.js'
import type { ReadyCheck } from './ready.js'

/** How many pods a controller wants, has, has updated, and reports as ready. */
export interface Pods {
  readonly wanted: number
  readonly all: number
  readonly updated: number
  readonly ready: number
}

interface Controller {
  readonly metadata: { readonly generation: number }
  readonly spec: { readonly replicas?: number }
  readonly status: PodStatus & { readonly observedGeneration?: number }
}

/** The fields about replicas belong to Deployments and StatefulSets, the others to DaemonSets. */
export interface PodStatus {
  readonly readyReplicas?: number
  readonly updatedReplicas?: number
  readonly replicas?: number
  readonly desiredNumberScheduled?: number
  readonly updatedNumberScheduled?: number
  readonly numberReady?: number
}

export const replicas = ({ readyReplicas, updatedReplicas, replicas: all }: PodStatus, wanted = 1): Pods => ({
  wanted,
  all: all ?? 0,
  updated: updatedReplicas ?? 0,
  ready: readyReplicas ?? 0,
})

/** Whether the controller has observed the latest generation, and all pods are of that generation and ready. */
export const allPodsReady = (pods: (status: PodStatus, replicas?: number) => Pods): ReadyCheck => ({
  title: (what) => `${what} has all its pods, up to date and ready`,
  judge: (object): Verdict => {
    const { metadata, spec, status } = object as Controller
    const { wanted, all, updated, ready } = pods(status, spec.replicas)
    const heard = (status.observedGeneration ?? 0) >= metadata.generation
    return {
      ok: heard && updated === wanted && ready === wanted && all === wanted,
      saw: `${String(ready)} of ${String(wanted)} ready, ${String(updated)} up to date${heard ? '' : ', not reported yet'}`,
    }
  },
})
