import { allPodsReady } from './pods.js'

/** A DaemonSet needs a pod on each of its nodes; its status says how many those are. */
export const daemonset = allPodsReady(
  ({ desiredNumberScheduled: wanted = 0, updatedNumberScheduled, numberReady }) => ({
    wanted,
    all: wanted,
    updated: updatedNumberScheduled ?? 0,
    ready: numberReady ?? 0,
  }),
)
