/**
 * Fencing by power, by this program: a node that went is switched off for certain before another may take over.
 *
 * Why that is safe, step by step: (1) the provider cuts the machine's power, and says that its process is gone:
 * from here on nothing on it can write, whatever it still believed; (2) only then is the node tainted
 * `out-of-service`, which tells Kubernetes that its pods run nowhere; (3) Kubernetes makes the replacement.
 * A fenced machine comes back by being switched on afresh: it knows none of its former pods, and its disk's session
 * and mount ended with its memory. The taint is removed by the undo that was written down before.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { messageOf } from '../error.js'
import type { Context } from '../plan/step.js'
import type { MachineState } from '../provider/provider.js'
import type { Observation } from './timeline.js'
import { noteUndo, outOfService } from './undo.js'
import type { Watch } from './watch.js'

/** Milliseconds without an acknowledged write after which the node of the database is looked at. */
const suspicion = 1500
/** Milliseconds between two looks. */
const pause = 200

export interface FenceRequest {
  readonly healer: Context
  readonly scenario: { readonly name: string }
  /** The node of the database before the fault. */
  readonly server: string
  readonly watch: Watch
  /** Milliseconds since the last acknowledged write. */
  readonly answers: { readonly silence: number }
  readonly notice: (text: string) => void
}

/**
 * Watches the node of the database until it fenced it once, or the signal.
 * It fences a node that Kubernetes calls not ready; and, without waiting for that, one whose writes stopped and
 * whose machine the provider says is off.
 */
export const fenceOff = async (
  { healer, scenario, server, watch, answers, notice }: FenceRequest,
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
        { do: 'switch-on', machine: server },
      ])
      await provider.cut(lab, server)
      const after = await status()
      // Not confirmed is not fenced.
      if (after?.status === 'running') continue
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
        detail: `${server} is off (${after?.detail ?? ''}), and tainted out-of-service`,
      })
      notice(`fence: ${server} is off for certain; its pods may be replaced`)
      return
    } catch (error) {
      notice(`fence: ${messageOf(error)}`)
    }
  }
}
