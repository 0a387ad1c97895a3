/** Texts 001 and 003: a pod of two containers, and a ReplicaSet that loses a pod and a node. */
import { machinesWith } from '../lab/lab.js'
import type { ExperimentContext, Experiment } from '../trial/experiment-context.js'
import { made, stayedWithin, untouched } from '../trial/claims.js'
import { type EventObject, type EventSeen, eventSeen, revivedInTurn, saidNotReady } from './events.js'
import type { PodSeen } from '../trial/history.js'

export const app = ({ labels }: PodSeen): boolean => labels['app'] === 'replicaset-temp'

export const setPods = (context: ExperimentContext): readonly PodSeen[] => context.history.pods.filter(app)

export const readyPods = (context: ExperimentContext): readonly PodSeen[] =>
  setPods(context).filter(({ ready }) => ready)

export const placed = (pods: readonly PodSeen[]): string =>
  pods.map(({ name, node }) => `${name} on ${node ?? 'no node'}`).join(', ') || 'none'

const fiveReady = async (context: ExperimentContext, from = context.now()): Promise<number> =>
  context.until(
    '5 pods are ready, and no others are there',
    180,
    () => ({
      ok: readyPods(context).length === 5 && setPods(context).length === 5,
      saw: placed(readyPods(context)),
    }),
    from,
  )

/** Events of the context's namespace or of another one: those about nodes are in `default`. */
const events = async (
  context: ExperimentContext,
  ...args: readonly string[]
): Promise<readonly EventSeen[]> =>
  (await context.get<{ items: EventObject[] }>('events', ...args)).items.map(eventSeen)

export interface Node {
  readonly status: {
    readonly conditions: readonly {
      readonly type: string
      readonly status: string
      readonly reason: string
      readonly lastTransitionTime: string
    }[]
  }
}

/** Waits until a node is NotReady, both in its status and in an Event of the node controller. */
export const untilNotReady = async (
  context: ExperimentContext,
  node: string,
  from: number,
): Promise<number> => {
  let since = NaN
  const took = await context.until(
    `${node} is NotReady: its kubelet does not report`,
    120,
    async () => {
      const { status } = await context.get<Node>('node', node)
      const ready = status.conditions.find(({ type }) => type === 'Ready')
      since = Date.parse(ready?.lastTransitionTime ?? '')
      return {
        ok: ready?.status === 'Unknown',
        saw: `Ready is ${ready?.status ?? 'not said'}: ${ready?.reason ?? ''}`,
      }
    },
    from,
  )
  await context.until('Events: the node controller says so', 30, async () =>
    // Both use the same clock, and an Event has whole seconds.
    saidNotReady(await events(context, '--namespace', 'default'), node, since - 1000),
  )
  return took
}

const applyFive = (context: ExperimentContext, nginx = 'nginx:1.22'): Promise<number> =>
  context.act('apply a ReplicaSet of 5', () =>
    context.apply('replicaset.yaml', { replicas: 5, nginx, nodeType: '' }),
  )

export const sharedVolume: Experiment = {
  name: 'shared-volume',
  description: 'Two containers of one pod share a volume, an address and a fate',
  workers: 1,
  run: async (context) => {
    const pod = (): PodSeen | undefined => context.history.pods.find(({ name }) => name === 'sample-2pod')
    const from = await context.act('apply a pod of two containers', () =>
      context.apply('2pod.yaml', { nodeType: '' }),
    )
    const took = await context.until(
      'both containers are ready',
      120,
      () => ({ ok: pod()?.ready === true, saw: pod()?.phase ?? 'no such pod' }),
      from,
    )
    context.figure('until both containers are ready', took, {
      ms: 101_000,
      how: 'text 001, on Raspberry Pis: at most, the age of the pod when it was listed as 2/2',
    })
    const ready = await context.kubectl(['get', 'pod', 'sample-2pod', '--no-headers'])
    context.claim('kubectl counts two containers', {
      ok: /\s2\/2\s/.test(ready),
      saw: ready.trim().replaceAll(/\s+/g, ' '),
    })
    const firstProcess = (container?: string): Promise<string> =>
      context.exec('sample-2pod', ['cat', '/proc/1/comm'], container)
    const [first, second, unnamed] = [
      await firstProcess('nginx-container'),
      await firstProcess('redis-container'),
      await firstProcess(),
    ]
    context.claim('a command without a container goes to the first', {
      ok: unnamed === first && unnamed !== second,
      saw: `it saw ${unnamed}; nginx-container has ${first}, redis-container ${second}`,
    })
    const note = `from redis ${String(Date.now())}`
    await context.act('write a file through one container', () =>
      context.exec('sample-2pod', ['sh', '-c', `echo '${note}' > /shared/index.html`], 'redis-container'),
    )
    const served = await context.exec('sample-2pod', ['curl', '-s', 'http://localhost/'], 'nginx-container')
    context.claim('the other container serves it: they share the volume', {
      ok: served === note,
      saw: served,
    })
    const pong = await context.exec(
      'sample-2pod',
      ['bash', '-c', 'exec 3<>/dev/tcp/127.0.0.1/6379; echo PING >&3; read -r -t 5 line <&3; echo "$line"'],
      'nginx-container',
    )
    context.claim("nginx's container reaches redis at 127.0.0.1: they share the address", {
      ok: pong.trim() === '+PONG',
      saw: pong.trim(),
    })
    const restart = await context.act("end redis, the second container's first process", () =>
      context.exec('sample-2pod', ['sh', '-c', 'kill 1'], 'redis-container'),
    )
    await context.until(
      'only that container was started again',
      90,
      async () => {
        const { status } = await context.get<{
          status: { containerStatuses: { name: string; restartCount: number; ready: boolean }[] }
        }>('pod', 'sample-2pod')
        const text = status.containerStatuses.map(
          ({ name, restartCount }) => `${name}: ${String(restartCount)}`,
        )
        const of = (name: string) => status.containerStatuses.find((candidate) => candidate.name === name)
        return {
          ok:
            of('redis-container')?.restartCount === 1 &&
            of('redis-container')?.ready === true &&
            of('nginx-container')?.restartCount === 0,
          saw: `restarts ${text.join(', ')}`,
        }
      },
      restart,
    )
    const still = await context.exec('sample-2pod', ['curl', '-s', 'http://localhost/'], 'nginx-container')
    context.claim('the file outlived the container that wrote it', { ok: still === note, saw: still })
  },
}

export const podDeleted: Experiment = {
  name: 'pod-deleted',
  description: 'A ReplicaSet of 5 replaces a pod that is deleted, at once and once',
  workers: 1,
  run: async (context) => {
    await applyFive(context)
    await fiveReady(context)
    const [victim, ...others] = setPods(context)
    if (!victim) throw new Error('five pods are none')
    const from = await context.act(`delete ${victim.name}`, () =>
      context.kubectl(['delete', 'pod', victim.name, '--wait=false']),
    )
    const took = await fiveReady(context, from)
    context.figure('from the deletion to 5 ready pods', took, {
      ms: 60_000,
      how: 'text 003, on Azure: at most, the age of the new pod when it was listed as running',
    })
    context.claim('one pod was made, with a name of its own', made(context.history, from, 1, app))
    context.claim(
      'never fewer than 4 were ready, never more than 5 there',
      stayedWithin(context.history, from, { ready: 4, there: 5 }, app),
    )
    context.claim('the other 4 were not touched', untouched(context.history, from, others))
  },
}

export const nodeOff: Experiment = {
  name: 'node-off',
  description:
    'A node is powered off: its pods stay Terminating, as many others take their place, and Events say who made them',
  workers: 2,
  faults: ['power-cut'],
  run: async (context) => {
    await applyFive(context)
    await fiveReady(context)
    const counts = machinesWith(context.lab, 'worker').map(
      ({ name }) => [name, setPods(context).filter(({ node }) => node === name)] as const,
    )
    const [node = '', lost = []] = [...counts].sort(([, a], [, b]) => b.length - a.length)[0] ?? []
    const kept = setPods(context).filter((pod) => pod.node !== node)
    const from = context.now()
    await context.fault({ fault: 'power-cut', machine: node })
    context.figure('from the loss of the node until it is NotReady', await untilNotReady(context, node, from))
    const took = await context.until(
      `5 pods are ready on other nodes than ${node}`,
      400,
      () => {
        const ready = readyPods(context).filter((pod) => pod.node !== node)
        return { ok: ready.length === 5, saw: placed(ready) }
      },
      from,
    )
    context.figure('from the loss of the node to 5 ready pods', took, {
      ms: 209_000,
      how: 'text 001, a shutdown under default timings: at least, from the list that has the node NotReady to the new pod',
    })
    const dead = setPods(context).filter((pod) => pod.terminating)
    context.claim(
      `${String(lost.length)} pods of ${node} are still listed as Terminating: 5 and ${String(lost.length)} together`,
      {
        ok:
          dead.length === lost.length &&
          dead.every((pod) => pod.node === node) &&
          setPods(context).length === 5 + lost.length,
        saw: `${String(setPods(context).length)} listed; Terminating: ${placed(dead)}`,
      },
    )
    context.claim(
      `${String(lost.length)} others were made in their place`,
      made(context.history, from, lost.length, app),
    )
    context.claim('pods on other nodes were not touched', untouched(context.history, from, kept))
    const fresh = readyPods(context).filter(({ uid }) => kept.every((pod) => pod.uid !== uid))
    // Components send their Events with a delay.
    await context.until('Events say who revived the pods', 30, async () => {
      const said = revivedInTurn(await events(context), { lost, fresh, kept })
      return {
        ok: said.every(({ ok }) => ok),
        saw: said.map(({ title, ok, saw }) => `${ok ? '' : `${title}: `}${saw}`).join('; '),
      }
    })
    await context.stays('the lost pods stay listed as long as their node is off', 10, () => {
      const now = setPods(context).filter((pod) => pod.terminating)
      return { ok: now.length === lost.length, saw: `${String(now.length)} Terminating` }
    })
    const back = context.now()
    await context.heal()
    const gone = await context.until(
      'once the node is back, they are gone, and 5 are left',
      120,
      () => ({
        ok: setPods(context).length === 5 && readyPods(context).length === 5,
        saw: placed(setPods(context)),
      }),
      back,
    )
    context.figure('from switching the node on until the lost pods are gone', gone)
    context.claim('no pod moved back to it', {
      ok: readyPods(context).every((pod) => pod.node !== node),
      saw: placed(readyPods(context)),
    })
  },
}
