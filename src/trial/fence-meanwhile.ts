/** Fencing by this program for the duration of a trial, for a lab without an agent. */
import { LabError } from '../error.js'
import { fencingAgent } from '../fencing/agent.js'
import type { Fenced, FenceMethod } from '../fencing/fence.js'
import type { Observation } from './timeline.js'
import type { Trial } from './trial.js'
import { until } from './until.js'
import type { Watch } from './watch.js'

/** Milliseconds for a fencing agent to see that all nodes are ready: before that it fences nobody. */
const armingDeadline = 15_000

/** A fence as an observation on this host's clock. One by the lab's own agent has no monotonic time. */
export const fenceSeen = ({ at, node, detail }: Fenced): Observation => ({
  type: 'node-fenced',
  at,
  source: 'operator',
  node,
  detail,
})

/**
 * @param seen called for each node that is fenced
 * @returns how to end it, once it watches the node of the database
 * @throws LabError if that node is not ready to be watched
 */
export const fenceMeanwhile = async (
  trial: Trial,
  method: FenceMethod,
  watch: Watch,
  seen: (fence: Observation) => void,
): Promise<() => Promise<void>> => {
  const { healer, notice } = trial.request
  const ending = new AbortController()
  const watched = new Set<string>()
  const agent = fencingAgent(
    healer,
    {
      method,
      by: trial.by,
      suspended: () => Promise.resolve(false),
      fenced: (fence) => seen({ ...fenceSeen(fence), ms: performance.now() }),
      notice,
      looked: (names) => {
        for (const name of names) watched.add(name)
      },
    },
    ending.signal,
  )
  const end = async (): Promise<void> => {
    ending.abort()
    await agent
  }
  const server = watch.server()
  if (!(await until(() => server !== undefined && watched.has(server), armingDeadline, trial.signal))) {
    await end()
    throw new LabError('not-watched', `${server ?? 'the node of the database'} is not ready to be watched`, {
      hint: `lab verify ${trial.lab.name}`,
    })
  }
  return end
}
