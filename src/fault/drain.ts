import { setTimeout as delay } from 'node:timers/promises'
import type { Context } from '../context.js'
import { LabError } from '../error.js'
import { where } from '../lab/fault-machines.js'
import { faultOfMachine } from './fault.js'
import { ofAll, reunion, type Sign, soon } from './sign.js'
import { undoAct } from './undo-act.js'

/** Milliseconds between two attempts to evict a pod that a disruption budget protects. */
const pause = 1000

/** Seconds that a drain may take: a pod that does not end in time is a finding, not a reason to wait forever. */
const drainDeadline = 120

export const uncordoning = undoAct('uncordon', {}, async ({ kubectl }, { machine }) => {
  await kubectl.run(['uncordon', machine])
})

interface NodeObject {
  readonly spec: { readonly unschedulable?: boolean }
}

interface PodList {
  readonly items: readonly {
    readonly metadata: {
      readonly name: string
      readonly deletionTimestamp?: string
      readonly annotations?: Readonly<Record<string, string>>
      readonly ownerReferences?: readonly { readonly kind: string }[]
    }
    readonly status: { readonly phase?: string }
  }[]
}

/** The pods that a drain leaves: those of DaemonSets, static pods, and pods that have ended. */
const staysOn = ({ metadata, status }: PodList['items'][number]): boolean =>
  metadata.ownerReferences?.some(({ kind }) => kind === 'DaemonSet' || kind === 'Node') === true ||
  metadata.annotations?.['kubernetes.io/config.mirror'] !== undefined ||
  status.phase === 'Succeeded' ||
  status.phase === 'Failed'

/** Whether a node takes no pods, and the words for it. */
const cordonOf = async (
  { kubectl }: Context,
  node: string,
): Promise<{ readonly cordoned: boolean; readonly saw: string }> => {
  const cordoned = (await kubectl.get<NodeObject>('node', node)).spec.unschedulable === true
  return { cordoned, saw: `${node}: ${cordoned ? 'unschedulable' : 'takes pods'}` }
}

/**
 * The pods on a node that a drain may move. On an existing cluster, these are the lab's own: those of others stay where
 * they are.
 */
const podsOn = async ({ kubectl, lab }: Context, node: string): Promise<PodList['items']> => {
  const within = lab.cluster ? ['--namespace', lab.cluster.namespace ?? ''] : ['--all-namespaces']
  const { items } = await kubectl.get<PodList>('pods', ...within, '--field-selector', `spec.nodeName=${node}`)
  return items.filter((pod) => !staysOn(pod))
}

export const isCordoned = (names: readonly string[]): Sign => ({
  title: `${names.join(', ')} takes no pods`,
  within: soon,
  probe: (context) =>
    ofAll(names, async (name) => {
      const { cordoned, saw } = await cordonOf(context, name)
      return { ok: cordoned, saw }
    }),
})

const isDrained = (names: readonly string[]): Sign => ({
  title: `${names.join(', ')} takes no pods, and has none left that could run elsewhere`,
  within: soon,
  probe: (context) =>
    ofAll(names, async (name) => {
      const { cordoned, saw } = await cordonOf(context, name)
      const left = (await podsOn(context, name)).map(({ metadata }) => metadata.name)
      return {
        ok: cordoned && left.length === 0,
        saw: `${saw}, ${left.length === 0 ? 'empty' : `still there: ${left.join(', ')}`}`,
      }
    }),
})

export const takesPods = (names: readonly string[]): Sign => ({
  title: `${names.join(', ')} takes pods again`,
  within: reunion,
  probe: (context) =>
    ofAll(names, async (name) => {
      const { cordoned, saw } = await cordonOf(context, name)
      return { ok: !cordoned, saw }
    }),
})

/**
 * Cordons a node of an existing cluster, and evicts the lab's own pods: `kubectl drain` would evict everybody's.
 * @throws the refusal of a disruption budget that lasts
 */
const drainOwn = async (context: Context, node: string): Promise<void> => {
  const { kubectl, lab, signal } = context
  const namespace = lab.cluster?.namespace ?? ''
  await kubectl.run(['cordon', node])
  const deadline = performance.now() + drainDeadline * 1000
  for (;;) {
    const left = await podsOn(context, node)
    if (left.length === 0) return
    let refusal: unknown = new LabError('drain-late', `${String(left.length)} pods are still on ${node}`)
    for (const { metadata } of left.filter(
      ({ metadata: { deletionTimestamp } }) => deletionTimestamp === undefined,
    ))
      await kubectl
        .run(
          ['create', '--raw', `/api/v1/namespaces/${namespace}/pods/${metadata.name}/eviction`, '-f', '-'],
          {
            input: JSON.stringify({
              apiVersion: 'policy/v1',
              kind: 'Eviction',
              metadata: { name: metadata.name, namespace },
            }),
          },
        )
        .catch((error: unknown) => {
          refusal = error
        })
    if (performance.now() > deadline) throw refusal
    await delay(pause, undefined, { signal }).catch(() => undefined)
    signal.throwIfAborted()
  }
}

const fields = { machine: where() }

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    drain: typeof fields
  }
}

export const drain = faultOfMachine({
  name: 'drain',
  description:
    "Cordons a node and evicts its pods; on an existing cluster, only the lab's own. Healed by uncordoning it.",
  fields,
  byKubectl: true,
  sensible: [['control-plane', 'worker'], 'only Kubernetes nodes have pods to move'],
  undos: [uncordoning],
  aim: ({ on, names, each, undo }) => ({
    detail: `${names} drained`,
    undo: undo((machine) => uncordoning.of(machine, {})),
    act: (context) =>
      each(({ name }) =>
        context.lab.cluster
          ? drainOwn(context, name)
          : context.kubectl.run(
              [
                'drain',
                name,
                '--ignore-daemonsets',
                '--delete-emptydir-data',
                '--force',
                `--timeout=${String(drainDeadline)}s`,
              ],
              { timeout: drainDeadline + 5 },
            ),
      ),
    acting: isDrained(on),
    gone: takesPods(on),
  }),
})
