/**
 * Fencing by this program: a node that went is made unable to write before another may take over.
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
import { type Lab, machineNamed } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../plan/step.js'
import type { MachineState } from '../provider/provider.js'
import type { Observation } from './timeline.js'
import { noteUndo, outOfService } from './undo.js'
import type { Watch } from './watch.js'

/** Milliseconds without an acknowledged write after which the node of the database is looked at. */
const suspicion = 1500
/** Milliseconds between two looks. */
const pause = 200

export type FenceMethod = 'power' | 'storage'

export interface FenceRequest {
  readonly method: FenceMethod
  readonly healer: Context
  readonly scenario: { readonly name: string }
  /** The node of the database before the fault. */
  readonly server: string
  readonly watch: Watch
  /** Milliseconds since the last acknowledged write. */
  readonly answers: { readonly silence: number }
  readonly notice: (text: string) => void
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

/**
 * Watches the node of the database until it fenced it once, or the signal.
 * It fences a node that Kubernetes calls not ready; and, without waiting for that, one whose writes stopped and
 * whose machine the provider says is off.
 */
export const fenceOff = async (
  { method, healer, scenario, server, watch, answers, notice }: FenceRequest,
  seen: (observation: Observation) => void,
  signal: AbortSignal,
): Promise<void> => {
  const { lab, provider } = healer
  const status = async (): Promise<MachineState | undefined> =>
    (await provider.states(lab)).find(({ name }) => name === server)
  while (!signal.aborted) {
    await delay(pause, undefined, { signal }).catch(() => undefined)
    const elsewhere = watch.server()
    // It moved by itself: there is nothing to fence.
    if (elsewhere !== undefined && elsewhere !== server) return
    try {
      // A node that lost only its API server still writes: that it is not ready is reason enough.
      const lost = watch.isReady(server) === false
      if (!lost && (answers.silence < suspicion || (await status())?.status === 'running')) continue
      await noteUndo(lab.name, scenario.name, 'fence', [
        { do: 'untaint', machine: server },
        method === 'power'
          ? { do: 'switch-on', machine: server }
          : { do: 'readmit', machine: server, targets: accessOf(lab, server).map(({ machine }) => machine) },
      ])
      const confirmed = await makeHarmless(healer, server, method)
      // Not confirmed is not fenced.
      if (confirmed === undefined) continue
      await healer.kubectl.run([
        'taint',
        'node',
        server,
        `${outOfService}=nodeshutdown:NoExecute`,
        '--overwrite',
      ])
      seen({
        type: 'node-fenced',
        at: new Date().toISOString(),
        source: 'operator',
        node: server,
        detail: `${confirmed}; tainted out-of-service`,
      })
      notice(`fence: ${confirmed}; its pods may be replaced`)
      return
    } catch (error) {
      notice(`fence: ${messageOf(error)}`)
    }
  }
}
