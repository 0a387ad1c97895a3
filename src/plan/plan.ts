/** Builds plans from steps: leaves steps out, puts groups in sequence, reverses plans. */
import { numbering } from './names.js'
import type { Check, LeftOut, Plan, Step, Surroundings } from './step.js'

/**
 * Names in a lab file are free, so check ids made from them may collide: both a machine named `api` and the API are
 * ready.
 */
const withDistinctChecks = <Around extends Surroundings>(
  steps: readonly Step<Around>[],
): readonly Step<Around>[] => {
  const distinct = numbering()
  const named = (check: Check<Around>): Check<Around> => ({ ...check, id: distinct(check.id) })
  return steps.map((step) => {
    const [first, ...others] = step.checks
    return { ...step, checks: [named(first), ...others.map(named)] }
  })
}

/**
 * Makes a plan of these steps. Steps marked to be left out are removed, and so are steps that need one whose result
 * does not exist; `leftOut` lists all of them with the reason.
 */
export const planOf = <Around extends Surroundings>(
  title: string,
  steps: readonly Step<Around>[],
): Plan<Around> => {
  const byId = new Map(steps.map((step) => [step.id, step]))
  const known = new Map<string, LeftOut | undefined>()
  const leftOut = (step: Step<Around>): LeftOut | undefined => {
    if (known.has(step.id)) return known.get(step.id)
    known.set(step.id, undefined)
    const missing = step.needs
      .flatMap((id) => byId.get(id) ?? [])
      .find((needed) => leftOut(needed)?.given === false)
    const found =
      step.leftOut ?? (missing ? { why: leftOut(missing)?.why ?? '', given: false as const } : undefined)
    known.set(step.id, found)
    return found
  }
  const taken = steps.filter((step) => leftOut(step) === undefined)
  const ids = new Set(taken.map(({ id }) => id))
  return {
    title,
    steps: withDistinctChecks(
      taken.map((step) => ({
        ...step,
        // An id that is not in `steps` at all is a mistake, which the runner reports.
        needs: step.needs.filter((id) => ids.has(id) || !byId.has(id)),
      })),
    ),
    leftOut: steps.flatMap(({ id, title: what }) => {
      const why = known.get(id)?.why
      return why === undefined ? [] : [{ id, title: what, why }]
    }),
  }
}

/** These steps without their needs outside this list, which the existing cluster already provides. */
export const among = <Around extends Surroundings>(
  steps: readonly Step<Around>[],
): readonly Step<Around>[] => {
  const ids = new Set(steps.map(({ id }) => id))
  return steps.map((step) => ({ ...step, needs: step.needs.filter((id) => ids.has(id)) }))
}

/** A sentence for each reason why steps are left out: 'hosts does not make machines: left out: Boot a, Boot b'. */
export const leftOutLines = ({ leftOut = [] }: Plan): readonly string[] =>
  [...new Set(leftOut.map(({ why }) => why))].map(
    (why) =>
      `${why}: left out: ${leftOut
        .filter((each) => each.why === why)
        .map(({ title }) => title)
        .join(', ')}`,
  )

/** Runs the steps of a group concurrently and the groups one after another, whatever the steps themselves need. */
export const inTurn = <Around extends Surroundings>(
  ...groups: readonly (readonly Step<Around>[])[]
): readonly Step<Around>[] => {
  let before: readonly string[] = []
  return groups.flatMap((group) => {
    const steps = group.map((step) => ({ ...step, needs: before }))
    if (steps.length > 0) before = steps.map(({ id }) => id)
    return steps
  })
}

/**
 * The reverse plan: the undo of each step that has one, after the undo of everything that needs it. It is a normal
 * plan, run in the mode `undo` or only checked.
 */
export const backwards = <Around extends Surroundings>(plan: Plan<Around>): Plan<Around> => {
  const undoneBefore = (id: string): readonly string[] =>
    plan.steps
      .filter(({ needs }) => needs.includes(id))
      .flatMap((step) => (step.undo ? [step.id] : undoneBefore(step.id)))
  return {
    title: plan.title,
    steps: [...plan.steps].reverse().flatMap(({ undo, id, phase, machine }): Step<Around>[] =>
      undo
        ? [
            {
              id,
              title: undo.title,
              phase,
              ...(machine === undefined ? {} : { machine }),
              needs: [...new Set(undoneBefore(id))],
              apply: undo.apply,
              checks: [undo.gone],
            },
          ]
        : [],
    ),
    leftOut: plan.leftOut ?? [],
  }
}
