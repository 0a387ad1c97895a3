/**
 * The steady state, for scenarios and experiments alike: every check of the lab's plan holds at one moment. The
 * checks are repeated, since a component that is not ready for a second does not mean that the lab is broken.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { fewAtOnce } from '../plan/few-at-once.js'
import { runPlan, succeeded } from '../plan/runner.js'
import type { Context, Plan } from '../context.js'
import type { Report } from '../plan/step.js'

/** Seconds until every check must hold at one moment, multiplied by the provider's factor for slow machines. */
export const steadyDeadline = 60

/** Milliseconds between two rounds of checks, at least. */
const pause = 500

/**
 * A round that takes long keeps the machines from what they should do: they are left in peace for half of its time,
 * up to this many milliseconds.
 */
const longestPause = 8000

export type When = 'before' | 'after'

/** The result of a check. */
export interface CheckFact {
  readonly when: When
  readonly title: string
  readonly machine?: string | undefined
  readonly ok: boolean
  readonly saw: string
}

/** One round of all checks. */
export interface Look {
  readonly when: When
  /** ISO 8601, at its start. */
  readonly at: string
  /** Milliseconds since the start of the first round. */
  readonly ms: number
  /** The checks that failed. */
  readonly no: readonly Omit<CheckFact, 'when' | 'ok'>[]
}

export interface Steady {
  /** Whether all checks held in the last round. */
  readonly ok: boolean
  /** The results of the last round. */
  readonly checks: readonly CheckFact[]
  readonly looks: readonly Look[]
}

/** The results of every check; a step whose checks were not asked counts as a failed check. */
const checkFacts = (when: When, report: Report): readonly CheckFact[] =>
  report.results.flatMap(({ step, checks, reason }): CheckFact[] =>
    checks.length > 0
      ? checks.map(({ check, ok, saw }) => ({ when, title: check.title, machine: check.machine, ok, saw }))
      : [{ when, title: step.title, machine: step.machine, ok: false, saw: reason ?? 'not checked' }],
  )

/**
 * Repeats the checks until all hold or the time is over; a round that has begun is finished.
 * @param limit milliseconds
 */
export const steadyState = async (
  plan: Plan,
  when: When,
  context: Context,
  limit = steadyDeadline * (context.provider.slowdown ?? 1) * 1000,
): Promise<Steady> => {
  const begun = performance.now()
  const looks: Look[] = []
  const calm = fewAtOnce(plan)
  for (;;) {
    const [at, ms] = [new Date().toISOString(), performance.now() - begun]
    const report = await runPlan(calm, 'check', context, () => undefined)
    const checks = checkFacts(when, report)
    looks.push({
      when,
      at,
      ms: Math.round(ms),
      no: checks.filter(({ ok }) => !ok).map(({ title, machine, saw }) => ({ title, machine, saw })),
    })
    const ok = succeeded(report)
    if (ok || report.interrupted || performance.now() - begun >= limit) return { ok, checks, looks }
    const took = performance.now() - begun - ms
    await delay(Math.max(pause, Math.min(took / 2, longestPause)), undefined, {
      signal: context.signal,
    }).catch(() => undefined)
  }
}
