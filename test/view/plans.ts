/** Steps and results to draw, without a lab behind them. */
import type { FailedBy, Outcome, Report, RunEvent, Step, StepResult } from '../../src/plan/step.js'

export const stepOf = (
  id: string,
  title: string,
  phase: string,
  machine?: string,
  checkTitles: readonly [string, ...string[]] = [`${id} is so`],
): Step => {
  const [first, ...more] = checkTitles.map((checkTitle, index) => ({
    id: index === 0 ? `${id}-check` : `${id}-check-${String(index + 1)}`,
    title: checkTitle,
    probe: () => Promise.resolve({ ok: true, saw: '' }),
  }))
  if (!first) throw new Error('a step has a check')
  return {
    id,
    title,
    phase,
    needs: [],
    apply: () => Promise.resolve(),
    checks: [first, ...more],
    ...(machine === undefined ? {} : { machine }),
  }
}

export const resultOf = (
  step: Step,
  outcome: Outcome,
  details: { seconds?: number; saw?: string; reason?: string; failedBy?: FailedBy; hint?: string } = {},
): StepResult => ({
  step,
  outcome,
  seconds: details.seconds ?? 0.1,
  checks:
    outcome === 'not-reached'
      ? []
      : step.checks.map((check) => ({ check, ok: outcome !== 'failed', saw: details.saw ?? 'it is' })),
  ...(details.reason === undefined ? {} : { reason: details.reason }),
  ...(details.failedBy === undefined ? {} : { failedBy: details.failedBy }),
  ...(details.hint === undefined ? {} : { hint: details.hint }),
})

export const finished = (...args: Parameters<typeof resultOf>): RunEvent => ({
  type: 'step-finished',
  result: resultOf(...args),
})

export const reportOf = (
  title: string,
  results: readonly StepResult[],
  details: Partial<Report> = {},
): Report => ({
  title,
  started: new Date('2026-11-21T06:40:00Z'),
  seconds: 12.34,
  interrupted: false,
  results,
  ...details,
})
