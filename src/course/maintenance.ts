/** Text 004: nodes are drained, and a disruption budget decides how many servers may be missing. */
import { uncordoning } from '../fault/drain.js'
import { messageOf } from '../error.js'
import type { Verdict } from '../plan/step.js'
import type { ExperimentContext, Experiment } from '../trial/experiment-context.js'
import { stayedWithin, untouched } from '../trial/claims.js'
import type { PodSeen } from '../trial/history.js'
import { forget, podNamed, put, read, servers, threeReady, withLedger, zk } from './zookeeper-servers.js'

/** Drains a node as the text does. @returns kubectl's output if it did not complete in time */
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

/** The result of a drain, and the state of the node and the pods afterwards. */
export interface DrainSeen {
  /** kubectl's output if it gave up; undefined if it completed. */
  readonly said: string | undefined
  /** The node is unschedulable. */
  readonly cordoned: boolean
  /** Pods of the ensemble that are still on the node. */
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

/** The drain completed: the node is unschedulable, and no pod of the ensemble is left on it. */
export const drained = ({ said, cordoned, left }: DrainSeen): Verdict => ({
  ok: said === undefined && cordoned && left.length === 0,
  saw: [
    said ?? 'kubectl: drained',
    cordoned ? 'cordoned' : 'not cordoned',
    `${left.map(({ name }) => name).join(', ') || 'no server'} on it`,
  ].join('; '),
})

/** The fields of a disruption budget in the API server. */
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
  saw: `${String(status.disruptionsAllowed)} disruptions allowed: ${String(status.currentHealthy)} of ${String(status.expectedPods)} healthy, ${String(status.desiredHealthy)} required`,
})

/**
 * A disruption budget refused the drain, and nothing else did: the drain did not complete, the API server refuses an
 * eviction of that pod because of the budget, the budget allows none, the pod is unchanged, and the node is
 * unschedulable.
 * @param answer to a dry run of the pod's eviction
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
      ? 'the drain completed'
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
    context.claim('the budget allows one unavailable server', allows(await budget(), 1))
    await withLedger(context, async () => {
      const from = context.now()
      const nodeOf = (server: string): string => podNamed(context, server)?.node ?? ''
      const [first, second, third] = servers.map(nodeOf) as [string, string, string]
      const empty = async (title: string, node: string, claimed: string): Promise<void> => {
        let said: string | undefined
        await context.act(title, async () => {
          said = await drain(context, node, 90)
        })
        // The last change of a pod may still be on its way.
        await context.until(claimed, 15, async () => drained(await drainSeen(context, node, said)))
      }
      await empty(`drain ${first}, the node of zk-0`, first, 'the first drain completes')
      await context.until('zk-0 is ready on the fourth node', 180, () => {
        const { ok, saw } = threeReady(context)
        return { ok: ok && ![first, second, third].includes(nodeOf('zk-0')), saw }
      })
      await empty(`drain ${second}, the node of zk-1`, second, 'the second drain completes')
      await context.until('zk-1 fits on no node, and its events say why', 90, () => {
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
      await empty(`drain ${third} again`, third, 'now it completes')
      await context.act(`uncordon ${second}`, () => context.kubectl(['uncordon', second]))
      await context.until('zk-2 is ready on the second node', 240, () => {
        const { ok, saw } = threeReady(context)
        return { ok: ok && nodeOf('zk-2') === second, saw }
      })
      context.claim(
        'at least 2 of 3 were ready at every change',
        stayedWithin(context.history, from, { ready: 2, there: 3 }, zk),
      )
    })
    await read(context, 'what was written before is still there', 'zk-2', value)
    await forget(context)
  },
}
