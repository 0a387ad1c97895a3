/**
 * A lab on a cluster that somebody else made. The steady state: its API server answers, its nodes are as before, and the
 * lab's own namespace has what `lab up` deploys.
 */
import type { Step } from '../context.js'
import type { Lab } from '../lab/lab.js'
import { serverVersion } from '../machine/kubectl.js'
import { isHeld, takeNamespace } from '../machine/owned-namespace.js'
import { shared } from './checks.js'
import { type List, nodes } from './nodes.js'

const phase = 'cluster'

const versions = shared(({ kubectl }) => serverVersion(kubectl))

/** Makes the namespace of what `lab up` deploys. `lab down` removes it: the lab's record names it. */
const takeHome = ({ name, cluster }: Lab, namespace: string): Step => ({
  id: 'take-namespace',
  title: `Take the namespace ${namespace}`,
  phase,
  needs: ['reach-cluster'],
  apply: ({ kubectl }) =>
    takeNamespace(kubectl, namespace, { owner: cluster?.owner ?? '', lab: name }, () => Promise.resolve()),
  checks: [
    {
      id: 'namespace-taken',
      title: `the namespace ${namespace} is this lab's`,
      within: 30,
      hint: `lab kubectl ${name} -- describe namespace ${namespace}`,
      probe: async ({ kubectl }) => {
        const ours = await isHeld(kubectl, namespace, cluster?.owner ?? '')
        return { ok: ours, saw: ours ? 'it is' : 'it is not there, or is not used by this lab' }
      },
    },
  ],
})

/** The class that the database's claim names; the administrator of the cluster made it. */
const findStorage = ({ name, cluster }: Lab): Step => ({
  id: 'provide-storage',
  title: `Find the storage class ${cluster?.storageClass ?? ''}`,
  phase,
  needs: ['take-namespace'],
  checks: [
    {
      id: 'storage-class',
      title: `the cluster has the storage class ${cluster?.storageClass ?? ''}`,
      within: 15,
      hint: `lab up ${name} --kubeconfig FILE --storage-class NAME`,
      probe: async ({ kubectl }) => {
        const { items } =
          await kubectl.get<List<{ readonly metadata: { readonly name: string } }>>('storageclasses')
        const names = items.map(({ metadata }) => metadata.name)
        return { ok: names.includes(cluster?.storageClass ?? ''), saw: names.join(', ') || 'none' }
      },
    },
  ],
})

/** Where what `lab up` deploys belongs; nothing if it deploys nothing. */
export const homeSteps = (lab: Lab): readonly Step[] => {
  const namespace = lab.cluster?.namespace
  return namespace === undefined ? [] : [takeHome(lab, namespace), findStorage(lab)]
}

export const existingClusterSteps = (lab: Lab): readonly Step[] => [
  {
    id: 'reach-cluster',
    title: `Reach the API server at ${lab.cluster?.server ?? ''}`,
    phase,
    needs: [],
    checks: [
      {
        id: 'cluster-answers',
        title: 'the API server answers',
        within: 15,
        hint: `lab kubectl ${lab.name} -- version`,
        probe: async (context) => ({ ok: true, saw: `Kubernetes ${await versions(context)}` }),
      },
    ],
  },
  ...lab.machines.map((machine): Step => ({
    id: `ready-${machine.name}`,
    title: `Check that node ${machine.name} is ready`,
    phase,
    machine: machine.name,
    needs: ['reach-cluster'],
    checks: [
      {
        id: `${machine.name}-node-ready`,
        title: `node ${machine.name} is Ready${machine.role === 'worker' ? ', and accepts pods' : ''}`,
        machine: machine.name,
        within: 60,
        hint: `lab kubectl ${lab.name} -- describe node ${machine.name}`,
        probe: async (context) => {
          const node = (await nodes(context)).find(({ metadata }) => metadata.name === machine.name)
          if (!node) return { ok: false, saw: 'the cluster has no such node' }
          const ready = node.status.conditions.find(({ type }) => type === 'Ready')
          const cordoned = machine.role === 'worker' && node.spec.unschedulable === true
          return {
            ok: ready?.status === 'True' && !cordoned,
            saw: `Ready ${ready?.status ?? 'not reported'}${cordoned ? ', cordoned' : ''}, ${node.status.nodeInfo.kubeletVersion}`,
          }
        },
      },
    ],
  })),
]
