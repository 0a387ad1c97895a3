/** Texts 000 and 001: Deployments that are scaled, updated, undone, lose a node, and are pruned. */
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { randomUUID } from 'node:crypto'
import type { Verdict } from '../plan/step.js'
import type { Bench, Experiment } from '../trial/experiment.js'
import { made, neverElsewhere, nothingHappened, reached, stayedWithin, untouched } from '../trial/claims.js'
import type { PodSeen } from '../trial/history.js'

const app = ({ labels }: PodSeen): boolean => labels['app'] === 'sample-app'

/** So many pods are ready, of this image, and no others are left. */
export const settled = (pods: readonly PodSeen[], count: number, image: string): Verdict => {
  const ready = pods.filter((pod) => pod.ready && pod.image === image)
  const leaving = pods.filter(({ terminating }) => terminating)
  return {
    ok: ready.length === count && pods.length === count,
    saw: `${String(ready.length)} of ${image} ready, ${String(pods.length - ready.length - leaving.length)} others, ${String(leaving.length)} on their way out`,
  }
}

const deploymentPods = (bench: Bench): readonly PodSeen[] => bench.history.pods.filter(app)

interface ReplicaSet {
  readonly metadata: {
    readonly name: string
    readonly labels: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
  }
  readonly spec: { readonly replicas: number }
}

const replicaSets = async (bench: Bench): Promise<readonly ReplicaSet[]> =>
  (await bench.get<{ items: ReplicaSet[] }>('replicasets', '--selector', 'app=sample-app')).items

/** Applies the Deployment, and waits for its pods. @returns the moment before, and how long it took */
const deploy = async (
  bench: Bench,
  title: string,
  replicas: number,
  nginx: string,
): Promise<[number, number]> => {
  const from = await bench.act(title, () => bench.apply('deployment.yaml', { replicas, nginx }))
  const took = await bench.until(
    `${String(replicas)} pods of ${nginx} are ready, and no others are there`,
    180,
    () => settled(deploymentPods(bench), replicas, nginx),
    from,
  )
  return [from, took]
}

export const scale: Experiment = {
  workers: 1,
  run: async (bench) => {
    await deploy(bench, 'apply a Deployment of 3', 3, 'nginx:1.22')
    const sets = await replicaSets(bench)
    bench.claim('the Deployment has made one ReplicaSet of 3', {
      ok: sets.length === 1 && sets[0]?.spec.replicas === 3,
      saw: sets.map(({ metadata, spec }) => `${metadata.name}: ${String(spec.replicas)}`).join(', '),
    })
    const three = deploymentPods(bench)
    const [up, took] = await deploy(bench, 'apply it with 10 replicas', 10, 'nginx:1.22')
    bench.figure('from 3 to 10 pods', took, {
      ms: 68_000,
      how: 'text 000, on Fargate: the last pod ran after 68 s',
    })
    bench.claim('7 pods were made', made(bench.history, up, 7, app))
    bench.claim('the first 3 stayed as they were', untouched(bench.history, up, three))
    const [down, ended] = await deploy(bench, 'apply it with 3 replicas', 3, 'nginx:1.22')
    bench.figure('from 10 to 3 pods', ended)
    bench.claim(
      'never fewer than 3 were ready',
      stayedWithin(bench.history, down, { ready: 3, there: 10 }, app),
    )
    bench.claim('no pod was made', made(bench.history, down, 0, app))
  },
}

/** How a Deployment replaces its pods, as the API server has it: a number of pods, or a part of them in percent. */
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

/** How few may be ready and how many may be there: what may be missing is rounded down, what may be too many up. */
export const budgetOf = (strategy: Strategy, replicas: number): { ready: number; there: number } => ({
  ready: replicas - partOf(strategy.rollingUpdate?.maxUnavailable, replicas, Math.floor),
  there: replicas + partOf(strategy.rollingUpdate?.maxSurge, replicas, Math.ceil),
})

/** It is the strategy that the text reads from `kubectl describe`. */
export const quarterAndQuarter = (strategy: Strategy): Verdict => ({
  ok:
    strategy.type === 'RollingUpdate' &&
    strategy.rollingUpdate?.maxUnavailable === '25%' &&
    strategy.rollingUpdate.maxSurge === '25%',
  saw: `${strategy.type ?? 'no strategy'}, ${String(strategy.rollingUpdate?.maxUnavailable ?? 'nothing')} max unavailable, ${String(strategy.rollingUpdate?.maxSurge ?? 'nothing')} max surge`,
})

/** What both directions of a rollout are held to: its bounds, and that it goes as far as they allow. */
const claimRollout = (
  bench: Bench,
  from: number,
  { ready, there }: { readonly ready: number; readonly there: number },
  which: string,
): void => {
  const [least, most, missing] = [ready, there, there - ready].map(String) as [string, string, string]
  bench.claim(
    `${which}: never fewer than ${least} pods ready and never more than ${most} there, at every change`,
    stayedWithin(bench.history, from, { ready, there }, app),
  )
  bench.claim(
    `${which}: at some moment ${least} are ready and ${missing} are not yet, ${most} together`,
    reached(bench.history, from, { ready, there }, app),
  )
}

export const rollingUpdate: Experiment = {
  workers: 1,
  run: async (bench) => {
    await deploy(bench, 'apply a Deployment of 10', 10, 'nginx:1.22')
    const { spec } = await bench.get<{ spec: { strategy: Strategy } }>('deployment', 'sample-deployment')
    bench.claim('its strategy is RollingUpdate, 25 % and 25 %', quarterAndQuarter(spec.strategy))
    const budget = budgetOf(spec.strategy, 10)
    bench.claim('of 10 pods, that is at least 8 ready and at most 13 there', {
      ok: budget.ready === 8 && budget.there === 13,
      saw: `${String(budget.ready)} ready, ${String(budget.there)} there`,
    })
    const [first] = await replicaSets(bench)
    const [update, took] = await deploy(bench, 'apply it with a newer image', 10, 'nginx:1.26')
    bench.figure('update of 10 pods', took, { ms: 117_000, how: 'text 000, on Fargate: done after 117 s' })
    claimRollout(bench, update, budget, 'update')
    const sets = await replicaSets(bench)
    bench.claim('the earlier ReplicaSet is kept, with no pods', {
      ok:
        sets.length === 2 &&
        sets.find(({ metadata }) => metadata.name === first?.metadata.name)?.spec.replicas === 0,
      saw: sets.map(({ metadata, spec }) => `${metadata.name}: ${String(spec.replicas)}`).join(', '),
    })
    const history = await bench.kubectl(['rollout', 'history', 'deployment/sample-deployment'])
    bench.claim('the history has two revisions', {
      ok: /^1\s/m.test(history) && /^2\s/m.test(history) && !/^3\s/m.test(history),
      saw: history.trim().replaceAll(/\s*\n\s*/g, '; '),
    })
    const undo = await bench.act('kubectl rollout undo', () =>
      bench.kubectl(['rollout', 'undo', 'deployment/sample-deployment']),
    )
    const undone = await bench.until(
      '10 pods of the earlier image are ready, and no others are there',
      180,
      () => settled(deploymentPods(bench), 10, 'nginx:1.22'),
      undo,
    )
    bench.figure('undo of 10 pods', undone, { ms: 116_000, how: 'text 000, on Fargate: done after 116 s' })
    claimRollout(bench, undo, budget, 'undo')
    const back = deploymentPods(bench).map(({ labels }) => labels['pod-template-hash'])
    bench.claim('the pods belong to the first ReplicaSet again', {
      ok: back.every((hash) => hash === first?.metadata.labels['pod-template-hash']),
      saw: [...new Set(back)].join(', '),
    })
  },
}

export const nodeLost: Experiment = {
  workers: 2,
  run: async (bench) => {
    await deploy(bench, 'apply a Deployment of 3', 3, 'nginx:1.26')
    const node = deploymentPods(bench)[0]?.node ?? ''
    await bench.act(`put a bare pod on ${node}, beside one of the Deployment`, () =>
      bench.apply('pod.yaml', { node }),
    )
    const bare = (): PodSeen | undefined => bench.history.pods.find(({ name }) => name === 'sample-pod')
    await bench.until('the bare pod is ready', 90, () => ({
      ok: bare()?.ready === true,
      saw: `${bare()?.phase ?? 'no such pod'} on ${bare()?.node ?? 'no node'}`,
    }))
    const before = bare()
    if (!before) throw new Error('a pod that was ready is not there')
    const elsewhere = deploymentPods(bench).filter((pod) => pod.node !== node)
    const from = bench.now()
    await bench.fault({ fault: 'power-cut', machine: node })
    const took = await bench.until(
      `the Deployment has 3 ready pods again, none of them on ${node}`,
      400,
      () => {
        const ready = deploymentPods(bench).filter((pod) => pod.ready && pod.node !== node)
        return {
          ok: ready.length === 3,
          saw: `${String(ready.length)} ready: ${ready.map((pod) => `${pod.name} on ${pod.node ?? ''}`).join(', ')}`,
        }
      },
      from,
    )
    bench.figure('from the loss of the node to 3 ready pods', took, {
      ms: 224_000,
      how: 'text 000, on EC2: at most, the age of the new pod when it was listed as running; it waited for a new node. The text says about 3 minutes',
    })
    bench.claim('pods on other nodes were not touched', untouched(bench.history, from, elsewhere))
    await bench.until('the bare pod is told to end, too: its node is given up', 60, () => ({
      ok: bare()?.terminating !== false,
      saw: bare() ? (bare()?.terminating === true ? 'Terminating' : 'not yet') : 'gone',
    }))
    await bench.heal()
    await bench.until('the bare pod is gone once its node is back', 120, () => ({
      ok: bare() === undefined,
      saw: bare() ? `still there, ${bare()?.phase ?? ''}` : 'gone',
    }))
    bench.claim('the bare pod came back nowhere', neverElsewhere(bench.history, from, before))
  },
}

/** What `apply --prune` may remove: the kinds that the text's folder holds. */
const pruned = ['core/v1/Pod', 'apps/v1/ReplicaSet', 'apps/v1/Deployment']

export const prune: Experiment = {
  workers: 1,
  run: async (bench) => {
    const folder = join(tmpdir(), `lab-prune-${randomUUID()}`)
    const write = async (name: string, data: object = {}): Promise<void> => {
      await writeFile(join(folder, name), bench.manifest(name, data))
    }
    const applyFolder = (): Promise<string> =>
      bench.kubectl(
        ['apply', '-f', folder, '--prune', '--all', ...pruned.map((kind) => `--prune-allowlist=${kind}`)],
        { timeout: 60 },
      )
    await mkdir(folder, { mode: 0o700 })
    try {
      await write('deployment.yaml', { replicas: 2, nginx: 'nginx:1.22' })
      await write('replicaset.yaml')
      await bench.act('apply a folder with a Deployment and a ReplicaSet', applyFolder)
      const set = (): readonly PodSeen[] =>
        bench.history.pods.filter(({ labels }) => labels['app'] === 'sample-rs')
      await bench.until('2 pods of each are ready', 120, () => ({
        ok:
          set().filter((pod) => pod.ready).length === 2 &&
          deploymentPods(bench).filter((pod) => pod.ready).length === 2,
        saw: `${String(set().length)} of the ReplicaSet, ${String(deploymentPods(bench).length)} of the Deployment`,
      }))
      const again = await bench.act('apply the same folder again', async () => {
        const said = await applyFolder()
        bench.claim('applying the same again changes and removes nothing', {
          ok: !/pruned|configured|created/.test(said),
          saw: said.trim().replaceAll('\n', '; '),
        })
      })
      bench.claim('no pod noticed it', nothingHappened(bench.history, again))
      await rm(join(folder, 'replicaset.yaml'))
      let said = ''
      const from = await bench.act('take the ReplicaSet out of the folder, and apply it', async () => {
        said = await applyFolder()
      })
      bench.claim('kubectl says that the ReplicaSet was pruned, and nothing else', {
        ok: (said.match(/pruned/g) ?? []).length === 1 && /sample-rs.* pruned/.test(said),
        saw: said.trim().replaceAll('\n', '; '),
      })
      const took = await bench.until(
        'its pods are gone',
        60,
        () => ({ ok: set().length === 0, saw: `${String(set().length)} left` }),
        from,
      )
      bench.figure('until what was pruned is gone', took)
      bench.claim(
        "the Deployment's pods were not touched",
        untouched(bench.history, from, deploymentPods(bench)),
      )
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  },
}
