/** The events of a trial while it runs, as data. */

/**
 * | what             | when                                                                                     |
 * |------------------|------------------------------------------------------------------------------------------|
 * | `started`        | before the steady state is asked for                                                     |
 * | `steady`         | the steady state was asked, before or after; `ok`: every check said yes                  |
 * | `writing`        | a client is answered, and writes and reads from now on                                   |
 * | `fault-started`  | right before a fault                                                                     |
 * | `fault-acting`   | it was looked for; `ok`: it was seen to act                                              |
 * | `fault-undone`   | its undo has run                                                                         |
 * | `fault-gone`     | it was looked for once more; `ok`: it was seen to be gone                                |
 * | `seen`           | a watch saw something: a node that is not ready, a pod that goes or comes, a fence       |
 * | `acted`          | an experiment or a person did something                                                  |
 * | `claimed`        | something was claimed; `ok`: it held; null: nobody could ask                             |
 * | `recovered`      | writes are answered again, before anything was healed; `ok` false: not by the deadline   |
 * | `healing`        | the lab is brought back to what its file says                                            |
 * | `healed`         | it was                                                                                   |
 * | `read-back`      | what was written was read back; `ok`: nothing was found missing, changed or written twice |
 * | `finished`       | nothing more is done; `ok` false: the trial was interrupted                              |
 * | `judged`         | the report is written; `ok`: the verdict is PASS; null: it is UNKNOWN                    |
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
  /** Name of the fault; null: it is about none. */
  readonly fault: string | null
  readonly machines: readonly string[]
  /** The result; null if the event has none, or it is unknown. */
  readonly ok: boolean | null
  readonly detail: string
}
