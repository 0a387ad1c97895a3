/** Work on many things with a limit on parallel work. */

/**
 * Runs `work` for each item, `atOnce` of them at the same time. An item is requested only when its work can start. The
 * first failure is thrown: the others are told through their signal and waited for, and no further ones start.
 */
export const forEachAtOnce = async <T>(
  items: Iterable<T> | AsyncIterable<T>,
  atOnce: number,
  work: (item: T, stopped: AbortSignal) => Promise<void>,
): Promise<void> => {
  const stop = new AbortController()
  const left = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]()
  const one = async (): Promise<void> => {
    try {
      for (let next = await left.next(); !next.done && !stop.signal.aborted; next = await left.next())
        await work(next.value, stop.signal)
    } catch (error) {
      stop.abort(error)
      throw error
    }
  }
  const ended = await Promise.allSettled(Array.from({ length: atOnce }, one))
  if (stop.signal.aborted) throw stop.signal.reason
  const failed = ended.find((result) => result.status === 'rejected')
  if (failed) throw failed.reason
}

/** Runs at most `most` of the given functions at the same time, and the rest in the order in which they came. */
export const inTurns = (most: number): (<T>(work: () => Promise<T>) => Promise<T>) => {
  let running = 0
  const waiting: (() => void)[] = []
  return async (work) => {
    if (running < most) running += 1
    else await new Promise<void>((resolve) => waiting.push(resolve))
    try {
      return await work()
    } finally {
      // The one that has waited longest takes the place.
      const next = waiting.shift()
      if (next) next()
      else running -= 1
    }
  }
}
