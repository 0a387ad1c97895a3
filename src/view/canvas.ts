import { stripVTControlCharacters } from 'node:util'

/**
 * Redraws the last lines of a terminal in place. It hides no cursor, changes no mode beyond a single write and
 * buffers nothing, so the terminal is in a normal state whenever the process dies.
 */
export class Canvas {
  readonly #stream: NodeJS.WriteStream
  #drawn: readonly string[] = []

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
  }

  get columns(): number {
    return this.#stream.columns || 80
  }

  /** The lines available to a frame; the cursor is below them. */
  get height(): number {
    return Math.max(1, (this.#stream.rows || 24) - 1)
  }

  draw(frame: readonly string[]): void {
    if (frame.length === this.#drawn.length && frame.every((line, index) => line === this.#drawn[index]))
      return
    this.#stream.write(this.#home() + this.#frame(frame))
    this.#drawn = frame
  }

  /** Prints lines that stay, above the frame. */
  above(text: string): void {
    this.#stream.write(`${this.#home()}\x1b[J${text}\n${this.#frame(this.#drawn)}`)
  }

  /** Prints the last frame, which stays. */
  finish(frame: readonly string[]): void {
    this.#stream.write(`${this.#home()}\x1b[J${frame.map((line) => `${line}\n`).join('')}`)
    this.#drawn = []
  }

  #home(): string {
    return this.#drawn.length === 0 ? '\r' : `\r\x1b[${String(this.#drawn.length)}A`
  }

  /** Without automatic wrapping, so that a line takes one row even if the terminal has become narrower. */
  #frame(frame: readonly string[]): string {
    return `\x1b[?7l${frame.map((line) => `${line}\x1b[K\n`).join('')}\x1b[J\x1b[?7h`
  }
}

/** Cuts off what is wider than the terminal. */
export const clip = (text: string, width: number): string => {
  const characters = Array.from(text)
  return characters.length <= width ? text : `${characters.slice(0, Math.max(0, width - 1)).join('')}…`
}

export const icons = { done: '✔', failed: '✖', skipped: '↓', waiting: '◼', output: '›' } as const

type Kind = 'done' | 'waiting' | 'running' | 'output' | 'failed'

interface Block {
  readonly kind: Kind
  readonly nested: boolean
  readonly lines: string[]
}

const kindOf = (icon: string): Kind => {
  switch (icon) {
    case icons.done:
    case icons.skipped:
      return 'done'
    case icons.waiting:
      return 'waiting'
    case icons.failed:
      return 'failed'
    case icons.output:
      return 'output'
    default:
      return 'running'
  }
}

/** A row with its wrapped lines. Rows are recognized by their icons, since listr returns lines rather than rows. */
const blocksOf = (lines: readonly string[], isIcon: (character: string) => boolean): Block[] => {
  const blocks: Block[] = []
  for (const line of lines) {
    const [, indent = '', icon = ''] = /^( *)(\S?)/u.exec(stripVTControlCharacters(line)) ?? []
    const last = blocks.at(-1)
    if (last && !isIcon(icon)) last.lines.push(line)
    else blocks.push({ kind: kindOf(icon), nested: indent !== '', lines: [line] })
  }
  return blocks
}

/**
 * Leaves out rows until a frame fits, the least important first: finished steps of unfinished phases, waiting steps,
 * finished and later phases, and only then running steps. The last line says what is hidden.
 */
export const fit = (lines: readonly string[], height: number, spinner: readonly string[]): string[] => {
  if (lines.length <= height) return [...lines]
  const known = new Set<string>([...Object.values(icons), ...spinner])
  const blocks = blocksOf(lines, (character) => known.has(character))
  const left = new Map<Kind, number>()
  const kept = new Set(blocks)
  // One line is for what is hidden.
  let surplus = lines.length - (height - 1)

  const leaveOut = (candidates: readonly Block[]): void => {
    for (const block of candidates) {
      if (surplus <= 0) return
      kept.delete(block)
      surplus -= block.lines.length
      left.set(block.kind, (left.get(block.kind) ?? 0) + 1)
    }
  }
  const some = (kind: Kind, nested: boolean): Block[] =>
    blocks.filter((block) => block.kind === kind && block.nested === nested)
  leaveOut(some('done', true))
  leaveOut(some('waiting', true).reverse())
  leaveOut(some('done', false))
  leaveOut(some('waiting', false).reverse())
  leaveOut(blocks.filter((block) => block.kind === 'output').reverse())
  leaveOut(some('running', true).reverse())

  const named = (['done', 'waiting', 'running'] as const).flatMap((kind) => {
    const count = left.get(kind)
    return count === undefined ? [] : [`${String(count)} ${kind}`]
  })
  const shown = blocks.filter((block) => kept.has(block)).flatMap((block) => block.lines)
  return [
    ...shown.slice(0, height - 1),
    `… not shown: ${[...named, ...(shown.length > height - 1 ? ['the rest'] : [])].join(', ') || 'some details'}`,
  ]
}
