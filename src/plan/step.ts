/**
 * One idea carries the design: a Step is a wanted state, a way to get there, and Checks that can see it.
 * `up`, `verify` and `plan` walk the same steps in three ways.
 *
 * Nothing here knows what the steps are about. A step gets the surroundings that its plan is run with; a `Step`
 * without a parameter is any step, to be read and shown.
 */
export type Seconds = number

/** What every run needs. */
export interface Surroundings {
  /** Aborted when the run is interrupted. */
  readonly signal: AbortSignal
  /** How many times longer every deadline is; default 1. */
  readonly patience?: number | undefined
}

/** What a check saw. `saw` is evidence, always: it is shown to people and kept in reports. */
export interface Verdict {
  readonly ok: boolean
  readonly saw: string
  /** Waiting longer cannot make it good. */
  readonly final?: boolean
}

export interface Check<in Around extends Surroundings = never> {
  /** Unique in the plan, kebab-case: `worker1-node-ready`. */
  readonly id: string
  /** A fact in the present tense: 'node worker1 is Ready'. */
  readonly title: string
  readonly machine?: string
  /** A throw means "could not ask": not yet, or no. */
  readonly probe: (around: Around) => Promise<Verdict>
  /** Deadline after the step was applied; the run's patience makes it longer. */
  readonly within?: Seconds
  /** A command to type. */
  readonly hint?: string
}

/** Changes the world. `progress` shows what it is doing. */
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
  /** Absent: it concerns the operator's host or the whole lab. */
  readonly machine?: string
  /** Ids of the steps that must have succeeded first. */
  readonly needs: readonly string[]
  /** Absent: the step only looks. */
  readonly apply?: Act<Around>
  /** At least one, or nobody could tell whether the step is done. */
  readonly checks: readonly [Check<Around>, ...Check<Around>[]]
  /** The way back. Absent: there is nothing to take away. */
  readonly undo?: Undo<Around>
  /** Set where the plan is to leave the step out. */
  readonly leftOut?: LeftOut
}

/** Takes away what a step has made. */
export interface Undo<in Around extends Surroundings = never> {
  /** Imperative: 'Switch worker1 off'. */
  readonly title: string
  /** Does no harm where there is nothing to take away. */
  readonly apply: Act<Around>
  readonly gone: Check<Around>
}

export interface LeftOut {
  /** A sentence: 'hosts does not make machines'. */
  readonly why: string
  /** Whether what the step would make is there without it: then those that need it stay, else they are left out, too. */
  readonly given: boolean
}

export interface Plan<in Around extends Surroundings = never> {
  readonly title: string
  readonly steps: readonly Step<Around>[]
  /** Steps that are not in it, and why. */
  readonly leftOut?: readonly { readonly id: string; readonly title: string; readonly why: string }[]
}

/**
 * - `ok`: it was so already · `changed`: it was applied, and its checks hold now
 * - `failed` · `not-reached`: a step that it needs failed, or the run was interrupted
 */
export type Outcome = 'ok' | 'changed' | 'failed' | 'not-reached'

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

/** What happens while it happens; views draw it, `--events` prints it. */
export type RunEvent =
  | { readonly type: 'run-started'; readonly plan: Plan }
  | { readonly type: 'step-started'; readonly step: Step }
  | { readonly type: 'step-applying'; readonly step: Step; readonly why: string }
  /** What is being waited for, and what was last seen. */
  | { readonly type: 'step-waiting'; readonly step: Step; readonly waitingFor: string; readonly saw: string }
  | { readonly type: 'step-progress'; readonly step: Step; readonly note: string }
  | { readonly type: 'step-finished'; readonly result: StepResult }
  | { readonly type: 'run-finished'; readonly report: Report }
