/** What a learner did, as lines that are only added to a file: done stays done, and every step can be continued. */
import { appendFile, mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import type { LabId } from '../identity.js'
import { pathsOf, readIfThere } from '../state.js'

const eventSchema = z.looseObject({
  /** ISO 8601. */
  at: z.string(),
  exercise: z.string(),
  /** Counts from 1; each reset begins another attempt. */
  attempt: z.int(),
  /** Undefined: the event is about the whole exercise. */
  step: z.string().optional(),
  what: z.enum([
    'begun',
    'step',
    'saw',
    'done',
    'no-longer',
    'hint',
    'solution',
    'answer',
    'reset',
    'left',
    'finished',
  ]),
  /** Evidence, the hint, or the given answer. */
  saw: z.string().optional(),
  /** The seed of draws. */
  seed: z.int().optional(),
})

export type ProgressEvent = z.output<typeof eventSchema>

export const progressFile = (lab: LabId): string => join(pathsOf(lab).learn, 'progress.ndjson')

/** A line that a power cut has shortened is not an event. */
const eventOf = (line: string): readonly ProgressEvent[] => {
  try {
    const read = eventSchema.safeParse(JSON.parse(line))
    return read.success ? [read.data] : []
  } catch {
    return []
  }
}

/** All recorded events of a lab's exercises, in order. */
export const readProgress = async (lab: LabId): Promise<readonly ProgressEvent[]> =>
  ((await readIfThere(progressFile(lab))) ?? '').split('\n').flatMap(eventOf)

export const addProgress = async (lab: LabId, event: Omit<ProgressEvent, 'at'>): Promise<void> => {
  const file = progressFile(lab)
  await mkdir(dirname(file), { recursive: true, mode: 0o700 })
  await appendFile(file, `${JSON.stringify({ at: new Date().toISOString(), ...event })}\n`, { mode: 0o600 })
}

/** A learner's progress in an exercise. */
export interface Standing {
  readonly attempt: number
  readonly seed: number | undefined
  /** Steps that were done in this attempt, unless they are known to be undone since. */
  readonly done: ReadonlySet<string>
  /** Steps that were done in any attempt. */
  readonly ever: ReadonlySet<string>
  /** The last answer to each question in this attempt. */
  readonly answers: ReadonlyMap<string, string>
  readonly hints: number
  /** The evidence when a step was done in this attempt. */
  readonly seen: ReadonlyMap<string, string>
}

export const standingIn = (events: readonly ProgressEvent[], exercise: string): Standing => {
  let attempt = 1
  let seed: number | undefined
  let hints = 0
  const done = new Set<string>()
  const ever = new Set<string>()
  const answers = new Map<string, string>()
  const seen = new Map<string, string>()
  for (const event of events) {
    if (event.what === 'reset') {
      // A reset reverts what was done to the lab, for any exercise.
      done.clear()
      answers.clear()
      seen.clear()
      seed = undefined
      if (event.exercise === exercise) attempt = event.attempt + 1
      continue
    }
    if (event.exercise !== exercise) continue
    attempt = event.attempt
    if (event.seed !== undefined) seed = event.seed
    if (event.what === 'hint' || event.what === 'solution') hints++
    if (event.step === undefined) continue
    if (event.what === 'done') {
      done.add(event.step)
      ever.add(event.step)
      seen.set(event.step, event.saw ?? '')
    }
    if (event.what === 'no-longer') done.delete(event.step)
    if (event.what === 'answer') answers.set(event.step, event.saw ?? '')
  }
  return { attempt, seed, done, ever, answers, hints, seen }
}
