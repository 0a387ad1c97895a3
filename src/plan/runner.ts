import { setTimeout as delay } from 'node:timers/promises'
import { LabError, messageOf, tooBusy, unlessAborted } from '../error.js'
import type {
  Act,
  Check,
  CheckResult,
  Plan,
  Report,
  RunEvent,
  Seconds,
  Step,
  StepResult,
  Surroundings,
  Verdict,
} from './step.js'

export type Emit = (event: RunEvent) => void

/** Seconds between two looks at a check: the first comes soon, a slow thing is not asked all the time. */
const firstPause: Seconds = 0.15
const longestPause: Seconds = 0.6

/** Seconds that a check without a deadline of its own may take to become true. */
const defaultDeadline: Seconds = 60

/** How a run walks the steps. */
export type Mode =
  /** Apply what is not so, and wait until it is. */
  | 'apply'
  /** Like `apply`, but one that fails keeps nobody else from going on: as much as possible is taken away. */
  | 'undo'
  /** Look once; change nothing. */
  | 'look'

const seconds = (since: number): Seconds => (performance.now() - since) / 1000

/**
 * Asks a check once. What could not be asked is not so, and the reason is the evidence.
 * @throws when the run is interrupted, even if the answer never comes.
 */
export const ask = async <Around extends Surroundings>(
  check: Check<Around>,
  context: Around,
): Promise<Verdict> => {
  context.signal.throwIfAborted()
  try {
    return await unlessAborted(context.signal, check.probe(context))
  } catch (error) {
    context.signal.throwIfAborted()
    return { ok: false, saw: messageOf(error) }
  }
}

const askAll = <Around extends Surroundings>(
  checks: readonly Check<Around>[],
  context: Around,
): Promise<CheckResult[]> =>
  Promise.all(checks.map(async (check) => ({ check, ...(await ask(check, context)) })))

/** Between two tries. What takes an emulated machine long to answer keeps it from what is waited for. */
const leaveInPeace = (
  { patience = 1, signal }: Surroundings,
  { pause, asked }: { pause: Seconds; asked: number },
): Promise<void> =>
  delay(Math.max(pause, Math.min(seconds(asked), longestPause * patience)) * 1000, undefined, { signal })

/** Seconds after which a check that is not so is not awaited any longer. */
const deadlineOf = (check: Check, { patience = 1 }: Surroundings): Seconds =>
  (check.within ?? defaultDeadline) * patience

/** Applies a step: again where somebody whom it asks is too busy, as long as one would wait for it to become so. */
const applyStep = async <Around extends Surroundings>(
  apply: Act<Around>,
  { checks }: Pick<Step, 'checks'>,
  context: Around,
  progress: (note: string) => void,
): Promise<void> => {
  const since = performance.now()
  const deadline = Math.max(...checks.map((check) => deadlineOf(check, context)))
  for (;;) {
    const asked = performance.now()
    try {
      await apply(context, progress)
      return
    } catch (error) {
      context.signal.throwIfAborted()
      if (!(error instanceof LabError && error.code === tooBusy) || seconds(since) >= deadline) throw error
      progress(`again, since it was too busy: ${error.message}`)
      await leaveInPeace(context, { pause: longestPause, asked })
    }
  }
}

/** Waits for one check until it holds, its deadline passes, or it says that waiting is of no use. */
const waitFor = async <Around extends Surroundings>(
  check: Check<Around>,
  context: Around,
  since: number,
  seen: (verdict: Verdict) => void,
): Promise<CheckResult> => {
  const deadline = deadlineOf(check, context)
  for (let pause = firstPause; ;) {
    const asked = performance.now()
    const verdict = await ask(check, context)
    if (verdict.ok || verdict.final === true) return { check, ...verdict }
    if (seconds(since) >= deadline)
      return { check, ok: false, saw: `${verdict.saw} (waited ${seconds(since).toFixed(0)} s)` }
    seen(verdict)
    await leaveInPeace(context, { pause, asked })
    pause = Math.min(pause * 1.5, longestPause)
  }
}

/**
 * The only loop. Steps start as soon as all that they need has succeeded; a failed step stops those that
 * need it, and nobody else. Never throws: whatever happens is in the report, in plan order.
 */
export const runPlan = async <Around extends Surroundings>(
  plan: Plan<Around>,
  mode: Mode,
  context: Around,
  emit: Emit,
): Promise<Report> => {
  const started = new Date()
  const since = performance.now()
  const results = new Map<string, StepResult>()
  emit({ type: 'run-started', plan })

  const finish = (result: StepResult): StepResult => {
    results.set(result.step.id, result)
    emit({ type: 'step-finished', result })
    return result
  }

  const carryOut = async (step: Step<Around>): Promise<StepResult> => {
    const begun = performance.now()
    emit({ type: 'step-started', step })
    let checks: readonly CheckResult[] = []
    const done = (outcome: StepResult['outcome'], why: Partial<StepResult> = {}): StepResult => ({
      step,
      outcome,
      seconds: seconds(begun),
      checks,
      ...why,
    })
    const failed = (): StepResult => {
      const first = checks.find((result) => !result.ok)
      if (!first) return done('changed')
      return done('failed', {
        reason: `${first.check.title}: no: ${first.saw}`,
        ...(first.check.hint === undefined ? {} : { hint: first.check.hint }),
      })
    }
    try {
      checks = await askAll(step.checks, context)
      const unmet = checks.filter((result) => !result.ok)
      if (unmet.length === 0) return done('ok')
      if (mode === 'look') return failed()
      if (step.apply) {
        emit({
          type: 'step-applying',
          step,
          why: unmet.map(({ check, saw }) => `${check.title}: no: ${saw}`).join('; '),
        })
        await applyStep(step.apply, step, context, (note) => {
          emit({ type: 'step-progress', step, note })
        })
      }
      const applied = performance.now()
      checks = await Promise.all(
        step.checks.map((check) =>
          waitFor(check, context, applied, ({ saw }) => {
            emit({ type: 'step-waiting', step, waitingFor: check.title, saw })
          }),
        ),
      )
      return checks.every((result) => result.ok) ? done(step.apply ? 'changed' : 'ok') : failed()
    } catch (error) {
      if (context.signal.aborted) return done('not-reached', { reason: 'interrupted' })
      const hint = error instanceof LabError ? error.hint : undefined
      return done('failed', {
        reason: messageOf(error),
        ...((hint ?? step.checks[0].hint) === undefined ? {} : { hint: hint ?? step.checks[0].hint ?? '' }),
      })
    }
  }

  const running = new Map<string, Promise<StepResult>>()
  const run = (step: Step<Around>): Promise<StepResult> => {
    let promise = running.get(step.id)
    if (!promise) {
      promise = (async () => {
        const needed = await Promise.all(
          step.needs.map((id) => {
            const other = plan.steps.find((candidate) => candidate.id === id)
            if (!other) throw new Error(`step ${step.id} needs ${id}, which is not in the plan`)
            return run(other)
          }),
        )
        const missing = needed.find(
          (result) => result.outcome === 'failed' || result.outcome === 'not-reached',
        )
        const skip = context.signal.aborted
          ? 'interrupted'
          : missing && mode === 'apply'
            ? `needs: ${missing.step.title}`
            : undefined
        return finish(
          skip === undefined
            ? await carryOut(step)
            : { step, outcome: 'not-reached', seconds: 0, checks: [], reason: skip },
        )
      })()
      running.set(step.id, promise)
    }
    return promise
  }

  // Looking needs no order: what a step builds on may be broken, and its own state is worth knowing all the same.
  await Promise.all(
    mode !== 'look' ? plan.steps.map(run) : plan.steps.map(async (step) => finish(await carryOut(step))),
  )
  const report: Report = {
    title: plan.title,
    started,
    seconds: seconds(since),
    interrupted: context.signal.aborted,
    results: plan.steps.map((step) => results.get(step.id)).filter((result) => result !== undefined),
  }
  emit({ type: 'run-finished', report })
  return report
}

/** True when every step is as it should be. */
export const succeeded = (report: Report): boolean =>
  !report.interrupted && report.results.every(({ outcome }) => outcome === 'ok' || outcome === 'changed')
