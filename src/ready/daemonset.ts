import { allPodsReady } from './pods.js'

/** It wants a pod on each node that it is for; its status says how many those are. */
export const daemonset = allPodsReady(
  ({ desiredNumberScheduled: wanted = 0, updatedNumberScheduled, numberReady }) => ({
    wanted,
    all: wanted,
    updated: updatedNumberScheduled ?? 0,
    ready: numberReady ?? 0,
  }),
)
