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

export const readSource = (text: string): Source => {
  const lines = new LineCounter()
  const tokens = [...new Parser(lines.addNewLine).parse(text)]
  // The lexer does not recurse, but the parser does. Near the end of the stack Node does not always throw: compiling
  // a regular expression there ends the process.
  const deep = tooDeep(tokens, deepestNesting)
  const found =
    deep === undefined
      ? [...new Composer({ version: '1.2', uniqueKeys: false }).compose(tokens, true, text.length)]
      : []
  const document: Document.Parsed | undefined = found[0]

  const at = (offset: number): Place => {
    const { line, col } = lines.linePos(Math.min(offset, text.length))
    return { line: Math.max(line, 1), column: Math.max(col, 1) }
  }

  const syntaxProblem = (offset: number, message: string): SyntaxProblem => {
    const place = at(offset)
    const start = lines.lineStarts[place.line - 1] ?? 0
    const line = text.slice(start, lines.lineStarts[place.line] ?? text.length).replace(/\r?\n$/, '')
    const { text: shownLine, caret } = windowAround(line, place.column)
    const margin = String(place.line).padStart(5)
    return {
      ...place,
      message,
      excerpt:
        `${margin} | ${shownLine}`.trimEnd() + `\n${' '.repeat(5)} | ${' '.repeat(Math.max(caret, 0))}^`,
    }
  }

  const aliases: Alias[] = []
  const problems: SyntaxProblem[] = []
  let oddKey: Node | undefined
  if (document) {
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
            problems.push(syntaxProblem(offsetOf(key) ?? 0, 'this key appears twice; remove one'))
          }
          keys.add(String(value))
        }
      },
    })
  }

  const broken = (): SyntaxProblem | undefined => {
    if (deep !== undefined) return syntaxProblem(deep, 'nested too deeply for a lab file')
    const first = document?.errors[0] ?? document?.warnings[0]
    if (first && document) {
      const quote = openQuote(document, first.pos[0])
      return quote === undefined
        ? syntaxProblem(first.pos[0], explanations[first.code] ?? `not YAML: ${first.message}`)
        : syntaxProblem(quote, 'this quote is not closed')
    }
    if (document && found.length > 1) {
      const offset = text.indexOf('---', document.range[1])
      return syntaxProblem(
        Math.max(offset, 0),
        'a second document; a lab file has only one, so remove the line ---',
      )
    }
    if (oddKey) return syntaxProblem(offsetOf(oddKey) ?? 0, 'not a key; expected a word before the colon')
    if (aliases.length > mostAliases) {
      return syntaxProblem(
        aliases[0]?.range?.[0] ?? 0,
        `the first of ${String(aliases.length)} aliases (*name); at most ${String(mostAliases)} are allowed`,
      )
    }
    const lost = aliases.find((alias) => document && !alias.resolve(document))
    return (
      lost &&
      syntaxProblem(
        lost.range?.[0] ?? 0,
        `*${lost.source} is an alias, but no anchor &${lost.source} comes before it; quote a text that begins with *`,
      )
    )
  }

  const follow = (node: unknown): unknown => (isAlias(node) && document ? node.resolve(document) : node)

  /** The nodes on the way to a path, as far as they exist. */
  const walk = (path: Path): { key: unknown; value: unknown; whole: boolean } => {
    let key: unknown
    let value: unknown = document?.contents
    for (const part of path) {
      const owner = follow(value)
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

  return {
    broken: broken(),
    problems,
    value: () => document?.toJS({ maxAliasCount: 100 }) as unknown,
    place: (path, atKey = false) => {
      const { key, value, whole } = walk(path)
      // A missing field is reported at the key of its parent, or at the start of its list item.
      const offset = whole && !atKey ? (offsetOf(value) ?? offsetOf(key)) : (offsetOf(key) ?? offsetOf(value))
      return at(offset ?? 0)
    },
    written: (path) => {
      const { value, whole } = walk(path)
      const node = follow(value)
      return whole && isScalar(node) ? node.source?.slice(0, 60) : undefined
    },
  }
}
