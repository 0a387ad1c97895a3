/** Text 004: StatefulSets, whose pods have names, an order, and volumes of their own. */
import type { ExperimentContext, Experiment } from '../trial/experiment-context.js'
import { endedInOrder, endedTogether, startedInOrder, startedTogether, untouched } from '../trial/claims.js'
import { recordsLeadTo } from './dns.js'
import {
  applyWeb,
  claimsKept,
  claimsThere,
  namesServed,
  ordinals,
  podNamed,
  remove,
  scaleTo,
  untilComplete,
  untilNone,
  web,
  writeNames,
} from './web.js'

export const ordering: Experiment = {
  name: 'ordering',
  description: 'A StatefulSet makes its pods one after the other, and scales up and down in order',
  workers: 1,
  run: async (context) => {
    const { from, took } = await applyWeb(context)
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
    const { from: up, took: grown } = await scaleTo(context, 5)
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
    const { from: down } = await scaleTo(context, 3)
    context.claim(
      'web-4 goes first, and web-3 only when it is gone',
      endedInOrder(context.history, down, ['web-4', 'web-3']),
    )
    await claimsKept(context, 'all 5 claims are kept, with their volumes', five)
  },
}

/** The addresses of a name, resolved inside a pod. */
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
          saw: `${pod}.nginx leads to ${short || 'nothing'}, the pod has ${own}`,
        }
      }),
    )
    return { ok: found.every(({ ok }) => ok), saw: found.map(({ saw }) => saw).join('; ') }
  })
}

const dnsPod = 'dns-test'

/**
 * The queries that the text makes from a separate pod: the SRV records of the Service, and the A records of both
 * pods.
 */
const recordsLead = async (context: ExperimentContext, title: string): Promise<void> => {
  const service = `nginx.${context.namespace}.svc.${context.lab.kubernetes?.dnsDomain ?? ''}`
  const ask = (type: 'a' | 'srv', name: string): Promise<string> =>
    context.exec(dnsPod, ['nslookup', `-type=${type}`, name])
  // A name server caches answers for some seconds, so it is asked again until the answer is current.
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
    const hostnames = [await context.exec('web-0', ['hostname']), await context.exec('web-1', ['hostname'])]
    context.claim('each pod has its name as its host name', {
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

export const deleteModes: Experiment = {
  name: 'delete-modes',
  description: 'Orphaned pods outlive their StatefulSet and are adopted by the next; cascaded ones do not',
  workers: 1,
  run: async (context) => {
    await applyWeb(context, { replicas: 3 })
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
    await context.stays('web-0 is not made again', 8, () => ({
      ok: podNamed(context, 'web-0') === undefined,
      saw: podNamed(context, 'web-0') ? 'it is back' : 'no web-0',
    }))
    const one = context.history.pods.filter(({ name }) => name === 'web-1')
    const { from: adopted } = await applyWeb(context, { replicas: 2 })
    context.claim('a new StatefulSet of 2 adopted web-1 as it was', untouched(context.history, adopted, one))
    context.claim(
      'it ended web-2, which is beyond its replicas',
      endedInOrder(context.history, adopted, ['web-2']),
    )
    await namesServed(context, 'web-0, made anew, serves what the first one wrote', 2)
    const cascaded = await context.act('delete the StatefulSet, and its pods with it', () =>
      context.kubectl(['delete', 'statefulset', 'web']),
    )
    const took = await untilNone(context, cascaded)
    context.figure('until the pods of a deleted StatefulSet are gone', took)
    // The text says: one by one, the last first. That was the StatefulSet controller's order; today the garbage
    // collector deletes them in no particular order.
    context.claim(
      'the pods are told to end together (the walkthrough: one after the other)',
      endedTogether(context.history, cascaded, ordinals(0, 1)),
    )
    await claimsKept(context, 'the claims are kept, with their volumes', volumes)
    const service = await context.kubectl(['get', 'service', 'nginx', '-o', 'name'])
    context.claim('the Service is kept', { ok: service.trim() === 'service/nginx', saw: service.trim() })
    await applyWeb(context, { replicas: 2 })
    await namesServed(context, 'a third StatefulSet serves what the first one wrote', 2)
  },
}

export const parallel: Experiment = {
  name: 'parallel',
  description: 'With Parallel, all pods of a StatefulSet are started and ended at the same time',
  workers: 1,
  run: async (context) => {
    const { from, took } = await applyWeb(context, { parallel: true })
    context.figure('until 2 pods are ready', took, { ms: 10_000, how: 'text 004: both after 10 s' })
    context.claim('web-0 and web-1 are made together', startedTogether(context.history, from, ordinals(0, 1)))
    const { from: up, took: grown } = await scaleTo(context, 4)
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
