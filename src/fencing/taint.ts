/**
 * The taint `out-of-service`, set on and removed from a node. Every change names the version of the node on which it
 * was decided, and removing the taint always changes the node: the API server refuses a taint that was requested
 * earlier and arrives later.
 */
import { conflict, LabError } from '../error.js'
import { type Kubectl, objectIfThere } from '../machine/kubectl.js'

/** The taint that says that the pods of a node run nowhere, so that they may be replaced at once. */
export const outOfService = 'node.kubernetes.io/out-of-service'

interface Taint {
  readonly key: string
  readonly value?: string
  readonly effect: string
}

interface NodeObject {
  readonly metadata: { readonly resourceVersion: string }
  readonly spec: { readonly taints?: readonly Taint[] }
}

/** When the taint was last removed. Nobody reads it, but it makes a new version of the node. */
const annotation = 'lab/returned-to-service'

/** Timeout of a request to the API server, in seconds. */
const timeout = 10

/** Attempts to update a node that others change at the same time, such as the node controller for a lost node. */
const tries = 10

const setTaints = async (
  kubectl: Kubectl,
  node: string,
  change: (taints: readonly Taint[]) => { readonly taints: readonly Taint[]; readonly note?: string },
  go: () => boolean,
): Promise<boolean> => {
  for (let attempt = 1; ; attempt++) {
    const found = await objectIfThere<NodeObject>(kubectl, ['node', node], { timeout })
    if (!found || !go()) return false
    const { metadata, spec } = found
    const { taints, note } = change(spec.taints ?? [])
    const patch = {
      metadata: {
        resourceVersion: metadata.resourceVersion,
        ...(note === undefined ? {} : { annotations: { [annotation]: note } }),
      },
      spec: { taints: taints.length > 0 ? taints : null },
    }
    try {
      await kubectl.run(['patch', 'node', node, '--type=merge', '--patch', JSON.stringify(patch)], {
        timeout,
      })
      return true
    } catch (error) {
      if (!(error instanceof LabError && error.code === conflict) || attempt >= tries) throw error
    }
  }
}

const isOurs = ({ key }: Taint): boolean => key === outOfService

/**
 * Tells Kubernetes that the pods of a node run nowhere.
 * @param go asked once more before the change whether it is still wanted
 * @throws if the API server did not confirm it
 */
export const putOutOfService = async (kubectl: Kubectl, node: string, go: () => boolean): Promise<void> => {
  const done = await setTaints(
    kubectl,
    node,
    (taints) => ({
      taints: [
        ...taints.filter((taint) => !isOurs(taint)),
        { key: outOfService, value: 'nodeshutdown', effect: 'NoExecute' },
      ],
    }),
    go,
  )
  if (!done)
    throw new Error(`${node} was not tainted: Kubernetes has no such node, or the taint is no longer needed`)
}

/** Allows pods on the node again. Does nothing if Kubernetes has no such node. */
export const returnToService = async (kubectl: Kubectl, node: string): Promise<void> => {
  await setTaints(
    kubectl,
    node,
    (taints) => ({ taints: taints.filter((taint) => !isOurs(taint)), note: new Date().toISOString() }),
    () => true,
  )
}
