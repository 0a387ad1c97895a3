import { allPodsReady, replicas } from './pods.js'

export const statefulset = allPodsReady(replicas)
