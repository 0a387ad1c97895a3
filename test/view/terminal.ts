/** Real pseudo-terminals for the tests, and a small terminal that shows what a person would see. */
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import ts from 'typescript'

const root = fileURLToPath(new URL('../..', import.meta.url))

export interface Stage {
  readonly program: string
  /** The address of a compiled module of `src`, to import it from. */
  module(path: string): string
  remove(): Promise<void>
}

/** Compiles what the stage needs. Node 20 runs no TypeScript. */
export const compileStage = async (): Promise<Stage> => {
  const folder = await mkdtemp(join(tmpdir(), 'lab-view-'))
  const views = (await readdir(join(root, 'src/view'))).map((name) => `src/view/${name}`)
  for (const path of ['src/error.ts', ...views, 'test/view/plans.ts', 'test/view/stage.ts']) {
    const { outputText } = ts.transpileModule(await readFile(join(root, path), 'utf8'), {
      compilerOptions: {
        target: ts.ScriptTarget.ES2022,
        module: ts.ModuleKind.ESNext,
        verbatimModuleSyntax: true,
      },
    })
    const target = join(folder, path.replace(/\.ts$/, '.js'))
    await mkdir(dirname(target), { recursive: true })
    await writeFile(target, outputText)
  }
  await writeFile(join(folder, 'package.json'), '{"type":"module"}')
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
  return {
    program: join(folder, 'test/view/stage.js'),
    module: (path) => pathToFileURL(join(folder, path)).href,
    remove: () => rm(folder, { recursive: true }),
  }
}

export interface Played {
  readonly output: string
  readonly exitCode: number
}

/** Runs a shell command with util-linux `script`, on a terminal of this size. */
export const underTerminal = (
  command: string,
  { rows = 24, columns = 80, env = {} }: { rows?: number; columns?: number; env?: NodeJS.ProcessEnv } = {},
): Promise<Played> =>
  new Promise((resolve) => {
    const child = execFile(
      'script',
      ['-qec', `stty rows ${String(rows)} cols ${String(columns)}; ${command}`, '/dev/null'],
      {
        env: { PATH: process.env.PATH, HOME: process.env.HOME, TERM: 'xterm-256color', ...env },
        timeout: 30_000,
        maxBuffer: 1 << 26,
      },
      (error, output) => {
        resolve({ output, exitCode: typeof error?.code === 'number' ? error.code : error ? 1 : 0 })
      },
    )
    child.stdin?.end()
  })

const escape = '\u001b'

/** Understands what the view writes, and throws on anything else. */
export class Screen {
  readonly #rows: number
  readonly #columns: number
  /** All lines so far: the last `rows` of them are on the screen. */
  #lines: string[][] = [[]]
  #row = 0
  /** The first line that is on the screen. */
  #top = 0
  #column = 0
  #wraps = true

  constructor(rows = 24, columns = 80) {
    this.#rows = rows
    this.#columns = columns
  }

  write(output: string): this {
    const sequence = new RegExp(`${escape}\\[(\\??)(\\d*)([A-Za-z])|.`, 'gsu')
    for (const [text, question, number = '', letter] of output.matchAll(sequence)) {
      if (letter === undefined) this.#put(text)
      else this.#obey(`${question ?? ''}${letter}`, number)
    }
    return this
  }

  /** The lines that scrolled away, and those on the screen. */
  get everything(): string[] {
    return this.#lines.map((line) => line.join('').trimEnd())
  }

  get visible(): string[] {
    return this.everything.slice(this.#top)
  }

  #put(character: string): void {
    if (character === escape) throw new Error('an escape sequence that the view does not use')
    if (character === '\r') this.#column = 0
    else if (character === '\n') this.#down()
    else {
      if (this.#column >= this.#columns) {
        if (!this.#wraps) return
        this.#column = 0
        this.#down()
      }
      const line = (this.#lines[this.#row] ??= [])
      while (line.length < this.#column) line.push(' ')
      line[this.#column] = character
      this.#column += 1
    }
  }

  #down(): void {
    this.#row += 1
    this.#top = Math.max(this.#top, this.#row - this.#rows + 1)
    this.#lines[this.#row] ??= []
  }

  #obey(command: string, number: string): void {
    switch (command) {
      case 'm':
        break
      case 'A':
        this.#row = Math.max(this.#top, this.#row - Number(number))
        break
      case 'K':
        this.#lines[this.#row]?.splice(this.#column)
        break
      case 'J':
        this.#lines[this.#row]?.splice(this.#column)
        this.#lines.splice(this.#row + 1)
        break
      case '?l':
      case '?h':
        if (number !== '7') throw new Error(`mode ${number} is not the view's to change`)
        this.#wraps = command === '?h'
        break
      default:
        throw new Error(`the view does not write ${number}${command}`)
    }
  }
}
