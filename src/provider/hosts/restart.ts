/** Restarts a host in an orderly way, and waits until it answers again. */
import { setTimeout as delay } from 'node:timers/promises'
import { LabError } from '../../error.js'
import type { Transport } from '../../machine/machine.js'
import { runAsRoot } from './undo-record.js'

/** Seconds: an emulated Raspberry Pi needs three minutes. */
const deadline = 900

/** The command that prints which boot it is: the same as long as a host runs, and another one after its next boot. */
export const askBoot = 'cat /proc/sys/kernel/random/boot_id'

/** Undefined: it does not answer. */
const bootOf = async (root: Transport): Promise<string | undefined> => {
  const result = await root.exec(askBoot, { timeout: 15 }).catch(() => undefined)
  return result?.exitCode === 0 ? result.stdout.trim() : undefined
}

/** Seconds between two questions, and until the host counts as lost. */
export interface Patience {
  readonly pause: number
  readonly within: number
}

/**
 * @param why what has been announced: it is shown as long as the host is away
 * @throws LabError `host-away` if it does not come back
 */
export const restartHost = async (
  root: Transport,
  why: string,
  progress: (note: string) => void,
  { pause, within }: Patience = { pause: 2, within: deadline },
): Promise<void> => {
  const before = (await runAsRoot(root, askBoot, { what: 'asking which boot it is' })).trim()
  progress(`restarting it: ${why}`)
  // The answer arrives before the connection is lost.
  await runAsRoot(root, 'sync; nohup sh -c "sleep 1; systemctl reboot" </dev/null >/dev/null 2>&1 &', {
    what: 'restarting it',
  })
  for (const until = performance.now() + within * 1000; performance.now() < until;) {
    await delay(pause * 1000)
    const now = await bootOf(root)
    if (now !== undefined && now !== before) return
  }
  throw new LabError(
    'host-away',
    `${root.address}: it was restarted (${why}), and has not answered for ${String(within)} s`,
    { hint: 'look at its screen or its power; the next attempt continues' },
  )
}
