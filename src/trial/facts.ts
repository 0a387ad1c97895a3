/** What a trial knows when it ends, or is ended: data for a report, without a judgement. */
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
  /** On the monotonic clock of this host. */
  readonly injectedMs?: number | undefined
  readonly acting?: Seen | undefined
  readonly healed?: Date | undefined
  readonly gone?: Seen | undefined
  readonly error?: string | undefined
}

/** What is known of every trial, whatever was done in it. */
export interface CommonFacts {
  readonly lab: string
  /** The lab whose experiment it is, where the machines are another's. */
  readonly of?: string | undefined
  readonly name: string
  /** What it shows, in a sentence. */
  readonly description: string
  readonly started: Date
  readonly seconds: number
  readonly interrupted: boolean
  readonly provider: string
  readonly failover: Failover
  readonly fencing: Fencing
  /** Where the data of the database is; undefined: the lab has none. */
  readonly volume: DatabaseVolume['kind'] | undefined
  readonly versions: Readonly<Record<string, string>>
  /** How fast the host was before the trial: its processors, and the milliseconds that an empty Node.js program took. */
  readonly host?: { readonly processors: number; readonly nodeStart: number } | undefined
  readonly faults: readonly FaultFact[]
  /** The steady state, asked before the faults and after they were healed: the last look of each. */
  readonly checks: readonly CheckFact[]
  /** All looks at it. */
  readonly looks?: readonly Look[] | undefined
  /** Where what was read back came from; absent: from wherever the server had it. */
  readonly diskProof?: DiskProof | undefined
  /** The ledger and what it comes to; absent: the trial did not get so far, or had none. */
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
  /** Of a scenario whose fault was injected: `itself` before `lab` healed anything, unless that was not asked for. */
  readonly recovery?: { readonly itself?: Recovery | undefined; readonly healed: Recovery } | undefined
  readonly timeline?: Timeline | undefined
}

/** What a text measured for the same: milliseconds, and where it says so. */
export interface TextFigure {
  readonly ms: number
  readonly how: string
}

/** What was claimed and measured, and all that was done and seen. */
export interface ExperimentFacts extends CommonFacts {
  readonly kind: 'experiment'
  readonly claims: readonly {
    readonly title: string
    readonly outcome: 'passed' | 'failed'
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
    /** Milliseconds since the experiment began. */
    readonly ms: number
    readonly detail: string
  }[]
}

/** A trial of a new kind adds its facts here, and `report/` a way to render them. */
export type Facts = ScenarioFacts | ExperimentFacts
