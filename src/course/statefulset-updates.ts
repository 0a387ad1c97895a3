/** Text 004: how a StatefulSet updates its pods: in reverse order, behind a partition, or on deletion. */
import type { Verdict } from '../plan/step.js'
import type { ExperimentContext, Experiment } from '../trial/experiment-context.js'
import { nothingHappened, startUps, untouched, updatedInOrder } from '../trial/claims.js'
import { applyWeb, image, ordinals, patch, patchImage, podNamed, remove, web } from './web.js'

const patchPartition = (context: ExperimentContext, partition: number): Promise<number> =>
  patch(context, `set the partition to ${String(partition)}`, {
    spec: { updateStrategy: { type: 'RollingUpdate', rollingUpdate: { partition } } },
  })

export const reverseUpdate: Experiment = {
  name: 'reverse-update',
  description: 'A StatefulSet updates its pods from the last to the first, one at a time',
  workers: 1,
  run: async (context) => {
    await applyWeb(context, { replicas: 3 })
    const from = await patchImage(context, await image(context, 'nginx:1.26'), 'nginx:1.26')
    const took = await context.until(
      'all 3 pods have the new image',
      240,
      () => {
        const pods = context.history.pods.filter((pod) => web(pod) && pod.ready && pod.image === 'nginx:1.26')
        return { ok: pods.length === 3, saw: `${String(pods.length)} of 3` }
      },
      from,
    )
    context.figure('update of 3 pods', took)
    const added = startUps(context.history, from, ordinals(0, 2))
    if (added !== undefined)
      context.figure('start-ups of the 3 updated pods, added up', added, {
        ms: 35_000,
        how: 'text 004: 19 s, 6 s and 10 s; how long each took to end is not said',
      })
    context.claim(
      'web-2, then web-1, then web-0: each only when the one before is ready again',
      updatedInOrder(context.history, from, ['web-2', 'web-1', 'web-0'], 'nginx:1.26'),
    )
  },
}

const hasImage = (
  context: ExperimentContext,
  pod: string,
  wanted: string,
  since: string | undefined,
): Verdict => {
  const now = podNamed(context, pod)
  return {
    ok: now?.ready === true && now.image === wanted && now.uid !== since,
    saw: now ? `${now.image}, ${now.ready ? 'ready' : now.phase}` : 'gone',
  }
}

export const partition: Experiment = {
  name: 'partition',
  description: 'An update is staged behind a partition, tried on one pod, and then let through',
  workers: 1,
  run: async (context) => {
    const old = 'nginx:1.22'
    const fresh = 'nginx:1.26'
    await applyWeb(context, { replicas: 3 })
    const staged = await patchPartition(context, 3)
    await patchImage(context, await image(context, fresh), fresh)
    await context.stays('staged: behind a partition of 3 no pod is updated', 8, () =>
      nothingHappened(context.history, staged, web),
    )
    const two = podNamed(context, 'web-2')?.uid
    await remove(context, 'web-2')
    await context.until('a pod below the partition comes back as it was', 90, () =>
      hasImage(context, 'web-2', old, two),
    )
    const again = podNamed(context, 'web-2')?.uid
    const others = context.history.pods.filter((pod) => web(pod) && pod.name !== 'web-2')
    const canary = await patchPartition(context, 2)
    await context.until('canary: web-2 is updated', 90, () => hasImage(context, 'web-2', fresh, again))
    context.claim('web-0 and web-1 were not touched', untouched(context.history, canary, others))
    const one = podNamed(context, 'web-1')?.uid
    await remove(context, 'web-1')
    await context.until('web-1, below the partition, comes back as it was', 90, () =>
      hasImage(context, 'web-1', old, one),
    )
    const rollout = await patchPartition(context, 0)
    await context.until('phased: with a partition of 0 all pods are updated', 180, () => {
      const pods = context.history.pods.filter((pod) => web(pod) && pod.ready && pod.image === fresh)
      return { ok: pods.length === 3, saw: `${String(pods.length)} of 3` }
    })
    context.claim('web-1, then web-0', updatedInOrder(context.history, rollout, ['web-1', 'web-0'], fresh))
  },
}

export const onDelete: Experiment = {
  name: 'on-delete',
  description: 'With OnDelete a pod is updated only when somebody deletes it',
  workers: 1,
  run: async (context) => {
    await applyWeb(context, { replicas: 3 })
    await patch(context, 'choose OnDelete', {
      spec: { updateStrategy: { type: 'OnDelete', rollingUpdate: null } },
    })
    const from = await patchImage(context, await image(context, 'nginx:1.26'), 'nginx:1.26')
    await context.stays('no pod is updated by itself', 10, () => nothingHappened(context.history, from, web))
    const before = podNamed(context, 'web-1')?.uid
    const others = context.history.pods.filter((pod) => web(pod) && pod.name !== 'web-1')
    const deleted = await remove(context, 'web-1')
    await context.until('the pod that somebody deleted has the new image', 90, () =>
      hasImage(context, 'web-1', 'nginx:1.26', before),
    )
    context.claim('the others were not touched', untouched(context.history, deleted, others))
  },
}
