/**
 * Estimates the progress of a build. Its number of output lines tells how much is done, since a part prints about the
 * same every time. The time left is shown only if it is right within a factor of two. The pace so far holds while
 * the same other builds share the processors, and the pace of an earlier build holds once they have ended; which of
 * them applies to the rest is unknown. Builds that lab starts are known at once; what other programs do on this host
 * is noticed only from the pace, some seconds later.
 */
import type { Company } from './company.js'

/** Measurements of an earlier build of the same part, here or elsewhere. */
export interface Before {
  readonly seconds: number
  /** Of output. */
  readonly lines: number
}

/** A part that prints fewer lines gives no measure of progress. */
const leastLines = 50

/** The fraction that must be done before the rest is estimated. */
const leastFraction = 0.1

/** The most recent period, in seconds. */
const justNow = 15

/** The fraction of the elapsed time that counts as the recent period. */
const lately = 0.25

/** Seconds after other builds have begun or ended until the pace is known again. */
const settling = 30

/** The largest ratio between the paces of these periods and of the whole build. Beyond it, the pace is unknown. */
const agreement = 1.6

/**
 * The largest ratio between the longest and the shortest possible rest. Their geometric mean is then wrong by the
 * square root of this at most, which leaves some room below two.
 */
const uncertainty = 3.6

export interface Estimate {
  /** 0 to 0.99. */
  readonly fraction: number
  /** Seconds; absent if they are unknown. */
  readonly remaining?: number
}

interface Seen {
  readonly elapsed: number
  readonly lines: number
}

const alone: Company = { beside: 0, coming: 0 }

/** Follows one build from its start. */
export class Progress {
  readonly #before: Before
  /** Since the same number of builds has run beside it. */
  #seen: Seen[] = [{ elapsed: 0, lines: 0 }]
  #beside: number | undefined

  constructor(before: Before) {
    this.#before = before
  }

  /**
   * Called about once a second.
   * @param elapsed seconds since the start
   * @param lines printed since then
   */
  at(elapsed: number, lines: number, { beside, coming }: Company = alone): Estimate {
    const { seconds, lines: all } = this.#before
    if (this.#beside !== undefined && beside !== this.#beside) this.#seen = []
    this.#beside = beside
    this.#seen.push({ elapsed, lines })
    const passed = Math.min(1, elapsed / seconds)
    if (all < leastLines) return { fraction: Math.min(0.99, passed) }
    const printed = Math.min(1, lines / all)
    const fraction = Math.min(0.99, 0.9 * printed + 0.1 * passed)
    if (printed < leastFraction || lines >= all) return { fraction }
    const [first = { elapsed, lines }] = this.#seen
    const same = elapsed - first.elapsed
    if (first.elapsed > 0 && same < settling) return { fraction }
    // Seconds for the rest at the pace of the given last seconds.
    const atPaceOf = (last: number): number => {
      const since = this.#seen.findLast((seen) => seen.elapsed <= elapsed - last) ?? first
      return ((elapsed - since.elapsed) / (lines - since.lines)) * (all - lines)
    }
    const paces = [atPaceOf(justNow), atPaceOf(Math.max(justNow, same * lately)), atPaceOf(same)]
    const slowest = Math.max(...paces)
    if (!(slowest <= agreement * Math.min(...paces))) return { fraction }
    const rests = [...paces, seconds * (1 - printed), (slowest * (1 + beside + coming)) / (1 + beside)]
    const [least, most] = [Math.min(...rests), Math.max(...rests)]
    if (most > uncertainty * least) return { fraction }
    return { fraction, remaining: Math.max(1, Math.round(Math.sqrt(least * most))) }
  }
}
