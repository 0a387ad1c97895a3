/** How fast this host is: seconds in a report mean little without it. */
import { execFile } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { promisify } from 'node:util'

export interface HostSpeed {
  /** Processors that this process may use. */
  readonly processors: number
  /** Milliseconds until an empty Node.js program has started and ended: the median of three. */
  readonly nodeStart: number
}

/** Takes a fifth of a second on an idle host. What else the host is doing is meant to count. */
export const measureHost = async (): Promise<HostSpeed> => {
  const times: number[] = []
  for (let n = 0; n < 3; n++) {
    const begun = performance.now()
    await promisify(execFile)(process.execPath, ['--eval', ''])
    times.push(performance.now() - begun)
  }
  const [, median = 0] = times.sort((a, b) => a - b)
  return { processors: availableParallelism(), nodeStart: Math.round(median) }
}
