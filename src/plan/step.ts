/**
 * The central idea of the design: a Step is a desired state, an action that reaches it, and Checks that observe it.
 * `up`, `verify` and `plan` use the same steps in three ways.
 *
 * Nothing here knows the subject of the steps. A step gets the surroundings with which its plan is run; a `Step`
 * without a parameter is any step, for reading and printing.
 */
export type Seconds = number

/** What every run provides. */
export interface Surroundings {
  /** Aborted when the run is interrupted. */
  readonly signal: AbortSignal
  /** The factor for every deadline; default 1. */
  readonly slowdown?: number | undefined
}

/** The result of a check. `saw` is the evidence, which people see and reports keep. */
export interface Verdict {
  readonly ok: boolean
  readonly saw: string
  /** Whether waiting longer is of no use. */
  readonly final?: boolean
}

export interface Check<in Around extends Surroundings = never> {
  /** Unique in the plan, kebab-case: `worker1-node-ready`. */
  readonly id: string
  /** A fact in the present tense: 'node worker1 is Ready'. */
  readonly title: string
  readonly machine?: string
  /** A throw means that the check could not be asked, which counts as not holding yet. */
  readonly probe: (around: Around) => Promise<Verdict>
  /** Deadline after the step was applied, multiplied by the run's slowdown. */
  readonly within?: Seconds
  /** A command to type. */
  readonly hint?: string
}

/** Changes the system. `progress` reports the current activity. */
export type Act<Around extends Surroundings> = (
  around: Around,
  progress: (note: string) => void,
) => Promise<void>

export interface Step<in Around extends Surroundings = never> {
  /** Unique in the plan, kebab-case verb-object. */
  readonly id: string
  /** Imperative: 'Initialise the control plane'. */
  readonly title: string
  /** The group it is shown under. */
  readonly phase: string
  /** Absent: the step concerns the operator's host or the whole lab. */
  readonly machine?: string
  /** Ids of the steps that must succeed first. */
  readonly needs: readonly string[]
  /** Absent: the step only has checks. */
  readonly apply?: Act<Around>
  /** At least one: without a check, it is unknown whether the step is done. */
  readonly checks: readonly [Check<Around>, ...Check<Around>[]]
  /** How to undo the step. Absent: there is nothing to undo. */
  readonly undo?: Undo<Around>
  /** Present if the plan should leave the step out. */
  readonly leftOut?: LeftOut
}

/** Undoes what a step has made. */
export interface Undo<in Around extends Surroundings = never> {
  /** Imperative: 'Switch worker1 off'. */
  readonly title: string
  /** Must do no harm when there is nothing to undo. */
  readonly apply: Act<Around>
  readonly gone: Check<Around>
}

export interface LeftOut {
  /** A sentence: 'hosts does not make machines'. */
  readonly why: string
  /**
   * Whether the step's result exists without it: then the steps that need it stay; otherwise they are left out, too.
   */
  readonly given: boolean
}

export interface Plan<in Around extends Surroundings = never> {
  readonly title: string
  readonly steps: readonly Step<Around>[]
  /** The steps that were left out, and why. */
  readonly leftOut?: readonly { readonly id: string; readonly title: string; readonly why: string }[]
}

/**
 * - `ok`: it was so already · `changed`: it was applied, and its checks hold now
 * - `failed` · `not-reached`: a step that it needs failed, or the run was interrupted
 */
export type Outcome = 'ok' | 'changed' | 'failed' | 'not-reached'

export type FailedBy = 'check' | 'error'

export interface CheckResult {
  readonly check: Check
  readonly ok: boolean
  readonly saw: string
}

export interface StepResult {
  readonly step: Step
  readonly outcome: Outcome
  readonly seconds: number
  readonly checks: readonly CheckResult[]
  /** Why it failed or was not reached. */
  readonly reason?: string
  /** What the reason is about, if it failed: its first failing check, or an error in applying it or in asking. */
  readonly failedBy?: FailedBy
  readonly hint?: string
}

/** Results in plan order. */
export interface Report {
  readonly title: string
  readonly started: Date
  readonly seconds: number
  readonly interrupted: boolean
  readonly results: readonly StepResult[]
}

/** Events of a run, which views draw and `--events` prints. */
export type RunEvent =
  | { readonly type: 'run-started'; readonly plan: Plan }
  | { readonly type: 'step-started'; readonly step: Step }
  | { readonly type: 'step-applying'; readonly step: Step; readonly why: string }
  /** A check that is awaited, and its last result. */
  | { readonly type: 'step-waiting'; readonly step: Step; readonly waitingFor: string; readonly saw: string }
  | { readonly type: 'step-progress'; readonly step: Step; readonly note: string }
  | { readonly type: 'step-finished'; readonly result: StepResult }
  | { readonly type: 'run-finished'; readonly report: Report }
