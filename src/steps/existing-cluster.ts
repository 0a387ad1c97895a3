/** The steady state of a cluster that somebody else made: its API server answers, and its nodes are as before. */
import type { Step } from '../context.js'
import type { Lab } from '../lab/lab.js'
import { shared } from './checks.js'
import { nodes } from './nodes.js'

const phase = 'cluster'

const versions = shared(
  async ({ kubectl }) =>
    (JSON.parse(await kubectl.run(['get', '--raw', '/version'])) as { gitVersion: string }).gitVersion,
)

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
