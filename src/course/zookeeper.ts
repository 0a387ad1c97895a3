/** Text 004: an ensemble of ZooKeeper servers, which a lab keeps up, through failures, updates and maintenance. */
import { uncordoning } from '../fault/drain.js'
import { deletingNamespace } from '../trial/undo.js'
import { messageOf } from '../error.js'
import { machinesWith } from '../lab/lab.js'
import type { Verdict } from '../plan/step.js'
import type { ExperimentContext, Experiment } from '../trial/experiment-context.js'
import {
  endedTogether,
  made,
  startedInOrder,
  stayedWithin,
  untouched,
  updatedInOrder,
} from '../trial/claims.js'
import type { PodSeen } from '../trial/history.js'
import { boundClaims, sameVolumes, volumeClaims } from './volumes.js'

const zk = ({ labels }: PodSeen): boolean => labels['app'] === 'zk'

const servers = ['zk-0', 'zk-1', 'zk-2'] as const

const podNamed = (context: ExperimentContext, name: string): PodSeen | undefined =>
  context.history.pods.find((pod) => pod.name === name)

const threeReady = (context: ExperimentContext): Verdict => {
  const pods = context.history.pods.filter(zk)
  return {
    ok: pods.length === 3 && pods.every(({ ready }) => ready),
    saw: pods
      .map(({ name, ready, phase, node }) => `${name} ${ready ? 'ready' : phase} on ${node ?? 'no node'}`)
      .join(', '),
  }
}

/** One command for each server, its output in one line. */
const ofEach = async (context: ExperimentContext, command: readonly string[]): Promise<readonly string[]> => {
  const said: string[] = []
  for (const server of servers) said.push((await context.exec(server, command)).replaceAll('\n', ' '))
  return said
}

/** zkCli.sh prints what it asks and what it hears; the value is a line by itself. */
export const valueIn = (output: string, wanted: string): boolean =>
  output.split('\n').some((line) => line.trim() === wanted)

const leaderElected = async (context: ExperimentContext): Promise<Verdict> => {
  const modes = await ofEach(context, ['zkServer.sh', 'status'])
  return {
    ok:
      modes.filter((mode) => mode.includes('leader')).length === 1 &&
      modes.filter((mode) => mode.includes('follower')).length === 2,
    saw: modes.map((mode, index) => `${servers[index] ?? ''}: ${mode.replace(/^Mode: /, '')}`).join(', '),
  }
}

const path = '/lab-hello'

const put = async (context: ExperimentContext, value: string): Promise<void> => {
  await context.act(`write ${path} at zk-0`, async () => {
    await context.exec('zk-0', [
      'sh',
      '-c',
      `zkCli.sh deleteall ${path} >/dev/null 2>&1; zkCli.sh create ${path} '${value}'`,
    ])
  })
}

const read = (context: ExperimentContext, title: string, server: string, value: string): Promise<number> =>
  context.until(title, 120, async () => {
    const said = await context.exec(server, ['sh', '-c', `zkCli.sh get ${path} 2>/dev/null`])
    return { ok: valueIn(said, value), saw: said.split('\n').at(-1)?.trim() ?? 'nothing' }
  })

/** The server with the number of an ordinal and one. */
const serverOf = (context: ExperimentContext, id: number) => {
  const pod = `zk-${String(id - 1)}`
  return { pod, node: podNamed(context, pod)?.node ?? 'no node' }
}

const withLedger = async (context: ExperimentContext, during: () => Promise<void>): Promise<void> => {
  // Every command that reads a lab file knows all experiments, and few need the databases' drivers.
  const { nodePortOf, zookeeperStore } = await import('./stores.js')
  const nodePort = await nodePortOf(context, 'zk-outside')
  await context.ledger(
    (run) => zookeeperStore({ reach: context.reach, nodePort, run }, (id) => serverOf(context, id)),
    during,
    { workload: 'statefulset/zk', replicas: servers.length, are: zk, within: 300 },
  )
}

const forget = async (context: ExperimentContext): Promise<void> => {
  await context.exec('zk-0', ['sh', '-c', `zkCli.sh deleteall ${path} >/dev/null 2>&1 || true`])
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
const groupOfVolume = async (context: ExperimentContext): Promise<void> => {
  const namespace = 'lab-ensemble'
  const [master] = machinesWith(context.lab, 'control-plane')
  await context.undoLater(deletingNamespace.of(master?.name ?? '', { namespace }))
  await context.act('start a pod with the same fsGroup, on a volume of its node', async () => {
    await context.kubectl(['create', 'namespace', namespace])
    await context.kubectl(['apply', '--namespace', namespace, '-f', '-'], {
      input: context.manifest('group.yaml'),
    })
  })
  await context.until(
    'fsGroup gives a volume, and what is made in it, to the group zookeeper',
    120,
    async () =>
      givenToZookeeper(
        await context.kubectl([
          ...['exec', '--namespace', namespace, 'zk-group', '--'],
          ...ownership('/var/lib/zookeeper', '/var/lib/zookeeper/data'),
        ]),
      ),
  )
}

export const ensemble: Experiment = {
  name: 'ensemble',
  description:
    'Facts of each ZooKeeper server, a leader, and what is written outlives the StatefulSet and its pods',
  workers: 3,
  workload: true,
  run: async (context) => {
    const nodes = context.history.pods.filter(zk).map(({ node }) => node)
    context.claim('each server is on a node of its own', {
      ok: nodes.length === 3 && new Set(nodes).size === 3,
      saw: nodes.join(', '),
    })
    const hostnames = await ofEach(context, ['hostname'])
    context.claim('each calls itself by its name', {
      ok: hostnames.join() === servers.join(),
      saw: hostnames.join(', '),
    })
    const ids = await ofEach(context, ['cat', '/var/lib/zookeeper/data/myid'])
    context.claim('each has its number: the ordinal and one', {
      ok: ids.join() === '1,2,3',
      saw: ids.join(', '),
    })
    const full = await ofEach(context, ['hostname', '-f'])
    const wanted = servers.map(
      (name) => `${name}.zk-hs.default.svc.${context.lab.kubernetes?.dnsDomain ?? ''}`,
    )
    context.claim('each has a full name in zk-hs', {
      ok: full.join() === wanted.join(),
      saw: full.join(', '),
    })
    const config = await ofEach(context, ['cat', '/opt/zookeeper/conf/zoo.cfg'])
    context.claim('every zoo.cfg names all three, by these names', {
      ok: config.every((text) =>
        wanted.every((name, index) => text.includes(`server.${String(index + 1)}=${name}:2888:3888`)),
      ),
      saw: /server\.1=\S+ server\.2=\S+ server\.3=\S+/.exec(config[0] ?? '')?.[0] ?? 'no servers',
    })
    const user = await context.exec('zk-0', ['id', '-un'])
    const data = await context.exec('zk-0', ownership('/var/lib/zookeeper/data'))
    context.claim('the server runs as zookeeper, whose its data is', {
      ok: user === 'zookeeper' && /^d\S+ zookeeper zookeeper$/.test(data),
      saw: `${user}; ${data}`,
    })
    await groupOfVolume(context)
    await context.until('one is the leader, two follow it', 60, () => leaderElected(context))
    const volumes = await volumeClaims(context, '--selector', 'app=zk')
    context.claim(
      'each has a claim of its own, bound',
      boundClaims(
        volumes,
        servers.map((name) => `datadir-${name}`),
      ),
    )
    const value = `world-${String(Date.now())}`
    await put(context, value)
    await read(context, 'what was written at zk-0 is read at zk-1', 'zk-1', value)
    await withLedger(context, async () => {
      const before = context.history.pods.filter(zk)
      const deleted = await context.act('delete the StatefulSet', () =>
        context.kubectl(['delete', 'statefulset', 'zk']),
      )
      await context.until('all three pods are gone', 120, () => ({
        ok: before.every(({ uid }) => context.history.pods.every((pod) => pod.uid !== uid)),
        saw:
          context.history.pods
            .filter(zk)
            .map(({ name }) => name)
            .join(', ') || 'none',
      }))
      context.claim('they were told to end together', endedTogether(context.history, deleted, servers))
      context.claim(
        'the claims to their volumes are kept',
        sameVolumes(volumes, await volumeClaims(context, '--selector', 'app=zk')),
      )
      const from = await context.act('apply the manifest again', () =>
        // As lab up has done it, so that all else in it stays as it is.
        context.kubectl(['apply', '--server-side', '--force-conflicts', '-f', '-'], {
          input: context.manifest('zookeeper.yaml'),
          timeout: 60,
        }),
      )
      const took = await context.until('three others are ready', 300, () => threeReady(context), from)
      context.figure('from applying the manifest again until three servers are ready', took, {
        ms: 120_000,
        how: 'text 004: the start-ups of 40 s each, one after the other, added up',
      })
      context.claim(
        'zk-0, zk-1, zk-2: each is made only when the one before is ready',
        startedInOrder(context.history, from, servers),
      )
      context.claim(
        'each has the volume that it had',
        sameVolumes(volumes, await volumeClaims(context, '--selector', 'app=zk')),
      )
      await context.until('one is the leader again', 90, () => leaderElected(context))
    })
    await read(context, 'zk-2 still has what was written', 'zk-2', value)
    await forget(context)
  },
}

const restartedAlone = (
  context: ExperimentContext,
  from: number,
  server: string,
  before: number,
): Promise<number> =>
  context.until(
    `${server} was restarted, and is ready again`,
    240,
    () => {
      const pod = podNamed(context, server)
      return {
        ok: (pod?.restarts ?? 0) > before && pod?.ready === true,
        saw: pod ? `${String(pod.restarts)} restarts, ${pod.ready ? 'ready' : 'not ready'}` : 'gone',
      }
    },
    from,
  )

export const probes: Experiment = {
  name: 'probes',
  description: 'A ZooKeeper server whose process ends, or whose probes fail, is restarted where it is',
  workers: 3,
  workload: true,
  run: async (context) => {
    const begun = podNamed(context, 'zk-0')?.restarts ?? 0
    const others = context.history.pods.filter((pod) => zk(pod) && pod.name !== 'zk-0')
    const killed = await context.act('end the server process of zk-0', () =>
      context.exec('zk-0', ['sh', '-c', 'pkill java']).catch(() => undefined),
    )
    const back = await restartedAlone(context, killed, 'zk-0', begun)
    context.figure('from the end of the process until the server is ready', back)
    const restarts = podNamed(context, 'zk-0')?.restarts ?? 0
    const removed = await context.act('remove the program that the probes of zk-0 run', () =>
      context.exec('zk-0', ['rm', '/opt/zookeeper/bin/zookeeper-ready']),
    )
    await context.until('zk-0 is no longer ready', 90, () => ({
      ok: podNamed(context, 'zk-0')?.ready === false,
      saw: podNamed(context, 'zk-0')?.ready === true ? 'ready' : 'not ready',
    }))
    await restartedAlone(context, removed, 'zk-0', restarts)
    context.claim(
      'no pod was made: its container was restarted where it was',
      made(context.history, killed, 0, zk),
    )
    context.claim('the two others were ready all the time', untouched(context.history, killed, others))
    await context.until('one is the leader, two follow it', 90, () => leaderElected(context))
  },
}

const processors = async (context: ExperimentContext): Promise<string> =>
  context.kubectl([
    'get',
    'statefulset/zk',
    '-o',
    'jsonpath={.spec.template.spec.containers[0].resources.requests.cpu}',
  ])

export const ensembleUpdate: Experiment = {
  name: 'ensemble-update',
  description: 'A ZooKeeper ensemble is updated and undone, the last server first, and keeps its quorum',
  workers: 3,
  workload: true,
  run: async (context) => {
    const image = podNamed(context, 'zk-0')?.image ?? ''
    const earlier = await processors(context)
    const revision = async (): Promise<string> =>
      (
        await context.kubectl([
          'get',
          'statefulset/zk',
          '-o',
          'jsonpath={.status.currentRevision} {.status.updateRevision}',
        ])
      ).trim()
    const done = (from: number): Promise<number> =>
      context.until(
        'all three have the new revision, and are ready',
        400,
        async () => {
          const [current, update] = (await revision()).split(' ')
          const { ok, saw } = threeReady(context)
          const fresh = context.history.changesSince(from).some(({ kind }) => kind === 'new')
          return {
            ok: ok && fresh && current === update,
            saw: `${saw}; revisions ${current ?? ''} and ${update ?? ''}`,
          }
        },
        from,
      )
    const order = ['zk-2', 'zk-1', 'zk-0']
    const from = await context.act('ask for fewer processors', () =>
      context.kubectl([
        'patch',
        'statefulset/zk',
        '--type=json',
        '--patch=[{"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests/cpu", "value": "0.3"}]',
      ]),
    )
    context.figure('rolling update of 3 servers', await done(from))
    context.claim(
      'zk-2, zk-1, zk-0: each only when the one before is ready',
      updatedInOrder(context.history, from, order, image),
    )
    context.claim(
      'at least 2 of 3 were ready at every change: a quorum',
      stayedWithin(context.history, from, { ready: 2, there: 3 }, zk),
    )
    const history = await context.kubectl(['rollout', 'history', 'statefulset/zk'])
    context.claim('the history has both revisions', {
      ok: (history.match(/^\d+\s/gm) ?? []).length >= 2,
      saw: history.trim().replaceAll(/\s*\n\s*/g, '; '),
    })
    const undo = await context.act('kubectl rollout undo', () =>
      context.kubectl(['rollout', 'undo', 'statefulset/zk']),
    )
    context.figure('undo of 3 servers', await done(undo))
    const now = await processors(context)
    context.claim('it asks for as many processors as before', { ok: now === earlier, saw: now })
    context.claim(
      'at least 2 of 3 were ready while it was undone',
      stayedWithin(context.history, undo, { ready: 2, there: 3 }, zk),
    )
  },
}

/** Empties a node as the text does. @returns what kubectl said when it did not come to its end in time */
const drain = async (
  context: ExperimentContext,
  node: string,
  seconds: number,
): Promise<string | undefined> => {
  await context.undoLater(uncordoning.of(node, {}))
  return context
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

const drainSeen = async (
  context: ExperimentContext,
  node: string,
  said: string | undefined,
): Promise<DrainSeen> => {
  const { spec } = await context.get<{ spec: { unschedulable?: boolean } }>('node', node)
  return {
    said,
    cordoned: spec.unschedulable === true,
    left: context.history.pods.filter((pod) => zk(pod) && pod.node === node),
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
const mayEvict = (context: ExperimentContext, pod: string): Promise<string | undefined> =>
  context
    .kubectl(['create', '--raw', `/api/v1/namespaces/${context.namespace}/pods/${pod}/eviction`, '-f', '-'], {
      input: JSON.stringify({
        apiVersion: 'policy/v1',
        kind: 'Eviction',
        metadata: { name: pod, namespace: context.namespace },
        deleteOptions: { dryRun: ['All'] },
      }),
    })
    .then(() => undefined, messageOf)

export const maintenance: Experiment = {
  name: 'maintenance',
  description:
    'Nodes of a ZooKeeper ensemble are drained one by one, until its disruption budget refuses one',
  workers: 4,
  workload: true,
  run: async (context) => {
    const value = `world-${String(Date.now())}`
    const budget = (): Promise<DisruptionBudget> =>
      context.get<DisruptionBudget>('poddisruptionbudget', 'zk-pdb')
    await put(context, value)
    context.claim('the budget lets one server be missing', allows(await budget(), 1))
    await withLedger(context, async () => {
      const from = context.now()
      const nodeOf = (server: string): string => podNamed(context, server)?.node ?? ''
      const [first, second, third] = servers.map(nodeOf) as [string, string, string]
      const empty = async (title: string, node: string, claimed: string): Promise<void> => {
        let said: string | undefined
        await context.act(title, async () => {
          said = await drain(context, node, 90)
        })
        // The last change of a pod may be on its way still.
        await context.until(claimed, 15, async () => drained(await drainSeen(context, node, said)))
      }
      await empty(`drain ${first}, the node of zk-0`, first, 'the first drain comes to its end')
      await context.until('zk-0 is ready on the fourth node', 180, () => {
        const { ok, saw } = threeReady(context)
        return { ok: ok && ![first, second, third].includes(nodeOf('zk-0')), saw }
      })
      await empty(`drain ${second}, the node of zk-1`, second, 'the second drain comes to its end')
      await context.until('zk-1 fits nowhere, and says why', 90, () => {
        const pod = podNamed(context, 'zk-1')
        return {
          ok:
            pod !== undefined &&
            pod.node === undefined &&
            (pod.unschedulable ?? '').includes('anti-affinity'),
          saw: pod?.unschedulable ?? pod?.phase ?? 'no such pod',
        }
      })
      const before = podNamed(context, 'zk-2')
      if (!before) throw new Error('zk-2 is gone')
      let said: string | undefined
      const refused = await context.act(`drain ${third}, the node of zk-2`, async () => {
        said = await drain(context, third, 20)
      })
      context.claim(
        "the third drain is refused: it would violate the pod's disruption budget",
        refusedByBudget(await drainSeen(context, third, said), {
          answer: await mayEvict(context, 'zk-2'),
          budget: await budget(),
          before,
        }),
      )
      context.claim('zk-2 was not touched', untouched(context.history, refused, [before]))
      await read(context, 'the ensemble still answers', 'zk-0', value)
      await context.act(`uncordon ${first}`, () => context.kubectl(['uncordon', first]))
      await context.until('zk-1 is ready there', 240, () => {
        const { ok, saw } = threeReady(context)
        return { ok: ok && nodeOf('zk-1') === first, saw }
      })
      await context.until('the budget allows one again', 30, async () => allows(await budget(), 1))
      await empty(`drain ${third} again`, third, 'now it comes to its end')
      await context.act(`uncordon ${second}`, () => context.kubectl(['uncordon', second]))
      await context.until('zk-2 is ready on the second node', 240, () => {
        const { ok, saw } = threeReady(context)
        return { ok: ok && nodeOf('zk-2') === second, saw }
      })
      context.claim(
        'at least 2 of 3 were ready at every change of all this',
        stayedWithin(context.history, from, { ready: 2, there: 3 }, zk),
      )
    })
    await read(context, 'what was written before is still there', 'zk-2', value)
    await forget(context)
  },
}
