/**
 * Namespaces on a cluster that somebody else made. Only objects of this lab are touched: a namespace names its owner,
 * and one that an administrator made in advance is emptied instead of deleted.
 */
import { exitCodes, LabError } from '../error.js'
import { type Kubectl, objectIfThere } from './kubectl.js'

/** Labels of a namespace that somebody made for lab to use. */
export const givenLabels = { 'app.kubernetes.io/managed-by': 'lab', 'lab/given': 'true' } as const

/** The label of what lab made. */
export const madeByLab = { 'app.kubernetes.io/managed-by': 'lab' } as const

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

/** Who uses a namespace. */
export interface Owner {
  /** No other lab has it. */
  readonly owner: string
  /** The name of the lab, for people. */
  readonly lab: string
}

interface NamespaceObject {
  readonly metadata: {
    readonly labels?: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
  }
}

/** The relation of a namespace of somebody else's cluster to a lab. `own`: this lab made it. */
export type NamespaceState = 'absent' | 'given' | 'own' | 'foreign'

/** @param owner of this lab; absent: no namespace counts as its own */
export const namespaceState = async (
  kubectl: Kubectl,
  namespace: string,
  owner?: string,
): Promise<NamespaceState> => {
  const found = await objectIfThere<NamespaceObject>(kubectl, ['namespace', namespace])
  if (!found) return 'absent'
  if (owner !== undefined && found.metadata.annotations?.[ownerAnnotation] === owner) return 'own'
  return Object.entries(givenLabels).every(([key, value]) => found.metadata.labels?.[key] === value)
    ? 'given'
    : 'foreign'
}

/** The owner that a ConfigMap in a provided namespace names. */
const ownerOfGiven = async (kubectl: Kubectl, namespace: string): Promise<string | undefined> =>
  (
    await objectIfThere<{ readonly data?: { readonly owner?: string } }>(kubectl, [
      'configmap',
      ownerMap,
      '--namespace',
      namespace,
    ])
  )?.data?.owner

/** Whether this lab uses the namespace now. */
export const isHeld = async (kubectl: Kubectl, namespace: string, owner: string): Promise<boolean> => {
  const state = await namespaceState(kubectl, namespace, owner)
  return state === 'own' || (state === 'given' && (await ownerOfGiven(kubectl, namespace)) === owner)
}

const refuse = (namespace: string, why: string, hint: string): LabError =>
  new LabError('namespace-taken', `the namespace ${namespace} ${why}; nothing in it was touched`, {
    hint,
    exitCode: exitCodes.host,
  })

/**
 * Makes a namespace, or uses one that was provided and is empty.
 * @param before called with the state before anything is changed, to record the undo
 * @throws LabError `namespace-taken` if it belongs to somebody else, or has objects of an earlier run; then nothing was
 * touched
 */
export const takeNamespace = async (
  kubectl: Kubectl,
  namespace: string,
  { owner, lab }: Owner,
  before: (state: 'absent' | 'given') => Promise<void>,
): Promise<void> => {
  const state = await namespaceState(kubectl, namespace)
  if (state === 'foreign' || state === 'own')
    throw refuse(namespace, 'exists already', `kubectl get all --namespace ${namespace}`)
  if (state === 'absent') {
    await before(state)
    await kubectl.run(['create', '-f', '-'], {
      input: JSON.stringify({
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: namespace, labels: madeByLab, annotations: { [ownerAnnotation]: owner } },
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
  if (holder === owner) throw refuse(namespace, 'has objects of an earlier run', `lab heal ${lab}`)
  await before(state)
  await kubectl.run(['create', '-f', '-'], {
    input: JSON.stringify({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: ownerMap, namespace },
      data: { owner, lab },
    }),
  })
}

/** Deletes a namespace with its content. @param owner only if it is this lab's; absent: in any case */
export const deleteNamespace = async (kubectl: Kubectl, namespace: string, owner?: string): Promise<void> => {
  if (owner !== undefined && (await namespaceState(kubectl, namespace, owner)) !== 'own') return
  await kubectl.run(['delete', 'namespace', namespace, '--ignore-not-found'], { timeout: longest })
}

/**
 * Deletes what this lab made in a namespace that existed before.
 * @param deployed whether `lab up` deployed something there, and not only an experiment
 */
export const emptyNamespace = async (
  kubectl: Kubectl,
  namespace: string,
  owner: string,
  deployed = false,
): Promise<void> => {
  if ((await ownerOfGiven(kubectl, namespace)) !== owner) return
  const within = ['--namespace', namespace]
  const all = deployed ? ['daemonsets.apps', ...kinds] : kinds
  await kubectl.run(['delete', all.join(','), '--all', ...within], { timeout: longest })
  // Others may keep secrets there, such as one for a registry.
  const label = Object.entries(madeByLab).map(([key, value]) => `${key}=${value}`)
  if (deployed)
    await kubectl.run(['delete', 'secrets,configmaps', '--selector', label.join(','), ...within], {
      timeout: longest,
    })
  await kubectl.run(['delete', 'configmap', ownerMap, ...within, '--ignore-not-found'])
}
