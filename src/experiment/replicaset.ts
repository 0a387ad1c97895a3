/** Seeds 001 and 003: pods of two containers, and ReplicaSets that lose a pod, a node, and a place to run. */
import { machinesWith } from '../lab/lab.js'
import type { Bench, Experiment } from './bench.js'
import { made, nothingHappened, stayedWithin, untouched } from './claims.js'
import type { PodSeen } from './history.js'

const app = ({ labels }: PodSeen): boolean => labels['app'] === 'replicaset-temp'

const setPods = (bench: Bench): readonly PodSeen[] => bench.history.pods.filter(app)

const staying = (bench: Bench): readonly PodSeen[] => setPods(bench).filter(({ terminating }) => !terminating)

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

const applyFive = (bench: Bench, nginx = 'nginx:1.22'): Promise<number> =>
  bench.act('apply a ReplicaSet of 5', () => bench.apply('replicaset.yaml', { nginx, nodeType: '' }))

export const sharedVolume: Experiment = {
  workers: 1,
  run: async (bench) => {
    const pod = (): PodSeen | undefined => bench.history.pods.find(({ name }) => name === 'sample-2pod')
    const from = await bench.act('apply a pod of two containers', () => bench.apply('2pod.yaml'))
    const took = await bench.until(
      'both containers are ready',
      120,
      () => ({ ok: pod()?.ready === true, saw: pod()?.phase ?? 'no such pod' }),
      from,
    )
    bench.figure('until both containers are ready', took, {
      ms: 101_000,
      how: 'seed 001, on Raspberry Pis: 2/2 at 101 s',
    })
    const ready = await bench.kubectl(['get', 'pod', 'sample-2pod', '--no-headers'])
    bench.claim('kubectl counts two containers', {
      ok: /\s2\/2\s/.test(ready),
      saw: ready.trim().replaceAll(/\s+/g, ' '),
    })
    const first = await bench.exec('sample-2pod', ['nginx', '-v']).catch((error: unknown) => String(error))
    bench.claim('a command without a container goes to the first', {
      ok: !first.includes('not found'),
      saw: first === '' ? 'nginx ran' : first,
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
      how: 'seed 003, on Azure: the new pod was 1 minute old when it was looked for',
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
    const took = await bench.until(
      `5 pods are ready on other nodes than ${node}`,
      400,
      () => {
        const ready = readyPods(bench).filter((pod) => pod.node !== node)
        return { ok: ready.length === 5, saw: placed(ready) }
      },
      from,
    )
    bench.figure('from the loss of the node to 5 ready pods', took)
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

export const nodeSelector: Experiment = {
  workers: 1,
  run: async (bench) => {
    await applyFive(bench)
    await fiveReady(bench)
    const five = setPods(bench)
    const from = await bench.act('ask in the template for nodes with type=AWS, which no node has', () =>
      bench.apply('replicaset.yaml', { nginx: 'nginx:1.26', nodeType: 'AWS' }),
    )
    await bench.stays('a new template touches no pod that is there, neither its node nor its image', 5, () =>
      nothingHappened(bench.history, from, app),
    )
    const [victim] = five
    if (!victim) throw new Error('five pods are none')
    const deleted = await bench.act(`delete ${victim.name}`, () =>
      bench.kubectl(['delete', 'pod', victim.name, '--wait=false']),
    )
    const fresh = (): PodSeen | undefined =>
      staying(bench).find((pod) => !five.some(({ uid }) => uid === pod.uid))
    await bench.until(
      'the pod in its place fits no node, and says why',
      60,
      () => ({
        ok:
          fresh()?.node === undefined &&
          /didn't match.*(affinity|selector)/.test(fresh()?.unschedulable ?? ''),
        saw: fresh()?.unschedulable ?? fresh()?.phase ?? 'no such pod',
      }),
      deleted,
    )
    await bench.stays('it stays Pending', 10, () => ({
      ok: fresh()?.phase === 'Pending' && fresh()?.node === undefined,
      saw: `${fresh()?.phase ?? 'gone'} on ${fresh()?.node ?? 'no node'}`,
    }))
    const worker = machinesWith(bench.lab, 'worker').at(-1)?.name ?? ''
    await bench.undoLater({ do: 'unlabel', machine: worker, label: 'type' })
    const labelled = await bench.act(`label ${worker} type=AWS`, () =>
      bench.kubectl(['label', 'node', worker, 'type=AWS']),
    )
    const took = await bench.until(
      `it runs on ${worker}`,
      60,
      () => ({
        ok: fresh()?.ready === true && fresh()?.node === worker,
        saw: `${fresh()?.phase ?? 'gone'} on ${fresh()?.node ?? 'no node'}`,
      }),
      labelled,
    )
    bench.figure('from the label to a ready pod', took)
  },
}
