/** The StatefulSet `web` of text 004: how experiments apply it, change it, and observe its pods. */
import type { Verdict } from '../plan/step.js'
import type { ExperimentContext } from '../trial/experiment-context.js'
import type { PodSeen } from '../trial/history.js'
import { boundClaims, sameVolumes, type VolumeClaim, volumeClaims } from './volumes.js'

export const web = ({ labels }: PodSeen): boolean => labels['app'] === 'nginx'

export const podNamed = (context: ExperimentContext, name: string): PodSeen | undefined =>
  context.history.pods.find((pod) => pod.name === name)

export const ordinals = (from: number, to: number): readonly string[] =>
  Array.from({ length: to - from + 1 }, (_, index) => `web-${String(from + index)}`)

/** The pods web-0 to web-(n-1) are ready, and there are no others. */
export const complete = (pods: readonly PodSeen[], count: number): Verdict => {
  const wanted = ordinals(0, count - 1)
  const ready = pods.filter((pod) => pod.ready && wanted.includes(pod.name))
  return {
    ok: ready.length === count && pods.length === count,
    saw:
      pods
        .map((pod) => `${pod.name} ${pod.terminating ? 'Terminating' : pod.ready ? 'ready' : pod.phase}`)
        .join(', ') || 'no pods',
  }
}

export const untilComplete = (
  context: ExperimentContext,
  count: number,
  from = context.now(),
): Promise<number> =>
  context.until(
    `${String(count)} pods are ready, and no others are there`,
    240,
    () => complete(context.history.pods.filter(web), count),
    from,
  )

export const untilNone = (context: ExperimentContext, from = context.now()): Promise<number> =>
  context.until(
    'no pod is left',
    90,
    () => ({
      ok: !context.history.pods.some(web),
      saw: context.history.pods.map(({ name }) => name).join(', ') || 'none',
    }),
    from,
  )

interface Options {
  readonly replicas?: number
  readonly nginx?: string
  readonly parallel?: boolean
}

/** Milliseconds: the moment before a change, and how long it took until the pods were as desired. */
interface Settled {
  readonly from: number
  readonly took: number
}

/** Applies the StatefulSet, and waits until exactly its pods are ready. */
export const applyWeb = async (
  context: ExperimentContext,
  { replicas = 2, nginx = 'nginx:1.22', parallel = false }: Options = {},
): Promise<Settled> => {
  const from = await context.act(
    `apply a StatefulSet of ${String(replicas)}${parallel ? ' with Parallel' : ''}`,
    () => context.apply('web.yaml', { replicas, nginx, parallel }),
  )
  return { from, took: await untilComplete(context, replicas, from) }
}

/** Scales the StatefulSet, and waits until exactly that many pods are ready. */
export const scaleTo = async (context: ExperimentContext, replicas: number): Promise<Settled> => {
  const from = await context.act(`scale to ${String(replicas)}`, () =>
    context.kubectl(['scale', 'statefulset/web', `--replicas=${String(replicas)}`]),
  )
  return { from, took: await untilComplete(context, replicas, from) }
}

export const patch = (context: ExperimentContext, title: string, value: object): Promise<number> =>
  context.act(title, () => context.kubectl(['patch', 'statefulset/web', '--patch', JSON.stringify(value)]))

export const patchImage = (context: ExperimentContext, reference: string, name: string): Promise<number> =>
  patch(context, `ask for ${name}`, {
    spec: { template: { spec: { containers: [{ name: 'nginx', image: reference }] } } },
  })

export const remove = (context: ExperimentContext, pod: string): Promise<number> =>
  context.act(`delete ${pod}`, () => context.kubectl(['delete', 'pod', pod, '--wait=false']))

const claimNames = (count: number): readonly string[] => ordinals(0, count - 1).map((name) => `www-${name}`)

/** @returns the pods, so that they can be compared later */
export const claimsThere = async (
  context: ExperimentContext,
  title: string,
  count: number,
): Promise<readonly VolumeClaim[]> => {
  const found = await volumeClaims(context)
  context.claim(title, boundClaims(found, claimNames(count)))
  return found
}

export const claimsKept = async (
  context: ExperimentContext,
  title: string,
  before: readonly VolumeClaim[],
): Promise<void> => {
  context.claim(title, sameVolumes(before, await volumeClaims(context)))
}

/** Each pod writes its name into its volume, as in the text. */
export const writeNames = async (context: ExperimentContext, count: number): Promise<void> => {
  await context.act('let each pod write its name into its volume', async () => {
    for (const pod of ordinals(0, count - 1))
      await context.exec(pod, ['sh', '-c', 'echo "$(hostname)" > /usr/share/nginx/html/index.html'])
  })
}

export const namesServed = async (
  context: ExperimentContext,
  title: string,
  count: number,
): Promise<void> => {
  const served: string[] = []
  for (const pod of ordinals(0, count - 1))
    served.push(`${pod}: ${await context.exec(pod, ['curl', '-s', 'http://localhost/'])}`)
  context.claim(title, {
    ok: served.every((line, index) => line === `web-${String(index)}: web-${String(index)}`),
    saw: served.join(', '),
  })
}

export const image = async (context: ExperimentContext, name: string): Promise<string> => {
  // In the form that the lab's manifests use, so that both spellings mean the same.
  const text = context.manifest('web.yaml', { replicas: 0, nginx: name, parallel: false })
  return Promise.resolve(/image: (\S+)/.exec(text)?.[1] ?? name)
}
