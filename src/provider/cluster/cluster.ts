/**
 * An existing cluster: its nodes are the lab's machines, and only kubectl reaches it. Nothing is made but the objects
 * of runs and faults, in their own namespaces.
 */
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import type { LabId } from '../../identity.js'
import type { Lab } from '../../lab/lab.js'
import { dialDirectly } from '../../machine/dial.js'
import { messageOf } from '../../error.js'
import { kubectlWith } from '../../machine/kubectl.js'
import { deleteNamespace, emptyNamespace, isHeld } from '../../machine/owned-namespace.js'
import { builtKubectl } from '../../parts/parts.js'
import { pathsOf, removeState } from '../../state.js'
import type { Leftover, MachineState, Provider } from '../provider.js'
import { type KeptCluster, keptCluster } from './lab-record.js'

interface NodeStatus {
  readonly metadata: { readonly name: string }
  readonly status: {
    readonly conditions: readonly {
      readonly type: string
      readonly status: string
      readonly message?: string
    }[]
    readonly nodeInfo: { readonly bootID: string }
  }
}

const states = async (lab: Lab): Promise<readonly MachineState[]> => {
  const { items } = await kubectlOf(lab).get<{ items: readonly NodeStatus[] }>('nodes')
  return lab.machines.map(({ name }): MachineState => {
    const node = items.find(({ metadata }) => metadata.name === name)
    if (!node) return { name, status: 'absent', detail: 'the cluster has no such node' }
    const ready = node.status.conditions.find(({ type }) => type === 'Ready')
    return ready?.status === 'True'
      ? { name, status: 'running', detail: `boot ${node.status.nodeInfo.bootID}` }
      : { name, status: 'stopped', detail: `not ready: ${ready?.message ?? 'no condition Ready'}` }
  })
}

const kubectlOf = (lab: LabId) =>
  kubectlWith(builtKubectl() ?? 'kubectl', pathsOf(lab).kubeconfig, new AbortController().signal)

/** What runs have left on the cluster according to the journal, and what `up` deployed. */
const leftOnCluster = async (lab: LabId, { namespace, owner }: KeptCluster): Promise<readonly Leftover[]> => {
  const { faults, root } = pathsOf(lab)
  const forGood = `if the cluster is gone for good: rm -r ${root}`
  const open = (await readdir(faults).catch(() => [])).filter((name) => name.endsWith('.json'))
  const held =
    namespace === undefined
      ? false
      : await isHeld(kubectlOf(lab), namespace, owner).catch((error: unknown) => messageOf(error))
  return [
    ...(open.length > 0
      ? [
          {
            kind: 'object',
            what: `${String(open.length)} changes of a run are still on the cluster: lab heal ${lab.name}; ${forGood}`,
          } as const,
        ]
      : []),
    ...(held === false
      ? []
      : [
          {
            kind: 'object',
            what: `the database in the namespace ${namespace ?? ''}${held === true ? '' : ` may still be there: ${held}`}; ${forGood}`,
          } as const,
        ]),
  ]
}

/** Removes what `up` deployed: with its namespace, or, if that was provided, from it. */
const removeDeployed = async (lab: LabId, { namespace, owner }: KeptCluster): Promise<void> => {
  if (namespace === undefined) return
  await deleteNamespace(kubectlOf(lab), namespace, owner)
  await emptyNamespace(kubectlOf(lab), namespace, owner, true)
}

export const clusterProvider: Provider = {
  name: 'cluster',
  withoutSsh: 'cannot reach nodes over SSH',
  probe: () =>
    Promise.resolve({
      usable: false,
      evidence: 'an existing cluster is used only if it is named',
      remedy: 'lab up LAB --kubeconfig FILE',
    }),
  preflight: async (lab) =>
    (await keptCluster(lab))
      ? []
      : [
          {
            problem: `${lab.name} has no cluster yet: neither it nor the memory of its nodes is known`,
            hint: `lab up ${lab.name} --kubeconfig FILE`,
          },
        ],
  prepare: () => Promise.resolve(),
  states,
  dial: (_lab, host, port) => dialDirectly(host, port),
  destroy: async (lab) => {
    const kept = await keptCluster(lab)
    if (!kept) return
    await removeDeployed(lab, kept)
    if ((await leftOnCluster(lab, kept)).length === 0) await removeState(pathsOf(lab))
  },
  leftovers: async (lab) => {
    const kept = await keptCluster(lab)
    return kept
      ? [
          ...(await leftOnCluster(lab, kept)),
          ...(existsSync(pathsOf(lab).root) ? [{ kind: 'file', what: pathsOf(lab).root } as const] : []),
        ]
      : []
  },
}

export const makeProvider = (): Provider => clusterProvider
