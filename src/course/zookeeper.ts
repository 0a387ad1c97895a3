/** Text 004: an ensemble of ZooKeeper servers, which a lab keeps up, through failures, updates and maintenance. */
import { messageOf } from '../error.js'
import { machinesWith } from '../lab/lab.js'
import type { Verdict } from '../plan/step.js'
import type { Bench, Experiment } from '../trial/experiment.js'
import {
  endedTogether,
  made,
  startedInOrder,
  stayedWithin,
  untouched,
  updatedInOrder,
} from '../trial/claims.js'
import type { PodSeen } from '../trial/history.js'
import { nodePortOf, zookeeperStore } from './stores.js'
import { boundClaims, sameVolumes, volumeClaims } from './volumes.js'

const zk = ({ labels }: PodSeen): boolean => labels['app'] === 'zk'

const servers = ['zk-0', 'zk-1', 'zk-2'] as const

const podNamed = (bench: Bench, name: string): PodSeen | undefined =>
  bench.history.pods.find((pod) => pod.name === name)

const threeReady = (bench: Bench): Verdict => {
  const pods = bench.history.pods.filter(zk)
  return {
    ok: pods.length === 3 && pods.every(({ ready }) => ready),
    saw: pods
      .map(({ name, ready, phase, node }) => `${name} ${ready ? 'ready' : phase} on ${node ?? 'no node'}`)
      .join(', '),
  }
}

/** One command for each server, its output in one line. */
const ofEach = async (bench: Bench, command: readonly string[]): Promise<readonly string[]> => {
  const said: string[] = []
  for (const server of servers) said.push((await bench.exec(server, command)).replaceAll('\n', ' '))
  return said
}

/** zkCli.sh prints what it asks and what it hears; the value is a line by itself. */
export const valueIn = (output: string, wanted: string): boolean =>
  output.split('\n').some((line) => line.trim() === wanted)

const leaderElected = async (bench: Bench): Promise<Verdict> => {
  const modes = await ofEach(bench, ['zkServer.sh', 'status'])
  return {
    ok:
      modes.filter((mode) => mode.includes('leader')).length === 1 &&
      modes.filter((mode) => mode.includes('follower')).length === 2,
    saw: modes.map((mode, index) => `${servers[index] ?? ''}: ${mode.replace(/^Mode: /, '')}`).join(', '),
  }
}

const path = '/lab-hello'

const put = async (bench: Bench, value: string): Promise<void> => {
  await bench.act(`write ${path} at zk-0`, async () => {
    await bench.exec('zk-0', [
      'sh',
      '-c',
      `zkCli.sh deleteall ${path} >/dev/null 2>&1; zkCli.sh create ${path} '${value}'`,
    ])
  })
}

const read = (bench: Bench, title: string, server: string, value: string): Promise<number> =>
  bench.until(title, 120, async () => {
    const said = await bench.exec(server, ['sh', '-c', `zkCli.sh get ${path} 2>/dev/null`])
    return { ok: valueIn(said, value), saw: said.split('\n').at(-1)?.trim() ?? 'nothing' }
  })

/** The server with the number of an ordinal and one. */
const serverOf = (bench: Bench, id: number) => {
  const pod = `zk-${String(id - 1)}`
  return { pod, node: podNamed(bench, pod)?.node ?? 'no node' }
}

const withLedger = async (bench: Bench, during: () => Promise<void>): Promise<void> => {
  const nodePort = await nodePortOf(bench, 'zk-outside')
  await bench.ledger(
    (run) => zookeeperStore({ reach: bench.reach, nodePort, run }, (id) => serverOf(bench, id)),
    during,
    { workload: 'statefulset/zk', replicas: servers.length, are: zk, within: 300 },
  )
}

const forget = async (bench: Bench): Promise<void> => {
  await bench.exec('zk-0', ['sh', '-c', `zkCli.sh deleteall ${path} >/dev/null 2>&1 || true`])
}

/** Of each folder: mode, user and group. */
const ownership = (...paths: readonly string[]): readonly string[] => ['stat', '-c', '%A %U %G', ...paths]

/**
 * What `fsGroup: 1000` does to a volume that Kubernetes may give to a group: the volume is the group's, and what is
 * made in it is, too, whoever makes it.
 * @param said `stat` of the volume and of a folder that the pod has made in it
 */
export const givenToZookeeper = (said: string): Verdict => {
  const [volume = '', data = ''] = said.trim().split('\n')
  return {
    ok: /^d.{5}[sS].{3} \S+ zookeeper$/.test(volume) && data === 'drwxr-sr-x zookeeper zookeeper',
    saw: `the volume: ${volume || 'nothing'}; the folder in it: ${data || 'nothing'}`,
  }
}

/**
 * The ensemble's own volumes are folders of the NFS machine, and Kubernetes changes the group of those for nobody: a pod
 * with the same user and group is asked whose volume is of its node.
 */
const groupOfVolume = async (bench: Bench): Promise<void> => {
  const namespace = 'lab-ensemble'
  const [master] = machinesWith(bench.lab, 'control-plane')
  await bench.undoLater({ do: 'delete-namespace', machine: master?.name ?? '', namespace })
  await bench.act('start a pod with the same fsGroup, on a volume of its node', async () => {
    await bench.kubectl(['create', 'namespace', namespace])
    await bench.kubectl(['apply', '--namespace', namespace, '-f', '-'], {
      input: bench.manifest('group.yaml'),
    })
  })
  await bench.until('fsGroup gives a volume, and what is made in it, to the group zookeeper', 120, async () =>
    givenToZookeeper(
      await bench.kubectl([
        ...['exec', '--namespace', namespace, 'zk-group', '--'],
        ...ownership('/var/lib/zookeeper', '/var/lib/zookeeper/data'),
      ]),
    ),
  )
}

export const ensemble: Experiment = {
  workers: 3,
  workload: true,
  run: async (bench) => {
    const nodes = bench.history.pods.filter(zk).map(({ node }) => node)
    bench.claim('each server is on a node of its own', {
      ok: nodes.length === 3 && new Set(nodes).size === 3,
      saw: nodes.join(', '),
    })
    const hostnames = await ofEach(bench, ['hostname'])
    bench.claim('each calls itself by its name', {
      ok: hostnames.join() === servers.join(),
      saw: hostnames.join(', '),
    })
    const ids = await ofEach(bench, ['cat', '/var/lib/zookeeper/data/myid'])
    bench.claim('each has its number: the ordinal and one', {
      ok: ids.join() === '1,2,3',
      saw: ids.join(', '),
    })
    const full = await ofEach(bench, ['hostname', '-f'])
    const wanted = servers.map((name) => `${name}.zk-hs.default.svc.${bench.lab.kubernetes?.dnsDomain ?? ''}`)
    bench.claim('each has a full name in zk-hs', { ok: full.join() === wanted.join(), saw: full.join(', ') })
    const config = await ofEach(bench, ['cat', '/opt/zookeeper/conf/zoo.cfg'])
    bench.claim('every zoo.cfg names all three, by these names', {
      ok: config.every((text) =>
        wanted.every((name, index) => text.includes(`server.${String(index + 1)}=${name}:2888:3888`)),
      ),
      saw: /server\.1=\S+ server\.2=\S+ server\.3=\S+/.exec(config[0] ?? '')?.[0] ?? 'no servers',
    })
    const user = await bench.exec('zk-0', ['id', '-un'])
    const data = await bench.exec('zk-0', ownership('/var/lib/zookeeper/data'))
    bench.claim('the server runs as zookeeper, whose its data is', {
      ok: user === 'zookeeper' && /^d\S+ zookeeper zookeeper$/.test(data),
      saw: `${user}; ${data}`,
    })
    await groupOfVolume(bench)
    await bench.until('one is the leader, two follow it', 60, () => leaderElected(bench))
    const volumes = await volumeClaims(bench, '--selector', 'app=zk')
    bench.claim(
      'each has a claim of its own, bound',
      boundClaims(
        volumes,
        servers.map((name) => `datadir-${name}`),
      ),
    )
    const value = `world-${String(Date.now())}`
    await put(bench, value)
    await read(bench, 'what was written at zk-0 is read at zk-1', 'zk-1', value)
    await withLedger(bench, async () => {
      const before = bench.history.pods.filter(zk)
      const deleted = await bench.act('delete the StatefulSet', () =>
        bench.kubectl(['delete', 'statefulset', 'zk']),
      )
      await bench.until('all three pods are gone', 120, () => ({
        ok: before.every(({ uid }) => bench.history.pods.every((pod) => pod.uid !== uid)),
        saw:
          bench.history.pods
            .filter(zk)
            .map(({ name }) => name)
            .join(', ') || 'none',
      }))
      bench.claim('they were told to end together', endedTogether(bench.history, deleted, servers))
      bench.claim(
        'the claims to their volumes are kept',
        sameVolumes(volumes, await volumeClaims(bench, '--selector', 'app=zk')),
      )
      const from = await bench.act('apply the manifest again', () =>
        // As lab up has done it, so that all else in it stays as it is.
        bench.kubectl(['apply', '--server-side', '--force-conflicts', '-f', '-'], {
          input: bench.manifest('zookeeper.yaml'),
          timeout: 60,
        }),
      )
      const took = await bench.until('three others are ready', 300, () => threeReady(bench), from)
      bench.figure('from applying the manifest again until three servers are ready', took, {
        ms: 120_000,
        how: 'text 004: the start-ups of 40 s each, one after the other, added up',
      })
      bench.claim(
        'zk-0, zk-1, zk-2: each is made only when the one before is ready',
        startedInOrder(bench.history, from, servers),
      )
      bench.claim(
        'each has the volume that it had',
        sameVolumes(volumes, await volumeClaims(bench, '--selector', 'app=zk')),
      )
      await bench.until('one is the leader again', 90, () => leaderElected(bench))
    })
    await read(bench, 'zk-2 still has what was written', 'zk-2', value)
    await forget(bench)
  },
}

const restartedAlone = (bench: Bench, from: number, server: string, before: number): Promise<number> =>
  bench.until(
    `${server} was restarted, and is ready again`,
    240,
    () => {
      const pod = podNamed(bench, server)
      return {
        ok: (pod?.restarts ?? 0) > before && pod?.ready === true,
        saw: pod ? `${String(pod.restarts)} restarts, ${pod.ready ? 'ready' : 'not ready'}` : 'gone',
      }
    },
    from,
  )

export const probes: Experiment = {
  workers: 3,
  workload: true,
  run: async (bench) => {
    const begun = podNamed(bench, 'zk-0')?.restarts ?? 0
    const others = bench.history.pods.filter((pod) => zk(pod) && pod.name !== 'zk-0')
    const killed = await bench.act('end the server process of zk-0', () =>
      bench.exec('zk-0', ['sh', '-c', 'pkill java']).catch(() => undefined),
    )
    const back = await restartedAlone(bench, killed, 'zk-0', begun)
    bench.figure('from the end of the process until the server is ready', back)
    const restarts = podNamed(bench, 'zk-0')?.restarts ?? 0
    const removed = await bench.act('remove the program that the probes of zk-0 run', () =>
      bench.exec('zk-0', ['rm', '/opt/zookeeper/bin/zookeeper-ready']),
    )
    await bench.until('zk-0 is no longer ready', 90, () => ({
      ok: podNamed(bench, 'zk-0')?.ready === false,
      saw: podNamed(bench, 'zk-0')?.ready === true ? 'ready' : 'not ready',
    }))
    await restartedAlone(bench, removed, 'zk-0', restarts)
    bench.claim(
      'no pod was made: its container was restarted where it was',
      made(bench.history, killed, 0, zk),
    )
    bench.claim('the two others were ready all the time', untouched(bench.history, killed, others))
    await bench.until('one is the leader, two follow it', 90, () => leaderElected(bench))
  },
}

const processors = async (bench: Bench): Promise<string> =>
  bench.kubectl([
    'get',
    'statefulset/zk',
    '-o',
    'jsonpath={.spec.template.spec.containers[0].resources.requests.cpu}',
  ])

export const ensembleUpdate: Experiment = {
  workers: 3,
  workload: true,
  run: async (bench) => {
    const image = podNamed(bench, 'zk-0')?.image ?? ''
    const earlier = await processors(bench)
    const revision = async (): Promise<string> =>
      (
        await bench.kubectl([
          'get',
          'statefulset/zk',
          '-o',
          'jsonpath={.status.currentRevision} {.status.updateRevision}',
        ])
      ).trim()
    const done = (from: number): Promise<number> =>
      bench.until(
        'all three have the new revision, and are ready',
        400,
        async () => {
          const [current, update] = (await revision()).split(' ')
          const { ok, saw } = threeReady(bench)
          const fresh = bench.history.changesSince(from).some(({ kind }) => kind === 'new')
          return {
            ok: ok && fresh && current === update,
            saw: `${saw}; revisions ${current ?? ''} and ${update ?? ''}`,
          }
        },
        from,
      )
    const order = ['zk-2', 'zk-1', 'zk-0']
    const from = await bench.act('ask for fewer processors', () =>
      bench.kubectl([
        'patch',
        'statefulset/zk',
        '--type=json',
        '--patch=[{"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests/cpu", "value": "0.3"}]',
      ]),
    )
    bench.figure('rolling update of 3 servers', await done(from))
    bench.claim(
      'zk-2, zk-1, zk-0: each only when the one before is ready',
      updatedInOrder(bench.history, from, order, image),
    )
    bench.claim(
      'at least 2 of 3 were ready at every change: a quorum',
      stayedWithin(bench.history, from, { ready: 2, there: 3 }, zk),
    )
    const history = await bench.kubectl(['rollout', 'history', 'statefulset/zk'])
    bench.claim('the history has both revisions', {
      ok: (history.match(/^\d+\s/gm) ?? []).length >= 2,
      saw: history.trim().replaceAll(/\s*\n\s*/g, '; '),
    })
    const undo = await bench.act('kubectl rollout undo', () =>
      bench.kubectl(['rollout', 'undo', 'statefulset/zk']),
    )
    bench.figure('undo of 3 servers', await done(undo))
    const now = await processors(bench)
    bench.claim('it asks for as many processors as before', { ok: now === earlier, saw: now })
    bench.claim(
      'at least 2 of 3 were ready while it was undone',
      stayedWithin(bench.history, undo, { ready: 2, there: 3 }, zk),
    )
  },
}

/** Empties a node as the text does. @returns what kubectl said when it did not come to its end in time */
const drain = async (bench: Bench, node: string, seconds: number): Promise<string | undefined> => {
  await bench.undoLater({ do: 'uncordon', machine: node })
  return bench
    .kubectl(
      [
        'drain',
        node,
        '--ignore-daemonsets',
        '--force',
        '--delete-emptydir-data',
        `--timeout=${String(seconds)}s`,
      ],
      { timeout: seconds + 10 },
    )
    .then(() => undefined, messageOf)
}

/** What is known of a drain and of what is to be drained, after it came to its end or gave up. */
export interface DrainSeen {
  /** What kubectl said when it gave up; undefined where it came to its end. */
  readonly said: string | undefined
  /** The node takes no pods. */
  readonly cordoned: boolean
  /** Pods of the ensemble that are on the node still. */
  readonly left: readonly PodSeen[]
}

const drainSeen = async (bench: Bench, node: string, said: string | undefined): Promise<DrainSeen> => {
  const { spec } = await bench.get<{ spec: { unschedulable?: boolean } }>('node', node)
  return {
    said,
    cordoned: spec.unschedulable === true,
    left: bench.history.pods.filter((pod) => zk(pod) && pod.node === node),
  }
}

/** It came to its end: the node takes no pods, and none of the ensemble's is left on it. */
export const drained = ({ said, cordoned, left }: DrainSeen): Verdict => ({
  ok: said === undefined && cordoned && left.length === 0,
  saw: [
    said ?? 'kubectl: drained',
    cordoned ? 'cordoned' : 'not cordoned',
    `${left.map(({ name }) => name).join(', ') || 'no server'} on it`,
  ].join('; '),
})

/** What the API server keeps of a disruption budget. */
export interface DisruptionBudget {
  readonly spec: { readonly maxUnavailable?: number | string }
  readonly status: {
    readonly disruptionsAllowed: number
    readonly currentHealthy: number
    readonly desiredHealthy: number
    readonly expectedPods: number
  }
}

export const allows = ({ status }: DisruptionBudget, disruptions: number): Verdict => ({
  ok: status.disruptionsAllowed === disruptions,
  saw: `${String(status.disruptionsAllowed)} disruptions allowed: ${String(status.currentHealthy)} of ${String(status.expectedPods)} healthy, ${String(status.desiredHealthy)} wanted`,
})

/**
 * A drain was refused by a disruption budget, and failed for no other reason: it did not come to its end, the API
 * server answers an eviction of that pod with the budget, the budget allows none, the pod is as it was, and the node
 * takes no pods.
 * @param answer to a question for the eviction of the pod, which changes nothing
 */
export const refusedByBudget = (
  { said, cordoned, left }: DrainSeen,
  {
    answer,
    budget,
    before,
  }: { readonly answer: string | undefined; readonly budget: DisruptionBudget; readonly before: PodSeen },
): Verdict => {
  const pod = left.find(({ uid }) => uid === before.uid)
  const refusal = /Cannot evict pod as it would violate the pod's disruption budget/.exec(answer ?? '')?.[0]
  const why =
    said === undefined
      ? 'the drain came to its end'
      : refusal === undefined
        ? `asked to evict ${before.name}, the API server says: ${answer ?? 'yes'}`
        : !allows(budget, 0).ok
          ? `the budget has ${allows(budget, 0).saw}`
          : budget.status.currentHealthy !== budget.status.desiredHealthy ||
              budget.status.expectedPods <= budget.status.desiredHealthy
            ? `the budget allows none for another reason: ${allows(budget, 0).saw}`
            : pod?.ready !== true || pod.restarts > before.restarts
              ? `${before.name} is ${pod === undefined ? 'gone' : 'not as it was'}`
              : !cordoned
                ? 'the node is not cordoned'
                : undefined
  return {
    ok: why === undefined,
    saw: why ?? `${refusal ?? ''}; ${allows(budget, 0).saw}; ${before.name} ready; the node stays cordoned`,
  }
}

/** Asks whether a pod may be evicted, and evicts nothing. @returns the API server's refusal */
const mayEvict = (bench: Bench, pod: string): Promise<string | undefined> =>
  bench
    .kubectl(['create', '--raw', `/api/v1/namespaces/${bench.namespace}/pods/${pod}/eviction`, '-f', '-'], {
      input: JSON.stringify({
        apiVersion: 'policy/v1',
        kind: 'Eviction',
        metadata: { name: pod, namespace: bench.namespace },
        deleteOptions: { dryRun: ['All'] },
      }),
    })
    .then(() => undefined, messageOf)

export const maintenance: Experiment = {
  workers: 4,
  workload: true,
  run: async (bench) => {
    const value = `world-${String(Date.now())}`
    const budget = (): Promise<DisruptionBudget> =>
      bench.get<DisruptionBudget>('poddisruptionbudget', 'zk-pdb')
    await put(bench, value)
    bench.claim('the budget lets one server be missing', allows(await budget(), 1))
    await withLedger(bench, async () => {
      const from = bench.now()
      const nodeOf = (server: string): string => podNamed(bench, server)?.node ?? ''
      const [first, second, third] = servers.map(nodeOf) as [string, string, string]
      const empty = async (title: string, node: string, claimed: string): Promise<void> => {
        let said: string | undefined
        await bench.act(title, async () => {
          said = await drain(bench, node, 90)
        })
        // The last change of a pod may be on its way still.
        await bench.until(claimed, 15, async () => drained(await drainSeen(bench, node, said)))
      }
      await empty(`drain ${first}, the node of zk-0`, first, 'the first drain comes to its end')
      await bench.until('zk-0 is ready on the fourth node', 180, () => {
        const { ok, saw } = threeReady(bench)
        return { ok: ok && ![first, second, third].includes(nodeOf('zk-0')), saw }
      })
      await empty(`drain ${second}, the node of zk-1`, second, 'the second drain comes to its end')
      await bench.until('zk-1 fits nowhere, and says why', 90, () => {
        const pod = podNamed(bench, 'zk-1')
        return {
          ok:
            pod !== undefined &&
            pod.node === undefined &&
            (pod.unschedulable ?? '').includes('anti-affinity'),
          saw: pod?.unschedulable ?? pod?.phase ?? 'no such pod',
        }
      })
      const before = podNamed(bench, 'zk-2')
      if (!before) throw new Error('zk-2 is gone')
      let said: string | undefined
      const refused = await bench.act(`drain ${third}, the node of zk-2`, async () => {
        said = await drain(bench, third, 20)
      })
      bench.claim(
        "the third drain is refused: it would violate the pod's disruption budget",
        refusedByBudget(await drainSeen(bench, third, said), {
          answer: await mayEvict(bench, 'zk-2'),
          budget: await budget(),
          before,
        }),
      )
      bench.claim('zk-2 was not touched', untouched(bench.history, refused, [before]))
      await read(bench, 'the ensemble still answers', 'zk-0', value)
      await bench.act(`uncordon ${first}`, () => bench.kubectl(['uncordon', first]))
      await bench.until('zk-1 is ready there', 240, () => {
        const { ok, saw } = threeReady(bench)
        return { ok: ok && nodeOf('zk-1') === first, saw }
      })
      await bench.until('the budget allows one again', 30, async () => allows(await budget(), 1))
      await empty(`drain ${third} again`, third, 'now it comes to its end')
      await bench.act(`uncordon ${second}`, () => bench.kubectl(['uncordon', second]))
      await bench.until('zk-2 is ready on the second node', 240, () => {
        const { ok, saw } = threeReady(bench)
        return { ok: ok && nodeOf('zk-2') === second, saw }
      })
      bench.claim(
        'at least 2 of 3 were ready at every change of all this',
        stayedWithin(bench.history, from, { ready: 2, there: 3 }, zk),
      )
    })
    await read(bench, 'what was written before is still there', 'zk-2', value)
    await forget(bench)
  },
}
