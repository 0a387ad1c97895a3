/** Every experiment by its name: what `lab/experiments.ts` says it shows, it does. */
import type { ExperimentName } from '../lab/experiments.js'
import type { Experiment } from '../trial/experiment.js'
import * as cassandra from './cassandra.js'
import * as deployment from './deployment.js'
import * as replicaset from './replicaset.js'
import * as statefulset from './statefulset.js'
import * as wordpress from './wordpress.js'
import * as zookeeper from './zookeeper.js'

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
  'site-persists': wordpress.sitePersists,
  ensemble: zookeeper.ensemble,
  probes: zookeeper.probes,
  'ensemble-update': zookeeper.ensembleUpdate,
  maintenance: zookeeper.maintenance,
  ring: cassandra.ring,
  'member-lost': cassandra.memberLost,
}
