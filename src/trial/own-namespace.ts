/**
 * The namespace of an experiment. On a cluster that somebody else made, only objects of this lab are touched: a
 * namespace names its owner, and one that was made in advance is emptied instead of deleted.
 */
import { z } from 'zod'
import type { Context } from '../context.js'
import { exitCodes, LabError } from '../error.js'
import { undoAct } from '../fault/undo-act.js'
import type { Undo } from '../journal.js'
import type { ExistingCluster } from '../lab/lab.js'
import type { Kubectl } from '../machine/kubectl.js'
import { givenLabels } from './rights.js'

/** Seconds for everything in a namespace to end. */
const longest = 180

/** The annotation of a namespace, and the name of a ConfigMap in one that was provided, that name the owner. */
const ownerAnnotation = 'lab/owner'
const ownerMap = 'lab-owner'

/** Kinds that experiments make. */
const kinds = [
  'statefulsets.apps',
  'deployments.apps',
  'replicasets.apps',
  'pods',
  'services',
  'persistentvolumeclaims',
] as const

interface NamespaceObject {
  readonly metadata: {
    readonly labels?: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
  }
}

/** Undefined: it does not exist. */
const objectIfThere = async <T>(kubectl: Kubectl, args: readonly string[]): Promise<T | undefined> => {
  const said = await kubectl.run(['get', ...args, '--ignore-not-found', '-o', 'json'])
  return said.trim() === '' ? undefined : (JSON.parse(said) as T)
}

const ownerOfGiven = async (kubectl: Kubectl, namespace: string): Promise<string | undefined> =>
  (
    await objectIfThere<{ readonly data?: { readonly owner?: string } }>(kubectl, [
      'configmap',
      ownerMap,
      '--namespace',
      namespace,
    ])
  )?.data?.owner

/** Deletes a namespace with its content. The machine in the journal is that of the API server. */
export const deletingNamespace = undoAct(
  'delete-namespace',
  { namespace: z.string(), owner: z.string().optional() },
  async ({ kubectl }, { namespace, owner }) => {
    if (owner !== undefined) {
      const found = await objectIfThere<NamespaceObject>(kubectl, ['namespace', namespace])
      if (found?.metadata.annotations?.[ownerAnnotation] !== owner) return
    }
    await kubectl.run(['delete', 'namespace', namespace, '--ignore-not-found'], { timeout: longest })
  },
)

/** Deletes what experiments made in a namespace that existed before. */
export const emptyingNamespace = undoAct(
  'empty-namespace',
  { namespace: z.string(), owner: z.string() },
  async ({ kubectl }, { namespace, owner }) => {
    if ((await ownerOfGiven(kubectl, namespace)) !== owner) return
    await kubectl.run(['delete', kinds.join(','), '--all', '--namespace', namespace], { timeout: longest })
    await kubectl.run(['delete', 'configmap', ownerMap, '--namespace', namespace, '--ignore-not-found'])
  },
)

const refuse = (namespace: string, why: string, hint: string): LabError =>
  new LabError('namespace-taken', `the namespace ${namespace} ${why}; nothing in it was touched`, {
    hint,
    exitCode: exitCodes.host,
  })

/** The relation of a namespace of somebody else's cluster to this lab. */
export type NamespaceState = 'absent' | 'given' | 'foreign'

export const namespaceState = async (kubectl: Kubectl, namespace: string): Promise<NamespaceState> => {
  const found = await objectIfThere<NamespaceObject>(kubectl, ['namespace', namespace])
  if (!found) return 'absent'
  return Object.entries(givenLabels).every(([key, value]) => found.metadata.labels?.[key] === value)
    ? 'given'
    : 'foreign'
}

const takeOfCluster = async (
  { kubectl, lab }: Context,
  { owner }: ExistingCluster,
  namespace: string,
  undoLater: (undo: Undo) => Promise<void>,
): Promise<void> => {
  const state = await namespaceState(kubectl, namespace)
  if (state === 'foreign')
    throw refuse(namespace, 'exists already', `kubectl get all --namespace ${namespace}`)
  if (state === 'absent') {
    await undoLater(deletingNamespace.of('', { namespace, owner }))
    await kubectl.run(['create', '-f', '-'], {
      input: JSON.stringify({
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: {
          name: namespace,
          labels: { 'app.kubernetes.io/managed-by': 'lab' },
          annotations: { [ownerAnnotation]: owner },
        },
      }),
    })
    return
  }
  const { items } = await kubectl.get<{ items: readonly object[] }>(kinds.join(','), '--namespace', namespace)
  const holder = await ownerOfGiven(kubectl, namespace)
  if (holder !== undefined && holder !== owner)
    throw refuse(namespace, 'is used by another lab', `kubectl get all --namespace ${namespace}`)
  if (items.length > 0 && holder === undefined)
    throw refuse(
      namespace,
      `already has ${String(items.length)} objects`,
      `kubectl get all --namespace ${namespace}`,
    )
  if (holder === owner) throw refuse(namespace, 'has objects of an earlier run', `lab heal ${lab.name}`)
  await undoLater(emptyingNamespace.of('', { namespace, owner }))
  await kubectl.run(['create', '-f', '-'], {
    input: JSON.stringify({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: ownerMap, namespace },
      data: { owner, lab: lab.name },
    }),
  })
}

/**
 * Makes the namespace of an experiment, or uses one that was provided.
 * @param machine of the API server, for the journal; empty: it is not on one of the lab's machines
 * @throws LabError `namespace-taken` if it belongs to somebody else; then nothing was touched
 */
export const takeNamespace = async (
  context: Context,
  namespace: string,
  machine: string,
  undoLater: (undo: Undo) => Promise<void>,
): Promise<void> => {
  const { cluster } = context.lab
  if (cluster) return takeOfCluster(context, cluster, namespace, undoLater)
  await undoLater(deletingNamespace.of(machine, { namespace }))
  await context.kubectl.run(['create', 'namespace', namespace])
}
