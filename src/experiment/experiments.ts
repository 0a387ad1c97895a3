/** Every experiment by its name: what `lab/experiments.ts` says it shows, it does. */
import type { ExperimentName } from '../lab/experiments.js'
import type { Experiment } from './bench.js'
import * as deployment from './deployment.js'
import * as replicaset from './replicaset.js'
import * as statefulset from './statefulset.js'

export const experimentOf: Readonly<Record<ExperimentName, Experiment>> = {
  scale: deployment.scale,
  'rolling-update': deployment.rollingUpdate,
  'node-lost': deployment.nodeLost,
  prune: deployment.prune,
  'shared-volume': replicaset.sharedVolume,
  'pod-deleted': replicaset.podDeleted,
  'node-off': replicaset.nodeOff,
  'node-selector': replicaset.nodeSelector,
  ordering: statefulset.ordering,
  identity: statefulset.identity,
  'reverse-update': statefulset.reverseUpdate,
  partition: statefulset.partition,
  'on-delete': statefulset.onDelete,
  'delete-modes': statefulset.deleteModes,
  parallel: statefulset.parallel,
}
