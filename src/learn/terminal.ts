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

/** Runs an exercise until it is finished, or the learner leaves. */
export const learnAtTerminal = async (attempt: Attempt, options: TerminalOptions): Promise<void> => {
  const { input, output, language, plain, signal } = options
  const words = interfaceWords[language]
  const own = attempt.exercise.words[language]
  const typed = new Typed(input, !plain && input.isTTY)
  const canvas = new Canvas(output)
  const begun = performance.now()
  const seconds = (): number => (performance.now() - begun) / 1000
  const columns = (): number => Math.max(40, Math.min(output.columns || 80, 100))
  const say = (lines: readonly string[]): void => {
    if (plain) output.write(`${lines.join('\n')}\n`)
    else canvas.above(lines.join('\n'))
  }

  let step: StepSpec | undefined
  let look: Look | undefined
  let below: Below | undefined
  let spoken = ''
  /** A check in progress: only one at a time. */
  let looking: Promise<void> | undefined

  const draw = (): void => {
    if (plain || !step) return
    canvas.draw(
      stepScreen(
        { exercise: attempt.exercise, language, step, look, seconds: seconds(), below, typed: typed.text },
        { columns: columns(), rows: Math.min(canvas.height, 23) },
      ),
    )
  }

  const tell = (what: Below): void => {
    below = what
    if (plain)
      say(wrapText(`${what.kind === 'notice' ? '' : `${words[what.kind]}: `}${what.text}`, columns()))
  }

  const lookAt = async (at: StepSpec): Promise<void> => {
    const found = await attempt.look(at)
    if (at !== step) return
    look = found
    const broken = found.done ? undefined : await attempt.broken(at)
    if (broken !== undefined && below?.kind !== 'broken')
      tell({ kind: 'broken', text: own.said.get(broken) ?? broken })
    // Announced only when the answer changes: the evidence may change every second.
    if (plain && spoken !== found.is + String(found.done)) {
      spoken = found.is + String(found.done)
      say([spokenLook(language, found)])
      if (found.done) say([...wrapText(own.steps.get(at.id)?.after ?? '', columns()), words.goOn])
    }
  }

  const beginStep = async (next: StepSpec): Promise<void> => {
    step = next
    look = undefined
    below = next.draw ? { kind: 'notice', text: words.drawing } : undefined
    spoken = ''
    if (plain) say(['', ...spokenStep({ exercise: attempt.exercise, language, step: next }), words.keys])
    draw()
    await attempt.beginStep(next)
    below = undefined
  }

  /** A line that one of our questions waits for. */
  const nextLine = async (): Promise<string> => {
    for (;;) {
      const line = typed.next()
      if (line !== undefined) return line
      if (typed.ended || signal.aborted) return ''
      draw()
      await delay(drawPause / 2)
    }
  }

  const act = async (line: string, at: StepSpec): Promise<'leave' | undefined> => {
    const command = commandIn(line)
    if (command === 'quit') return 'leave'
    if (command === 'hint') {
      const hint = await attempt.hint(at)
      tell({ kind: 'hint', text: hint === undefined ? words.noHint : (own.said.get(hint) ?? hint) })
    } else if (command === 'solution') {
      const solution = await attempt.solution(at)
      tell({
        kind: 'solution',
        text: solution === undefined ? words.noSolution : `\n\`\`\`\n${solution.trim()}\n\`\`\``,
      })
    } else if (command === 'again') await beginStep(at)
    else if (command === 'list') {
      await attempt.recheck()
      const lines = listLines(attempt.exercise, language, attempt.standing, at.id)
      tell({ kind: 'notice', text: `\n\`\`\`\n${lines.join('\n')}\n\`\`\`` })
    } else if (command === 'reset') {
      tell({ kind: 'notice', text: words.reset })
      draw()
      if ((await nextLine()).trim() === 'yes') {
        tell({ kind: 'notice', text: words.resetting })
        draw()
        await attempt.reset()
        const first = attempt.next
        if (first) await beginStep(first)
      } else tell({ kind: 'notice', text: words.notReset })
    } else if (at.ask && line.trim() !== '') await attempt.answer(at, line)
    return undefined
  }

  try {
    say([
      own.title,
      '',
      ...wrapText(own.introduction, columns()),
      '',
      `${words.minutes(attempt.exercise.minutes)}. ${words.began}`,
      '',
    ])
    await attempt.recheck()
    for (;;) {
      const next = attempt.next
      if (!next) break
      await beginStep(next)
      let nextLook = 0
      for (;;) {
        if (signal.aborted || (typed.ended && !typed.waiting)) {
          await attempt.leave()
          return
        }
        const at = step
        if (!at) break
        if (!looking && performance.now() >= nextLook && look?.done !== true) {
          looking = lookAt(at)
            .catch((error: unknown) => {
              if (!signal.aborted) tell({ kind: 'notice', text: messageOf(error) })
            })
            .finally(() => {
              looking = undefined
              nextLook = performance.now() + lookPause
            })
        }
        draw()
        const line = typed.next()
        if (line !== undefined) {
          // The next step begins when the learner says so, and not before.
          if (look?.done === true && commandIn(line) === undefined) break
          if ((await act(line, at)) === 'leave') {
            await attempt.leave()
            return
          }
          nextLook = 0
        }
        await delay(drawPause / 2)
      }
      await looking
    }
    if (!plain) canvas.finish([])
    output.write(`${words.finished(clockText(seconds()), attempt.standing.hints)}\n`)
    output.write(`${listLines(attempt.exercise, language, attempt.standing, undefined).join('\n')}\n`)
  } finally {
    typed.close()
    await looking
  }
}
