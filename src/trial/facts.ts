/** What a trial knows when it ends or is interrupted: data for a report, without a verdict. */
import type { Seen } from '../fault/sign.js'
import type { DatabaseVolume, Failover, Fencing, ScenarioSpec } from '../lab/lab.js'
import type { Judgement } from './judge.js'
import type { LedgerRecord } from './ledger.js'
import type { Recovery } from './recovery.js'
import type { DiskProof } from './read-back.js'
import type { CheckFact, Look } from './steady.js'
import type { Timeline } from './timeline.js'

export interface FaultFact {
  readonly fault: string
  readonly on: readonly string[]
  readonly detail: string
  readonly injected?: Date | undefined
  /** On this host's monotonic clock. */
  readonly injectedMs?: number | undefined
  readonly acting?: Seen | undefined
  readonly healed?: Date | undefined
  readonly gone?: Seen | undefined
  readonly error?: string | undefined
}

/** The facts that every trial has. */
export interface CommonFacts {
  readonly lab: string
  /** The lab of the experiment, if the machines belong to another one. */
  readonly of?: string | undefined
  readonly name: string
  /** A sentence about what it shows. */
  readonly description: string
  readonly started: Date
  readonly seconds: number
  readonly interrupted: boolean
  readonly provider: string
  readonly failover: Failover
  readonly fencing: Fencing
  /** The kind of the database's volume; undefined if the lab has no database. */
  readonly volume: DatabaseVolume['kind'] | undefined
  readonly versions: Readonly<Record<string, string>>
  /**
   * The speed of the host before the trial: its processors, and the milliseconds that an empty Node.js program took.
   */
  readonly host?: { readonly processors: number; readonly nodeStart: number } | undefined
  readonly faults: readonly FaultFact[]
  /** The final checks of the steady state before the faults and after the heal. */
  readonly checks: readonly CheckFact[]
  /** All rounds of these checks. */
  readonly looks?: readonly Look[] | undefined
  /** The source of the data that was read back; absent: any, including the server's memory. */
  readonly diskProof?: DiskProof | undefined
  /** The ledger and its judgement; absent: the trial ended earlier or had none. */
  readonly ledger?:
    | {
        readonly records: readonly LedgerRecord[]
        readonly torn?: string | undefined
        readonly judgement: Judgement
      }
    | undefined
}

export interface ScenarioFacts extends CommonFacts {
  readonly kind: 'scenario'
  readonly scenario: ScenarioSpec
  /**
   * Of a scenario whose fault was injected. `itself` is the recovery before `lab` healed anything, unless the
   * scenario did not ask for it.
   */
  readonly recovery?: { readonly itself?: Recovery | undefined; readonly healed: Recovery } | undefined
  readonly timeline?: Timeline | undefined
}

/** The measurement of a text for the same quantity in milliseconds, and its place in the text. */
export interface TextFigure {
  readonly ms: number
  readonly how: string
}

/** The claims and measurements of an experiment, and its actions and observations. */
interface ClaimedFacts extends CommonFacts {
  readonly claims: readonly {
    readonly title: string
    /** Unknown: it could not be asked. */
    readonly outcome: 'passed' | 'failed' | 'unknown'
    readonly saw: string
  }[]
  readonly figures: readonly {
    readonly title: string
    /** Milliseconds. */
    readonly ms: number
    readonly text: TextFigure | null
  }[]
  readonly events: readonly {
    readonly type: 'act' | 'claim' | 'pod'
    /** ISO 8601, by the operator's clock. */
    readonly at: string
    /** Milliseconds since the trial began. */
    readonly ms: number
    readonly detail: string
  }[]
}

export interface ExperimentFacts extends ClaimedFacts {
  readonly kind: 'experiment'
}

/** Of a trial whose actor is a person. */
export interface ExerciseFacts extends ClaimedFacts {
  readonly kind: 'exercise'
  /** From the person's first act on; undefined: nothing was recorded. */
  readonly timeline?: Timeline | undefined
}

/** A trial of a new kind adds its facts here, and its rendering to `report/`. */
export type Facts = ScenarioFacts | ExperimentFacts | ExerciseFacts
