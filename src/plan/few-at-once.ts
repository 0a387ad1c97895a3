/** Plans whose checks leave the machines room for what they should do. */
import { inTurns } from '../concurrent.js'
import type { Check, Plan, Surroundings } from './step.js'

/**
 * All checks of a lab at once, 216 of hacmp, kept two processors so busy that a database on it answered nothing for 4 s.
 * A round takes as long with few at once, because it waits for processors.
 */
const most = 8

/** The same plan; of all its checks, at most a few are asked at the same time. */
export const fewAtOnce = <Around extends Surroundings>(plan: Plan<Around>): Plan<Around> => {
  const inTurn = inTurns(most)
  const waiting = (check: Check<Around>): Check<Around> => ({
    ...check,
    probe: (around) =>
      inTurn(() => {
        around.signal.throwIfAborted()
        return check.probe(around)
      }),
  })
  return {
    ...plan,
    steps: plan.steps.map((step) => {
      const [first, ...others] = step.checks
      return { ...step, checks: [waiting(first), ...others.map(waiting)] }
    }),
  }
}
