/** Texts 000 and 001: Deployments are scaled, updated, rolled back and pruned, and lose a node. */
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { randomUUID } from 'node:crypto'
import type { Verdict } from '../plan/step.js'
import type { ExperimentContext, Experiment } from '../trial/experiment-context.js'
import { made, neverElsewhere, nothingHappened, reached, stayedWithin, untouched } from '../trial/claims.js'
import type { PodSeen } from '../trial/history.js'

const app = ({ labels }: PodSeen): boolean => labels['app'] === 'sample-app'

/** Exactly this many pods are ready, all with this image, and no other pods are left. */
export const settled = (pods: readonly PodSeen[], count: number, image: string): Verdict => {
  const ready = pods.filter((pod) => pod.ready && pod.image === image)
  const leaving = pods.filter(({ terminating }) => terminating)
  return {
    ok: ready.length === count && pods.length === count,
    saw: `${String(ready.length)} of ${image} ready, ${String(pods.length - ready.length - leaving.length)} others, ${String(leaving.length)} on their way out`,
  }
}

const deploymentPods = (context: ExperimentContext): readonly PodSeen[] => context.history.pods.filter(app)

interface ReplicaSet {
  readonly metadata: {
    readonly name: string
    readonly labels: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
  }
  readonly spec: { readonly replicas: number }
}

const replicaSets = async (context: ExperimentContext): Promise<readonly ReplicaSet[]> =>
  (await context.get<{ items: ReplicaSet[] }>('replicasets', '--selector', 'app=sample-app')).items

/**
 * Applies the Deployment and waits for its pods.
 * @returns the moment before, and how long it took
 */
const deploy = async (
  context: ExperimentContext,
  title: string,
  replicas: number,
  nginx: string,
): Promise<[number, number]> => {
  const from = await context.act(title, () => context.apply('deployment.yaml', { replicas, nginx }))
  const took = await context.until(
    `${String(replicas)} pods of ${nginx} are ready, and no others are there`,
    180,
    () => settled(deploymentPods(context), replicas, nginx),
    from,
  )
  return [from, took]
}

export const scale: Experiment = {
  name: 'scale',
  description: 'A Deployment of 3 is scaled to 10 and back, and no pod that stays is touched',
  workers: 1,
  run: async (context) => {
    await deploy(context, 'apply a Deployment of 3', 3, 'nginx:1.22')
    const sets = await replicaSets(context)
    context.claim('the Deployment has made one ReplicaSet of 3', {
      ok: sets.length === 1 && sets[0]?.spec.replicas === 3,
      saw: sets.map(({ metadata, spec }) => `${metadata.name}: ${String(spec.replicas)}`).join(', '),
    })
    const three = deploymentPods(context)
    const [up, took] = await deploy(context, 'apply it with 10 replicas', 10, 'nginx:1.22')
    context.figure('from 3 to 10 pods', took, {
      ms: 68_000,
      how: 'text 000, on Fargate: the last pod ran after 68 s',
    })
    context.claim('7 pods were made', made(context.history, up, 7, app))
    context.claim('the first 3 stayed as they were', untouched(context.history, up, three))
    const [down, ended] = await deploy(context, 'apply it with 3 replicas', 3, 'nginx:1.22')
    context.figure('from 10 to 3 pods', ended)
    context.claim(
      'never fewer than 3 were ready',
      stayedWithin(context.history, down, { ready: 3, there: 10 }, app),
    )
    context.claim('no pod was made', made(context.history, down, 0, app))
  },
}

/** How a Deployment replaces its pods, as in the API server: a number of pods or a percentage. */
export interface Strategy {
  readonly type?: string
  readonly rollingUpdate?: {
    readonly maxUnavailable?: number | string
    readonly maxSurge?: number | string
  }
}

const partOf = (
  value: number | string | undefined,
  replicas: number,
  round: (value: number) => number,
): number =>
  typeof value === 'string' && value.endsWith('%')
    ? round((replicas * Number(value.slice(0, -1))) / 100)
    : Number(value)

/** The fewest pods that must be ready and the most that may exist: `maxUnavailable` is rounded down, `maxSurge` up. */
export const budgetOf = (strategy: Strategy, replicas: number): { ready: number; there: number } => ({
  ready: replicas - partOf(strategy.rollingUpdate?.maxUnavailable, replicas, Math.floor),
  there: replicas + partOf(strategy.rollingUpdate?.maxSurge, replicas, Math.ceil),
})

/** The text reads this strategy from `kubectl describe`. */
export const quarterAndQuarter = (strategy: Strategy): Verdict => ({
  ok:
    strategy.type === 'RollingUpdate' &&
    strategy.rollingUpdate?.maxUnavailable === '25%' &&
    strategy.rollingUpdate.maxSurge === '25%',
  saw: `${strategy.type ?? 'no strategy'}, ${String(strategy.rollingUpdate?.maxUnavailable ?? 'nothing')} max unavailable, ${String(strategy.rollingUpdate?.maxSurge ?? 'nothing')} max surge`,
})

/** Claims for both directions of a rollout: it stays within its bounds and reaches them. */
const claimRollout = (
  context: ExperimentContext,
  from: number,
  { ready, there }: { readonly ready: number; readonly there: number },
  which: string,
): void => {
  const [least, most, missing] = [ready, there, there - ready].map(String) as [string, string, string]
  context.claim(
    `${which}: never fewer than ${least} pods ready and never more than ${most} there, at every change`,
    stayedWithin(context.history, from, { ready, there }, app),
  )
  context.claim(
    `${which}: at some moment ${least} are ready and ${missing} are not yet, ${most} together`,
    reached(context.history, from, { ready, there }, app),
  )
}

export const rollingUpdate: Experiment = {
  name: 'rolling-update',
  description:
    'A Deployment of 10 is updated and undone: at least 8 pods are ready and at most 13 exist, and both bounds are reached',
  workers: 1,
  run: async (context) => {
    await deploy(context, 'apply a Deployment of 10', 10, 'nginx:1.22')
    const { spec } = await context.get<{ spec: { strategy: Strategy } }>('deployment', 'sample-deployment')
    context.claim('its strategy is RollingUpdate, 25 % and 25 %', quarterAndQuarter(spec.strategy))
    const budget = budgetOf(spec.strategy, 10)
    context.claim('of 10 pods, that is at least 8 ready and at most 13 there', {
      ok: budget.ready === 8 && budget.there === 13,
      saw: `${String(budget.ready)} ready, ${String(budget.there)} there`,
    })
    const [first] = await replicaSets(context)
    const [update, took] = await deploy(context, 'apply it with a newer image', 10, 'nginx:1.26')
    context.figure('update of 10 pods', took, { ms: 117_000, how: 'text 000, on Fargate: done after 117 s' })
    claimRollout(context, update, budget, 'update')
    const sets = await replicaSets(context)
    context.claim('the earlier ReplicaSet is kept, with no pods', {
      ok:
        sets.length === 2 &&
        sets.find(({ metadata }) => metadata.name === first?.metadata.name)?.spec.replicas === 0,
      saw: sets.map(({ metadata, spec }) => `${metadata.name}: ${String(spec.replicas)}`).join(', '),
    })
    const history = await context.kubectl(['rollout', 'history', 'deployment/sample-deployment'])
    context.claim('the history has two revisions', {
      ok: /^1\s/m.test(history) && /^2\s/m.test(history) && !/^3\s/m.test(history),
      saw: history.trim().replaceAll(/\s*\n\s*/g, '; '),
    })
    const undo = await context.act('kubectl rollout undo', () =>
      context.kubectl(['rollout', 'undo', 'deployment/sample-deployment']),
    )
    const undone = await context.until(
      '10 pods of the earlier image are ready, and no others are there',
      180,
      () => settled(deploymentPods(context), 10, 'nginx:1.22'),
      undo,
    )
    context.figure('undo of 10 pods', undone, { ms: 116_000, how: 'text 000, on Fargate: done after 116 s' })
    claimRollout(context, undo, budget, 'undo')
    const back = deploymentPods(context).map(({ labels }) => labels['pod-template-hash'])
    context.claim('the pods belong to the first ReplicaSet again', {
      ok: back.every((hash) => hash === first?.metadata.labels['pod-template-hash']),
      saw: [...new Set(back)].join(', '),
    })
  },
}

export const nodeLost: Experiment = {
  name: 'node-lost',
  description: "A Deployment's pod returns on another node after its node is stopped; a bare pod does not",
  workers: 2,
  faults: ['power-cut'],
  run: async (context) => {
    await deploy(context, 'apply a Deployment of 3', 3, 'nginx:1.26')
    const node = deploymentPods(context)[0]?.node ?? ''
    await context.act(`put a bare pod on ${node}, beside one of the Deployment`, () =>
      context.apply('pod.yaml', { node }),
    )
    const bare = (): PodSeen | undefined => context.history.pods.find(({ name }) => name === 'sample-pod')
    await context.until('the bare pod is ready', 90, () => ({
      ok: bare()?.ready === true,
      saw: `${bare()?.phase ?? 'no such pod'} on ${bare()?.node ?? 'no node'}`,
    }))
    const before = bare()
    if (!before) throw new Error('a pod that was ready is not there')
    const elsewhere = deploymentPods(context).filter((pod) => pod.node !== node)
    const from = context.now()
    await context.fault({ fault: 'power-cut', machine: node })
    const took = await context.until(
      `the Deployment has 3 ready pods again, none of them on ${node}`,
      400,
      () => {
        const ready = deploymentPods(context).filter((pod) => pod.ready && pod.node !== node)
        return {
          ok: ready.length === 3,
          saw: `${String(ready.length)} ready: ${ready.map((pod) => `${pod.name} on ${pod.node ?? ''}`).join(', ')}`,
        }
      },
      from,
    )
    context.figure('from the loss of the node to 3 ready pods', took, {
      ms: 224_000,
      how: 'text 000, on EC2: at most, the age of the new pod when it was listed as running; it waited for a new node. The text says about 3 minutes',
    })
    context.claim('pods on other nodes were not touched', untouched(context.history, from, elsewhere))
    await context.until('the bare pod is told to end, too, because its node counts as lost', 60, () => ({
      ok: bare()?.terminating !== false,
      saw: bare() ? (bare()?.terminating === true ? 'Terminating' : 'not yet') : 'gone',
    }))
    await context.heal()
    await context.until('the bare pod is gone once its node is back', 120, () => ({
      ok: bare() === undefined,
      saw: bare() ? `still there, ${bare()?.phase ?? ''}` : 'gone',
    }))
    context.claim('the bare pod did not come back anywhere', neverElsewhere(context.history, from, before))
  },
}

/** The kinds that `apply --prune` may remove: those in the text's folder. */
const pruned = ['core/v1/Pod', 'apps/v1/ReplicaSet', 'apps/v1/Deployment']

export const prune: Experiment = {
  name: 'prune',
  description: 'What a folder no longer says is removed by apply --prune, and nothing else',
  workers: 1,
  run: async (context) => {
    const folder = join(tmpdir(), `lab-prune-${randomUUID()}`)
    const write = async (name: string, data: object = {}): Promise<void> => {
      await writeFile(join(folder, name), context.manifest(name, data))
    }
    const applyFolder = (): Promise<string> =>
      context.kubectl(
        ['apply', '-f', folder, '--prune', '--all', ...pruned.map((kind) => `--prune-allowlist=${kind}`)],
        { timeout: 60 },
      )
    await mkdir(folder, { mode: 0o700 })
    try {
      await write('deployment.yaml', { replicas: 2, nginx: 'nginx:1.22' })
      await write('replicaset.yaml')
      await context.act('apply a folder with a Deployment and a ReplicaSet', applyFolder)
      const set = (): readonly PodSeen[] =>
        context.history.pods.filter(({ labels }) => labels['app'] === 'sample-rs')
      await context.until('2 pods of each are ready', 120, () => ({
        ok:
          set().filter((pod) => pod.ready).length === 2 &&
          deploymentPods(context).filter((pod) => pod.ready).length === 2,
        saw: `${String(set().length)} of the ReplicaSet, ${String(deploymentPods(context).length)} of the Deployment`,
      }))
      const again = await context.act('apply the same folder again', async () => {
        const said = await applyFolder()
        context.claim('applying the same again changes and removes nothing', {
          ok: !/pruned|configured|created/.test(said),
          saw: said.trim().replaceAll('\n', '; '),
        })
      })
      context.claim('no pod was affected', nothingHappened(context.history, again))
      await rm(join(folder, 'replicaset.yaml'))
      let said = ''
      const from = await context.act('take the ReplicaSet out of the folder, and apply it', async () => {
        said = await applyFolder()
      })
      context.claim('kubectl says that the ReplicaSet was pruned, and nothing else', {
        ok: (said.match(/pruned/g) ?? []).length === 1 && /sample-rs.* pruned/.test(said),
        saw: said.trim().replaceAll('\n', '; '),
      })
      const took = await context.until(
        'its pods are gone',
        60,
        () => ({ ok: set().length === 0, saw: `${String(set().length)} left` }),
        from,
      )
      context.figure('until what was pruned is gone', took)
      context.claim(
        "the Deployment's pods were not touched",
        untouched(context.history, from, deploymentPods(context)),
      )
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  },
}
