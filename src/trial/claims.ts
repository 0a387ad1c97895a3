/**
 * Claims about a history of pods. Each considers the whole period from a moment on, since the state at its end says
 * nothing about what happened meanwhile.
 */
import type { Verdict } from '../plan/step.js'
import { everyPod, type PodChange, type PodHistory, type PodSeen, type Which } from './history.js'

const seconds = (ms: number, from: number): string => `${((ms - from) / 1000).toFixed(1)} s`

const names = (pods: readonly { readonly name: string }[]): string =>
  pods.map(({ name }) => name).join(', ') || 'none'

/** The pods that count: those not marked for deletion. */
const staying = (pods: readonly PodSeen[], which: Which): readonly PodSeen[] =>
  pods.filter((pod) => !pod.terminating && which(pod))

/**
 * Milliseconds in which a ReplicaSet must tell surplus pods to end. A Deployment counts the pods that its ReplicaSets
 * should have, and makes new ones at once: on a busy host, there is one too many for a moment.
 */
const surplusLag = 2000

/**
 * From a moment on, never fewer ready pods than the minimum, and never more pods than the maximum, except for pods
 * that are told to end within 2 s.
 */
export const stayedWithin = (
  history: PodHistory,
  from: number,
  { ready: atLeast, there: atMost }: { readonly ready: number; readonly there: number },
  which: Which = everyPod,
): Verdict => {
  let fewest = Infinity
  let most = 0
  const moments = history.since(from)
  let surplusSince: number | undefined
  for (const [index, { ms, pods }] of moments.entries()) {
    const there = staying(pods, which)
    surplusSince = there.length > atMost ? (surplusSince ?? ms) : undefined
    const ready = there.filter((pod) => pod.ready).length
    fewest = Math.min(fewest, ready)
    most = Math.max(most, there.length)
    if (ready < atLeast)
      return {
        ok: false,
        saw: `only ${String(ready)} ready after ${seconds(ms, from)}; expected at least ${String(atLeast)}`,
      }
    if (surplusSince !== undefined && (moments[index + 1]?.ms ?? Infinity) - surplusSince > surplusLag)
      return {
        ok: false,
        saw: `${String(there.length)} there after ${seconds(ms, from)}; expected at most ${String(atMost)}`,
      }
  }
  return {
    ok: true,
    saw: `${String(fewest)} ready at least, ${String(most)} there at most, over ${String(moments.length)} moments`,
  }
}

/**
 * At one moment at least, exactly this many pods are ready and this many exist: bounds alone do not prove that they
 * were reached.
 */
export const reached = (
  history: PodHistory,
  from: number,
  { ready: wantedReady, there: wantedThere }: { readonly ready: number; readonly there: number },
  which: Which = everyPod,
): Verdict => {
  const counts = history.since(from).map(({ ms, pods }) => {
    const there = staying(pods, which)
    return { ms, ready: there.filter((pod) => pod.ready).length, there: there.length }
  })
  const found = counts.find(({ ready, there }) => ready === wantedReady && there === wantedThere)
  if (found)
    return {
      ok: true,
      saw: `${String(wantedReady)} ready and ${String(wantedThere - wantedReady)} not yet, after ${seconds(found.ms, from)}`,
    }
  const most = Math.max(...counts.map(({ there }) => there))
  const fewest = Math.min(...counts.map(({ ready }) => ready))
  return {
    ok: false,
    saw: `${String(wantedReady)} ready of ${String(wantedThere)} at no moment: never fewer than ${String(fewest)} ready, never more than ${String(most)} there`,
  }
}

/** These very pods existed all the time, ready and without a restart. */
export const untouched = (history: PodHistory, from: number, pods: readonly PodSeen[]): Verdict => {
  for (const { ms, pods: there } of history.since(from))
    for (const before of pods) {
      const now = there.find(({ uid }) => uid === before.uid)
      const why = !now
        ? 'is gone'
        : now.terminating
          ? 'is told to end'
          : !now.ready
            ? 'is not ready'
            : now.restarts > before.restarts
              ? 'was restarted'
              : undefined
      if (why !== undefined) return { ok: false, saw: `${before.name} ${why} after ${seconds(ms, from)}` }
    }
  return { ok: true, saw: `${names(pods)}: the same, ready all the time, not restarted` }
}

/** The number of pods created since a moment. */
export const made = (history: PodHistory, from: number, count: number, which: Which = everyPod): Verdict => {
  const fresh = history.changesSince(from).filter(({ kind, pod }) => kind === 'new' && which(pod))
  return {
    ok: fresh.length === count,
    saw: `${String(fresh.length)} made: ${names(fresh.map(({ pod }) => pod))}${fresh.length === count ? '' : `; expected ${String(count)}`}`,
  }
}

const first = (
  changes: readonly PodChange[],
  name: string,
  what: (change: PodChange) => boolean,
): number | undefined => changes.find((change) => change.pod.name === name && what(change))?.ms

/**
 * When a pod of this name was created, and when that same pod became ready: an earlier one of the name does not
 * count.
 */
const startOf = (
  changes: readonly PodChange[],
  name: string,
): { readonly begun: number | undefined; readonly ready: number | undefined } => {
  const begun = changes.find(({ kind, pod }) => kind === 'new' && pod.name === name)
  return {
    begun: begun?.ms,
    ready: changes.find(({ kind, pod }) => kind !== 'gone' && pod.uid === begun?.pod.uid && pod.ready)?.ms,
  }
}

/** Each pod is created only when the previous one is ready. */
export const startedInOrder = (history: PodHistory, from: number, order: readonly string[]): Verdict => {
  const changes = history.changesSince(from)
  const steps: string[] = []
  for (const [index, name] of order.entries()) {
    const { begun } = startOf(changes, name)
    if (begun === undefined) return { ok: false, saw: `${name} was never made` }
    const before = order[index - 1]
    if (before !== undefined) {
      const { ready } = startOf(changes, before)
      if (ready === undefined || ready > begun)
        return {
          ok: false,
          saw: `${name} was made after ${seconds(begun, from)}, ${before} ${ready === undefined ? 'was never ready' : `was ready only after ${seconds(ready, from)}`}`,
        }
    }
    steps.push(`${name} ${seconds(begun, from)}`)
  }
  return { ok: true, saw: `made: ${steps.join(', ')}` }
}

/** The total of the pods' times from creation to ready, in milliseconds, as in the texts that print no clock. */
export const startUps = (history: PodHistory, from: number, names: readonly string[]): number | undefined => {
  const changes = history.changesSince(from)
  let sum = 0
  for (const name of names) {
    const { begun, ready } = startOf(changes, name)
    if (begun === undefined || ready === undefined) return undefined
    sum += ready - begun
  }
  return sum
}

/** Each pod is terminated only when the previous one in this list is gone. */
export const endedInOrder = (history: PodHistory, from: number, order: readonly string[]): Verdict => {
  const changes = history.changesSince(from)
  const steps: string[] = []
  for (const [index, name] of order.entries()) {
    const begun = first(changes, name, ({ pod, kind }) => kind === 'gone' || pod.terminating)
    if (begun === undefined) return { ok: false, saw: `${name} was never told to end` }
    const before = order[index - 1]
    if (before !== undefined) {
      const gone = first(changes, before, ({ kind }) => kind === 'gone')
      if (gone === undefined || gone > begun)
        return {
          ok: false,
          saw: `${name} was told to end after ${seconds(begun, from)}, ${before} ${gone === undefined ? 'never went' : `was gone only after ${seconds(gone, from)}`}`,
        }
    }
    steps.push(`${name} ${seconds(begun, from)}`)
  }
  return { ok: true, saw: `told to end: ${steps.join(', ')}` }
}

/**
 * Each pod is replaced by one with this image, in this order, and none is terminated before the previous one is
 * ready.
 */
export const updatedInOrder = (
  history: PodHistory,
  from: number,
  order: readonly string[],
  image: string,
): Verdict => {
  const changes = history.changesSince(from)
  const steps: string[] = []
  let readyBefore: number | undefined
  for (const [index, name] of order.entries()) {
    const told = first(changes, name, ({ pod, kind }) => kind !== 'new' && pod.terminating)
    const ready =
      told === undefined
        ? undefined
        : first(
            changes,
            name,
            ({ ms, pod, kind }) => ms > told && kind !== 'gone' && pod.ready && pod.image === image,
          )
    if (told === undefined || ready === undefined)
      return { ok: false, saw: `${name} was not replaced by a ready one of ${image}` }
    if (readyBefore !== undefined && told < readyBefore)
      return {
        ok: false,
        saw: `${name} was told to end after ${seconds(told, from)}, before ${order[index - 1] ?? ''} was ready again (${seconds(readyBefore, from)})`,
      }
    readyBefore = ready
    steps.push(`${name} ${seconds(told, from)} to ${seconds(ready, from)}`)
  }
  return { ok: true, saw: steps.join(', ') }
}

/** All pods are created before any of them is ready. */
export const startedTogether = (history: PodHistory, from: number, together: readonly string[]): Verdict => {
  const changes = history.changesSince(from)
  const begun = together.map((name) => [name, startOf(changes, name).begun] as const)
  const missing = begun.find(([, ms]) => ms === undefined)
  if (missing) return { ok: false, saw: `${missing[0]} was never made` }
  const last = Math.max(...begun.map(([, ms]) => ms ?? 0))
  const early = together
    .map((name) => [name, startOf(changes, name).ready] as const)
    .find(([, ms]) => ms !== undefined && ms < last)
  return early
    ? { ok: false, saw: `${early[0]} was ready before all were made (${seconds(last, from)})` }
    : {
        ok: true,
        saw: `all ${String(together.length)} made within ${seconds(last, from)}, before one was ready`,
      }
}

/** All pods are terminated before any of them is gone. */
export const endedTogether = (history: PodHistory, from: number, together: readonly string[]): Verdict => {
  const changes = history.changesSince(from)
  const told = together.map(
    (name) => [name, first(changes, name, ({ pod, kind }) => kind !== 'gone' && pod.terminating)] as const,
  )
  const missing = told.find(([, ms]) => ms === undefined)
  if (missing) return { ok: false, saw: `${missing[0]} was never told to end` }
  const last = Math.max(...told.map(([, ms]) => ms ?? 0))
  const early = together
    .map((name) => [name, first(changes, name, ({ kind }) => kind === 'gone')] as const)
    .find(([, ms]) => ms !== undefined && ms < last)
  return early
    ? { ok: false, saw: `${early[0]} was gone before all were told to end (${seconds(last, from)})` }
    : { ok: true, saw: `all ${String(together.length)} told to end within ${seconds(last, from)}` }
}

/** No pod of this name runs on another node than before, and none is created again. */
export const neverElsewhere = (history: PodHistory, from: number, before: PodSeen): Verdict => {
  const other = history
    .changesSince(from)
    .find(({ pod }) => pod.name === before.name && (pod.uid !== before.uid || pod.node !== before.node))
  return other
    ? {
        ok: false,
        saw: `${before.name} came back on ${other.pod.node ?? 'no node'} after ${seconds(other.ms, from)}`,
      }
    : { ok: true, saw: `no other ${before.name} than that of ${before.node ?? 'no node'} was ever made` }
}

/** These pods did not change at all. */
export const nothingHappened = (history: PodHistory, from: number, which: Which = everyPod): Verdict => {
  const change = history.changesSince(from).find(({ pod }) => which(pod))
  return change
    ? {
        ok: false,
        saw: `${change.pod.name} ${change.kind === 'gone' ? 'went' : change.kind === 'new' ? 'was made' : 'changed'} after ${seconds(change.ms, from)}`,
      }
    : { ok: true, saw: 'no pod was made, changed or removed' }
}

/** The pod is pending, since no node has the labels it requires. */
export const fitsNoNode = ({ phase, node, unschedulable }: PodSeen): boolean =>
  phase === 'Pending' && node === undefined && /didn't match.*(affinity|selector)/.test(unschedulable ?? '')

/**
 * After the loss of the node, as many pods as before are listed as Terminating on it, and as many new ones are
 * pending for lack of another suitable node.
 */
export const waitForTheirNode = (
  pods: readonly PodSeen[],
  node: string,
  before: readonly PodSeen[],
): Verdict => {
  const dead = pods.filter((pod) => pod.terminating)
  const waiting = pods.filter((pod) => !pod.terminating)
  return {
    ok:
      dead.length === before.length &&
      before.every(({ uid }) => dead.some((pod) => pod.uid === uid && pod.node === node)) &&
      waiting.length === before.length &&
      waiting.every(fitsNoNode),
    saw: `Terminating: ${names(dead)}; ${
      waiting
        .map(
          ({ name, phase, node: on, unschedulable }) =>
            `${name} ${phase} on ${on ?? 'no node'}${unschedulable === undefined ? '' : ` (${unschedulable})`}`,
        )
        .join(', ') || 'none in their place'
    }`,
  }
}
