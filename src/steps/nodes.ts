/** Nodes: what the API server and their own machines report, and the steps that make them ready. */
import {
  type KubernetesSpec,
  type Lab,
  type MachineSpec,
  machinesWith,
  nodesOf,
  podRangeOf,
} from '../lab/lab.js'
import { type Command, shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import { messageOf } from '../error.js'
import type { Verdict } from '../plan/step.js'
import { outOfService } from '../fencing/taint.js'
import { journalHint, serviceCheck, shared } from './checks.js'

const phase = 'kubernetes'

export interface Condition {
  readonly type: string
  readonly status: string
  readonly reason?: string
  readonly message?: string
  /** When the kubelet last reported it, by its machine's clock: ISO 8601, whole seconds. */
  readonly lastHeartbeatTime?: string
}

interface Node {
  readonly metadata: { readonly name: string }
  readonly spec: {
    readonly podCIDR?: string
    readonly unschedulable?: boolean
    readonly taints?: readonly { readonly key: string; readonly effect: string }[]
  }
  readonly status: {
    readonly addresses: readonly { readonly type: string; readonly address: string }[]
    readonly conditions: readonly Condition[]
    readonly nodeInfo: {
      readonly bootID: string
      readonly kubeletVersion: string
      readonly containerRuntimeVersion: string
    }
  }
}

export interface List<T> {
  readonly items: readonly T[]
}

export const nodes = shared(async ({ kubectl }) => (await kubectl.get<List<Node>>('nodes')).items)

/** Milliseconds for which a boot ID may be reused: a reboot takes longer. */
const bootFreshFor = 2000

/** Why a node did not answer. */
export class Silence {
  readonly reason: string
  constructor(reason: string) {
    this.reason = reason
  }
}

/**
 * Timeout of a node's short answer in seconds. All checks of a machine ask at the same time, and on two processors
 * with a load of 15 a node was late within 5 s; with a longer timeout, a node without power would delay every check.
 */
const answerWithin = 10

/** The output of a command on each node, by name; or why a node did not answer. */
export const onNodes = async <T>(
  context: Context,
  command: Command,
  read: (output: string) => T,
): Promise<ReadonlyMap<string, T | Silence>> =>
  new Map(
    await Promise.all(
      nodesOf(context.lab).map(async ({ name }): Promise<readonly [string, T | Silence]> => {
        try {
          const options = { signal: context.signal, timeout: answerWithin }
          return [name, read((await context.machine(name).run(command, options)).trim())]
        } catch (error) {
          return [name, new Silence(messageOf(error))]
        }
      }),
    ),
  )

/** The ID of each node's present boot, from its kernel. */
const boots = shared(
  (context) => onNodes(context, shell`cat /proc/sys/kernel/random/boot_id`, (output) => output),
  bootFreshFor,
)

/** When each node's kubelet was last started, by the node's clock: milliseconds since 1970, whole seconds. */
const kubeletStarts = shared((context) =>
  onNodes(
    context,
    shell`systemctl show --property=ActiveEnterTimestamp --timestamp=unix --value kubelet`,
    (output) => Number(output.replace('@', '')) * 1000,
  ),
)

export const startContainerd = (lab: Lab, machine: MachineSpec): Step => ({
  id: `start-containerd-${machine.name}`,
  title: `Start containerd on ${machine.name}`,
  phase,
  machine: machine.name,
  needs: [`configure-${machine.name}`],
  apply: async (context) => {
    // A kubelet that already runs polls its runtime every 5 s and reports every 10 s, so it may stay not ready long
    // after containerd is back; a restarted kubelet reports at once. A new cluster has no kubelet yet.
    await context
      .machine(machine.name)
      .run(shell`systemctl start containerd && systemctl try-restart kubelet`, { signal: context.signal })
  },
  checks: [serviceCheck(lab, machine, 'containerd')],
})

export const registered = (lab: Lab, machine: MachineSpec): Check => ({
  id: `${machine.name}-registered`,
  title: `${machine.name} is a node of the cluster`,
  machine: machine.name,
  within: 60,
  hint: journalHint(lab, machine.name, 'kubelet'),
  probe: async (context) => {
    const node = (await nodes(context)).find(({ metadata }) => metadata.name === machine.name)
    return { ok: node !== undefined, saw: node ? 'registered' : 'no such node' }
  },
})

/** Deletes nodes whose machine is no longer in the lab file. They were drained when the machine was removed. */
export const forgetNodes = (lab: Lab): Step => {
  const strangers = async (context: Context): Promise<readonly string[]> =>
    (await nodes(context))
      .map(({ metadata }) => metadata.name)
      .filter((name) => !nodesOf(lab).some((machine) => machine.name === name))
  return {
    id: 'forget-nodes',
    title: 'Remove nodes that are not in the lab file',
    phase,
    needs: ['init-control-plane'],
    apply: async (context) => {
      const names = await strangers(context)
      if (names.length > 0) await context.kubectl.run(['delete', 'node', '--ignore-not-found', ...names])
    },
    checks: [
      {
        id: 'nodes-known',
        title: 'every node of the cluster is a machine of the lab',
        within: 20,
        hint: `lab kubectl ${lab.name} -- get nodes`,
        probe: async (context) => {
          const names = await strangers(context)
          return { ok: names.length === 0, saw: names.join(', ') || 'no others' }
        },
      },
    ],
  }
}

/**
 * Accepts Ready only if the kubelet has reported it since its last start. The API server keeps Ready=True for 40 s
 * after a node is gone, and across a reboot or a restart of the kubelet until the kubelet reports again.
 */
const judgeReady = async ({ metadata: { name }, status }: Node, context: Context): Promise<Verdict> => {
  const [known, starts] = await Promise.all([boots(context), kubeletStarts(context)])
  const boot = known.get(name)
  const started = starts.get(name)
  for (const answer of [boot, started])
    if (answer instanceof Silence) return { ok: false, saw: `${name} does not answer: ${answer.reason}` }
  if (boot !== status.nodeInfo.bootID)
    return { ok: false, saw: `its kubelet has not reported since ${name} was switched on` }
  const ready = status.conditions.find(({ type }) => type === 'Ready')
  if (!ready) return { ok: false, saw: 'no Ready condition' }
  if (!(Date.parse(ready.lastHeartbeatTime ?? '') >= Number(started)))
    return { ok: false, saw: 'its kubelet has not reported since it was started' }
  const ok = ready.status === 'True'
  return {
    ok,
    saw: `Ready=${ready.status}, ${ready.reason ?? ''}${ok ? '' : `: ${ready.message ?? ''}`}`,
  }
}

/** kubeadm's taint, which keeps pods off the control plane. */
const ownTaint = 'node-role.kubernetes.io/control-plane'
/** Taints that Kubernetes sets and removes by itself have this prefix. So does out-of-service, which a person sets. */
const byItself = 'node.kubernetes.io/'

/** The taints that somebody has set and left, as `kubectl taint` takes them: `key:effect`. */
const foreignTaints = ({ spec }: Node): readonly string[] =>
  (spec.taints ?? [])
    .filter(({ key }) => key !== ownTaint && (key === outOfService || !key.startsWith(byItself)))
    .map(({ key, effect }) => `${key}:${effect}`)

/** The id of the check for a node's versions. */
export const nodeVersionCheck = (node: string): string => `${node}-version`

const nodeChecks = (
  lab: Lab,
  machine: MachineSpec,
  kubernetes: KubernetesSpec,
): readonly [Check, ...Check[]] => {
  const range = podRangeOf(lab, machine)
  const check = (
    id: string,
    title: string,
    judge: (node: Node, context: Context) => Verdict | Promise<Verdict>,
  ): Check => ({
    id,
    title,
    machine: machine.name,
    within: 90,
    hint: `lab kubectl ${lab.name} -- describe node ${machine.name}`,
    probe: async (context) => {
      const node = (await nodes(context)).find(({ metadata }) => metadata.name === machine.name)
      return node ? judge(node, context) : { ok: false, saw: 'no such node' }
    },
  })
  return [
    check(`${machine.name}-ready`, `node ${machine.name} is Ready`, judgeReady),
    check(`${machine.name}-schedulable`, `node ${machine.name} takes pods`, (node) => {
      const taints = foreignTaints(node)
      const saw = [
        ...(node.spec.unschedulable ? ['cordoned'] : []),
        ...taints.map((taint) => `tainted ${taint}`),
      ]
      return { ok: saw.length === 0, saw: saw.join(', ') || 'neither cordoned nor tainted' }
    }),
    check(
      nodeVersionCheck(machine.name),
      `node ${machine.name} runs Kubernetes ${kubernetes.version}`,
      ({ status }) => ({
        ok: status.nodeInfo.kubeletVersion === `v${kubernetes.version}`,
        saw: `kubelet ${status.nodeInfo.kubeletVersion}, ${status.nodeInfo.containerRuntimeVersion}`,
      }),
    ),
    check(
      `${machine.name}-address`,
      `node ${machine.name} is ${machine.address} on the lab's network`,
      ({ status }) => {
        const address = status.addresses.find(({ type }) => type === 'InternalIP')?.address
        return { ok: address === machine.address, saw: `InternalIP ${address ?? 'not set'}` }
      },
    ),
    check(`${machine.name}-pod-range`, `pods of ${machine.name} get addresses of ${range}`, ({ spec }) => ({
      ok: spec.podCIDR === range,
      saw: `podCIDR ${spec.podCIDR ?? 'not set'}`,
    })),
  ]
}

/** The lab, not the controller manager, gives a node its pod range: it is known before the node exists. */
export const readyNode = (lab: Lab, machine: MachineSpec, kubernetes: KubernetesSpec): Step => ({
  id: `ready-${machine.name}`,
  title: `Check that node ${machine.name} is ready`,
  phase,
  machine: machine.name,
  needs: [
    // The first control plane makes the cluster; all others join it.
    machine === machinesWith(lab, 'control-plane')[0] ? 'init-control-plane' : `join-${machine.name}`,
    `route-pods-${machine.name}`,
  ],
  apply: async ({ kubectl }) => {
    const range = podRangeOf(lab, machine)
    const node = await kubectl.get<Node>('node', machine.name)
    if (node.spec.podCIDR === undefined)
      await kubectl.run([
        'patch',
        'node',
        machine.name,
        '--type=merge',
        '--patch',
        JSON.stringify({ spec: { podCIDR: range, podCIDRs: [range] } }),
      ])
    if (node.spec.unschedulable === true) await kubectl.run(['uncordon', machine.name])
    for (const taint of foreignTaints(node)) await kubectl.run(['taint', 'node', machine.name, `${taint}-`])
  },
  checks: nodeChecks(lab, machine, kubernetes),
})
