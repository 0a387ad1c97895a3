/** Text 004: StatefulSets, whose pods have names, an order, and volumes of their own. */
import type { Verdict } from '../plan/step.js'
import type { ExperimentContext, Experiment } from '../trial/experiment-context.js'
import {
  endedInOrder,
  endedTogether,
  nothingHappened,
  startedInOrder,
  startedTogether,
  startUps,
  untouched,
  updatedInOrder,
} from '../trial/claims.js'
import { recordsLeadTo } from './dns.js'
import type { PodSeen } from '../trial/history.js'
import { boundClaims, sameVolumes, type VolumeClaim, volumeClaims } from './volumes.js'

const web = ({ labels }: PodSeen): boolean => labels['app'] === 'nginx'

const podNamed = (context: ExperimentContext, name: string): PodSeen | undefined =>
  context.history.pods.find((pod) => pod.name === name)

const ordinals = (from: number, to: number): readonly string[] =>
  Array.from({ length: to - from + 1 }, (_, index) => `web-${String(from + index)}`)

/** The pods web-0 to web-(n-1) are ready, and no others are there. */
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

const untilComplete = (context: ExperimentContext, count: number, from = context.now()): Promise<number> =>
  context.until(
    `${String(count)} pods are ready, and no others are there`,
    240,
    () => complete(context.history.pods.filter(web), count),
    from,
  )

const untilNone = (context: ExperimentContext, from = context.now()): Promise<number> =>
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

const applyWeb = (
  context: ExperimentContext,
  { replicas = 2, nginx = 'nginx:1.22', parallel = false }: Options = {},
): Promise<number> =>
  context.act(`apply a StatefulSet of ${String(replicas)}${parallel ? ' with Parallel' : ''}`, () =>
    context.apply('web.yaml', { replicas, nginx, parallel }),
  )

const scaleTo = (context: ExperimentContext, replicas: number): Promise<number> =>
  context.act(`scale to ${String(replicas)}`, () =>
    context.kubectl(['scale', 'statefulset/web', `--replicas=${String(replicas)}`]),
  )

const patch = (context: ExperimentContext, title: string, value: object): Promise<number> =>
  context.act(title, () => context.kubectl(['patch', 'statefulset/web', '--patch', JSON.stringify(value)]))

const patchImage = (context: ExperimentContext, reference: string, name: string): Promise<number> =>
  patch(context, `ask for ${name}`, {
    spec: { template: { spec: { containers: [{ name: 'nginx', image: reference }] } } },
  })

const patchPartition = (context: ExperimentContext, partition: number): Promise<number> =>
  patch(context, `set the partition to ${String(partition)}`, {
    spec: { updateStrategy: { type: 'RollingUpdate', rollingUpdate: { partition } } },
  })

const remove = (context: ExperimentContext, pod: string): Promise<number> =>
  context.act(`delete ${pod}`, () => context.kubectl(['delete', 'pod', pod, '--wait=false']))

const claimNames = (count: number): readonly string[] => ordinals(0, count - 1).map((name) => `www-${name}`)

/** @returns them, so that it can be said later whether they are the same */
const claimsThere = async (
  context: ExperimentContext,
  title: string,
  count: number,
): Promise<readonly VolumeClaim[]> => {
  const found = await volumeClaims(context)
  context.claim(title, boundClaims(found, claimNames(count)))
  return found
}

const claimsKept = async (
  context: ExperimentContext,
  title: string,
  before: readonly VolumeClaim[],
): Promise<void> => {
  context.claim(title, sameVolumes(before, await volumeClaims(context)))
}

/** Each writes its name into its volume, as the text does. */
const writeNames = async (context: ExperimentContext, count: number): Promise<void> => {
  await context.act('let each pod write its name into its volume', async () => {
    for (const pod of ordinals(0, count - 1))
      await context.exec(pod, ['sh', '-c', 'echo "$(hostname)" > /usr/share/nginx/html/index.html'])
  })
}

const namesServed = async (context: ExperimentContext, title: string, count: number): Promise<void> => {
  const served: string[] = []
  for (const pod of ordinals(0, count - 1))
    served.push(`${pod}: ${await context.exec(pod, ['curl', '-s', 'http://localhost/'])}`)
  context.claim(title, {
    ok: served.every((line, index) => line === `web-${String(index)}: web-${String(index)}`),
    saw: served.join(', '),
  })
}

const image = async (context: ExperimentContext, name: string): Promise<string> => {
  // As the lab's manifests ask for it, so that both spellings are the same.
  const text = context.manifest('web.yaml', { replicas: 0, nginx: name, parallel: false })
  return Promise.resolve(/image: (\S+)/.exec(text)?.[1] ?? name)
}

export const ordering: Experiment = {
  name: 'ordering',
  description: 'A StatefulSet makes its pods one after the other, and scales up and down in order',
  workers: 1,
  run: async (context) => {
    const from = await applyWeb(context)
    const took = await untilComplete(context, 2, from)
    context.figure('until 2 pods are ready', took, {
      ms: 37_000,
      how: 'text 004: 19 s and 18 s, one after the other',
    })
    context.claim(
      'web-1 is made only when web-0 is ready',
      startedInOrder(context.history, from, ordinals(0, 1)),
    )
    await claimsThere(context, 'each pod has a claim of its own, bound', 2)
    const two = context.history.pods.filter(web)
    const up = await scaleTo(context, 5)
    const grown = await untilComplete(context, 5, up)
    context.figure('from 2 to 5 pods', grown, {
      ms: 56_000,
      how: 'text 004: 19 s, 18 s and 19 s, one after the other',
    })
    context.claim(
      'web-2, web-3 and web-4 are made in order',
      startedInOrder(context.history, up, ordinals(2, 4)),
    )
    context.claim('web-0 and web-1 were not touched', untouched(context.history, up, two))
    const five = await claimsThere(context, 'all 5 have a claim of their own, bound', 5)
    const down = await scaleTo(context, 3)
    await untilComplete(context, 3, down)
    context.claim(
      'web-4 goes first, and web-3 only when it is gone',
      endedInOrder(context.history, down, ['web-4', 'web-3']),
    )
    await claimsKept(context, 'all 5 claims are kept, with their volumes', five)
  },
}

/** What a name resolves to, asked inside a pod. */
const resolved = async (context: ExperimentContext, from: string, name: string): Promise<string> =>
  (await context.exec(from, ['sh', '-c', `getent ahostsv4 ${name} | head -n 1 | cut -d' ' -f1`])).trim()

const namesResolve = async (context: ExperimentContext, title: string): Promise<void> => {
  await context.until(title, 60, async () => {
    const found = await Promise.all(
      ordinals(0, 1).map(async (pod) => {
        const own = podNamed(context, pod)?.address ?? 'no address'
        const short = await resolved(context, 'web-0', `${pod}.nginx`)
        const long = await resolved(
          context,
          'web-1',
          `${pod}.nginx.${context.namespace}.svc.${context.lab.kubernetes?.dnsDomain ?? ''}`,
        )
        return {
          ok: short === own && long === own,
          saw: `${pod}.nginx is ${short || 'nobody'}, the pod has ${own}`,
        }
      }),
    )
    return { ok: found.every(({ ok }) => ok), saw: found.map(({ saw }) => saw).join('; ') }
  })
}

const dnsPod = 'dns-test'

/** What the text asks from a pod of its own: the SRV records of the Service, and the A records of both pods. */
const recordsLead = async (context: ExperimentContext, title: string): Promise<void> => {
  const service = `nginx.${context.namespace}.svc.${context.lab.kubernetes?.dnsDomain ?? ''}`
  const ask = (type: 'a' | 'srv', name: string): Promise<string> =>
    context.exec(dnsPod, ['nslookup', `-type=${type}`, name])
  // A name server keeps an answer for some seconds: it is asked until it says what is so now.
  await context.until(title, 60, async () => {
    const members = ordinals(0, 1).map((name) => ({ name, address: podNamed(context, name)?.address }))
    const a = new Map<string, string>()
    for (const { name } of members) a.set(name, await ask('a', `${name}.${service}`))
    return recordsLeadTo(service, members, await ask('srv', service), a)
  })
}

export const identity: Experiment = {
  name: 'identity',
  description:
    'Pods of a StatefulSet keep their names, their DNS records and their volumes when they are deleted',
  workers: 1,
  run: async (context) => {
    await applyWeb(context)
    await untilComplete(context, 2)
    const hostnames = [await context.exec('web-0', ['hostname']), await context.exec('web-1', ['hostname'])]
    context.claim('each pod calls itself by its name', {
      ok: hostnames.join() === 'web-0,web-1',
      saw: hostnames.join(', '),
    })
    await namesResolve(context, 'both names lead to their pods, asked inside both')
    await context.act('start a pod of busybox to ask the name server from', () =>
      context.apply('dns-test.yaml'),
    )
    await context.until(`${dnsPod} is ready`, 60, () => ({
      ok: podNamed(context, dnsPod)?.ready === true,
      saw: podNamed(context, dnsPod)?.phase ?? 'no such pod',
    }))
    await recordsLead(context, 'the SRV records lead to both pods, the A records to their addresses')
    const volumes = await claimsThere(context, 'each pod has a claim of its own, bound', 2)
    await writeNames(context, 2)
    await namesServed(context, 'each serves the name from its volume', 2)
    const before = context.history.pods.filter(web)
    const from = await context.act('delete both pods', () =>
      context.kubectl(['delete', 'pod', '--selector', 'app=nginx', '--wait=false']),
    )
    await context.until('both are told to end, and gone', 90, () => ({
      ok: before.every(({ uid }) => !context.history.pods.some((pod) => pod.uid === uid)),
      saw:
        context.history.pods
          .filter(web)
          .map(({ name }) => name)
          .join(', ') || 'no pods',
    }))
    const took = await untilComplete(context, 2, from)
    context.figure('from the deletion until both are ready again', took, {
      ms: 36_000,
      how: 'text 004: web-0 at 2 s, web-1 34 s later, from when they were made again',
    })
    const after = context.history.pods.filter(web)
    context.claim('they are other pods with the same names', {
      ok:
        after
          .map(({ name }) => name)
          .sort()
          .join() === 'web-0,web-1' && after.every(({ uid }) => before.every((old) => old.uid !== uid)),
      saw: after.map(({ name, address }) => `${name} at ${address ?? 'no address'}`).join(', '),
    })
    await namesResolve(context, 'the names lead to the new pods')
    await recordsLead(context, 'the SRV and A records have the same names, and lead to the new addresses')
    await namesServed(context, 'each serves the name that its predecessor wrote', 2)
    await claimsKept(context, 'the claims are the same 2, with the volumes that they had', volumes)
  },
}

export const reverseUpdate: Experiment = {
  name: 'reverse-update',
  description: 'A StatefulSet updates its pods from the last to the first, one at a time',
  workers: 1,
  run: async (context) => {
    await applyWeb(context, { replicas: 3 })
    await untilComplete(context, 3)
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
    await untilComplete(context, 3)
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
    await untilComplete(context, 3)
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

export const deleteModes: Experiment = {
  name: 'delete-modes',
  description: 'Orphaned pods outlive their StatefulSet and are adopted by the next; cascaded ones do not',
  workers: 1,
  run: async (context) => {
    await applyWeb(context, { replicas: 3 })
    await untilComplete(context, 3)
    await writeNames(context, 3)
    const volumes = await claimsThere(context, 'each pod has a claim of its own, bound', 3)
    const pods = context.history.pods.filter(web)
    const orphaned = await context.act('delete the StatefulSet with --cascade=orphan', () =>
      context.kubectl(['delete', 'statefulset', 'web', '--cascade=orphan']),
    )
    await context.stays('all 3 pods run on', 5, () => untouched(context.history, orphaned, pods))
    await remove(context, 'web-0')
    await context.until('web-0 is gone', 60, () => ({
      ok: podNamed(context, 'web-0') === undefined,
      saw: podNamed(context, 'web-0')?.phase ?? 'gone',
    }))
    await context.stays('nobody makes web-0 again', 8, () => ({
      ok: podNamed(context, 'web-0') === undefined,
      saw: podNamed(context, 'web-0') ? 'it is back' : 'no web-0',
    }))
    const one = context.history.pods.filter(({ name }) => name === 'web-1')
    const adopted = await applyWeb(context, { replicas: 2 })
    await untilComplete(context, 2, adopted)
    context.claim('a new StatefulSet of 2 adopted web-1 as it was', untouched(context.history, adopted, one))
    context.claim('it ended web-2, which it does not want', endedInOrder(context.history, adopted, ['web-2']))
    await namesServed(context, 'web-0, made anew, serves what the first one wrote', 2)
    const cascaded = await context.act('delete the StatefulSet, and its pods with it', () =>
      context.kubectl(['delete', 'statefulset', 'web']),
    )
    const took = await untilNone(context, cascaded)
    context.figure('until the pods of a deleted StatefulSet are gone', took)
    // The text says: one by one, the last first. That was so when the StatefulSet's own controller did it; today the
    // garbage collector does, and has no order.
    context.claim(
      'the pods are told to end together (the walkthrough: one after the other)',
      endedTogether(context.history, cascaded, ordinals(0, 1)),
    )
    await claimsKept(context, 'the claims are kept, with their volumes', volumes)
    const service = await context.kubectl(['get', 'service', 'nginx', '-o', 'name'])
    context.claim('the Service is kept', { ok: service.trim() === 'service/nginx', saw: service.trim() })
    await applyWeb(context, { replicas: 2 })
    await untilComplete(context, 2)
    await namesServed(context, 'a third StatefulSet serves what the first one wrote', 2)
  },
}

export const parallel: Experiment = {
  name: 'parallel',
  description: 'With Parallel, all pods of a StatefulSet are started and ended at the same time',
  workers: 1,
  run: async (context) => {
    const from = await applyWeb(context, { parallel: true })
    const took = await untilComplete(context, 2, from)
    context.figure('until 2 pods are ready', took, { ms: 10_000, how: 'text 004: both after 10 s' })
    context.claim('web-0 and web-1 are made together', startedTogether(context.history, from, ordinals(0, 1)))
    const up = await scaleTo(context, 4)
    const grown = await untilComplete(context, 4, up)
    context.figure('from 2 to 4 pods', grown, {
      ms: 26_000,
      how: 'text 004: web-2 after 10 s, web-3 after 26 s',
    })
    context.claim('web-2 and web-3 are made together', startedTogether(context.history, up, ordinals(2, 3)))
    const down = await context.act('delete the StatefulSet', () =>
      context.kubectl(['delete', 'statefulset', 'web']),
    )
    await untilNone(context)
    context.claim('all 4 are told to end together', endedTogether(context.history, down, ordinals(0, 3)))
  },
}
