import { setTimeout as delay } from 'node:timers/promises'
import { Interrupted } from '../error.js'

/**
 * Evaluates a condition every 50 ms.
 * @returns whether it came true in time
 * @throws Interrupted with the signal
 */
export const until = async (
  wanted: () => boolean,
  milliseconds: number,
  signal: AbortSignal,
): Promise<boolean> => {
  const deadline = performance.now() + milliseconds
  while (!wanted()) {
    if (performance.now() > deadline) return false
    await delay(50, undefined, { signal }).catch(() => {
      throw new Interrupted()
    })
  }
  return true
}
