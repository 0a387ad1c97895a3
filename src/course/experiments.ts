/** Every experiment that a lab file can name, in the order in which its schema lists them. */
import type { Experiment } from '../trial/experiment-context.js'
import * as cassandra from './cassandra.js'
import * as deployment from './deployment.js'
import * as replicaset from './replicaset.js'
import * as statefulset from './statefulset.js'
import * as wordpress from './wordpress.js'
import * as zookeeper from './zookeeper.js'

export const experiments: readonly Experiment[] = [
  deployment.scale,
  deployment.rollingUpdate,
  deployment.nodeLost,
  deployment.prune,
  replicaset.sharedVolume,
  replicaset.podDeleted,
  replicaset.nodeOff,
  replicaset.nodeSelector,
  statefulset.ordering,
  statefulset.identity,
  statefulset.reverseUpdate,
  statefulset.partition,
  statefulset.onDelete,
  statefulset.deleteModes,
  statefulset.parallel,
  wordpress.sitePersists,
  zookeeper.ensemble,
  zookeeper.probes,
  zookeeper.ensembleUpdate,
  zookeeper.maintenance,
  cassandra.ring,
  cassandra.memberLost,
]
