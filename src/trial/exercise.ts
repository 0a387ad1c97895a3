/**
 * An exercise: a trial whose actor is a person. The engine checks the steady state, records what happens, and reads
 * back what was written, as for a scenario; in between, a person acts.
 */
import type { Context } from '../context.js'
import { LabError } from '../error.js'
import { undoAll } from './undo.js'
import type { CommonFacts, ExerciseFacts, Facts, TextFigure } from './facts.js'
import type { LedgerRecord } from './ledger.js'
import { Recording } from './recording.js'
import type { Observation } from './timeline.js'
import { type Body, refuseUnlessUp, Trial, type TrialRequest } from './trial.js'
import type { Watch } from './watch.js'

/** What an exercise gets from the engine, and how it reports what a person did. */
export interface ExerciseContext {
  readonly context: Context
  /** Milliseconds since the trial began. */
  now(): number
  /** Records that the person did something. Gaps and takeovers are counted from the first act. */
  acted(detail: string): Promise<void>
  /** Records an answer: yes, no, or could not ask, which makes the verdict UNKNOWN. */
  claim(title: string, answer: { readonly ok: boolean | undefined; readonly saw: string }): void
  /** Records a measurement in milliseconds. @param text what a text measured for the same */
  figure(title: string, ms: number, text?: TextFigure): void
  /** Reads and writes of a client outside the cluster so far; empty if nothing is recorded. */
  readonly records: readonly LedgerRecord[]
  /** Nodes and pods of the database; undefined if nothing is recorded. */
  readonly watch: Watch | undefined
}

export interface Exercise {
  readonly name: string
  /** What it shows, in a sentence. */
  readonly description: string
  /** Records a ledger of the lab's database, and the changes of nodes and pods meanwhile. */
  readonly record: boolean
  /**
   * Who repairs the lab afterwards: `lab`, by undoing the entries of its journal; or the person, as part of the task.
   */
  readonly repair: 'lab' | 'person'
  /** Returns when the person is done, or has had enough: ending an exercise is not an interruption. */
  run(exercise: ExerciseContext): Promise<void>
}

export interface ExerciseRequest extends TrialRequest {
  readonly exercise: Exercise
  /** The verb of the command, for the journal: `learn`, `watch`. */
  readonly verb: string
}

class Run implements Body, ExerciseContext {
  readonly #request: ExerciseRequest
  readonly #trial: Trial
  readonly #recording: Recording | undefined
  readonly #claims: ExerciseFacts['claims'][number][] = []
  readonly #figures: ExerciseFacts['figures'][number][] = []
  readonly #events: ExerciseFacts['events'][number][] = []
  /** The person's first act, and the heal. */
  readonly #own: Observation[] = []
  watch: Watch | undefined

  constructor(request: ExerciseRequest, trial: Trial) {
    this.#request = request
    this.#trial = trial
    const { database } = request.context.lab
    this.#recording = request.exercise.record && database ? new Recording(trial, database) : undefined
  }

  get context(): Context {
    return this.#request.context
  }

  get records(): readonly LedgerRecord[] {
    return this.#recording?.records ?? []
  }

  now(): number {
    return this.#trial.now()
  }

  #note(type: ExerciseFacts['events'][number]['type'], detail: string): void {
    this.#events.push({ type, at: new Date().toISOString(), ms: Math.round(this.now()), detail })
  }

  #observe(type: 'fault' | 'healed', detail: string): void {
    this.#own.push({ type, at: new Date().toISOString(), ms: performance.now(), source: 'operator', detail })
  }

  async acted(detail: string): Promise<void> {
    const first = !this.#own.some(({ type }) => type === 'fault')
    if (first) this.#observe('fault', detail)
    this.#note('act', detail)
    this.#trial.tell('acted', detail)
    if (first) await this.#recording?.mark('fault')
  }

  claim(title: string, { ok, saw }: { readonly ok: boolean | undefined; readonly saw: string }): void {
    const outcome = ok === undefined ? 'unknown' : ok ? 'passed' : 'failed'
    this.#claims.push({ title, outcome, saw })
    this.#note(
      'claim',
      `${{ passed: 'yes', failed: 'no', unknown: 'could not ask' }[outcome]}: ${title}: ${saw}`,
    )
    this.#trial.tell('claimed', `${title}: ${saw}`, { ok: ok ?? null })
  }

  figure(title: string, ms: number, text?: TextFigure): void {
    this.#figures.push({ title, ms: Math.round(ms), text: text ?? null })
  }

  facts(common: Omit<CommonFacts, 'name' | 'description'>): ExerciseFacts {
    const { name, description } = this.#request.exercise
    return {
      ...common,
      ...this.#recording?.facts(this.#own),
      kind: 'exercise',
      name,
      description,
      claims: this.#claims,
      figures: this.#figures,
      events: this.#events,
    }
  }

  async act(): Promise<void> {
    this.watch = await this.#recording?.begin()
    await this.#request.exercise.run(this)
    await this.#recording?.mark('healing')
  }

  async heal(): Promise<void> {
    const { exercise, healer, notice, registry } = this.#request
    if (exercise.repair === 'lab') {
      const undo = async (): Promise<readonly string[]> => undoAll(healer, registry)
      notice('healing: restoring the lab to what its file says')
      await undo()
      await this.#trial.restore()
      // Undos that need the lab to be up: only an API server can uncordon a node.
      for (const text of await undo()) notice(`not undone: ${text}`)
      this.#observe('healed', 'the changes were undone')
    }
    await this.#recording?.mark('healed')
  }

  async settled(): Promise<void> {
    await this.#recording?.settle()
  }

  async readBack(): Promise<void> {
    await this.#recording?.end()
  }
}

/**
 * Runs one exercise.
 * @returns the facts for its report, already saved
 * @throws LabError if a machine is off, or there is no database to record
 */
export const runExercise = async (request: ExerciseRequest): Promise<Facts> => {
  const { exercise, context, verb } = request
  if (exercise.record && !context.lab.database)
    throw new LabError('no-database', `${context.lab.name} has no database whose ledger could be recorded`, {
      hint: 'choose a lab with a database: lab list',
    })
  await refuseUnlessUp(context, 'an exercise')
  const trial = new Trial(request, exercise.name, verb)
  return trial.run(new Run(request, trial))
}
