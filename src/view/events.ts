import type { PartProgress } from '../parts/preparation.js'
import type { Outcome, RunEvent, Step } from '../plan/step.js'
import type { TrialEvent } from '../trial/trial-event.js'
import type { Mask } from './secrets.js'

/** The step of an event. `machine` is null for a step of the host or the whole lab. */
export interface StepFields {
  readonly step: string
  readonly title: string
  readonly phase: string
  readonly machine: string | null
}

export interface RunStartedRecord {
  readonly type: 'run-started'
  readonly title: string
  /** In plan order. */
  readonly steps: readonly StepFields[]
}

export interface StepFinishedRecord extends StepFields {
  readonly type: 'step-finished'
  readonly outcome: Outcome
  readonly seconds: number
  readonly checks: readonly {
    readonly id: string
    readonly title: string
    readonly ok: boolean
    readonly saw: string
  }[]
  readonly reason: string | null
  readonly hint: string | null
}

export interface RunFinishedRecord {
  readonly type: 'run-finished'
  readonly title: string
  /** ISO 8601. */
  readonly started: string
  readonly seconds: number
  readonly interrupted: boolean
  /** The number of steps by outcome. */
  readonly outcomes: Readonly<Record<Outcome, number>>
}

export interface PartRecord {
  readonly type: 'part'
  readonly part: string
  readonly title: string
  readonly state: PartProgress['state']
  readonly index: number
  readonly total: number
  readonly fraction: number | null
  readonly remaining: number | null
  readonly elapsed: number | null
  readonly note: string | null
  readonly log: string | null
}

/** A moment of a trial. */
export interface TrialRecord extends TrialEvent {
  readonly type: 'trial'
}

/**
 * What happened, as plain data with its secrets masked: what every view draws, and what `--events` prints.
 *
 * With `--events`, standard output has one JSON object per line. Each has `schema` (`lab.events/v1`), `time`
 * (ISO 8601, UTC) and `type`; the other fields are those of the types of this file:
 *
 * | type            | fields                                                                              |
 * |-----------------|-------------------------------------------------------------------------------------|
 * | `run-started`   | `title`, `steps` (in plan order, each with `step`, `title`, `phase`, `machine`)      |
 * | `step-started`  | `step`, `title`, `phase`, `machine`: its checks are asked whether it is so already   |
 * | `step-applying` | the same, `why`: what was not so                                                     |
 * | `step-progress` | the same, `note`: what it does now                                                   |
 * | `step-waiting`  | the same, `waitingFor`: the title of a check, `saw`: what it saw last                |
 * | `step-finished` | the same, `outcome` (`ok`, `changed`, `failed`, `not-reached`), `seconds`, `checks`  |
 * |                 | (each with `id`, `title`, `ok`, `saw`), `reason`, `hint`                             |
 * | `run-finished`  | `title`, `started`, `seconds`, `interrupted`, `outcomes` (a number for each outcome) |
 * | `part`          | `part`, `title`, `state` (`waiting`, `building`, `built`, `fetched`, `cached`,       |
 * |                 | `spared`, `failed`),                                                                |
 * |                 | `index`, `total`, `fraction` (0 to 1), `remaining`, `elapsed` (seconds), `note`, `log` |
 * | `trial`         | a moment of `lab run`: `trial` (the scenario or experiment), `what` (`fault-started`, |
 * |                 | `fault-acting`, `healed`, …), `ms` since it began, `fault`, `machines`, `ok`, `detail`: |
 * |                 | see trial/trial-event.ts                                                              |
 * | `notice`        | `text`                                                                              |
 *
 * A field that does not apply is null, never absent. Fields and types may be added within v1; readers
 * must ignore those that they do not know.
 */
export type EventRecord =
  | RunStartedRecord
  | (StepFields & { readonly type: 'step-started' })
  | (StepFields & { readonly type: 'step-applying'; readonly why: string })
  | (StepFields & { readonly type: 'step-progress'; readonly note: string })
  | (StepFields & { readonly type: 'step-waiting'; readonly waitingFor: string; readonly saw: string })
  | StepFinishedRecord
  | RunFinishedRecord
  | PartRecord
  | TrialRecord
  | { readonly type: 'notice'; readonly text: string }

/** Draws or stores records. */
export interface Sink {
  take(record: EventRecord): void
  close(): Promise<void>
}

const milliseconds = (seconds: number): number => Math.round(seconds * 1000) / 1000

/** Ids, names and numbers are lab's own and stay unchanged; text that a machine may have produced is masked. */
export const recordOf = (event: RunEvent, mask: Mask): EventRecord => {
  const fields = (step: Step): StepFields => ({
    step: step.id,
    title: mask(step.title),
    phase: step.phase,
    machine: step.machine ?? null,
  })
  switch (event.type) {
    case 'run-started':
      return { type: event.type, title: mask(event.plan.title), steps: event.plan.steps.map(fields) }
    case 'step-started':
      return { type: event.type, ...fields(event.step) }
    case 'step-applying':
      return { type: event.type, ...fields(event.step), why: mask(event.why) }
    case 'step-progress':
      return { type: event.type, ...fields(event.step), note: mask(event.note) }
    case 'step-waiting':
      return {
        type: event.type,
        ...fields(event.step),
        waitingFor: mask(event.waitingFor),
        saw: mask(event.saw),
      }
    case 'step-finished': {
      const { step, outcome, seconds, checks, reason, hint } = event.result
      return {
        type: event.type,
        ...fields(step),
        outcome,
        seconds: milliseconds(seconds),
        checks: checks.map(({ check, ok, saw }) => ({
          id: check.id,
          title: mask(check.title),
          ok,
          saw: mask(saw),
        })),
        reason: reason === undefined ? null : mask(reason),
        hint: hint === undefined ? null : mask(hint),
      }
    }
    case 'run-finished': {
      const { title, started, seconds, interrupted, results } = event.report
      const count = (outcome: Outcome): number =>
        results.filter((result) => result.outcome === outcome).length
      return {
        type: event.type,
        title: mask(title),
        started: started.toISOString(),
        seconds: milliseconds(seconds),
        interrupted,
        outcomes: {
          ok: count('ok'),
          changed: count('changed'),
          failed: count('failed'),
          'not-reached': count('not-reached'),
        },
      }
    }
  }
}

export const partRecordOf = (part: PartProgress, mask: Mask): PartRecord => ({
  type: 'part',
  part: part.part,
  title: mask(part.title),
  state: part.state,
  index: part.index,
  total: part.total,
  fraction: part.fraction ?? null,
  remaining: part.remaining ?? null,
  elapsed: part.elapsed ?? null,
  note: part.note === undefined ? null : mask(part.note),
  log: part.log === undefined ? null : mask(part.log),
})

export const trialRecordOf = (event: TrialEvent, mask: Mask): TrialRecord => ({
  type: 'trial',
  ...event,
  detail: mask(event.detail),
})

/** A record as one line of NDJSON, without its newline. */
export const textOfRecord = (record: EventRecord): string =>
  JSON.stringify({ schema: 'lab.events/v1', time: new Date().toISOString(), ...record })

export const jsonLines = (stream: NodeJS.WritableStream): Sink => ({
  take(record) {
    stream.write(`${textOfRecord(record)}\n`)
  },
  close: () => Promise.resolve(),
})
