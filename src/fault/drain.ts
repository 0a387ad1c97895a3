import type { Context } from '../context.js'
import { where } from '../lab/fault-machines.js'
import { faultOfMachine } from './fault.js'
import { ofAll, reunion, type Sign, soon } from './sign.js'
import { undoAct } from './undo-act.js'

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

const isCordoned = async (context: Context, node: string): Promise<boolean> =>
  (await context.kubectl.get<NodeObject>('node', node)).spec.unschedulable === true

const isDrained = (names: readonly string[]): Sign => ({
  title: `${names.join(', ')} takes no pods, and has none left that could run elsewhere`,
  within: soon,
  probe: (context) =>
    ofAll(names, async (name) => {
      const cordoned = await isCordoned(context, name)
      const { items } = await context.kubectl.get<PodList>(
        'pods',
        '--all-namespaces',
        '--field-selector',
        `spec.nodeName=${name}`,
      )
      const left = items.filter((pod) => !staysOn(pod)).map(({ metadata }) => metadata.name)
      return {
        ok: cordoned && left.length === 0,
        saw: `${name}: ${cordoned ? 'unschedulable' : 'takes pods'}, ${left.length === 0 ? 'empty' : `still there: ${left.join(', ')}`}`,
      }
    }),
})

const takesPods = (names: readonly string[]): Sign => ({
  title: `${names.join(', ')} takes pods again`,
  within: reunion,
  probe: (context) =>
    ofAll(names, async (name) => {
      const cordoned = await isCordoned(context, name)
      return { ok: !cordoned, saw: `${name}: ${cordoned ? 'unschedulable' : 'takes pods'}` }
    }),
})

const fields = { machine: where() }

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    drain: typeof fields
  }
}

export const drain = faultOfMachine({
  name: 'drain',
  description: 'Cordons a node and evicts its pods. Healed by uncordoning it.',
  fields,
  byKubectl: true,
  sensible: [['control-plane', 'worker'], 'only Kubernetes nodes have pods to move'],
  undos: [uncordoning],
  aim: ({ on, names, each, undo }) => ({
    detail: `${names} drained`,
    undo: undo((machine) => uncordoning.of(machine, {})),
    act: ({ kubectl }) =>
      each(({ name }) =>
        kubectl.run(
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
