/**
 * The experiments that a lab file may name: each does something to the cluster and watches what becomes of it.
 * What each does is in `src/course/`; here is what everybody must know to choose one.
 */
import type { Lab } from './lab.js'

/** By name, what it shows, in a sentence. */
export const experiments = {
  scale: 'A Deployment of 3 is scaled to 10 and back, and no pod that stays is touched',
  'rolling-update':
    'A Deployment of 10 is updated and undone: never fewer than 8 pods ready, never more than 13 there, and as far as that',
  'node-lost': "A Deployment's pod returns on another node after its node is stopped; a bare pod does not",
  prune: 'What a folder no longer says is removed by apply --prune, and nothing else',
  'shared-volume': 'Two containers of one pod share a volume, an address and a fate',
  'pod-deleted': 'A ReplicaSet of 5 replaces a pod that is deleted, at once and once',
  'node-off':
    'A node is powered off: its pods stay Terminating, as many others take their place, and Events say who made them',
  'node-selector':
    'Pods for the nodes of one type stay Pending when their only node is lost, say why, and run there when it is back',
  ordering: 'A StatefulSet makes its pods one after the other, and scales up and down in order',
  identity:
    'Pods of a StatefulSet keep their names, their DNS records and their volumes when they are deleted',
  'reverse-update': 'A StatefulSet updates its pods from the last to the first, one at a time',
  partition: 'An update is staged behind a partition, tried on one pod, and then let through',
  'on-delete': 'With OnDelete a pod is updated only when somebody deletes it',
  'delete-modes': 'Orphaned pods outlive their StatefulSet and are adopted by the next; cascaded ones do not',
  parallel: 'With Parallel, all pods of a StatefulSet are started and ended at the same time',
  'site-persists':
    'WordPress is set up, a post written and a file uploaded; both pods are deleted, and both are still there',
  ensemble:
    'Facts of each ZooKeeper server, a leader, and what is written outlives the StatefulSet and its pods',
  probes: 'A ZooKeeper server whose process ends, or whose probes fail, is restarted where it is',
  'ensemble-update':
    'A ZooKeeper ensemble is updated and undone, the last server first, and keeps its quorum',
  maintenance:
    'Nodes of a ZooKeeper ensemble are drained one by one, until its disruption budget refuses one',
  ring: 'A Cassandra ring of 3 grows to 4: every member sees all as up and normal, and a row is read at QUORUM',
  'member-lost': 'A member of a Cassandra ring is lost: rows are written and read at QUORUM all the same',
} as const

export type ExperimentName = keyof typeof experiments

export const experimentNames = Object.keys(experiments) as [ExperimentName, ...ExperimentName[]]

/** What `lab run` can do with a lab, in the order of its file. */
export const runsOf = ({
  scenarios,
  experiments: named,
}: Pick<Lab, 'scenarios' | 'experiments'>): readonly {
  readonly name: string
  readonly description: string
}[] => [
  ...scenarios.map(({ name, description }) => ({ name, description })),
  ...named.map((name) => ({ name, description: experiments[name] })),
]
