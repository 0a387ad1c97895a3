/**
 * Fencing: a node that went is made unable to write before another may take over.
 *
 * Why that is safe, step by step. (1) By power: the provider cuts the machine's power, and says that its process is
 * gone. By storage: the target drops the node's access list, which ends its session and waits for what is under way
 * in it, and it lets nobody in who is not on a list. From here on nothing of that node reaches the disk, whatever it
 * still believes. (2) Only what was confirmed counts; then the node is tainted `out-of-service`, which tells
 * Kubernetes that its pods run nowhere. (3) Kubernetes makes the replacement. (4) A node that was fenced comes back by
 * a fresh boot, without session, mount and cache; before that, the target does not take it back: what it has not
 * written yet must never be written. The undos that do so are on the operator's disk before the first step.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { messageOf } from '../error.js'
import { type JournalEntry, noteUndo, outOfService, readJournal } from '../journal.js'
import { type Lab, machineNamed, machinesWith } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../plan/step.js'
import type { MachineState } from '../provider/provider.js'

/** Milliseconds between two looks. */
const pause = 200

/**
 * Milliseconds for which a kubelet that says of itself that it is not ready must go on saying so. It lives, and its
 * word may be old: it looks at its runtime every 5 s, and tells every 10 s (nodeStatusUpdateFrequency, as it comes).
 */
const ownWordStands = 15_000

export type FenceMethod = 'power' | 'storage'

/** A node that was fenced. */
export interface Fenced {
  /** ISO 8601, when Kubernetes had been told. */
  readonly at: string
  readonly node: string
  /** For people: why, and what confirms that it can no longer write. */
  readonly detail: string
}

/** The targets' folders, on their machines, that let a node in. */
const accessOf = (
  lab: Lab,
  node: string,
): readonly { readonly machine: string; readonly folder: string }[] => {
  const { iqn: initiator } = machineNamed(lab, node)
  return initiator === undefined
    ? []
    : lab.targets.map(({ machine, iqn }) => ({
        machine,
        folder: `/sys/kernel/config/target/iscsi/${iqn}/tpgt_1/acls/${initiator}`,
      }))
}

/** Seconds for a target to end a session, with all that is under way in it. */
const dropDeadline = 20

/** @returns what confirms it; undefined: nothing does. */
const makeHarmless = async (
  context: Context,
  node: string,
  method: FenceMethod,
): Promise<string | undefined> => {
  const { lab, provider } = context
  if (method === 'power') {
    await provider.cut(lab, node)
    const after = (await provider.states(lab)).find(({ name }) => name === node)
    return after?.status === 'running' ? undefined : `${node} is off (${after?.detail ?? 'gone'})`
  }
  const access = accessOf(lab, node)
  await Promise.all(
    access.map(({ machine, folder }) =>
      context
        .machine(machine)
        .run(
          shell`acl=${folder}; if [ -d "$acl" ]; then for map in "$acl"/lun_*; do rm -f "$map"/lun; rmdir "$map"; done; rmdir "$acl"; fi; test ! -d "$acl"`,
          { timeout: dropDeadline },
        ),
    ),
  )
  return access.length === 0 ? undefined : `the target threw ${node} out`
}

/** A worker, as Kubernetes and the provider see it. */
interface Seen {
  readonly ready: boolean
  /** Since when the kubelet itself says that it is not ready, by `performance.now`; undefined: it does not. */
  readonly refusing: number | undefined
  /** Changes with every boot. */
  readonly bootId: string
}

/** A machine since it was last switched on. */
interface Run {
  /** The provider's word for it. */
  readonly since: string
  /** The boot that Kubernetes knew of when it began: what it says of that one is old news. */
  readonly before: string | undefined
}

export interface Watching {
  readonly method: FenceMethod
  /** Recorded in the journal as the one who did it. */
  readonly by: string
  /** True while another command changes the lab on purpose: nothing that goes then is lost. */
  readonly suspended: () => Promise<boolean>
  readonly fenced: (seen: Fenced) => void | Promise<void>
  readonly notice: (text: string) => void
  /** Told after every look which workers would be fenced if they went. */
  readonly looked?: (armed: readonly string[]) => void | Promise<void>
}

/**
 * Fences any worker that goes, until the signal: one that is off, as its provider sees it, or that Kubernetes calls
 * not ready, although it still writes, perhaps; where the kubelet itself says so, not before that has stood for
 * `ownWordStands`. Only a worker that was seen ready in this boot can go; one that is fenced is left alone; and while
 * no other worker is ready nobody could take over, so nothing is gained.
 */
export const fencingAgent = async (
  context: Context,
  { method, by, suspended, fenced, notice, looked }: Watching,
  signal: AbortSignal,
): Promise<void> => {
  const { lab, provider, kubectl } = context
  const workers = machinesWith(lab, 'worker').map(({ name }) => name)
  const nodes = new Map<string, Seen>()
  const runs = new Map<string, Run>()
  const armed = new Set<string>()
  const watching = kubectl.watch(
    ['nodes'],
    ({ type, object }) => {
      if (type !== 'ADDED' && type !== 'MODIFIED') return
      const { conditions, nodeInfo } = object['status'] as {
        conditions?: readonly { type: string; status: string }[]
        nodeInfo?: { bootID?: string }
      }
      const { name } = object.metadata
      // Unknown is the control plane's word, of a kubelet that is silent.
      const status = conditions?.find((each) => each.type === 'Ready')?.status
      nodes.set(name, {
        ready: status === 'True',
        refusing: status === 'False' ? (nodes.get(name)?.refusing ?? performance.now()) : undefined,
        bootId: nodeInfo?.bootID ?? '',
      })
    },
    signal,
  )
  watching.catch(() => undefined)

  const fence = async (node: string, why: string): Promise<void> => {
    const noted = await noteUndo(lab.name, by, 'fence', [
      { do: 'untaint', machine: node },
      method === 'power'
        ? { do: 'switch-on', machine: node }
        : { do: 'readmit', machine: node, targets: accessOf(lab, node).map(({ machine }) => machine) },
    ])
    armed.delete(node)
    for (;;) {
      try {
        const confirmed = await makeHarmless(context, node, method)
        // Not confirmed is not fenced.
        if (confirmed !== undefined) {
          await kubectl.run(['taint', 'node', node, `${outOfService}=nodeshutdown:NoExecute`, '--overwrite'])
          await fenced({
            at: new Date().toISOString(),
            node,
            detail: `${why}; ${confirmed}; tainted out-of-service`,
          })
          notice(`fence: ${why}; ${confirmed}; its pods may be replaced`)
          return
        }
      } catch (error) {
        notice(`fence: ${node}: ${messageOf(error)}`)
      }
      await delay(pause, undefined, { signal }).catch(() => undefined)
      const known = await readJournal(lab.name)
      // Somebody healed the lab meanwhile: what is to be fenced now, if anything, will be seen anew.
      if (signal.aborted || !noted.every(({ id }) => known.some((entry) => entry.id === id))) return
    }
  }

  /** Sees machines being switched on, also while nobody may be fenced. */
  const follow = (states: readonly MachineState[]): void => {
    for (const { name, status, detail: since } of states) {
      const known = runs.get(name)
      if (status === 'running' && known?.since !== since)
        // The first time, Kubernetes has had its say about this run.
        runs.set(name, { since, before: known ? nodes.get(name)?.bootId : undefined })
    }
  }

  /** The workers that are to be fenced now, with why. */
  const look = async (states: readonly MachineState[]): Promise<ReadonlyMap<string, string>> => {
    const journal = await readJournal(lab.name)
    const isFenced = (node: string): boolean =>
      journal.some(({ fault, undo }: JournalEntry) => fault === 'fence' && undo.machine === node)
    const lost = new Map<string, string>()
    const well = new Set<string>()
    for (const name of workers) {
      const on = states.some((state) => state.name === name && state.status === 'running')
      const node = nodes.get(name)
      if (isFenced(name)) armed.delete(name)
      else if (on && node?.ready) {
        if (node.bootId !== runs.get(name)?.before) armed.add(name)
        if (armed.has(name)) well.add(name)
      } else if (!armed.has(name)) continue
      else if (!on) lost.set(name, `${name} was found off`)
      else if (node?.refusing === undefined || performance.now() - node.refusing > ownWordStands)
        lost.set(name, `${name} is not ready`)
    }
    return well.size > 0 ? lost : new Map()
  }

  while (!signal.aborted) {
    try {
      const states = await provider.states(lab)
      follow(states)
      if (await suspended()) armed.clear()
      else {
        const lost = await look(states)
        await looked?.([...armed])
        for (const [name, why] of lost) await fence(name, why)
      }
    } catch (error) {
      notice(`fence: ${messageOf(error)}`)
    }
    await delay(pause, undefined, { signal }).catch(() => undefined)
  }
}
