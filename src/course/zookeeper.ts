/** Text 004: an ensemble of ZooKeeper servers, which outlives failures and updates. */
import { deletingNamespace } from '../trial/own-namespace.js'
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
import { boundClaims, sameVolumes, type VolumeClaim, volumeClaims } from './volumes.js'
import {
  forget,
  leaderElected,
  ofEach,
  podNamed,
  put,
  read,
  servers,
  threeReady,
  withLedger,
  zk,
} from './zookeeper-servers.js'

/** Prints mode, user and group of each folder. */
const ownership = (...paths: readonly string[]): readonly string[] => ['stat', '-c', '%A %U %G', ...paths]

/**
 * The effect of `fsGroup: 1000` on a volume that supports group ownership: the volume and everything made in it
 * belong to the group.
 * @param said `stat` of the volume and of a folder that the pod made in it
 */
export const givenToZookeeper = (said: string): Verdict => {
  const [volume = '', data = ''] = said.trim().split('\n')
  return {
    ok: /^d.{5}[sS].{3} \S+ zookeeper$/.test(volume) && data === 'drwxr-sr-x zookeeper zookeeper',
    saw: `the volume: ${volume || 'nothing'}; the folder in it: ${data || 'nothing'}`,
  }
}

/**
 * The ensemble's own volumes are folders of the NFS machine, whose group Kubernetes does not change. So the test uses
 * a pod with the same user and group and a volume on its node.
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

/** The names, numbers and addresses of the servers, and the user that they run as. */
const claimIdentities = async (context: ExperimentContext): Promise<void> => {
  const nodes = context.history.pods.filter(zk).map(({ node }) => node)
  context.claim('each server is on a node of its own', {
    ok: nodes.length === 3 && new Set(nodes).size === 3,
    saw: nodes.join(', '),
  })
  const hostnames = await ofEach(context, ['hostname'])
  context.claim('each has its own host name', {
    ok: hostnames.join() === servers.join(),
    saw: hostnames.join(', '),
  })
  const ids = await ofEach(context, ['cat', '/var/lib/zookeeper/data/myid'])
  context.claim('each has its number: the ordinal plus one', {
    ok: ids.join() === '1,2,3',
    saw: ids.join(', '),
  })
  const full = await ofEach(context, ['hostname', '-f'])
  const wanted = servers.map((name) => `${name}.zk-hs.default.svc.${context.lab.kubernetes?.dnsDomain ?? ''}`)
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
  context.claim('the server runs as the user zookeeper, which owns its data', {
    ok: user === 'zookeeper' && /^d\S+ zookeeper zookeeper$/.test(data),
    saw: `${user}; ${data}`,
  })
}

/** Deletes the StatefulSet and makes it again: its pods are others, and their volumes the same. */
const remakeStatefulSet = async (
  context: ExperimentContext,
  volumes: readonly VolumeClaim[],
): Promise<void> => {
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
    // The same way as lab up, so that all other fields stay.
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
}

export const ensemble: Experiment = {
  name: 'ensemble',
  description:
    'Each ZooKeeper server has its number, name and volume, one leads, and data outlives the StatefulSet and its pods',
  workers: 3,
  workload: true,
  run: async (context) => {
    await claimIdentities(context)
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
    await withLedger(context, () => remakeStatefulSet(context, volumes))
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
