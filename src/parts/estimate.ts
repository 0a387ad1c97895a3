/**
 * How far the building of a part is. What a part printed tells how much is done, since it prints about the same every
 * time. What is left is told only where that is known: seconds of an earlier build say nothing while other builds, of
 * this lab or of somebody else, take the processors away.
 */

/** What the same part did before, here or elsewhere. */
export interface Before {
  readonly seconds: number
  /** Of output. */
  readonly lines: number
}

/** Lines below which a part prints too little to tell how far it is. */
const leastLines = 50

/** The fraction that has to be done before anything is said of the rest. */
const leastFraction = 0.1

/** Seconds that count as just now. */
const justNow = 15

/** How much of the time that has passed counts as lately. */
const lately = 0.25

/** The most that the pace just now, lately and from the start on may differ: beyond that, nobody knows the pace. */
const agreement = 1.6

export interface Estimate {
  /** 0 to 0.99. */
  readonly fraction: number
  /** Seconds; absent: nobody can tell. */
  readonly remaining?: number
}

/** Looks at one build from its start on. */
export class Progress {
  readonly #before: Before
  readonly #seen: { readonly elapsed: number; readonly lines: number }[] = [{ elapsed: 0, lines: 0 }]

  constructor(before: Before) {
    this.#before = before
  }

  /** To be asked every second or so. @param elapsed seconds since the start @param lines printed since then */
  at(elapsed: number, lines: number): Estimate {
    const { seconds, lines: all } = this.#before
    this.#seen.push({ elapsed, lines })
    const passed = Math.min(1, elapsed / seconds)
    if (all < leastLines) return { fraction: Math.min(0.99, passed) }
    const printed = Math.min(1, lines / all)
    const fraction = Math.min(0.99, 0.9 * printed + 0.1 * passed)
    if (printed < leastFraction || lines >= all) return { fraction }
    // Seconds for the rest at the pace of these last seconds.
    const atPaceOf = (last: number): number => {
      const since = this.#seen.findLast((seen) => seen.elapsed <= elapsed - last) ?? { elapsed: 0, lines: 0 }
      return ((elapsed - since.elapsed) / (lines - since.lines)) * (all - lines)
    }
    const paces = [atPaceOf(justNow), atPaceOf(Math.max(justNow, elapsed * lately)), atPaceOf(elapsed)]
    const [least, most] = [Math.min(...paces), Math.max(...paces)]
    if (!(most <= agreement * least)) return { fraction }
    return { fraction, remaining: Math.max(1, Math.round(Math.sqrt(least * most))) }
  }
}
