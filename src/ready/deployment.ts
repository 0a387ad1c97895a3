import { allPodsReady, replicas } from './pods.js'

export const deployment = allPodsReady(replicas)
