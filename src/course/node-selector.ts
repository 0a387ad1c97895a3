/** Text 003: pods that may run only on nodes of one type, and their only node is lost. */
import { z } from 'zod'
import { undoAct } from '../fault/undo-act.js'
import { machinesWith } from '../lab/lab.js'
import type { Verdict } from '../plan/step.js'
import type { ExperimentContext, Experiment } from '../trial/experiment-context.js'
import { fitsNoNode, neverElsewhere, nothingHappened, waitForTheirNode } from '../trial/claims.js'
import type { PodSeen } from '../trial/history.js'
import { app, type Node, placed, readyPods, setPods, untilNotReady } from './replicaset.js'

const nodeTypes = { pinned: 'AWS', other: 'GCP' } as const

const applyThree = (
  context: ExperimentContext,
  title: string,
  nginx: string,
  nodeType: string,
): Promise<number> =>
  context.act(title, () => context.apply('replicaset.yaml', { replicas: 3, nginx, nodeType }))

/** The node had no such label before. */
const unlabelling = undoAct('unlabel', { label: z.string() }, async ({ kubectl }, { machine, label }) => {
  await kubectl.run(['label', 'node', machine, `${label}-`])
})

/** Who takes part. */
interface Scene {
  /** The only node of the pods' type, and the other workers. */
  readonly node: string
  readonly others: readonly string[]
  /** The pod that nothing makes again. */
  readonly bare: () => PodSeen | undefined
}

/** Pods that fit no node run when one gets the label. */
const runWhenLabelled = async (context: ExperimentContext, { node, others, bare }: Scene): Promise<void> => {
  await applyThree(
    context,
    'apply a ReplicaSet of 3 for nodes with type=AWS, which no node has',
    'nginx:1.22',
    'AWS',
  )
  await context.until('its 3 pods fit no node, and say why', 60, () => {
    const pods = setPods(context)
    return {
      ok: pods.length === 3 && pods.every(fitsNoNode),
      saw:
        pods.map(({ name, unschedulable, phase }) => `${name}: ${unschedulable ?? phase}`).join(', ') ||
        'none',
    }
  })
  for (const name of [node, ...others]) await context.undoLater(unlabelling.of(name, { label: 'type' }))
  const labelled = await context.act(
    `label ${node} type=${nodeTypes.pinned}, and ${others.join(', ')} type=${nodeTypes.other}`,
    async () => {
      await context.kubectl(['label', 'node', node, `type=${nodeTypes.pinned}`])
      await context.kubectl(['label', 'node', ...others, `type=${nodeTypes.other}`])
    },
  )
  await context.act('apply a bare pod of two containers for the same nodes', () =>
    context.apply('2pod.yaml', { nodeType: nodeTypes.pinned }),
  )
  const took = await context.until(
    `the 3 pods and the bare one run on ${node}`,
    120,
    () => ({
      ok:
        readyPods(context).length === 3 &&
        setPods(context).length === 3 &&
        [...setPods(context), bare()].every((pod) => pod?.ready === true && pod.node === node),
      saw: placed(context.history.pods.filter(({ ready }) => ready)),
    }),
    labelled,
  )
  context.figure('from the labels to ready pods', took)
}

/** A change of the template reaches no pod that is there. */
const newTemplates = async (context: ExperimentContext): Promise<void> => {
  const free = await applyThree(
    context,
    'take the nodeSelector out of the template, with a newer image',
    'nginx:1.26',
    '',
  )
  await context.stays('a new template touches no pod that is there, neither its node nor its image', 5, () =>
    nothingHappened(context.history, free, app),
  )
  const pinned = await applyThree(
    context,
    'put the nodeSelector back into the template',
    'nginx:1.26',
    nodeTypes.pinned,
  )
  await context.stays('the new template does not touch them either', 5, () =>
    nothingHappened(context.history, pinned, app),
  )
}

/** The only node of their type is lost: the pods wait for it, although others are ready. */
const loseTheNode = async (context: ExperimentContext, scene: Scene, bareBefore: PodSeen): Promise<void> => {
  const { node, others, bare } = scene
  const lost = setPods(context)
  const from = context.now()
  await context.fault({ fault: 'power-cut', machine: node })
  await untilNotReady(context, node, from)
  const held = (): Verdict => waitForTheirNode(setPods(context), node, lost)
  const given = await context.until(
    `3 pods are Terminating on ${node}, and 3 others Pending: they fit nowhere else`,
    180,
    held,
    from,
  )
  context.figure('from the loss of the node to 3 Pending pods', given)
  await context.until('the bare pod is Terminating, too', 60, () => ({
    ok: bare()?.uid === bareBefore.uid && bare()?.terminating === true,
    saw: bare()
      ? `${bareBefore.name} ${bare()?.terminating === true ? 'Terminating' : 'not yet told to end'}`
      : 'gone',
  }))
  const { items } = await context.get<{ items: (Node & { metadata: { name: string } })[] }>(
    'nodes',
    '-l',
    `type=${nodeTypes.other}`,
  )
  context.claim(`${others.join(', ')} are ready, but are not used`, {
    ok:
      items.length === others.length &&
      items.every(({ status }) =>
        status.conditions.some(({ type, status: value }) => type === 'Ready' && value === 'True'),
      ),
    saw:
      items.map(({ metadata }) => `${metadata.name} with type=${nodeTypes.other}`).join(', ') ||
      'no such nodes',
  })
  await context.stays('they stay so as long as their node is off', 10, held)
  await bringItBack(context, scene)
  context.claim('the bare pod did not come back anywhere', neverElsewhere(context.history, from, bareBefore))
}

/** With the node, the pods that waited run. */
const bringItBack = async (context: ExperimentContext, { node, bare }: Scene): Promise<void> => {
  const waiting = setPods(context).filter(({ terminating }) => !terminating)
  const back = context.now()
  await context.heal()
  const again = await context.until(
    'once the node is back, the lost pods are gone, and those that waited run there',
    180,
    () => ({
      ok:
        setPods(context).length === 3 &&
        waiting.every(({ uid }) => readyPods(context).some((pod) => pod.uid === uid && pod.node === node)) &&
        bare() === undefined,
      saw: placed(context.history.pods),
    }),
    back,
  )
  context.figure('from switching the node on until the pods that waited run', again)
}

export const nodeSelector: Experiment = {
  name: 'node-selector',
  description:
    'Pods for the nodes of one type stay Pending when their only node is lost, say why, and run there when it is back',
  workers: 2,
  faults: ['power-cut'],
  undos: [unlabelling],
  run: async (context) => {
    const others = machinesWith(context.lab, 'worker').map(({ name }) => name)
    const node = others.pop() ?? ''
    const bare = (): PodSeen | undefined => context.history.pods.find(({ name }) => name === 'sample-2pod')
    const scene: Scene = { node, others, bare }
    await runWhenLabelled(context, scene)
    await newTemplates(context)
    const bareBefore = bare()
    if (!bareBefore) throw new Error('a pod that was ready is not there')
    await loseTheNode(context, scene, bareBefore)
  },
}
