import {
  Composer,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  Parser,
  visit,
  type Alias,
  type CST,
  type Document,
  type Node,
} from 'yaml'
import type { Path } from './draft.js'

/** A place in a file: line and column count from 1, columns in UTF-16 units as editors do. */
export interface Place {
  readonly line: number
  readonly column: number
}

export interface SyntaxProblem extends Place {
  readonly message: string
  /** The line of the file, and below it a `^` under the place. */
  readonly excerpt: string
}

/** A YAML text that remembers where everything was written. */
export interface Source {
  /** What prevents the text from being read. Only the first problem, since the parser's later ones follow from it. */
  readonly broken?: SyntaxProblem | undefined
  /** Problems of a readable text: duplicate keys. */
  readonly problems: readonly SyntaxProblem[]
  /**
   * The plain value; undefined for an empty text. Do not call it for a broken text.
   * @throws ReferenceError when aliases multiply it
   */
  readonly value: () => unknown
  /** The place of the key or value at a path, or else of the nearest one around it. */
  readonly place: (path: Path, atKey?: boolean) => Place
  /** A scalar as it was written, such as `0777`. */
  readonly written: (path: Path) => string | undefined
}

/** The parser's terse messages, explained for people who have not read the YAML specification. */
const explanations: Readonly<Record<string, string>> = {
  TAB_AS_INDENT: 'a tab; YAML is indented with spaces',
  BLOCK_AS_IMPLICIT_KEY: 'not YAML: a text that holds ": " needs quotes, or this line is indented wrongly',
  BAD_INDENT: 'not YAML: this line is indented wrongly, or a bracket before it is not closed',
  TAG_RESOLVE_FAILED: 'a tag (!name), which lab files do not use; quote a text that begins with !',
}

/** More aliases than this make no lab file easier to read, and each one costs a pass over the file. */
const mostAliases = 100

const deepestNesting = 50

/** The part of a long line around a column, so that the `^` is on the screen. */
const windowAround = (line: string, column: number): { readonly text: string; readonly caret: number } => {
  const start = column > 80 ? column - 60 : 0
  const text = line.slice(start, start + 100).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, ' ')
  return {
    text: `${start > 0 ? '…' : ''}${text}${line.length > start + 100 ? '…' : ''}`,
    caret: column - 1 - start + (start > 0 ? 1 : 0),
  }
}

/** The offset of the first value that is nested too deep. */
const tooDeep = (tokens: readonly CST.Token[], deepest: number): number | undefined => {
  // A work list instead of recursion, since depth is what is being limited.
  const rest = tokens.map((token) => ({ token, depth: 0 }))
  for (let next = rest.pop(); next; next = rest.pop()) {
    const { token, depth } = next
    if (depth > deepest) return token.offset
    if ('value' in token) rest.push({ token: token.value, depth })
    for (const { key, value } of 'items' in token ? token.items : []) {
      if (key) rest.push({ token: key, depth: depth + 1 })
      if (value) rest.push({ token: value, depth: depth + 1 })
    }
  }
  return undefined
}

/** Where an unterminated quoted text begins. */
const openQuote = (document: Document.Parsed, offset: number): number | undefined => {
  let start: number | undefined
  visit(document, {
    Scalar: (_, { type, range }) => {
      if (type?.startsWith('QUOTE') && range && range[0] < offset && range[1] >= offset) start = range[0]
    },
  })
  return start
}

const offsetOf = (node: unknown): number | undefined => (node as Node | null | undefined)?.range?.[0]

/** A text and the beginnings of its lines. */
interface Text {
  readonly text: string
  readonly lines: LineCounter
}

const placeAt = ({ text, lines }: Text, offset: number): Place => {
  const { line, col } = lines.linePos(Math.min(offset, text.length))
  return { line: Math.max(line, 1), column: Math.max(col, 1) }
}

const problemAt = (read: Text, offset: number, message: string): SyntaxProblem => {
  const place = placeAt(read, offset)
  const { text, lines } = read
  const start = lines.lineStarts[place.line - 1] ?? 0
  const line = text.slice(start, lines.lineStarts[place.line] ?? text.length).replace(/\r?\n$/, '')
  const { text: shownLine, caret } = windowAround(line, place.column)
  const margin = String(place.line).padStart(5)
  return {
    ...place,
    message,
    excerpt: `${margin} | ${shownLine}`.trimEnd() + `\n${' '.repeat(5)} | ${' '.repeat(Math.max(caret, 0))}^`,
  }
}

/** What the parser accepts in a document, and a lab file may not contain. */
interface Oddities {
  readonly aliases: readonly Alias[]
  /** A key that is not a word. */
  readonly oddKey: Node | undefined
  /** Offsets of keys that appear a second time. */
  readonly repeated: readonly number[]
}

const odditiesOf = (document: Document.Parsed): Oddities => {
  const aliases: Alias[] = []
  const repeated: number[] = []
  let oddKey: Node | undefined
  visit(document, {
    Alias: (_, alias) => void aliases.push(alias),
    // The parser itself compares every key with every other, which takes minutes for a long file.
    Map: (_, { items }) => {
      const keys = new Set<string>()
      for (const { key } of items) {
        const value = isScalar(key) ? key.value : undefined
        if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') {
          oddKey ??= key as Node
        } else if (keys.has(String(value))) {
          repeated.push(offsetOf(key) ?? 0)
        }
        keys.add(String(value))
      }
    },
  })
  return { aliases, oddKey, repeated }
}

/** What prevents these documents from being read as a lab file. */
const brokenIn = (
  read: Text,
  documents: readonly Document.Parsed[],
  { aliases, oddKey }: Oddities,
): SyntaxProblem | undefined => {
  const [document] = documents
  if (!document) return undefined
  const first = document.errors[0] ?? document.warnings[0]
  if (first) {
    const quote = openQuote(document, first.pos[0])
    return quote === undefined
      ? problemAt(read, first.pos[0], explanations[first.code] ?? `not YAML: ${first.message}`)
      : problemAt(read, quote, 'this quote is not closed')
  }
  if (documents.length > 1) {
    const offset = read.text.indexOf('---', document.range[1])
    return problemAt(
      read,
      Math.max(offset, 0),
      'a second document; a lab file has only one, so remove the line ---',
    )
  }
  if (oddKey) return problemAt(read, offsetOf(oddKey) ?? 0, 'not a key; expected a word before the colon')
  if (aliases.length > mostAliases) {
    return problemAt(
      read,
      aliases[0]?.range?.[0] ?? 0,
      `the first of ${String(aliases.length)} aliases (*name); at most ${String(mostAliases)} are allowed`,
    )
  }
  const lost = aliases.find((alias) => !alias.resolve(document))
  return (
    lost &&
    problemAt(
      read,
      lost.range?.[0] ?? 0,
      `*${lost.source} is an alias, but no anchor &${lost.source} comes before it; quote a text that begins with *`,
    )
  )
}

const followIn = (document: Document.Parsed | undefined, node: unknown): unknown =>
  isAlias(node) && document ? node.resolve(document) : node

/** The nodes on the way to a path, as far as they exist. */
const walk = (
  document: Document.Parsed | undefined,
  path: Path,
): { readonly key: unknown; readonly value: unknown; readonly whole: boolean } => {
  let key: unknown
  let value: unknown = document?.contents
  for (const part of path) {
    const owner = followIn(document, value)
    if (isMap(owner)) {
      const pair = owner.items.findLast(
        (item) => isScalar(item.key) && String(item.key.value) === String(part),
      )
      if (!pair) return { key, value, whole: false }
      key = pair.key
      value = pair.value
    } else if (isSeq(owner) && typeof part === 'number' && part < owner.items.length) {
      key = undefined
      value = owner.items[part]
    } else {
      return { key, value, whole: false }
    }
  }
  return { key, value, whole: true }
}

export const readSource = (text: string): Source => {
  const read: Text = { text, lines: new LineCounter() }
  const tokens = [...new Parser(read.lines.addNewLine).parse(text)]
  // The lexer does not recurse, but the parser does. Near the end of the stack Node does not always throw: compiling
  // a regular expression there ends the process.
  const deep = tooDeep(tokens, deepestNesting)
  const documents =
    deep === undefined
      ? [...new Composer({ version: '1.2', uniqueKeys: false }).compose(tokens, true, text.length)]
      : []
  const document: Document.Parsed | undefined = documents[0]
  const odd = document ? odditiesOf(document) : { aliases: [], oddKey: undefined, repeated: [] }
  return {
    broken:
      deep === undefined
        ? brokenIn(read, documents, odd)
        : problemAt(read, deep, 'nested too deeply for a lab file'),
    problems: odd.repeated.map((offset) => problemAt(read, offset, 'this key appears twice; remove one')),
    value: () => document?.toJS({ maxAliasCount: 100 }) as unknown,
    place: (path, atKey = false) => {
      const { key, value, whole } = walk(document, path)
      // A missing field is reported at the key of its parent, or at the start of its list item.
      const offset = whole && !atKey ? (offsetOf(value) ?? offsetOf(key)) : (offsetOf(key) ?? offsetOf(value))
      return placeAt(read, offset ?? 0)
    },
    written: (path) => {
      const { value, whole } = walk(document, path)
      const node = followIn(document, value)
      return whole && isScalar(node) ? node.source?.slice(0, 60) : undefined
    },
  }
}
