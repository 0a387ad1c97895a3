/** Text 004: StatefulSets, whose pods have names, an order, and volumes of their own. */
import type { Verdict } from '../plan/step.js'
import type { Bench, Experiment } from '../trial/experiment.js'
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

const podNamed = (bench: Bench, name: string): PodSeen | undefined =>
  bench.history.pods.find((pod) => pod.name === name)

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

const untilComplete = (bench: Bench, count: number, from = bench.now()): Promise<number> =>
  bench.until(
    `${String(count)} pods are ready, and no others are there`,
    240,
    () => complete(bench.history.pods.filter(web), count),
    from,
  )

const untilNone = (bench: Bench, from = bench.now()): Promise<number> =>
  bench.until(
    'no pod is left',
    90,
    () => ({
      ok: !bench.history.pods.some(web),
      saw: bench.history.pods.map(({ name }) => name).join(', ') || 'none',
    }),
    from,
  )

interface Options {
  readonly replicas?: number
  readonly nginx?: string
  readonly parallel?: boolean
}

const applyWeb = (
  bench: Bench,
  { replicas = 2, nginx = 'nginx:1.22', parallel = false }: Options = {},
): Promise<number> =>
  bench.act(`apply a StatefulSet of ${String(replicas)}${parallel ? ' with Parallel' : ''}`, () =>
    bench.apply('web.yaml', { replicas, nginx, parallel }),
  )

const scaleTo = (bench: Bench, replicas: number): Promise<number> =>
  bench.act(`scale to ${String(replicas)}`, () =>
    bench.kubectl(['scale', 'statefulset/web', `--replicas=${String(replicas)}`]),
  )

const patch = (bench: Bench, title: string, value: object): Promise<number> =>
  bench.act(title, () => bench.kubectl(['patch', 'statefulset/web', '--patch', JSON.stringify(value)]))

const patchImage = (bench: Bench, reference: string, name: string): Promise<number> =>
  patch(bench, `ask for ${name}`, {
    spec: { template: { spec: { containers: [{ name: 'nginx', image: reference }] } } },
  })

const patchPartition = (bench: Bench, partition: number): Promise<number> =>
  patch(bench, `set the partition to ${String(partition)}`, {
    spec: { updateStrategy: { type: 'RollingUpdate', rollingUpdate: { partition } } },
  })

const remove = (bench: Bench, pod: string): Promise<number> =>
  bench.act(`delete ${pod}`, () => bench.kubectl(['delete', 'pod', pod, '--wait=false']))

const claimNames = (count: number): readonly string[] => ordinals(0, count - 1).map((name) => `www-${name}`)

/** @returns them, so that it can be said later whether they are the same */
const claimsThere = async (bench: Bench, title: string, count: number): Promise<readonly VolumeClaim[]> => {
  const found = await volumeClaims(bench)
  bench.claim(title, boundClaims(found, claimNames(count)))
  return found
}

const claimsKept = async (bench: Bench, title: string, before: readonly VolumeClaim[]): Promise<void> => {
  bench.claim(title, sameVolumes(before, await volumeClaims(bench)))
}

/** Each writes its name into its volume, as the text does. */
const writeNames = async (bench: Bench, count: number): Promise<void> => {
  await bench.act('let each pod write its name into its volume', async () => {
    for (const pod of ordinals(0, count - 1))
      await bench.exec(pod, ['sh', '-c', 'echo "$(hostname)" > /usr/share/nginx/html/index.html'])
  })
}

const namesServed = async (bench: Bench, title: string, count: number): Promise<void> => {
  const served: string[] = []
  for (const pod of ordinals(0, count - 1))
    served.push(`${pod}: ${await bench.exec(pod, ['curl', '-s', 'http://localhost/'])}`)
  bench.claim(title, {
    ok: served.every((line, index) => line === `web-${String(index)}: web-${String(index)}`),
    saw: served.join(', '),
  })
}

const image = async (bench: Bench, name: string): Promise<string> => {
  // As the lab's manifests ask for it, so that both spellings are the same.
  const text = bench.manifest('web.yaml', { replicas: 0, nginx: name, parallel: false })
  return Promise.resolve(/image: (\S+)/.exec(text)?.[1] ?? name)
}

export const ordering: Experiment = {
  workers: 1,
  run: async (bench) => {
    const from = await applyWeb(bench)
    const took = await untilComplete(bench, 2, from)
    bench.figure('until 2 pods are ready', took, {
      ms: 37_000,
      how: 'text 004: 19 s and 18 s, one after the other',
    })
    bench.claim('web-1 is made only when web-0 is ready', startedInOrder(bench.history, from, ordinals(0, 1)))
    await claimsThere(bench, 'each pod has a claim of its own, bound', 2)
    const two = bench.history.pods.filter(web)
    const up = await scaleTo(bench, 5)
    const grown = await untilComplete(bench, 5, up)
    bench.figure('from 2 to 5 pods', grown, {
      ms: 56_000,
      how: 'text 004: 19 s, 18 s and 19 s, one after the other',
    })
    bench.claim('web-2, web-3 and web-4 are made in order', startedInOrder(bench.history, up, ordinals(2, 4)))
    bench.claim('web-0 and web-1 were not touched', untouched(bench.history, up, two))
    const five = await claimsThere(bench, 'all 5 have a claim of their own, bound', 5)
    const down = await scaleTo(bench, 3)
    await untilComplete(bench, 3, down)
    bench.claim(
      'web-4 goes first, and web-3 only when it is gone',
      endedInOrder(bench.history, down, ['web-4', 'web-3']),
    )
    await claimsKept(bench, 'all 5 claims are kept, with their volumes', five)
  },
}

/** What a name resolves to, asked inside a pod. */
const resolved = async (bench: Bench, from: string, name: string): Promise<string> =>
  (await bench.exec(from, ['sh', '-c', `getent ahostsv4 ${name} | head -n 1 | cut -d' ' -f1`])).trim()

const namesResolve = async (bench: Bench, title: string): Promise<void> => {
  await bench.until(title, 60, async () => {
    const found = await Promise.all(
      ordinals(0, 1).map(async (pod) => {
        const own = podNamed(bench, pod)?.address ?? 'no address'
        const short = await resolved(bench, 'web-0', `${pod}.nginx`)
        const long = await resolved(
          bench,
          'web-1',
          `${pod}.nginx.${bench.namespace}.svc.${bench.lab.kubernetes?.dnsDomain ?? ''}`,
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
const recordsLead = async (bench: Bench, title: string): Promise<void> => {
  const service = `nginx.${bench.namespace}.svc.${bench.lab.kubernetes?.dnsDomain ?? ''}`
  const ask = (type: 'a' | 'srv', name: string): Promise<string> =>
    bench.exec(dnsPod, ['nslookup', `-type=${type}`, name])
  // A name server keeps an answer for some seconds: it is asked until it says what is so now.
  await bench.until(title, 60, async () => {
    const members = ordinals(0, 1).map((name) => ({ name, address: podNamed(bench, name)?.address }))
    const a = new Map<string, string>()
    for (const { name } of members) a.set(name, await ask('a', `${name}.${service}`))
    return recordsLeadTo(service, members, await ask('srv', service), a)
  })
}

export const identity: Experiment = {
  workers: 1,
  run: async (bench) => {
    await applyWeb(bench)
    await untilComplete(bench, 2)
    const hostnames = [await bench.exec('web-0', ['hostname']), await bench.exec('web-1', ['hostname'])]
    bench.claim('each pod calls itself by its name', {
      ok: hostnames.join() === 'web-0,web-1',
      saw: hostnames.join(', '),
    })
    await namesResolve(bench, 'both names lead to their pods, asked inside both')
    await bench.act('start a pod of busybox to ask the name server from', () => bench.apply('dns-test.yaml'))
    await bench.until(`${dnsPod} is ready`, 60, () => ({
      ok: podNamed(bench, dnsPod)?.ready === true,
      saw: podNamed(bench, dnsPod)?.phase ?? 'no such pod',
    }))
    await recordsLead(bench, 'the SRV records lead to both pods, the A records to their addresses')
    const volumes = await claimsThere(bench, 'each pod has a claim of its own, bound', 2)
    await writeNames(bench, 2)
    await namesServed(bench, 'each serves the name from its volume', 2)
    const before = bench.history.pods.filter(web)
    const from = await bench.act('delete both pods', () =>
      bench.kubectl(['delete', 'pod', '--selector', 'app=nginx', '--wait=false']),
    )
    await bench.until('both are told to end, and gone', 90, () => ({
      ok: before.every(({ uid }) => !bench.history.pods.some((pod) => pod.uid === uid)),
      saw:
        bench.history.pods
          .filter(web)
          .map(({ name }) => name)
          .join(', ') || 'no pods',
    }))
    const took = await untilComplete(bench, 2, from)
    bench.figure('from the deletion until both are ready again', took, {
      ms: 36_000,
      how: 'text 004: web-0 at 2 s, web-1 34 s later, from when they were made again',
    })
    const after = bench.history.pods.filter(web)
    bench.claim('they are other pods with the same names', {
      ok:
        after
          .map(({ name }) => name)
          .sort()
          .join() === 'web-0,web-1' && after.every(({ uid }) => before.every((old) => old.uid !== uid)),
      saw: after.map(({ name, address }) => `${name} at ${address ?? 'no address'}`).join(', '),
    })
    await namesResolve(bench, 'the names lead to the new pods')
    await recordsLead(bench, 'the SRV and A records have the same names, and lead to the new addresses')
    await namesServed(bench, 'each serves the name that its predecessor wrote', 2)
    await claimsKept(bench, 'the claims are the same 2, with the volumes that they had', volumes)
  },
}

export const reverseUpdate: Experiment = {
  workers: 1,
  run: async (bench) => {
    await applyWeb(bench, { replicas: 3 })
    await untilComplete(bench, 3)
    const from = await patchImage(bench, await image(bench, 'nginx:1.26'), 'nginx:1.26')
    const took = await bench.until(
      'all 3 pods have the new image',
      240,
      () => {
        const pods = bench.history.pods.filter((pod) => web(pod) && pod.ready && pod.image === 'nginx:1.26')
        return { ok: pods.length === 3, saw: `${String(pods.length)} of 3` }
      },
      from,
    )
    bench.figure('update of 3 pods', took)
    const added = startUps(bench.history, from, ordinals(0, 2))
    if (added !== undefined)
      bench.figure('start-ups of the 3 updated pods, added up', added, {
        ms: 35_000,
        how: 'text 004: 19 s, 6 s and 10 s; how long each took to end is not said',
      })
    bench.claim(
      'web-2, then web-1, then web-0: each only when the one before is ready again',
      updatedInOrder(bench.history, from, ['web-2', 'web-1', 'web-0'], 'nginx:1.26'),
    )
  },
}

const hasImage = (bench: Bench, pod: string, wanted: string, since: string | undefined): Verdict => {
  const now = podNamed(bench, pod)
  return {
    ok: now?.ready === true && now.image === wanted && now.uid !== since,
    saw: now ? `${now.image}, ${now.ready ? 'ready' : now.phase}` : 'gone',
  }
}

export const partition: Experiment = {
  workers: 1,
  run: async (bench) => {
    const old = 'nginx:1.22'
    const fresh = 'nginx:1.26'
    await applyWeb(bench, { replicas: 3 })
    await untilComplete(bench, 3)
    const staged = await patchPartition(bench, 3)
    await patchImage(bench, await image(bench, fresh), fresh)
    await bench.stays('staged: behind a partition of 3 no pod is updated', 8, () =>
      nothingHappened(bench.history, staged, web),
    )
    const two = podNamed(bench, 'web-2')?.uid
    await remove(bench, 'web-2')
    await bench.until('a pod below the partition comes back as it was', 90, () =>
      hasImage(bench, 'web-2', old, two),
    )
    const again = podNamed(bench, 'web-2')?.uid
    const others = bench.history.pods.filter((pod) => web(pod) && pod.name !== 'web-2')
    const canary = await patchPartition(bench, 2)
    await bench.until('canary: web-2 is updated', 90, () => hasImage(bench, 'web-2', fresh, again))
    bench.claim('web-0 and web-1 were not touched', untouched(bench.history, canary, others))
    const one = podNamed(bench, 'web-1')?.uid
    await remove(bench, 'web-1')
    await bench.until('web-1, below the partition, comes back as it was', 90, () =>
      hasImage(bench, 'web-1', old, one),
    )
    const rollout = await patchPartition(bench, 0)
    await bench.until('phased: with a partition of 0 all pods are updated', 180, () => {
      const pods = bench.history.pods.filter((pod) => web(pod) && pod.ready && pod.image === fresh)
      return { ok: pods.length === 3, saw: `${String(pods.length)} of 3` }
    })
    bench.claim('web-1, then web-0', updatedInOrder(bench.history, rollout, ['web-1', 'web-0'], fresh))
  },
}

export const onDelete: Experiment = {
  workers: 1,
  run: async (bench) => {
    await applyWeb(bench, { replicas: 3 })
    await untilComplete(bench, 3)
    await patch(bench, 'choose OnDelete', {
      spec: { updateStrategy: { type: 'OnDelete', rollingUpdate: null } },
    })
    const from = await patchImage(bench, await image(bench, 'nginx:1.26'), 'nginx:1.26')
    await bench.stays('no pod is updated by itself', 10, () => nothingHappened(bench.history, from, web))
    const before = podNamed(bench, 'web-1')?.uid
    const others = bench.history.pods.filter((pod) => web(pod) && pod.name !== 'web-1')
    const deleted = await remove(bench, 'web-1')
    await bench.until('the pod that somebody deleted has the new image', 90, () =>
      hasImage(bench, 'web-1', 'nginx:1.26', before),
    )
    bench.claim('the others were not touched', untouched(bench.history, deleted, others))
  },
}

export const deleteModes: Experiment = {
  workers: 1,
  run: async (bench) => {
    await applyWeb(bench, { replicas: 3 })
    await untilComplete(bench, 3)
    await writeNames(bench, 3)
    const volumes = await claimsThere(bench, 'each pod has a claim of its own, bound', 3)
    const pods = bench.history.pods.filter(web)
    const orphaned = await bench.act('delete the StatefulSet with --cascade=orphan', () =>
      bench.kubectl(['delete', 'statefulset', 'web', '--cascade=orphan']),
    )
    await bench.stays('all 3 pods run on', 5, () => untouched(bench.history, orphaned, pods))
    await remove(bench, 'web-0')
    await bench.until('web-0 is gone', 60, () => ({
      ok: podNamed(bench, 'web-0') === undefined,
      saw: podNamed(bench, 'web-0')?.phase ?? 'gone',
    }))
    await bench.stays('nobody makes web-0 again', 8, () => ({
      ok: podNamed(bench, 'web-0') === undefined,
      saw: podNamed(bench, 'web-0') ? 'it is back' : 'no web-0',
    }))
    const one = bench.history.pods.filter(({ name }) => name === 'web-1')
    const adopted = await applyWeb(bench, { replicas: 2 })
    await untilComplete(bench, 2, adopted)
    bench.claim('a new StatefulSet of 2 adopted web-1 as it was', untouched(bench.history, adopted, one))
    bench.claim('it ended web-2, which it does not want', endedInOrder(bench.history, adopted, ['web-2']))
    await namesServed(bench, 'web-0, made anew, serves what the first one wrote', 2)
    const cascaded = await bench.act('delete the StatefulSet, and its pods with it', () =>
      bench.kubectl(['delete', 'statefulset', 'web']),
    )
    const took = await untilNone(bench, cascaded)
    bench.figure('until the pods of a deleted StatefulSet are gone', took)
    // The text says: one by one, the last first. That was so when the StatefulSet's own controller did it; today the
    // garbage collector does, and has no order.
    bench.claim(
      'the pods are told to end together (the walkthrough: one after the other)',
      endedTogether(bench.history, cascaded, ordinals(0, 1)),
    )
    await claimsKept(bench, 'the claims are kept, with their volumes', volumes)
    const service = await bench.kubectl(['get', 'service', 'nginx', '-o', 'name'])
    bench.claim('the Service is kept', { ok: service.trim() === 'service/nginx', saw: service.trim() })
    await applyWeb(bench, { replicas: 2 })
    await untilComplete(bench, 2)
    await namesServed(bench, 'a third StatefulSet serves what the first one wrote', 2)
  },
}

export const parallel: Experiment = {
  workers: 1,
  run: async (bench) => {
    const from = await applyWeb(bench, { parallel: true })
    const took = await untilComplete(bench, 2, from)
    bench.figure('until 2 pods are ready', took, { ms: 10_000, how: 'text 004: both after 10 s' })
    bench.claim('web-0 and web-1 are made together', startedTogether(bench.history, from, ordinals(0, 1)))
    const up = await scaleTo(bench, 4)
    const grown = await untilComplete(bench, 4, up)
    bench.figure('from 2 to 4 pods', grown, {
      ms: 26_000,
      how: 'text 004: web-2 after 10 s, web-3 after 26 s',
    })
    bench.claim('web-2 and web-3 are made together', startedTogether(bench.history, up, ordinals(2, 3)))
    const down = await bench.act('delete the StatefulSet', () =>
      bench.kubectl(['delete', 'statefulset', 'web']),
    )
    await untilNone(bench)
    bench.claim('all 4 are told to end together', endedTogether(bench.history, down, ordinals(0, 3)))
  },
}
