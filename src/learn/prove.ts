/**
 * Tests whether an exercise works: each check must answer "not yet" before the work, "yes" after the solution, "yes"
 * once more, and "not yet" after a reset. Each wrong attempt must keep "not yet", and get the hint that it names.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { LabError, messageOf } from '../error.js'
import type { Answer } from './check.js'
import { Attempt, type Surroundings } from './attempt.js'
import type { Exercise } from './load.js'
import type { StepSpec } from './schema.js'

/** One thing that was tried. */
export interface Proof {
  readonly exercise: string
  readonly step: string
  /** The expectation, in the present tense. */
  readonly title: string
  readonly outcome: 'passed' | 'failed' | 'not reached'
  readonly saw: string
  readonly seconds: number
}

/** Milliseconds between two checks. */
const pause = 1000
/** How long a wrong attempt is observed, in milliseconds. */
const wrongLooks = 4000
/** Milliseconds within which a machine that could not be asked must answer. */
const patience = 60_000

/** Repeats the check until the answer is not `could not ask`. */
const known = async (attempt: Attempt, step: StepSpec, signal: AbortSignal): Promise<Answer> => {
  const until = performance.now() + patience
  for (;;) {
    const answer = await attempt.ask(step)
    if (answer.is !== 'could not ask' || performance.now() > until) return answer
    await delay(pause, undefined, { signal })
  }
}

/** Repeats the check until the step is done, or the time is over. */
const awaitDone = async (
  attempt: Attempt,
  step: StepSpec,
  signal: AbortSignal,
): Promise<Answer & { done: boolean }> => {
  const until = performance.now() + step.within + step.for
  for (;;) {
    const look = await attempt.look(step)
    if (look.done || performance.now() > until) return look
    await delay(pause, undefined, { signal })
  }
}

/** The answer that a test gives to a question. */
const rightAnswer = async (attempt: Attempt, step: StepSpec): Promise<string> =>
  String((await attempt.truth(step)) ?? step.ask?.example ?? '')

/** The seeds to try: enough that every possible draw occurs. */
export const seedsFor = async (exercise: Exercise, around: Surroundings): Promise<readonly number[]> => {
  const drawing = exercise.steps.filter(({ draw }) => draw)
  if (drawing.length === 0) return [1]
  const seeds: number[] = []
  const seen = new Set<string>()
  const wanted = drawing.reduce((sum, { draw = [] }) => sum + draw.length, 0)
  for (let seed = 1; seed < 1000 && seen.size < wanted; seed++) {
    const attempt = await Attempt.begin(exercise, around, seed)
    const drawn = drawing.map((step) => `${step.id}/${attempt.drawnFor(step)?.id ?? ''}`)
    if (drawn.some((one) => !seen.has(one))) {
      seeds.push(seed)
      for (const one of drawn) seen.add(one)
    }
  }
  return seeds
}

/** Whether an expectation was met, and what was seen. */
interface Seen {
  readonly ok: boolean
  readonly saw: string
}

/** Proves an exercise, and notes each expectation. */
class Prover {
  readonly proofs: Proof[] = []
  readonly #exercise: Exercise
  readonly #around: Surroundings
  readonly #told: (proof: Proof) => void
  /** A step failed, so that the following ones say nothing. */
  #stopped = false

  constructor(exercise: Exercise, around: Surroundings, told: (proof: Proof) => void) {
    this.#exercise = exercise
    this.#around = around
    this.#told = told
  }

  async run(seed: number): Promise<void> {
    await this.#around.reset()
    const attempt = await Attempt.begin(this.#exercise, this.#around, seed)
    for (const step of this.#exercise.steps) await this.#step(attempt, step)
    // Whatever a failed step has left, the restore is tried, and what comes after it does not depend on that step.
    this.#stopped = false
    const restored = await this.#prove('reset', 'the lab is restored', async () => {
      await attempt.reset()
      return { ok: true, saw: '' }
    })
    if (!restored) this.#stopped = true
    for (const step of this.#exercise.steps)
      await this.#prove(step.id, 'the check says not yet after a reset', async () => {
        // The machines that a check is about are those of the moment at which its step began. A draw changes the lab.
        if (!step.draw) await attempt.beginStep(step)
        const { is, saw } = await this.#known(attempt, step)
        return { ok: is === 'not yet', saw: `${is}: ${saw}` }
      })
  }

  /** From the beginning of a step to its solution. */
  async #step(attempt: Attempt, step: StepSpec): Promise<void> {
    const drawn = attempt.drawnFor(step)?.id
    const named = drawn === undefined ? step.id : `${step.id} (${drawn})`
    const begun = await this.#prove(named, 'the step starts', async () => {
      if (!this.#stopped) await attempt.beginStep(step)
      return { ok: true, saw: '' }
    })
    if (!begun) this.#stopped = true
    await this.#prove(named, 'the check says not yet before the work', async () => {
      const { is, saw } = await this.#known(attempt, step)
      const broken = await attempt.broken(step)
      if (broken !== undefined) return { ok: false, saw: `the check calls the lab broken: ${broken}` }
      return { ok: is === 'not yet', saw: `${is}: ${saw}` }
    })
    for (const wrong of this.#exercise.wrong.filter(({ at }) => at === step.id))
      await this.#prove(
        named,
        `the check says not yet after a wrong attempt, which gets the hint ${wrong.hint}`,
        () => this.#tryWrong(attempt, step, wrong),
      )
    const solved = await this.#prove(named, 'the check says yes after the solution', () =>
      this.#solve(attempt, step),
    )
    if (!solved) this.#stopped = true
    await this.#prove(named, 'the check says yes once more', async () => {
      const { is, saw } = await this.#known(attempt, step)
      return { ok: is === 'yes', saw: `${is}: ${saw}` }
    })
  }

  async #tryWrong(attempt: Attempt, step: StepSpec, wrong: Exercise['wrong'][number]): Promise<Seen> {
    if (wrong.answer !== undefined) await attempt.answer(step, String(wrong.answer))
    // A wrong command may well be refused: that is not a failure of the test.
    if (wrong.run !== undefined) await this.#around.type(wrong.run)
    const until = performance.now() + wrongLooks
    let last: Answer
    do {
      last = await this.#known(attempt, step)
      if (last.is !== 'not yet') return { ok: false, saw: `${last.is}: ${last.saw}` }
      await delay(pause, undefined, { signal: this.#signal })
    } while (performance.now() < until)
    const hint = await attempt.hint(step)
    if (wrong.undo !== undefined) await this.#type(wrong.undo)
    // A wrong attempt is in the history: the next attempt must not be judged by it.
    await attempt.beginStep(step)
    return { ok: hint === wrong.hint, saw: `${last.saw}; hint: ${hint ?? 'none'}` }
  }

  async #solve(attempt: Attempt, step: StepSpec): Promise<Seen> {
    if (step.ask) await attempt.answer(step, await rightAnswer(attempt, step))
    const solution = attempt.solutionOf(step)
    if (solution !== undefined && !step.ask) await this.#type(solution)
    const look = await awaitDone(attempt, step, this.#signal)
    return { ok: look.done, saw: `${look.is}: ${look.saw}` }
  }

  get #signal(): AbortSignal {
    return this.#around.context.signal
  }

  #known(attempt: Attempt, step: StepSpec): Promise<Answer> {
    return known(attempt, step, this.#signal)
  }

  async #type(commands: string): Promise<void> {
    const { exitCode, out } = await this.#around.type(commands)
    if (exitCode !== 0)
      throw new LabError('commands-failed', `exit code ${String(exitCode)}: ${out.slice(-600)}`)
  }

  /** @returns whether it met the expectation */
  async #prove(step: string, title: string, look: () => Promise<Seen>): Promise<boolean> {
    const since = performance.now()
    const done = (outcome: Proof['outcome'], saw: string): boolean => {
      const seconds = (performance.now() - since) / 1000
      const proof: Proof = { exercise: this.#exercise.name, step, title, outcome, saw, seconds }
      this.proofs.push(proof)
      this.#told(proof)
      return outcome === 'passed'
    }
    if (this.#stopped) return done('not reached', 'an earlier step failed')
    try {
      const { ok, saw } = await look()
      return done(ok ? 'passed' : 'failed', saw)
    } catch (error) {
      this.#signal.throwIfAborted()
      return done('failed', messageOf(error))
    }
  }
}

/** Tests an exercise from beginning to end. The lab is restored before and after. */
export const prove = async (
  exercise: Exercise,
  around: Surroundings,
  seed: number,
  told: (proof: Proof) => void,
): Promise<readonly Proof[]> => {
  const prover = new Prover(exercise, around, told)
  await prover.run(seed)
  return prover.proofs
}

const escape = (text: string): string =>
  text.replace(
    /[<>&"\p{Cc}]/gu,
    (letter) => ({ '<': '&lt;', '>': '&gt;', '&': '&amp;', '"': '&quot;', '\n': ' ' })[letter] ?? '',
  )

/** For programs that show test results: a suite for each exercise. */
export const proofsJunit = (proofs: readonly Proof[]): string => {
  const exercises = [...new Set(proofs.map(({ exercise }) => exercise))]
  const suites = exercises.map((name) => {
    const own = proofs.filter(({ exercise }) => exercise === name)
    const count = (outcome: Proof['outcome']): string =>
      String(own.filter((one) => one.outcome === outcome).length)
    const cases = own.map(({ step, title, outcome, saw, seconds }) => {
      const begin = `    <testcase classname="${escape(name)}" name="${escape(`${step}: ${title}`)}" time="${seconds.toFixed(1)}"`
      if (outcome === 'passed') return `${begin}/>`
      const inner =
        outcome === 'failed' ? `<failure message="${escape(saw)}"/>` : `<skipped message="${escape(saw)}"/>`
      return `${begin}>${inner}</testcase>`
    })
    return [
      `  <testsuite name="${escape(name)}" tests="${String(own.length)}" failures="${count('failed')}" skipped="${count('not reached')}">`,
      ...cases,
      '  </testsuite>',
    ].join('\n')
  })
  return ['<?xml version="1.0" encoding="UTF-8"?>', '<testsuites>', ...suites, '</testsuites>', ''].join('\n')
}
