/** Work on many things, of which only some are under way at once. */

/**
 * Runs `work` for each item, `atOnce` of them at once. The first failure is thrown; what was under way is told through
 * its signal and waited for, and nothing more is begun.
 */
export const forEachAtOnce = async <T>(
  items: readonly T[],
  atOnce: number,
  work: (item: T, stopped: AbortSignal) => Promise<void>,
): Promise<void> => {
  const stop = new AbortController()
  const left = [...items]
  const one = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined && !stop.signal.aborted; item = left.shift())
      await work(item, stop.signal).catch((error: unknown) => {
        stop.abort(error)
        throw error
      })
  }
  const ended = await Promise.allSettled(Array.from({ length: atOnce }, one))
  if (stop.signal.aborted) throw stop.signal.reason
  const failed = ended.find((result) => result.status === 'rejected')
  if (failed) throw failed.reason
}
