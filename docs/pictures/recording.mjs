/** A recording of a terminal as an animated SVG: it is text, so it is small and sharp, and needs no player. */

const escapeText = (text) => text.replace(/[&<>]/g, (sign) => `&#${String(sign.codePointAt(0))};`)

/** Escape sequences, and visible characters. */
const sequence = new RegExp(`${String.fromCharCode(27)}\\[(\\??)([\\d;]*)([A-Za-z])|.`, 'gsu')

/** A terminal that understands what `lab` and its view write: lines, colours, moving up, clearing. */
class Terminal {
  #rows
  #columns
  #lines = [[]]
  #row = 0
  #top = 0
  #column = 0
  #style = ''
  #wraps = true

  constructor(rows, columns) {
    this.#rows = rows
    this.#columns = columns
  }

  write(output) {
    for (const [text, question, numbers = '', letter] of output.matchAll(sequence)) {
      if (letter === undefined) this.#put(text)
      else this.#obey(`${question}${letter}`, numbers)
    }
  }

  /** The lines on the screen, each a list of `[style, text]`. */
  get screen() {
    return this.#lines.slice(this.#top, this.#top + this.#rows).map((line) => {
      const runs = []
      for (const [style, character] of line) {
        const last = runs.at(-1)
        if (last && last[0] === style) last[1] += character
        else runs.push([style, character])
      }
      return runs
    })
  }

  #put(character) {
    if (character === '\r') this.#column = 0
    else if (character === '\n') this.#down()
    else if (character >= ' ') {
      if (this.#column >= this.#columns) {
        if (!this.#wraps) return
        this.#column = 0
        this.#down()
      }
      const line = (this.#lines[this.#row] ??= [])
      while (line.length < this.#column) line.push(['', ' '])
      line[this.#column] = [this.#style, character]
      this.#column += 1
    }
  }

  #down() {
    this.#row += 1
    this.#top = Math.max(this.#top, this.#row - this.#rows + 1)
    this.#lines[this.#row] ??= []
  }

  #obey(command, numbers) {
    const count = Number(numbers || 1)
    if (command === 'm') this.#paint(numbers)
    else if (command === 'A') this.#row = Math.max(this.#top, this.#row - count)
    else if (command === 'G') this.#column = count - 1
    else if (command === 'K') {
      if (numbers === '2') this.#lines[this.#row] = []
      else this.#lines[this.#row]?.splice(this.#column)
    } else if (command === 'J') {
      this.#lines[this.#row]?.splice(this.#column)
      this.#lines.splice(this.#row + 1)
    } else if (command === '?l' || command === '?h') {
      if (numbers === '7') this.#wraps = command === '?h'
    } else throw new Error(`a terminal sequence that is not understood: ${numbers}${command}`)
  }

  /** Styles are names of classes. */
  #paint(numbers) {
    const names = {
      1: 'bold',
      2: 'dim',
      31: 'red',
      32: 'green',
      33: 'yellow',
      34: 'blue',
      35: 'red',
      36: 'blue',
      90: 'dim',
    }
    for (const number of numbers.split(';').map(Number)) {
      if (number === 0 || number === 39 || number === 22) this.#style = ''
      else if (names[number]) this.#style = names[number]
    }
  }
}

const line = 18
const character = 8.4
const pad = 14
const bar = 30

/** Longer pauses are shortened to this many seconds. */
const longestPause = 1.2
/** The shortest time between two frames, in seconds. */
const interval = 0.25
/** How long the last frame stays, in seconds. */
const hold = 6

/**
 * @param cast what `asciinema rec` wrote, in its format of version 2: a header, then `[seconds, "o", output]` on each
 * line
 * @param seconds the longest duration; a longer recording is played faster, and the title says so
 */
export const recording = (cast, { command, seconds = 20 }) => {
  const [header = '{}', ...rest] = cast.trim().split('\n')
  const { width: columns, height: rows } = JSON.parse(header)
  const events = rest.map((text) => JSON.parse(text)).filter(([, kind]) => kind === 'o')
  const terminal = new Terminal(rows, columns)
  const frames = []
  let clock = 0
  let before = 0
  for (const [index, [at, , output]] of events.entries()) {
    terminal.write(output)
    clock += Math.min(at - before, longestPause)
    before = at
    const next = events[index + 1]
    if (next && next[0] - at < interval && clock - (frames.at(-1)?.at ?? -1) < interval) continue
    frames.push({ at: clock, screen: terminal.screen })
  }
  const took = events.at(-1)?.[0] ?? 0
  const speed = Math.max(1, clock / seconds)
  const shown = clock / speed
  const total = shown + hold
  // A long recording is played faster; frames that would be shorter than this are left out.
  let drawnAt = -1
  const pictures = frames.filter(({ at }, index) => {
    if (index < frames.length - 1 && at / speed - drawnAt < interval) return false
    drawnAt = at / speed
    return true
  })

  // Each line that was ever on the screen is written once, and each frame refers to its lines.
  const ids = new Map()
  const drawn = pictures.map(({ screen }, index) => {
    const uses = screen.flatMap((runs, row) => {
      const spans = runs
        .map(([style, text]) =>
          style ? `<tspan class="${style}">${escapeText(text)}</tspan>` : escapeText(text),
        )
        .join('')
      if (spans.trim() === '') return []
      if (!ids.has(spans)) ids.set(spans, `l${String(ids.size)}`)
      return [`<use href="#${ids.get(spans)}" y="${row * line}"/>`]
    })
    return `<g transform="translate(${index * width(columns)} 0)">${uses.join('')}</g>`
  })
  const steps = pictures.map(
    ({ at }, index) =>
      `${((at / speed / total) * 100).toFixed(2)}%{transform:translateX(${-index * width(columns)}px)}`,
  )
  const last = -(pictures.length - 1) * width(columns)
  const height = bar + rows * line + 2 * pad
  const title = `${command}: ${took.toFixed(0)} s${took > shown * 1.1 ? `, shown in ${shown.toFixed(0)} s` : ''}`
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width(columns)} ${height}" role="img" aria-labelledby="title">
<title id="title">${escapeText(title)}</title>
<style>
text { font: 14px ui-monospace, "DejaVu Sans Mono", monospace; fill: #e6e8ea; white-space: pre; }
.bold { font-weight: 700; } .dim { fill: #a0a8b0; } .red { fill: #ff8a80; } .green { fill: #5fd38a; } .yellow { fill: #f0b64d; } .blue { fill: #7fa8f5; }
.play { transform: translateX(${last}px); }
@media (prefers-reduced-motion: no-preference) { .play { animation: play ${total.toFixed(1)}s step-end infinite; } }
@keyframes play { 0%{transform:translateX(0)} ${steps.join(' ')} 100%{transform:translateX(${last}px)} }
</style>
<rect width="${width(columns)}" height="${height}" rx="8" fill="#16191d"/>
<text class="dim" x="${pad}" y="21">${escapeText(title)}</text>
<defs>${[...ids].map(([spans, id]) => `<text id="${id}" x="0" y="0" xml:space="preserve">${spans}</text>`).join('\n')}</defs>
<svg y="${bar}" width="${width(columns)}" height="${height - bar}"><g transform="translate(${pad} ${pad + 6})"><g class="play">
${drawn.join('\n')}
</g></g></svg>
</svg>
`
}

const width = (columns) => Math.ceil(columns * character) + 2 * pad
