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

/** Pause between two attempts of a check in seconds: short at first, longer for slow things. */
const firstPause: Seconds = 0.15
const longestPause: Seconds = 0.6

/** Seconds until a check without a deadline of its own must hold. */
const defaultDeadline: Seconds = 60

/** How a run treats the steps. */
export type Mode =
  /** Apply the steps whose checks fail, and wait until the checks hold. */
  | 'apply'
  /** Like `apply`, but a failure does not stop other steps: as much as possible is undone. */
  | 'undo'
  /** Run every check once; change nothing. */
  | 'check'

const seconds = (since: number): Seconds => (performance.now() - since) / 1000

/**
 * Runs a check once. If it throws, it does not hold, and the error is the evidence.
 * @throws when the run is interrupted, even if the check never answers
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

/** Pauses between two attempts. A check that takes an emulated machine long also slows down what is waited for. */
const leaveInPeace = (
  { slowdown = 1, signal }: Surroundings,
  { pause, asked }: { pause: Seconds; asked: number },
): Promise<void> =>
  delay(Math.max(pause, Math.min(seconds(asked), longestPause * slowdown)) * 1000, undefined, { signal })

/** Seconds after which a failing check is no longer awaited. */
const deadlineOf = (check: Check, { slowdown = 1 }: Surroundings): Seconds =>
  (check.within ?? defaultDeadline) * slowdown

/** Applies a step, and repeats it while another system is too busy, for as long as its checks would be awaited. */
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
      progress(`trying again, because it was too busy: ${error.message}`)
      await leaveInPeace(context, { pause: longestPause, asked })
    }
  }
}

/** Waits until a check holds, its deadline passes, or it says that waiting is of no use. */
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

/** How a run treats its steps, and who hears of them. */
interface Running<Around extends Surroundings> {
  readonly mode: Mode
  readonly context: Around
  readonly emit: Emit
}

/** How a step ended. */
type Ended = Pick<StepResult, 'outcome' | 'reason' | 'failedBy' | 'hint'>

/** The outcome of a step whose checks were asked for the last time. */
const outcomeOf = (checks: readonly CheckResult[], good: StepResult['outcome']): Ended => {
  const first = checks.find((result) => !result.ok)
  if (!first) return { outcome: good }
  return {
    outcome: 'failed',
    failedBy: 'check',
    reason: `${first.check.title}: no: ${first.saw}`,
    ...(first.check.hint === undefined ? {} : { hint: first.check.hint }),
  }
}

/** The outcome of a step that threw an error. */
const outcomeOfError = <Around extends Surroundings>(
  error: unknown,
  step: Step<Around>,
  { signal }: Around,
): Ended => {
  if (signal.aborted) return { outcome: 'not-reached', reason: 'interrupted' }
  const hint = (error instanceof LabError ? error.hint : undefined) ?? step.checks[0].hint
  return {
    outcome: 'failed',
    failedBy: 'error',
    reason: messageOf(error),
    ...(hint === undefined ? {} : { hint }),
  }
}

/** Asks, applies, and waits. Never throws. */
const carryOut = async <Around extends Surroundings>(
  step: Step<Around>,
  { mode, context, emit }: Running<Around>,
): Promise<StepResult> => {
  const begun = performance.now()
  emit({ type: 'step-started', step })
  let checks: readonly CheckResult[] = []
  const done = (how: Ended): StepResult => ({
    step,
    seconds: seconds(begun),
    checks,
    ...how,
  })
  try {
    checks = await askAll(step.checks, context)
    const unmet = checks.filter((result) => !result.ok)
    if (unmet.length === 0 || mode === 'check') return done(outcomeOf(checks, 'ok'))
    if (step.apply) {
      const why = unmet.map(({ check, saw }) => `${check.title}: no: ${saw}`).join('; ')
      emit({ type: 'step-applying', step, why })
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
    return done(outcomeOf(checks, step.apply ? 'changed' : 'ok'))
  } catch (error) {
    return done(outcomeOfError(error, step, context))
  }
}

/** Carries out every step of a plan as soon as what it needs is there. */
const carryOutInOrder = async <Around extends Surroundings>(
  { steps }: Plan<Around>,
  running: Running<Around>,
  finish: (result: StepResult) => StepResult,
): Promise<void> => {
  const { mode, context } = running
  const begun = new Map<string, Promise<StepResult>>()
  const afterNeeds = async (step: Step<Around>): Promise<StepResult> => {
    const needed = await Promise.all(
      step.needs.map((id) => {
        const other = steps.find((candidate) => candidate.id === id)
        if (!other) throw new Error(`step ${step.id} needs ${id}, which is not in the plan`)
        return run(other)
      }),
    )
    const missing = needed.find((result) => result.outcome === 'failed' || result.outcome === 'not-reached')
    const skip = context.signal.aborted
      ? 'interrupted'
      : missing && mode === 'apply'
        ? `needs: ${missing.step.title}`
        : undefined
    return finish(
      skip === undefined
        ? await carryOut(step, running)
        : { step, outcome: 'not-reached', seconds: 0, checks: [], reason: skip },
    )
  }
  const run = (step: Step<Around>): Promise<StepResult> => {
    const promise = begun.get(step.id) ?? afterNeeds(step)
    begun.set(step.id, promise)
    return promise
  }
  await Promise.all(steps.map(run))
}

/**
 * The only loop. A step starts as soon as everything it needs has succeeded; a failed step stops only those that need
 * it. Never throws: every result is in the report, in plan order.
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
  const running: Running<Around> = { mode, context, emit }
  emit({ type: 'run-started', plan })

  const finish = (result: StepResult): StepResult => {
    results.set(result.step.id, result)
    emit({ type: 'step-finished', result })
    return result
  }
  // Checks need no order: the state of a step is worth knowing even when one that it needs is broken.
  if (mode === 'check')
    await Promise.all(plan.steps.map(async (step) => finish(await carryOut(step, running))))
  else await carryOutInOrder(plan, running, finish)
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

/** Whether every step succeeded. */
export const succeeded = (report: Report): boolean =>
  !report.interrupted && report.results.every(({ outcome }) => outcome === 'ok' || outcome === 'changed')
