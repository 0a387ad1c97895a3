/**
 * What it means that a lab is well, for scenarios and experiments alike: every check of its plan says yes at one
 * moment. That is polled: a component that is not ready for a second is no broken lab, one that stays so is.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { runPlan, succeeded } from '../plan/runner.js'
import type { Context, Plan } from '../context.js'
import type { Report } from '../plan/step.js'

/** Seconds for every check to say yes at one moment; the provider's patience makes it longer. */
export const steadyDeadline = 60

/** Milliseconds between two looks. */
const pause = 500

export type When = 'before' | 'after'

/** What a check said. */
export interface CheckFact {
  readonly when: When
  readonly title: string
  readonly machine?: string | undefined
  readonly ok: boolean
  readonly saw: string
}

/** All checks, asked once. */
export interface Look {
  readonly when: When
  /** ISO 8601, when it began. */
  readonly at: string
  /** Milliseconds since the first look began. */
  readonly ms: number
  /** The checks that said no. */
  readonly no: readonly Omit<CheckFact, 'when' | 'ok'>[]
}

export interface Steady {
  /** Whether all said yes in the last look. */
  readonly ok: boolean
  /** What they said in the last look. */
  readonly checks: readonly CheckFact[]
  readonly looks: readonly Look[]
}

/** What every check said; a step whose checks nobody asked is one that says no. */
const checkFacts = (when: When, report: Report): readonly CheckFact[] =>
  report.results.flatMap(({ step, checks, reason }): CheckFact[] =>
    checks.length > 0
      ? checks.map(({ check, ok, saw }) => ({ when, title: check.title, machine: check.machine, ok, saw }))
      : [{ when, title: step.title, machine: step.machine, ok: false, saw: reason ?? 'nobody asked' }],
  )

/**
 * Looks until all is well, or the time is over; a look that has begun is finished.
 * @param patience milliseconds
 */
export const steadyState = async (
  plan: Plan,
  when: When,
  context: Context,
  patience = steadyDeadline * (context.provider.patience ?? 1) * 1000,
): Promise<Steady> => {
  const begun = performance.now()
  const looks: Look[] = []
  for (;;) {
    const [at, ms] = [new Date().toISOString(), performance.now() - begun]
    const report = await runPlan(plan, 'look', context, () => undefined)
    const checks = checkFacts(when, report)
    looks.push({
      when,
      at,
      ms: Math.round(ms),
      no: checks.filter(({ ok }) => !ok).map(({ title, machine, saw }) => ({ title, machine, saw })),
    })
    const ok = succeeded(report)
    if (ok || report.interrupted || performance.now() - begun >= patience) return { ok, checks, looks }
    await delay(pause, undefined, { signal: context.signal }).catch(() => undefined)
  }
}
