/** Texts 001 and 003: pods of two containers, and ReplicaSets that lose a pod, a node, and a place to run. */
import { machinesWith } from '../lab/lab.js'
import type { Verdict } from '../plan/step.js'
import type { Bench, Experiment } from '../trial/experiment.js'
import {
  fitsNoNode,
  made,
  neverElsewhere,
  nothingHappened,
  stayedWithin,
  untouched,
  waitForTheirNode,
} from '../trial/claims.js'
import { type EventObject, type EventSeen, eventSeen, revivedInTurn, saidNotReady } from './events.js'
import type { PodSeen } from '../trial/history.js'

const app = ({ labels }: PodSeen): boolean => labels['app'] === 'replicaset-temp'

const setPods = (bench: Bench): readonly PodSeen[] => bench.history.pods.filter(app)

const readyPods = (bench: Bench): readonly PodSeen[] => setPods(bench).filter(({ ready }) => ready)

const placed = (pods: readonly PodSeen[]): string =>
  pods.map(({ name, node }) => `${name} on ${node ?? 'no node'}`).join(', ') || 'none'

const fiveReady = async (bench: Bench, from = bench.now()): Promise<number> =>
  bench.until(
    '5 pods are ready, and no others are there',
    180,
    () => ({
      ok: readyPods(bench).length === 5 && setPods(bench).length === 5,
      saw: placed(readyPods(bench)),
    }),
    from,
  )

/** Events of the bench's namespace, or of another: those about nodes are in `default`. */
const events = async (bench: Bench, ...args: readonly string[]): Promise<readonly EventSeen[]> =>
  (await bench.get<{ items: EventObject[] }>('events', ...args)).items.map(eventSeen)

interface Node {
  readonly status: {
    readonly conditions: readonly {
      readonly type: string
      readonly status: string
      readonly reason: string
      readonly lastTransitionTime: string
    }[]
  }
}

/** Waits until a node is NotReady, by its own status and in the node controller's words. */
const untilNotReady = async (bench: Bench, node: string, from: number): Promise<number> => {
  let since = NaN
  const took = await bench.until(
    `${node} is NotReady: nobody hears of it`,
    120,
    async () => {
      const { status } = await bench.get<Node>('node', node)
      const ready = status.conditions.find(({ type }) => type === 'Ready')
      since = Date.parse(ready?.lastTransitionTime ?? '')
      return {
        ok: ready?.status === 'Unknown',
        saw: `Ready is ${ready?.status ?? 'not said'}: ${ready?.reason ?? ''}`,
      }
    },
    from,
  )
  await bench.until('Events: the node controller says so', 30, async () =>
    // The same clock says both; an Event has whole seconds.
    saidNotReady(await events(bench, '--namespace', 'default'), node, since - 1000),
  )
  return took
}

const applyFive = (bench: Bench, nginx = 'nginx:1.22'): Promise<number> =>
  bench.act('apply a ReplicaSet of 5', () =>
    bench.apply('replicaset.yaml', { replicas: 5, nginx, nodeType: '' }),
  )

export const sharedVolume: Experiment = {
  workers: 1,
  run: async (bench) => {
    const pod = (): PodSeen | undefined => bench.history.pods.find(({ name }) => name === 'sample-2pod')
    const from = await bench.act('apply a pod of two containers', () =>
      bench.apply('2pod.yaml', { nodeType: '' }),
    )
    const took = await bench.until(
      'both containers are ready',
      120,
      () => ({ ok: pod()?.ready === true, saw: pod()?.phase ?? 'no such pod' }),
      from,
    )
    bench.figure('until both containers are ready', took, {
      ms: 101_000,
      how: 'text 001, on Raspberry Pis: at most, the age of the pod when it was listed as 2/2',
    })
    const ready = await bench.kubectl(['get', 'pod', 'sample-2pod', '--no-headers'])
    bench.claim('kubectl counts two containers', {
      ok: /\s2\/2\s/.test(ready),
      saw: ready.trim().replaceAll(/\s+/g, ' '),
    })
    const firstProcess = (container?: string): Promise<string> =>
      bench.exec('sample-2pod', ['cat', '/proc/1/comm'], container)
    const [first, second, unnamed] = [
      await firstProcess('nginx-container'),
      await firstProcess('redis-container'),
      await firstProcess(),
    ]
    bench.claim('a command without a container goes to the first', {
      ok: unnamed === first && unnamed !== second,
      saw: `it saw ${unnamed}; nginx-container has ${first}, redis-container ${second}`,
    })
    const note = `from redis ${String(Date.now())}`
    await bench.act('write a file through one container', () =>
      bench.exec('sample-2pod', ['sh', '-c', `echo '${note}' > /shared/index.html`], 'redis-container'),
    )
    const served = await bench.exec('sample-2pod', ['curl', '-s', 'http://localhost/'], 'nginx-container')
    bench.claim('the other container serves it: they share the volume', { ok: served === note, saw: served })
    const pong = await bench.exec(
      'sample-2pod',
      ['bash', '-c', 'exec 3<>/dev/tcp/127.0.0.1/6379; echo PING >&3; read -r -t 5 line <&3; echo "$line"'],
      'nginx-container',
    )
    bench.claim("nginx's container reaches redis at 127.0.0.1: they share the address", {
      ok: pong.trim() === '+PONG',
      saw: pong.trim(),
    })
    const restart = await bench.act("end redis, the second container's first process", () =>
      bench.exec('sample-2pod', ['sh', '-c', 'kill 1'], 'redis-container'),
    )
    await bench.until(
      'only that container was started again',
      90,
      async () => {
        const { status } = await bench.get<{
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
    const still = await bench.exec('sample-2pod', ['curl', '-s', 'http://localhost/'], 'nginx-container')
    bench.claim('the file outlived the container that wrote it', { ok: still === note, saw: still })
  },
}

export const podDeleted: Experiment = {
  workers: 1,
  run: async (bench) => {
    await applyFive(bench)
    await fiveReady(bench)
    const [victim, ...others] = setPods(bench)
    if (!victim) throw new Error('five pods are none')
    const from = await bench.act(`delete ${victim.name}`, () =>
      bench.kubectl(['delete', 'pod', victim.name, '--wait=false']),
    )
    const took = await fiveReady(bench, from)
    bench.figure('from the deletion to 5 ready pods', took, {
      ms: 60_000,
      how: 'text 003, on Azure: at most, the age of the new pod when it was listed as running',
    })
    bench.claim('one pod was made, with a name of its own', made(bench.history, from, 1, app))
    bench.claim(
      'never fewer than 4 were ready, never more than 5 there',
      stayedWithin(bench.history, from, { ready: 4, there: 5 }, app),
    )
    bench.claim('the other 4 were not touched', untouched(bench.history, from, others))
  },
}

export const nodeOff: Experiment = {
  workers: 2,
  run: async (bench) => {
    await applyFive(bench)
    await fiveReady(bench)
    const counts = machinesWith(bench.lab, 'worker').map(
      ({ name }) => [name, setPods(bench).filter(({ node }) => node === name)] as const,
    )
    const [node = '', lost = []] = [...counts].sort(([, a], [, b]) => b.length - a.length)[0] ?? []
    const kept = setPods(bench).filter((pod) => pod.node !== node)
    const from = bench.now()
    await bench.fault({ fault: 'power-cut', machine: node })
    bench.figure('from the loss of the node until it is NotReady', await untilNotReady(bench, node, from))
    const took = await bench.until(
      `5 pods are ready on other nodes than ${node}`,
      400,
      () => {
        const ready = readyPods(bench).filter((pod) => pod.node !== node)
        return { ok: ready.length === 5, saw: placed(ready) }
      },
      from,
    )
    bench.figure('from the loss of the node to 5 ready pods', took, {
      ms: 209_000,
      how: 'text 001, a shutdown under default timings: at least, from the list that has the node NotReady to the new pod',
    })
    const dead = setPods(bench).filter((pod) => pod.terminating)
    bench.claim(
      `${String(lost.length)} pods of ${node} are listed still, Terminating: 5 and ${String(lost.length)} together`,
      {
        ok:
          dead.length === lost.length &&
          dead.every((pod) => pod.node === node) &&
          setPods(bench).length === 5 + lost.length,
        saw: `${String(setPods(bench).length)} listed; Terminating: ${placed(dead)}`,
      },
    )
    bench.claim(
      `${String(lost.length)} others were made in their place`,
      made(bench.history, from, lost.length, app),
    )
    bench.claim('pods on other nodes were not touched', untouched(bench.history, from, kept))
    const fresh = readyPods(bench).filter(({ uid }) => kept.every((pod) => pod.uid !== uid))
    // Components send their Events when they have time for it.
    await bench.until('Events say who revived the pods', 30, async () => {
      const said = revivedInTurn(await events(bench), { lost, fresh, kept })
      return {
        ok: said.every(({ ok }) => ok),
        saw: said.map(({ title, ok, saw }) => `${ok ? '' : `${title}: `}${saw}`).join('; '),
      }
    })
    await bench.stays('the dead ones stay listed as long as their node is off', 10, () => {
      const now = setPods(bench).filter((pod) => pod.terminating)
      return { ok: now.length === lost.length, saw: `${String(now.length)} Terminating` }
    })
    const back = bench.now()
    await bench.heal()
    const gone = await bench.until(
      'once the node is back, they are gone, and 5 are left',
      120,
      () => ({
        ok: setPods(bench).length === 5 && readyPods(bench).length === 5,
        saw: placed(setPods(bench)),
      }),
      back,
    )
    bench.figure('from switching the node on until the dead pods are gone', gone)
    bench.claim('no pod moved back to it', {
      ok: readyPods(bench).every((pod) => pod.node !== node),
      saw: placed(readyPods(bench)),
    })
  },
}

const nodeTypes = { pinned: 'AWS', other: 'GCP' } as const

const applyThree = (bench: Bench, title: string, nginx: string, nodeType: string): Promise<number> =>
  bench.act(title, () => bench.apply('replicaset.yaml', { replicas: 3, nginx, nodeType }))

export const nodeSelector: Experiment = {
  workers: 2,
  run: async (bench) => {
    await applyThree(
      bench,
      'apply a ReplicaSet of 3 for nodes with type=AWS, which no node has',
      'nginx:1.22',
      'AWS',
    )
    await bench.until('its 3 pods fit no node, and say why', 60, () => {
      const pods = setPods(bench)
      return {
        ok: pods.length === 3 && pods.every(fitsNoNode),
        saw:
          pods.map(({ name, unschedulable, phase }) => `${name}: ${unschedulable ?? phase}`).join(', ') ||
          'none',
      }
    })
    const others = machinesWith(bench.lab, 'worker').map(({ name }) => name)
    const node = others.pop() ?? ''
    for (const name of [node, ...others])
      await bench.undoLater({ do: 'unlabel', machine: name, label: 'type' })
    const labelled = await bench.act(
      `label ${node} type=${nodeTypes.pinned}, and ${others.join(', ')} type=${nodeTypes.other}`,
      async () => {
        await bench.kubectl(['label', 'node', node, `type=${nodeTypes.pinned}`])
        await bench.kubectl(['label', 'node', ...others, `type=${nodeTypes.other}`])
      },
    )
    await bench.act('apply a bare pod of two containers for the same nodes', () =>
      bench.apply('2pod.yaml', { nodeType: nodeTypes.pinned }),
    )
    const bare = (): PodSeen | undefined => bench.history.pods.find(({ name }) => name === 'sample-2pod')
    const took = await bench.until(
      `the 3 pods and the bare one run on ${node}`,
      120,
      () => ({
        ok:
          readyPods(bench).length === 3 &&
          setPods(bench).length === 3 &&
          [...setPods(bench), bare()].every((pod) => pod?.ready === true && pod.node === node),
        saw: placed(bench.history.pods.filter(({ ready }) => ready)),
      }),
      labelled,
    )
    bench.figure('from the labels to ready pods', took)
    const free = await applyThree(
      bench,
      'take the nodeSelector out of the template, with a newer image',
      'nginx:1.26',
      '',
    )
    await bench.stays('a new template touches no pod that is there, neither its node nor its image', 5, () =>
      nothingHappened(bench.history, free, app),
    )
    const pinned = await applyThree(
      bench,
      'put the nodeSelector back into the template',
      'nginx:1.26',
      nodeTypes.pinned,
    )
    await bench.stays('nor does this one', 5, () => nothingHappened(bench.history, pinned, app))

    const lost = setPods(bench)
    const bareBefore = bare()
    if (!bareBefore) throw new Error('a pod that was ready is not there')
    const from = bench.now()
    await bench.fault({ fault: 'power-cut', machine: node })
    await untilNotReady(bench, node, from)
    const held = (): Verdict => waitForTheirNode(setPods(bench), node, lost)
    const given = await bench.until(
      `3 pods are Terminating on ${node}, and 3 others Pending: they fit nowhere else`,
      180,
      held,
      from,
    )
    bench.figure('from the loss of the node to 3 Pending pods', given)
    await bench.until('the bare pod is Terminating, too', 60, () => ({
      ok: bare()?.uid === bareBefore.uid && bare()?.terminating === true,
      saw: bare()
        ? `${bareBefore.name} ${bare()?.terminating === true ? 'Terminating' : 'not yet told to end'}`
        : 'gone',
    }))
    const { items } = await bench.get<{ items: (Node & { metadata: { name: string } })[] }>(
      'nodes',
      '-l',
      `type=${nodeTypes.other}`,
    )
    bench.claim(`${others.join(', ')} would be ready for them, and are not taken`, {
      ok:
        items.length === others.length &&
        items.every(({ status }) =>
          status.conditions.some(({ type, status: value }) => type === 'Ready' && value === 'True'),
        ),
      saw:
        items.map(({ metadata }) => `${metadata.name} with type=${nodeTypes.other}`).join(', ') ||
        'no such nodes',
    })
    await bench.stays('they stay so as long as their node is off', 10, held)
    const waiting = setPods(bench).filter(({ terminating }) => !terminating)
    const back = bench.now()
    await bench.heal()
    const again = await bench.until(
      'once the node is back, the dead ones are gone, and those that waited run there',
      180,
      () => ({
        ok:
          setPods(bench).length === 3 &&
          waiting.every(({ uid }) => readyPods(bench).some((pod) => pod.uid === uid && pod.node === node)) &&
          bare() === undefined,
        saw: placed(bench.history.pods),
      }),
      back,
    )
    bench.figure('from switching the node on until the pods that waited run', again)
    bench.claim('the bare pod came back nowhere', neverElsewhere(bench.history, from, bareBefore))
  },
}
