/** What a person did to a lab while it was watched, as part of the verdict. */
import type { Plan } from '../context.js'
import { runPlan } from '../plan/runner.js'
import type { ExerciseContext } from './exercise.js'

/** Failing checks that are named. */
const mostNamed = 5

/**
 * Claims that somebody changed the lab. If nobody did, the healthy state afterwards proves nothing, and the verdict is
 * UNKNOWN. A change that left no trace in the journal, like a command on a machine, is seen by the checks of the lab
 * before anything is healed.
 * @param acts what was seen while the lab was watched
 */
export const claimChange = async (
  exercise: ExerciseContext,
  plan: Plan,
  acts: readonly string[],
): Promise<void> => {
  const broken = async (): Promise<readonly string[]> =>
    (await runPlan(plan, 'check', exercise.context, () => undefined)).results
      .flatMap(({ checks }) => checks)
      .filter(({ ok }) => !ok)
      .map(({ check, saw }) => `${check.title}: no: ${saw}`)
      .slice(0, mostNamed)
  const seen = acts.length > 0 ? acts : await broken()
  exercise.claim(
    'somebody changed the lab while it was watched',
    seen.length > 0
      ? { ok: true, saw: seen.join('; ') }
      : {
          ok: undefined,
          saw: 'nothing was seen to change: this says only that the lab was healthy, before and afterwards',
        },
  )
}
