/** Text in columns of a terminal. */

/**
 * Characters that are two columns wide: Chinese, Japanese and Korean ones, and their punctuation (East Asian Wide).
 */
const isWide = (code: number): boolean =>
  (code >= 0x1100 && code <= 0x115f) ||
  (code >= 0x2e80 && code <= 0xa4cf) ||
  (code >= 0xac00 && code <= 0xd7a3) ||
  (code >= 0xf900 && code <= 0xfaff) ||
  (code >= 0xfe30 && code <= 0xfe6f) ||
  (code >= 0xff00 && code <= 0xff60) ||
  (code >= 0xffe0 && code <= 0xffe6) ||
  (code >= 0x1f300 && code <= 0x1faff)

/** The width of a text in columns. */
export const widthOf = (text: string): number =>
  Array.from(text).reduce((sum, letter) => sum + (isWide(letter.codePointAt(0) ?? 0) ? 2 : 1), 0)

/** What must not begin a line in Japanese: closing brackets and punctuation. */
const notFirst = new Set('、。，．・：；？！」』）］｝〉》】ーっゃゅょッャュョ,.:;?!)]}')

/** Pieces that stay together: a word with the space before it, or one wide character with what must follow it. */
const pieces = (line: string): readonly string[] => {
  const found: string[] = []
  for (const letter of line) {
    const last = found.at(-1)
    const wide = isWide(letter.codePointAt(0) ?? 0)
    const lastLetter = last === undefined ? '' : (Array.from(last).at(-1) ?? '')
    const afterWide = last !== undefined && isWide(lastLetter.codePointAt(0) ?? 0)
    if (last !== undefined && (notFirst.has(letter) || (!wide && !afterWide && letter !== ' ')))
      found[found.length - 1] = last + letter
    else found.push(letter)
  }
  return found
}

/** Breaks a paragraph into lines of this many columns. Pieces that are too long are cut. */
const wrapLine = (line: string, columns: number): readonly string[] => {
  const lines: string[] = []
  let now = ''
  for (let piece of pieces(line)) {
    if (now !== '' && widthOf(now) + widthOf(piece) > columns) {
      lines.push(now.trimEnd())
      now = ''
      piece = piece.trimStart()
    }
    now += piece
    while (widthOf(now) > columns) {
      let head = ''
      for (const letter of now) {
        if (widthOf(head + letter) > columns) break
        head += letter
      }
      lines.push(head)
      now = now.slice(head.length)
    }
  }
  return [...lines, now.trimEnd()]
}

/** Joins lines that an author has broken: in Japanese, without a space. */
const join = (one: string, other: string): string => {
  const wide = (letter: string | undefined): boolean => isWide(letter?.codePointAt(0) ?? 0)
  return wide(Array.from(one).at(-1)) && wide(Array.from(other)[0]) ? one + other : `${one} ${other}`
}

/** Markdown as plain lines: paragraphs and list items are wrapped, code blocks are only indented. */
export const wrapText = (markdown: string, columns: number): readonly string[] => {
  const out: string[] = []
  let fenced = false
  let paragraph = ''
  const flush = (): void => {
    if (paragraph === '') return
    const item = /^(?:[-*]|\d+\.) /.exec(paragraph)?.[0] ?? ''
    const lines = wrapLine(paragraph.slice(item.length), columns - item.length)
    out.push(...lines.map((line, index) => `${index === 0 ? item : ' '.repeat(item.length)}${line}`))
    paragraph = ''
  }
  for (const line of markdown.split('\n')) {
    if (line.startsWith('```')) {
      flush()
      fenced = !fenced
    } else if (fenced) out.push(`    ${line}`)
    else if (line.trim() === '') {
      flush()
      if (out.at(-1) !== '') out.push('')
    } else if (/^(?:[-*]|\d+\.) /.test(line)) {
      flush()
      paragraph = line.trim()
    } else paragraph = paragraph === '' ? line.trim() : join(paragraph, line.trim())
  }
  flush()
  while (out.at(-1) === '') out.pop()
  return out
}

/** Cuts lines that are too wide at the end. */
export const cut = (text: string, columns: number): string => {
  if (widthOf(text) <= columns) return text
  let head = ''
  for (const letter of text) {
    if (widthOf(head + letter) > columns - 1) break
    head += letter
  }
  return `${head}…`
}
