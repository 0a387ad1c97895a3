/**
 * The machines' clocks, measured against this host's monotonic clock. Timestamps of a machine are converted with it,
 * so that setting a clock cannot change how long something took.
 */
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'

/** How far the clock of a source is ahead of the operator's. */
export interface Skew {
  /** Milliseconds; negative if it is behind. */
  readonly ms: number
  /** The true skew differs by at most this many milliseconds. */
  readonly uncertainty: number
}

/** A clock that was measured. */
export interface Clock extends Skew {
  /** Its reading, in milliseconds since 1970, at time 0 of the operator's monotonic clock. */
  readonly zero: number
}

/** One reading of a clock, with the times of request and reply on this host's monotonic clock. */
export interface ClockSample {
  readonly asked: number
  /** Milliseconds since 1970 on the remote clock. */
  readonly said: number
  readonly answered: number
}

/** This host's own clock in the same form. */
export const ownClock = (): Clock => ({ ms: 0, uncertainty: 0, zero: Date.now() - performance.now() })

/**
 * The clock according to the quickest reply: the source read its clock between request and reply.
 * @param own this host's clock at that time
 * @returns undefined without samples
 */
export const clockOf = (samples: readonly ClockSample[], own: Clock): Clock | undefined => {
  const [best] = [...samples].sort((a, b) => a.answered - a.asked - (b.answered - b.asked))
  if (!best) return undefined
  const zero = best.said - (best.asked + best.answered) / 2
  return { ms: zero - own.zero, uncertainty: (best.answered - best.asked) / 2, zero }
}

/** Readings per machine, of which the quickest counts. */
const samples = 4

const measure = async (context: Context, machine: string): Promise<Clock | undefined> => {
  const taken: ClockSample[] = []
  for (let n = 0; n < samples; n++) {
    const asked = performance.now()
    const said = Number(
      await context.machine(machine).run(shell`date +%s%3N`, { signal: context.signal, timeout: 10 }),
    )
    taken.push({ asked, said, answered: performance.now() })
  }
  return clockOf(taken, ownClock())
}

export type Clocks = Readonly<Record<string, Clock>>

/** Measures all machines; one that does not answer has no clock. */
export const measureClocks = async (context: Context, machines: readonly string[]): Promise<Clocks> => {
  const found = await Promise.all(
    machines.map(async (name) => [name, await measure(context, name).catch(() => undefined)] as const),
  )
  return Object.fromEntries(found.flatMap(([name, clock]) => (clock ? [[name, clock]] : [])))
}

/** Tolerated drift between two clocks during a run, in milliseconds. */
const drift = 250

/**
 * The clocks that agree before and after a run. A clock that was set in between dates nothing, because it is unknown
 * which timestamps precede the change.
 */
export const keptClocks = (before: Clocks, after: Clocks): Clocks =>
  Object.fromEntries(
    Object.entries(before).flatMap(([name, clock]) => {
      const later = after[name]
      if (!later) return []
      const apart = Math.abs(later.zero - clock.zero)
      const uncertainty = Math.max(clock.uncertainty, later.uncertainty)
      return apart > clock.uncertainty + later.uncertainty + drift
        ? []
        : [[name, { ...clock, uncertainty: uncertainty + apart }]]
    }),
  )
