/** The events of a running trial, as data. */

/**
 * | event            | when it is reported, and what `ok` means                                              |
 * |------------------|---------------------------------------------------------------------------------------|
 * | `started`        | before the first check of the steady state                                            |
 * | `steady`         | the steady state was checked, before or after; `ok`: every check held                 |
 * | `writing`        | a client got its first answer, and writes and reads from now on                       |
 * | `fault-started`  | right before a fault                                                                  |
 * | `fault-acting`   | the fault's effect was looked for; `ok`: it was seen                                  |
 * | `fault-undone`   | the fault's undo has run                                                              |
 * | `fault-gone`     | the effect was looked for again; `ok`: it is gone                                     |
 * | `seen`           | a watch saw a change: a node that is not ready, a new or removed pod, a fence         |
 * | `acted`          | an experiment or a person did something                                               |
 * | `claimed`        | a claim was checked; `ok`: it held; null: it could not be checked                     |
 * | `recovered`      | writes are answered again before healing; `ok` false: they were not by the deadline   |
 * | `healing`        | `lab` begins to bring the lab back to the state of its file                           |
 * | `healed`         | `lab` has finished that                                                               |
 * | `read-back`      | all writes were read back; `ok`: none is missing, changed or duplicated               |
 * | `finished`       | the trial is over; `ok` false: it was interrupted                                     |
 * | `judged`         | the report is written; `ok`: the verdict is PASS; null: it is UNKNOWN                 |
 */
export type TrialEventName =
  | 'started'
  | 'steady'
  | 'writing'
  | 'fault-started'
  | 'fault-acting'
  | 'fault-undone'
  | 'fault-gone'
  | 'seen'
  | 'acted'
  | 'claimed'
  | 'recovered'
  | 'healing'
  | 'healed'
  | 'read-back'
  | 'finished'
  | 'judged'

export interface TrialEvent {
  /** The scenario, experiment or exercise. */
  readonly trial: string
  readonly what: TrialEventName
  /** Milliseconds since the trial began. */
  readonly ms: number
  /** Name of the fault; null if the event does not concern one. */
  readonly fault: string | null
  readonly machines: readonly string[]
  /** The result; null if the event has none, or it is unknown. */
  readonly ok: boolean | null
  readonly detail: string
}
