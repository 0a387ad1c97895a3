/** `lab learn` for a person: a screen that is redrawn in place, or plain lines. */
import { setTimeout as delay } from 'node:timers/promises'
import { messageOf } from '../error.js'
import { Canvas } from '../view/canvas.js'
import type { Attempt, Look } from './attempt.js'
import { wrapText } from './layout.js'
import type { StepSpec } from './schema.js'
import {
  type Below,
  clockText,
  interfaceWords,
  listLines,
  spokenLook,
  spokenStep,
  stepScreen,
} from './screen.js'
import type { Language } from './words.js'

export interface TerminalOptions {
  readonly input: NodeJS.ReadStream
  readonly output: NodeJS.WriteStream
  readonly language: Language
  readonly plain: boolean
  readonly signal: AbortSignal
}

/** Milliseconds between two checks, and between two drawings. */
const lookPause = 1500
const drawPause = 250

/** Lines that were typed on any kind of terminal, and the line that is being typed. */
class Typed {
  text = ''
  ended = false
  readonly #lines: string[] = []
  readonly #input: NodeJS.ReadStream
  readonly #raw: boolean

  constructor(input: NodeJS.ReadStream, raw: boolean) {
    this.#input = input
    this.#raw = raw
    if (raw) input.setRawMode(true)
    input.setEncoding('utf8')
    input.on('data', this.#take)
    input.on('end', this.#end)
    input.resume()
  }

  readonly #take = (data: string | Buffer): void => {
    for (const letter of String(data))
      if (letter === '\r' || letter === '\n') {
        this.#lines.push(this.text)
        this.text = ''
      } else if (letter === '\x03' || letter === '\x04') this.ended = true
      else if (letter === '\x7f' || letter === '\b') this.text = Array.from(this.text).slice(0, -1).join('')
      else if (letter >= ' ') this.text += letter
  }

  readonly #end = (): void => {
    this.ended = true
  }

  /** The next complete line; undefined if there is none yet. */
  next(): string | undefined {
    return this.#lines.shift()
  }

  get waiting(): boolean {
    return this.#lines.length > 0
  }

  close(): void {
    if (this.#raw) this.#input.setRawMode(false)
    this.#input.off('data', this.#take)
    this.#input.off('end', this.#end)
    this.#input.pause()
  }
}

const commands = {
  h: 'hint',
  s: 'solution',
  a: 'again',
  r: 'reset',
  l: 'list',
  q: 'quit',
} as const

/** The command that a line means; undefined: it is an answer, or empty. */
const commandIn = (line: string): (typeof commands)[keyof typeof commands] | undefined => {
  const word = line.trim().toLowerCase()
  const found = Object.entries(commands).find(([letter, name]) => word === letter || word === name)
  return found?.[1]
}

/** A learner at work: the step, what was found last, and what stands below it. */
class Session {
  readonly #attempt: Attempt
  readonly #options: TerminalOptions
  readonly #typed: Typed
  readonly #canvas: Canvas
  readonly #begun = performance.now()
  #step: StepSpec | undefined
  #look: Look | undefined
  #below: Below | undefined
  #spoken = ''
  /** A check in progress: only one at a time. */
  #looking: Promise<void> | undefined
  #nextLook = 0

  constructor(attempt: Attempt, options: TerminalOptions) {
    const { input, output, plain } = options
    this.#attempt = attempt
    this.#options = options
    this.#typed = new Typed(input, !plain && input.isTTY)
    this.#canvas = new Canvas(output)
  }

  async run(): Promise<void> {
    try {
      this.#introduce()
      await this.#attempt.recheck()
      for (let next = this.#attempt.next; next; next = this.#attempt.next)
        if ((await this.#work(next)) === 'leave') {
          await this.#attempt.leave()
          return
        }
      this.#finish()
    } finally {
      this.#typed.close()
      await this.#looking
    }
  }

  get #words() {
    return interfaceWords[this.#options.language]
  }

  get #own() {
    return this.#attempt.exercise.words[this.#options.language]
  }

  get #columns(): number {
    return Math.max(40, Math.min(this.#options.output.columns || 80, 100))
  }

  #seconds(): number {
    return (performance.now() - this.#begun) / 1000
  }

  #say(lines: readonly string[]): void {
    if (this.#options.plain) this.#options.output.write(`${lines.join('\n')}\n`)
    else this.#canvas.above(lines.join('\n'))
  }

  #introduce(): void {
    const { title, introduction } = this.#own
    const { minutes, began } = this.#words
    this.#say([
      title,
      '',
      ...wrapText(introduction, this.#columns),
      '',
      `${minutes(this.#attempt.exercise.minutes)}. ${began}`,
      '',
    ])
  }

  #finish(): void {
    const { output, plain, language } = this.#options
    const { exercise, standing } = this.#attempt
    if (!plain) this.#canvas.finish([])
    output.write(`${this.#words.finished(clockText(this.#seconds()), standing.hints)}\n`)
    output.write(`${listLines(exercise, language, standing, undefined).join('\n')}\n`)
  }

  #draw(): void {
    const { plain, language } = this.#options
    const step = this.#step
    if (plain || !step) return
    this.#canvas.draw(
      stepScreen(
        {
          exercise: this.#attempt.exercise,
          language,
          step,
          look: this.#look,
          seconds: this.#seconds(),
          below: this.#below,
          typed: this.#typed.text,
        },
        { columns: this.#columns, rows: Math.min(this.#canvas.height, 23) },
      ),
    )
  }

  #tell(what: Below): void {
    this.#below = what
    if (!this.#options.plain) return
    const label = what.kind === 'notice' ? '' : `${this.#words[what.kind]}: `
    this.#say(wrapText(`${label}${what.text}`, this.#columns))
  }

  async #lookAt(at: StepSpec): Promise<void> {
    const { plain, language } = this.#options
    const found = await this.#attempt.look(at)
    if (at !== this.#step) return
    this.#look = found
    const broken = found.done ? undefined : await this.#attempt.broken(at)
    if (broken !== undefined && this.#below?.kind !== 'broken')
      this.#tell({ kind: 'broken', text: this.#own.said.get(broken) ?? broken })
    // Announced only when the answer changes: the evidence may change every second.
    if (plain && this.#spoken !== found.is + String(found.done)) {
      this.#spoken = found.is + String(found.done)
      this.#say([spokenLook(language, found)])
      if (found.done)
        this.#say([...wrapText(this.#own.steps.get(at.id)?.after ?? '', this.#columns), this.#words.goOn])
    }
  }

  /** Looks in the background, unless it is doing so, has done so just now, or the step is done. */
  #lookSometimes(at: StepSpec): void {
    if (this.#looking || performance.now() < this.#nextLook || this.#look?.done === true) return
    this.#looking = this.#lookAt(at)
      .catch((error: unknown) => {
        if (!this.#options.signal.aborted) this.#tell({ kind: 'notice', text: messageOf(error) })
      })
      .finally(() => {
        this.#looking = undefined
        this.#nextLook = performance.now() + lookPause
      })
  }

  async #beginStep(next: StepSpec): Promise<void> {
    const { plain, language } = this.#options
    this.#step = next
    this.#look = undefined
    this.#below = next.draw ? { kind: 'notice', text: this.#words.drawing } : undefined
    this.#spoken = ''
    if (plain) {
      const { exercise } = this.#attempt
      this.#say(['', ...spokenStep({ exercise, language, step: next }), this.#words.keys])
    }
    this.#draw()
    await this.#attempt.beginStep(next)
    this.#below = undefined
  }

  /** A line that one of our questions waits for. */
  async #nextLine(): Promise<string> {
    for (;;) {
      const line = this.#typed.next()
      if (line !== undefined) return line
      if (this.#typed.ended || this.#options.signal.aborted) return ''
      this.#draw()
      await delay(drawPause / 2)
    }
  }

  async #act(line: string, at: StepSpec): Promise<'leave' | undefined> {
    const command = commandIn(line)
    if (command === 'quit') return 'leave'
    if (command === 'hint') await this.#hint(at)
    else if (command === 'solution') await this.#solution(at)
    else if (command === 'again') await this.#beginStep(at)
    else if (command === 'list') await this.#list(at)
    else if (command === 'reset') await this.#reset()
    else if (at.ask && line.trim() !== '') await this.#attempt.answer(at, line)
    return undefined
  }

  async #hint(at: StepSpec): Promise<void> {
    const hint = await this.#attempt.hint(at)
    const text = hint === undefined ? this.#words.noHint : (this.#own.said.get(hint) ?? hint)
    this.#tell({ kind: 'hint', text })
  }

  async #solution(at: StepSpec): Promise<void> {
    const solution = await this.#attempt.solution(at)
    const text = solution === undefined ? this.#words.noSolution : `\n\`\`\`\n${solution.trim()}\n\`\`\``
    this.#tell({ kind: 'solution', text })
  }

  async #list(at: StepSpec): Promise<void> {
    await this.#attempt.recheck()
    const { exercise, standing } = this.#attempt
    const lines = listLines(exercise, this.#options.language, standing, at.id)
    this.#tell({ kind: 'notice', text: `\n\`\`\`\n${lines.join('\n')}\n\`\`\`` })
  }

  async #reset(): Promise<void> {
    const { reset, resetting, notReset } = this.#words
    this.#tell({ kind: 'notice', text: reset })
    this.#draw()
    if ((await this.#nextLine()).trim() !== 'yes') {
      this.#tell({ kind: 'notice', text: notReset })
      return
    }
    this.#tell({ kind: 'notice', text: resetting })
    this.#draw()
    await this.#attempt.reset()
    const first = this.#attempt.next
    if (first) await this.#beginStep(first)
  }

  /** One step, until the learner goes on to the next one; after a reset it is another step. */
  async #work(first: StepSpec): Promise<'leave' | undefined> {
    await this.#beginStep(first)
    this.#nextLook = 0
    for (;;) {
      if (this.#options.signal.aborted || (this.#typed.ended && !this.#typed.waiting)) return 'leave'
      const at = this.#step ?? first
      this.#lookSometimes(at)
      this.#draw()
      const line = this.#typed.next()
      if (line !== undefined) {
        // The next step begins when the learner says so, and not before.
        if (this.#look?.done === true && commandIn(line) === undefined) break
        if ((await this.#act(line, at)) === 'leave') return 'leave'
        this.#nextLook = 0
      }
      await delay(drawPause / 2)
    }
    await this.#looking
    return undefined
  }
}

/** Runs an exercise until it is finished, or the learner leaves. */
export const learnAtTerminal = (attempt: Attempt, options: TerminalOptions): Promise<void> =>
  new Session(attempt, options).run()
