/**
 * A terminal at a seat, kept by tmux, so that nothing is lost when a browser is closed. It is used in tmux's control
 * mode, as lines on pipes: no pseudo-terminal is needed here, and if this process ends, tmux only loses a client.
 */
import type { ChildProcess } from 'node:child_process'
import { startAtSeat, type SeatOf } from './seat.js'

/** The escaping of bytes in `%output`: unprintable bytes and the backslash are three octal digits. */
export const unescaped = (text: Buffer): Buffer => {
  const out = Buffer.alloc(text.length)
  let length = 0
  for (let at = 0; at < text.length; at++) {
    const byte = text[at] ?? 0
    const digits = byte === 0x5c ? text.toString('latin1', at + 1, at + 4) : ''
    if (/^[0-7]{3}$/.test(digits)) {
      out[length++] = Number.parseInt(digits, 8)
      at += 3
    } else out[length++] = byte
  }
  return out.subarray(0, length)
}

/** Bytes per `send-keys`, because a command line of tmux must not be too long. */
const keysAtOnce = 256

/** The commands that type these bytes into the pane. */
export const keyCommands = (data: Buffer): readonly string[] => {
  const commands: string[] = []
  for (let at = 0; at < data.length; at += keysAtOnce) {
    const bytes = [...data.subarray(at, at + keysAtOnce)].map((byte) => byte.toString(16).padStart(2, '0'))
    commands.push(`send-keys -H ${bytes.join(' ')}`)
  }
  return commands
}

/** What tmux says in control mode. */
export interface ControlEvents {
  /** The answer to a command that was written to its input. @param good whether the command succeeded */
  readonly answered: (lines: readonly Buffer[], good: boolean) => void
  /** A line that is not part of an answer: `%output %3 text`. */
  readonly notified: (line: Buffer) => void
}

/**
 * Reads the output of `tmux -C`, in pieces of any size. A block is `%begin TIME NUMBER FLAGS`, lines, and `%end` or
 * `%error` with the same three fields. FLAGS is 1 for commands from the input. It is 0 for the command line of tmux
 * itself, whose block may come after the first answers.
 */
export const controlReader = ({ answered, notified }: ControlEvents): ((data: Buffer) => void) => {
  let rest = Buffer.alloc(0)
  let block: { readonly id: string; readonly lines: Buffer[] } | undefined
  const read = (line: Buffer): void => {
    const [, word, id = ''] = /^%(begin|end|error) (\d+ \d+ \d+)$/.exec(line.toString('latin1', 0, 80)) ?? []
    if (!block) {
      if (word === 'begin') block = { id, lines: [] }
      else notified(line)
    } else if (word !== undefined && word !== 'begin' && id === block.id) {
      const { lines } = block
      block = undefined
      if (id.endsWith(' 1')) answered(lines, word === 'end')
    } else block.lines.push(line)
  }
  return (data) => {
    rest = Buffer.concat([rest, data])
    for (let at = rest.indexOf(10); at >= 0; at = rest.indexOf(10)) {
      read(rest.subarray(0, at))
      rest = rest.subarray(at + 1)
    }
  }
}

export interface TerminalEvents {
  /** The screen of the terminal. */
  output(data: Buffer): void
  /** For a teacher who watches: the size of the student's terminal, at first and after each change. */
  sized(columns: number, rows: number): void
  /** The shell or the seat has ended. */
  ended(why: string): void
}

export interface Terminal {
  type(data: Buffer): void
  resize(columns: number, rows: number): void
  /** The pipe holds output back until it is resumed. */
  pause(): void
  resume(): void
  /** Detaches; the shell continues. */
  close(): void
}

/** `watch`: keys are ignored. Neither watching nor joining changes the size. */
export type TerminalMode = 'own' | 'watch' | 'join'

type Asked = 'other' | 'size' | 'capture' | 'cursor'

const configuration = [
  'set -g default-terminal xterm-256color',
  'set -g history-limit 5000',
  // Not a login shell: /etc/profile would remove lab from the path.
  'set -g default-command /bin/bash',
  'set -g escape-time 10',
  // A size that was set does not change when somebody watches.
  'set -g window-size latest',
  '',
].join('\n')

const startScript =
  'printf %s "$1" > "$HOME/.tmux.lab.conf"; shift; exec tmux -L lab -f "$HOME/.tmux.lab.conf" "$@"'

/** A client of tmux in control mode: it sends commands, and turns answers into a screen. */
class TmuxClient implements Terminal {
  readonly #child: ChildProcess
  readonly #mode: TerminalMode
  readonly #events: TerminalEvents
  /** The answers that are expected: `capture` is drawn, `cursor` moves the cursor to its place. */
  readonly #asked: Asked[] = []
  /** Whether the screen was drawn, so that output can follow. */
  #drawn = false
  /** Whether the browser has said its size. */
  #sized = false
  #over = false
  #said = ''

  constructor(child: ChildProcess, mode: TerminalMode, events: TerminalEvents) {
    this.#child = child
    this.#mode = mode
    this.#events = events
    child.stdout?.on(
      'data',
      controlReader({
        answered: (lines, good) => this.#answered(lines, good),
        notified: (line) => this.#notified(line),
      }),
    )
    child.stderr?.on('data', (data: Buffer) => (this.#said = `${this.#said}${data.toString()}`.slice(-500)))
    child.stdin?.on('error', () => this.#end('the seat does not run'))
    child.on('error', (error) => this.#end(error.message))
    child.on('close', () => this.#end(this.#said.trim() || 'the seat does not run'))
    if (mode !== 'own') this.#draw()
  }

  type(data: Buffer): void {
    if (this.#mode !== 'watch') for (const keys of keyCommands(data)) this.#command(keys)
  }

  resize(columns: number, rows: number): void {
    if (this.#mode !== 'own') return
    this.#command(`refresh-client -C ${String(columns)}x${String(rows)}`)
    if (!this.#sized) this.#draw()
    this.#sized = true
  }

  pause(): void {
    this.#child.stdout?.pause()
  }

  resume(): void {
    this.#child.stdout?.resume()
  }

  close(): void {
    this.#over = true
    // An empty line detaches; so does the end of its input.
    this.#child.stdin?.end()
    setTimeout(() => this.#child.kill('SIGKILL'), 3000).unref()
  }

  #command(line: string, kind: Asked = 'other'): void {
    if (this.#over) return
    this.#asked.push(kind)
    this.#child.stdin?.write(`${line}\n`)
  }

  #end(why: string): void {
    if (this.#over) return
    this.#over = true
    this.#events.ended(why)
  }

  #draw(): void {
    this.#drawn = false
    if (this.#mode !== 'own') this.#command('display-message -p "#{window_width} #{window_height}"', 'size')
    this.#command('capture-pane -p -e', 'capture')
    this.#command('display-message -p "#{cursor_x} #{cursor_y}"', 'cursor')
  }

  #answered(lines: readonly Buffer[], good: boolean): void {
    const kind = this.#asked.shift()
    if (!good) return
    if (kind === 'size') {
      const [columns = 80, rows = 24] = (lines[0]?.toString() ?? '').split(' ').map(Number)
      this.#events.sized(columns, rows)
    }
    if (kind === 'capture') {
      const screen = lines.flatMap((line, index) => (index === 0 ? [line] : [Buffer.from('\r\n'), line]))
      this.#events.output(Buffer.concat([Buffer.from('\u001bc'), ...screen]))
    }
    if (kind === 'cursor') {
      const [x = 0, y = 0] = (lines[0]?.toString() ?? '').split(' ').map(Number)
      this.#events.output(Buffer.from(`\u001b[${String(y + 1)};${String(x + 1)}H`))
      this.#drawn = true
    }
  }

  #notified(text: Buffer): void {
    const [word = ''] = text.toString('latin1', 0, 32).split(' ')
    if (word === '%layout-change' && this.#mode !== 'own') this.#draw()
    else if (word === '%output') {
      // `%output %3 TEXT`
      const start = text.indexOf(' ', '%output '.length) + 1
      if (this.#drawn) this.#events.output(unescaped(text.subarray(start)))
    } else if (word === '%exit')
      this.#end(text.toString('utf8').slice('%exit'.length).trim() || 'the shell has ended')
  }
}

/** @param session its name: `desk` is the student's */
export const openTerminal = async (
  seat: SeatOf,
  session: string,
  mode: TerminalMode,
  events: TerminalEvents,
): Promise<Terminal> => {
  const flags = mode === 'own' ? [] : ['-f', mode === 'watch' ? 'read-only,ignore-size' : 'ignore-size']
  const child = await startAtSeat(seat, [
    ...['sh', '-c', startScript, 'sh', configuration, '-C', 'new-session', '-A', '-s', session],
    ...flags,
    ...(mode === 'own' ? ['-x', '80', '-y', '24'] : []),
  ])
  return new TmuxClient(child, mode, events)
}
