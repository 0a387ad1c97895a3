/** The rows of a drawing: one for each step or part, and phases that contain the rows of their steps. */
import type { DefaultRenderer } from 'listr2'
import { type ListrTask, type ListrTaskWrapper } from 'listr2'
import type { StepFinishedRecord } from './events.js'
import { counted, duration, elapsed, oneLine } from './wording.js'

/** The listr2 renderer that draws the rows. */
export type Renderer = typeof DefaultRenderer
type RowTask = ListrTaskWrapper<unknown, Renderer, Renderer>

class Deferred<T> {
  resolve!: (value: T) => void
  readonly promise = new Promise<T>((resolve) => {
    this.resolve = resolve
  })
}

interface Ending {
  readonly as: 'done' | 'failed' | 'skipped'
  readonly text: string
}

/**
 * One row of the drawing. The row's listr task only waits until the row has ended; meanwhile, each frame asks for what
 * to draw.
 */
export class Row {
  heading: () => string = () => ''
  detail: () => string = () => ''
  ending: Ending | undefined
  onEnd: () => void = () => undefined
  readonly #begun = new Deferred<boolean>()
  readonly #ended = new Deferred<Ending>()
  #announced = false
  #task: RowTask | undefined

  begin(): void {
    this.#begun.resolve(true)
  }

  end(ending: Ending): void {
    if (this.ending) return
    this.ending = ending
    this.begin()
    this.#ended.resolve(ending)
  }

  /** No more events will come. A row that never began is removed. */
  abandon(text: string): void {
    this.#begun.resolve(false)
    this.end({ as: 'skipped', text })
  }

  /** Updates the row to the present. */
  refresh(): void {
    if (!this.#task || this.ending) return
    this.#task.title = this.heading()
    this.#task.output = this.detail()
  }

  asTask(): ListrTask<unknown, Renderer, Renderer> {
    return {
      title: this.heading(),
      // listr asks twice: first whether to show the row, and later, when it would run, whether to run it. The second
      // answer waits, and until it comes listr draws the row as waiting.
      enabled: () => {
        if (this.#announced) return this.#begun.promise
        return (this.#announced = true)
      },
      task: async (_, task) => {
        this.#task = task
        const { as, text } = await this.#ended.promise
        this.onEnd()
        if (as === 'failed') throw new Error(text)
        if (as === 'skipped') task.skip(text)
        else task.title = text
      },
    }
  }
}

export const listOptions = { concurrent: true, exitOnError: false } as const

/** A phase with its steps: a row that has rows once its first step has begun. */
export class Phase {
  readonly #name: string
  readonly #rows: readonly Row[]
  readonly #begun = new Deferred<boolean>()
  readonly #outcomes: StepFinishedRecord['outcome'][] = []
  #announced = false
  #since = 0
  #task: RowTask | undefined

  constructor(name: string, rows: readonly Row[]) {
    this.#name = name
    this.#rows = rows
    for (const row of rows)
      row.onEnd = () => {
        this.#settle()
      }
  }

  begin(): void {
    if (this.#since === 0) this.#since = performance.now()
    this.#begun.resolve(true)
  }

  stepEnded(outcome: StepFinishedRecord['outcome']): void {
    this.#outcomes.push(outcome)
  }

  /** Called after its rows were abandoned. */
  abandon(): void {
    this.#begun.resolve(false)
    if (this.#outcomes.length < this.#rows.length) this.#settle()
  }

  refresh(): void {
    if (this.#task && this.#outcomes.length < this.#rows.length) this.#task.title = this.#heading()
  }

  asTask(): ListrTask<unknown, Renderer, Renderer> {
    return {
      title: this.#heading(),
      // As for a row.
      enabled: () => {
        if (this.#announced) return this.#begun.promise
        return (this.#announced = true)
      },
      task: (_, task) => {
        this.#task = task
        return task.newListr(
          this.#rows.map((row) => row.asTask()),
          listOptions,
        )
      },
    }
  }

  #count(outcome: StepFinishedRecord['outcome']): number {
    return this.#outcomes.filter((other) => other === outcome).length
  }

  #heading(): string {
    const all = this.#rows.length
    const over = this.#outcomes.length
    const name = oneLine(this.#name)
    const time = (performance.now() - this.#since) / 1000
    if (this.#since === 0) return `${name}  ${counted(all, 'step')}`
    if (over < all)
      return `${name}  ${String(over)} of ${counted(all, 'step')}${time < 1 ? '' : `, ${elapsed(time)}`}`
    const [failed, missed] = [this.#count('failed'), this.#count('not-reached')]
    if (missed === all) return `${name}  ${counted(all, 'step')} not reached`
    const bad = [
      ...(failed > 0 ? [`${String(failed)} failed`] : []),
      ...(missed > 0 ? [`${String(missed)} not reached`] : []),
    ]
    const already = this.#count('ok') === all ? ' already so' : ''
    return [`${name}  ${counted(all, 'step')}${already}`, ...bad, duration(time)].join(', ')
  }

  /** Called before the listr task of a row ends, so that the phase gets its last title before it is closed. */
  #settle(): void {
    if (!this.#task || this.#rows.some((row) => !row.ending)) return
    if (this.#outcomes.length < this.#rows.length) this.#task.skip(`${this.#heading()}, stopped`)
    else if (this.#count('not-reached') > 0 && this.#count('failed') === 0) this.#task.skip(this.#heading())
    else this.#task.title = this.#heading()
  }
}
