/** Every experiment that a lab file can name, in the order in which its schema lists them. */
import type { Experiment } from '../trial/experiment-context.js'
import * as cassandra from './cassandra.js'
import * as deployment from './deployment.js'
import { maintenance } from './maintenance.js'
import { nodeSelector } from './node-selector.js'
import * as replicaset from './replicaset.js'
import * as statefulset from './statefulset.js'
import * as updates from './statefulset-updates.js'
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
  nodeSelector,
  statefulset.ordering,
  statefulset.identity,
  updates.reverseUpdate,
  updates.partition,
  updates.onDelete,
  statefulset.deleteModes,
  statefulset.parallel,
  wordpress.sitePersists,
  zookeeper.ensemble,
  zookeeper.probes,
  zookeeper.ensembleUpdate,
  maintenance,
  cassandra.ring,
  cassandra.memberLost,
]
