/** The speed of this host, without which the seconds in a report mean little. */
import { execFile } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { promisify } from 'node:util'

export interface HostSpeed {
  /** Processors that this process may use. */
  readonly processors: number
  /** Milliseconds from start to end of an empty Node.js program: the median of three. */
  readonly nodeStart: number
}

/** Takes a fifth of a second on an idle host. Other load on the host should count. */
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
