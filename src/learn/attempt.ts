/** One attempt at an exercise: the current step, its state, and what was done. Nothing here knows a terminal. */
import { randomInt } from 'node:crypto'
import type { Context, Plan } from '../context.js'
import { LabError, messageOf } from '../error.js'
import { databaseNode } from './database.js'
import { type PodHistory } from '../trial/history.js'
import { type Answer, askCheck, type Asking, measuredBy, wordsOf } from './check.js'
import type { Ledger } from './ledger.js'
import type { Exercise } from './load.js'
import { addProgress, type ProgressEvent, readProgress, type Standing, standingIn } from './progress.js'
import type { DrawnSpec, StepSpec } from './schema.js'

/** What an attempt works with. */
export interface Surroundings {
  readonly context: Context
  readonly plan: Plan
  /** Milliseconds on the histories' clock, and the pods of a namespace. */
  readonly histories: ReadonlyMap<string, PodHistory>
  readonly clock: () => number
  readonly ledger: Ledger | undefined
  /** Runs commands as typed in a shell that has `lab`. @returns the exit code and all output */
  readonly type: (commands: string) => Promise<{ readonly exitCode: number; readonly out: string }>
  /** Restores the lab from its snapshot. @throws LabError if that failed */
  readonly reset: () => Promise<void>
}

export interface Look extends Answer {
  /** How long it has been yes without interruption, and how long it must be, in milliseconds. */
  readonly held: number
  readonly wanted: number
  readonly done: boolean
}

interface Begun {
  readonly at: number
  readonly clock: number
  readonly database: string | undefined
}

export class Attempt {
  readonly exercise: Exercise
  readonly #around: Surroundings
  #standing: Standing
  readonly #begun = new Map<string, Begun>()
  #yesSince: number | undefined
  #last: Answer['is'] | undefined
  /** How many hints without a condition were given for a step. */
  readonly #given = new Map<string, number>()

  private constructor(exercise: Exercise, around: Surroundings, standing: Standing) {
    this.exercise = exercise
    this.#around = around
    this.#standing = standing
  }

  /** @param seed for draws; default: that of the attempt that is continued, or a new one */
  static async begin(exercise: Exercise, around: Surroundings, seed?: number): Promise<Attempt> {
    const standing = standingIn(await readProgress(around.context.lab), exercise.name)
    const attempt = new Attempt(exercise, around, standing)
    await attempt.#note({ what: 'begun', seed: seed ?? standing.seed ?? randomInt(2 ** 31) })
    return attempt
  }

  get standing(): Standing {
    return this.#standing
  }

  async #note(event: Omit<ProgressEvent, 'at' | 'exercise' | 'attempt'>): Promise<void> {
    const { lab } = this.#around.context
    await addProgress(lab, { exercise: this.exercise.name, attempt: this.#standing.attempt, ...event })
    this.#standing = standingIn(await readProgress(lab), this.exercise.name)
  }

  /** The first step that is not done. */
  get next(): StepSpec | undefined {
    return this.exercise.steps.find(({ id }) => !this.#standing.done.has(id))
  }

  drawnFor({ id, draw }: StepSpec): DrawnSpec | undefined {
    if (!draw) return undefined
    // Multiplied by a large odd number, so that consecutive seeds draw differently.
    const place = Array.from(id).reduce(
      (sum, letter) => sum * 31 + letter.charCodeAt(0),
      this.#standing.seed ?? 0,
    )
    return draw[Math.abs(Math.imul(place, 0x9e3779b1) >>> 7) % draw.length]
  }

  /** @throws LabError if what was drawn could not be done */
  async beginStep(step: StepSpec): Promise<void> {
    const { context, clock, type } = this.#around
    const drawn = this.drawnFor(step)
    const fresh = !this.#begun.has(step.id)
    this.#yesSince = undefined
    this.#last = undefined
    this.#begun.set(step.id, {
      at: performance.now(),
      clock: clock(),
      database: await databaseNode(context),
    })
    await this.#note({ what: 'step', step: step.id })
    if (drawn && fresh && !this.#standing.done.has(step.id)) {
      const { exitCode, out } = await type(drawn.run)
      if (exitCode !== 0)
        throw new LabError('not-drawn', `the preparation of ${step.id} failed: ${out}`, {
          hint: `lab restore ${context.lab.name} clean`,
        })
    }
  }

  #asking(step: StepSpec): Asking {
    const { context, plan, histories, ledger } = this.#around
    const begun = this.#begun.get(step.id)
    const needed = [step.id, ...step.needs].map((id) => this.#begun.get(id)?.at)
    return {
      context,
      plan,
      database: begun?.database,
      historyOf: (namespace) => {
        const history = histories.get(namespace)
        return history && begun ? { history, from: begun.clock } : undefined
      },
      ledger,
      ledgerFrom: needed.includes(undefined) ? undefined : Math.min(...needed.flatMap((at) => at ?? [])),
    }
  }

  /** What the check of a step says now; nothing of it is recorded. */
  async ask(step: StepSpec): Promise<Answer> {
    const missing = step.needs.find((id) => !this.#standing.done.has(id))
    if (missing !== undefined) return { is: 'not yet', saw: `do the step ${missing} first` }
    if (step.ask) {
      const given = this.#standing.answers.get(step.id)
      return given === undefined ? { is: 'not yet', saw: 'no answer yet' } : this.#judge(step, given)
    }
    return step.check ? askCheck(this.#asking(step), step.check) : { is: 'could not ask', saw: 'no check' }
  }

  /** Asks the current step, and records what is new. */
  async look(step: StepSpec): Promise<Look> {
    const answer = await this.ask(step)
    const now = performance.now()
    const wanted = step.ask ? 0 : step.for
    // After a check that could not be asked, the time before is unknown.
    if (answer.is === 'yes') this.#yesSince ??= now
    else this.#yesSince = undefined
    const held = this.#yesSince === undefined ? 0 : now - this.#yesSince
    const done = answer.is === 'yes' && held >= wanted
    if (done && !this.#standing.done.has(step.id)) {
      await this.#note({ what: 'done', step: step.id, saw: answer.saw })
      if (this.next === undefined) await this.#note({ what: 'finished' })
    } else if (answer.is !== this.#last)
      await this.#note({ what: 'saw', step: step.id, saw: `${answer.is}: ${answer.saw}` })
    this.#last = answer.is
    return { ...answer, held, wanted, done }
  }

  /** The right answer to a question; undefined if any is right. @throws if it could not be measured */
  async truth(step: StepSpec): Promise<string | number | undefined> {
    const truth = step.ask?.truth
    if (!truth) return undefined
    const asking = this.#asking(step)
    if (truth.is !== undefined) return truth.is
    if (truth.drawn) {
      const drawing = this.exercise.steps.findLast(
        (each, index) => each.draw && index <= this.exercise.steps.indexOf(step),
      )
      return drawing && this.drawnFor(drawing)?.id
    }
    if (truth.run) return measuredBy(asking, truth.run)
    if (truth.kubectl) {
      const { args } = truth.kubectl
      const said = (await asking.context.kubectl.run(wordsOf(args), { timeout: 10 })).trim()
      if (said === '') throw new LabError('bad-check', `kubectl ${args}: it said nothing`)
      return said
    }
    if (asking.ledgerFrom === undefined)
      throw new LabError(
        'no-ledger',
        'the ledger of an earlier step was written before lab learn was restarted',
      )
    const gap = asking.ledger?.longestWriteGap(asking.ledgerFrom)
    if (!gap) throw new LabError('no-ledger', 'no write has been acknowledged yet')
    return Math.round(gap.length / 100) / 10
  }

  async #judge(step: StepSpec, given: string): Promise<Answer> {
    const { ask } = step
    if (!ask) return { is: 'could not ask', saw: 'not a question' }
    const text = given.trim()
    const number = Number(text.replace(/\s*s$/, '').replace(',', '.'))
    if ((ask.for === 'seconds' || ask.for === 'number') && (text === '' || Number.isNaN(number)))
      return { is: 'not yet', saw: `${text}: expected a number` }
    if (ask.for === 'choice' && !ask.choices?.includes(text))
      return { is: 'not yet', saw: `${text}: expected one of ${ask.choices?.join(', ') ?? ''}` }
    try {
      const truth = await this.truth(step)
      if (truth === undefined) return { is: 'yes', saw: `your answer: ${text}` }
      const near = (ask.tolerance ?? 0) / 1000
      const counts = ask.for === 'seconds' || ask.for === 'number'
      if (counts && Number.isNaN(Number(truth)))
        return { is: 'could not ask', saw: `${String(truth)}: no number was measured` }
      const right = counts
        ? Math.abs(number - Number(truth)) <= near + 1e-9
        : text.toLowerCase() === String(truth).trim().toLowerCase()
      // The right answer is not revealed to a learner who has not found it.
      return right
        ? { is: 'yes', saw: `${text} is right${near > 0 ? `; measured: ${String(truth)}` : ''}` }
        : { is: 'not yet', saw: `${text} is not what was measured in your run` }
    } catch (error) {
      this.#around.context.signal.throwIfAborted()
      return { is: 'could not ask', saw: messageOf(error) }
    }
  }

  async answer(step: StepSpec, given: string): Promise<void> {
    await this.#note({ what: 'answer', step: step.id, saw: given.trim() })
  }

  /** The hint that fits the state of the lab: those with a condition first, then the others, one after another. */
  async hint(step: StepSpec): Promise<string | undefined> {
    const asking = this.#asking(step)
    let say: string | undefined
    for (const { when, say: id } of step.hints)
      if (say === undefined && when && (await askCheck(asking, when)).is === 'yes') say = id
    if (say === undefined) {
      const general = step.hints.filter(({ when }) => when === undefined)
      const given = this.#given.get(step.id) ?? 0
      say = general[Math.min(given, general.length - 1)]?.say
      this.#given.set(step.id, given + 1)
    }
    if (say !== undefined) await this.#note({ what: 'hint', step: step.id, saw: say })
    return say
  }

  /** Commands that solve the step, as they would be typed. */
  solutionOf(step: StepSpec): string | undefined {
    return this.drawnFor(step)?.solution ?? step.solution
  }

  async solution(step: StepSpec): Promise<string | undefined> {
    await this.#note({ what: 'solution', step: step.id })
    return this.solutionOf(step)
  }

  /** The text that says that only a reset helps; undefined if other things help. */
  async broken(step: StepSpec): Promise<string | undefined> {
    for (const { when, say } of this.exercise.broken)
      if ((await askCheck(this.#asking(step), when)).is === 'yes') return say
    return undefined
  }

  /**
   * Steps that were done and no longer hold, because their effect was reverted. Steps about history cannot be
   * reverted.
   */
  async recheck(): Promise<void> {
    for (const step of this.exercise.steps) {
      if (!this.#standing.done.has(step.id) || step.ask || !step.check) continue
      const kept = step.check.claim ?? step.check.ledger ?? step.check.fault
      if (kept) continue
      const { is, saw } = await askCheck(this.#asking(step), step.check)
      if (is === 'not yet') await this.#note({ what: 'no-longer', step: step.id, saw })
    }
  }

  async reset(): Promise<void> {
    await this.#around.reset()
    await this.#note({ what: 'reset' })
    this.#begun.clear()
    this.#given.clear()
    await this.#note({ what: 'begun', seed: randomInt(2 ** 31) })
  }

  async leave(): Promise<void> {
    await this.#note({ what: 'left' })
  }
}
