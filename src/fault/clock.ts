/**
 * The machines' clocks, measured against this host's monotonic one: what a machine dated by its own clock gets its
 * place among what this host saw, and nobody who sets a clock can change how long something took.
 */
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'

/** How far the clock of a source is ahead of the operator's. */
export interface Skew {
  /** Milliseconds; negative: it is behind. */
  readonly ms: number
  /** Milliseconds: the true skew is at most so much more or less. */
  readonly uncertainty: number
}

/** A clock that was measured. */
export interface Clock extends Skew {
  /** What it said, in milliseconds since 1970, when the operator's monotonic clock was at 0. */
  readonly zero: number
}

/** A clock that was asked: when the question left and the answer came, by this host's monotonic clock. */
export interface ClockSample {
  readonly asked: number
  /** Milliseconds since 1970, by the clock that was asked. */
  readonly said: number
  readonly answered: number
}

/** This host's own clock, as others are measured. */
export const ownClock = (): Clock => ({ ms: 0, uncertainty: 0, zero: Date.now() - performance.now() })

/**
 * What the quickest answer shows: the source looked at its clock somewhere between question and answer.
 * @param own this host's clock at that time
 * @returns undefined without samples
 */
export const clockOf = (samples: readonly ClockSample[], own: Clock): Clock | undefined => {
  const [best] = [...samples].sort((a, b) => a.answered - a.asked - (b.answered - b.asked))
  if (!best) return undefined
  const zero = best.said - (best.asked + best.answered) / 2
  return { ms: zero - own.zero, uncertainty: (best.answered - best.asked) / 2, zero }
}

/** How many times a machine's clock is asked: the quickest answer counts. */
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

/** A machine that does not answer has no clock. */
export const measureClocks = async (context: Context, machines: readonly string[]): Promise<Clocks> => {
  const found = await Promise.all(
    machines.map(async (name) => [name, await measure(context, name).catch(() => undefined)] as const),
  )
  return Object.fromEntries(found.flatMap(([name, clock]) => (clock ? [[name, clock]] : [])))
}

/** Milliseconds that two clocks may drift apart in a run. */
const drift = 250

/**
 * The clocks that were the same before and after: one that was set in between dates nothing, since nobody knows which
 * moments came before that.
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
