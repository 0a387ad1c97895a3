/** How far a student is, according to the lines that `lab learn` adds to the progress file of the seat's lab. */
import { z } from 'zod'

const event = z.looseObject({
  at: z.string(),
  exercise: z.string(),
  step: z.string().optional(),
  what: z.string(),
  saw: z.string().optional(),
})

export interface Progress {
  readonly exercise: string
  /** The current step; undefined if the exercise is finished, or was left. */
  readonly step?: string
  /** When that step became the current one: ISO 8601. */
  readonly since: string
  readonly done: number
  /** Hints and solutions that were asked for. */
  readonly hints: number
  /** The last evidence of a check. */
  readonly saw?: string
  readonly finished: boolean
}

/** Undefined if nothing was begun yet. Invalid lines, such as one that a power cut shortened, are left out. */
export const progressIn = (text: string): Progress | undefined => {
  const events = text.split('\n').flatMap((line) => {
    try {
      const read = event.safeParse(JSON.parse(line))
      return read.success ? [read.data] : []
    } catch {
      return []
    }
  })
  const last = events.at(-1)
  if (!last) return undefined
  const begun = events.findLastIndex(
    ({ what, exercise }) => (what === 'begun' || what === 'reset') && exercise === last.exercise,
  )
  const mine = events.slice(Math.max(0, begun)).filter(({ exercise }) => exercise === last.exercise)
  const done = new Set<string>()
  let step: string | undefined
  let since = mine[0]?.at ?? last.at
  let hints = 0
  let saw: string | undefined
  let finished = false
  for (const { what, step: of, at, saw: seen } of mine) {
    if (what === 'hint' || what === 'solution') hints++
    if (what === 'finished') finished = true
    if (what === 'step' && of !== step) [step, since, saw] = [of, at, undefined]
    if (seen !== undefined && what === 'saw') saw = seen
    if (of === undefined) continue
    if (what === 'done') done.add(of)
    if (what === 'no-longer') done.delete(of)
  }
  return {
    exercise: last.exercise,
    ...(step === undefined || finished ? {} : { step }),
    since,
    done: done.size,
    hints,
    ...(saw === undefined ? {} : { saw }),
    finished,
  }
}
