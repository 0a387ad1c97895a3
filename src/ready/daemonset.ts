import { allPodsReady } from './pods.js'

interface Status {
  readonly desiredNumberScheduled?: number
  readonly updatedNumberScheduled?: number
  readonly numberReady?: number
}

/** It wants a pod on each node that it is for; its status says how many those are. */
export const daemonset = allPodsReady<Status>(
  ({ desiredNumberScheduled: wanted = 0, updatedNumberScheduled, numberReady }) => ({
    wanted,
    all: wanted,
    updated: updatedNumberScheduled ?? 0,
    ready: numberReady ?? 0,
  }),
)
