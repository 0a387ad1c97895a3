/** ARCHITECTURE.md and README.md say what is so. What eslint.config.js enforces by itself is not asked again. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import ts from 'typescript'
import { describe, expect, test } from 'vitest'
import { exitCodes } from '../src/error.js'
import { shippedLabs } from '../src/lab/load.js'
import { cli } from './helpers/cli.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

const architecture = read('ARCHITECTURE.md')
const readme = read('README.md')
const packageJson = JSON.parse(read('package.json')) as Readonly<
  Record<string, Readonly<Record<string, string>>>
>
const dependencies = Object.keys(packageJson['dependencies'] ?? {})
const devDependencies = Object.keys(packageJson['devDependencies'] ?? {})

/** The text below a heading, without what belongs to the next one. */
const section = (text: string, heading: string): string => {
  const [, found] = new RegExp(`^## ${heading}\n([^]*?)(?=^## |$(?![^]))`, 'm').exec(text) ?? []
  if (found === undefined) throw new Error(`no section ${heading}`)
  return found
}

/** The cells of the rows of a section's tables, head and rule left out. */
const rows = (text: string): readonly (readonly string[])[] =>
  text
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) =>
      line
        .replaceAll('\\|', '\0')
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.replaceAll('\0', '|').trim()),
    )
    .slice(1)

/** Words in backticks. */
const code = (text: string): readonly string[] =>
  [...text.matchAll(/`([^`\n]+)`/g)].map(([, word = '']) => word)

/** Every file and folder of the repository, as Git would see it: `src/plan`, `src/plan/step.ts`. */
const paths = (folder = ''): readonly string[] =>
  readdirSync(join(root, folder), { withFileTypes: true })
    .filter(({ name }) => !['node_modules', 'dist', 'coverage', '.git'].includes(name))
    .flatMap((entry) => {
      const path = join(folder, entry.name)
      return entry.isDirectory() ? [path, ...paths(path)] : [path]
    })
const everything = paths()
const sources = everything.filter((path) => path.startsWith('src/') && path.endsWith('.ts'))

describe('ARCHITECTURE.md', () => {
  const places = rows(
    architecture.slice(architecture.indexOf('| where |'), architecture.indexOf('**Who may')),
  )

  test('fits on one page', () => {
    expect(architecture.trimEnd().split('\n').length).toBeLessThanOrEqual(100)
  })

  test('has a line for everything that lies in src, and for nothing else there', () => {
    const named = places.flatMap(([where = '']) => code(where))
    const inSrc = readdirSync(join(root, 'src'), { withFileTypes: true }).map((entry) =>
      entry.isDirectory() ? `src/${entry.name}/` : entry.name,
    )
    // The first of several files that share a line is written with its folder.
    const wanted = named.filter((name) => name.startsWith('src/') || /^[a-z]+\.ts$/.test(name))
    expect(wanted.map((name) => name.replace(/^src\/([a-z]+\.ts)$/, '$1')).sort()).toEqual(inSrc.sort())
  })

  test('names no file and no folder that is not there', () => {
    const named = code(architecture).filter((word) =>
      /^[\w.-]*\/?(?:[\w.-]+\/)*[\w.-]+\.(?:ts|js|ya?ml|json|hbs)$|^[a-z/]+\/$/.test(word),
    )
    expect(named.length).toBeGreaterThan(30)
    // By its end, since a table row or a paragraph says where one is: `up.ts`, in the row of src/plan.
    expect(
      named.filter((word) => !everything.some((path) => `/${path}`.endsWith(`/${word.replace(/\/$/, '')}`))),
    ).toEqual([])
    const onMachines = code(architecture).filter((word) => word.startsWith('/usr/'))
    expect(onMachines.filter((path) => !existsSync(join(root, 'templates/base', path)))).toEqual([])
  })

  test('names no script of package.json that is not there', () => {
    const scripts = code(`${architecture}${readme}`).flatMap(
      (word) => /^npm run ([\w:]+)/.exec(word)?.[1] ?? [],
    )
    expect(scripts).toContain('generate')
    expect(Object.keys(packageJson['scripts'] ?? {})).toEqual(expect.arrayContaining(scripts))
  })

  test('says what every package that is needed to run lab is for, and no package is named in vain', () => {
    const named = rows(section(architecture, 'Dependencies')).flatMap(
      ([left = '', why = '', , right = '', because = '']) => {
        expect(why).not.toBe('')
        expect(because).not.toBe('')
        return `${left}, ${right}`.split(', ')
      },
    )
    expect(named).toEqual(expect.arrayContaining(dependencies))
    expect([...dependencies, ...devDependencies]).toEqual(expect.arrayContaining(named))
  })
})

/**
 * The modules that a source file loads when it runs, those that it loads later included.
 * @param types whether those that it takes only types from count, too
 */
const importsOf = (path: string, types = false): readonly string[] => {
  const file = ts.createSourceFile(path, read(path), ts.ScriptTarget.ES2022, true)
  const found: string[] = []
  const add = (specifier: ts.Node | undefined): void => {
    if (specifier && ts.isStringLiteral(specifier)) found.push(specifier.text)
  }
  const visit = (node: ts.Node): void => {
    if (
      ts.isImportDeclaration(node) &&
      (types || node.importClause?.phaseModifier !== ts.SyntaxKind.TypeKeyword)
    )
      add(node.moduleSpecifier)
    if (ts.isExportDeclaration(node) && (types || !node.isTypeOnly)) add(node.moduleSpecifier)
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword)
      add(node.arguments[0])
    ts.forEachChild(node, visit)
  }
  visit(file)
  return found
}

const ownImports = (path: string, types: boolean): readonly string[] =>
  importsOf(path, types)
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => join(dirname(path), specifier.replace(/\.js$/, '.ts')))

/** Which of our own files a file loads. */
const loads = new Map(sources.map((path) => [path, ownImports(path, false)]))

/** Folders that still take types from above them. */
const upwardTypes = ['fault', 'trial', 'course']

/** Which of our own files a file imports, types included. */
const imported = new Map(
  sources.map((path) => [
    path,
    ownImports(path, !upwardTypes.some((folder) => path.startsWith(`src/${folder}/`))),
  ]),
)

/** What a file counts as in the rules: its folder, or itself; `machine/sh` has rules of its own. */
const unitOf = (path: string): string => {
  const inside = relative('src', path).replace(/\.ts$/, '')
  return inside === 'machine/sh' ? inside : (inside.split(sep)[0] ?? inside)
}

/** A way that leads back to where it began; undefined: there is none. */
const circle = (graph: ReadonlyMap<string, readonly string[]>): readonly string[] | undefined => {
  const done = new Set<string>()
  const walk = (node: string, way: readonly string[]): readonly string[] | undefined => {
    if (way.includes(node)) return [...way.slice(way.indexOf(node)), node]
    if (done.has(node)) return undefined
    for (const next of graph.get(node) ?? []) {
      const found = walk(next, [...way, node])
      if (found) return found
    }
    done.add(node)
    return undefined
  }
  for (const node of graph.keys()) {
    const found = walk(node, [])
    if (found) return found
  }
  return undefined
}

describe('imports', () => {
  /** The line of ARCHITECTURE.md: each unit with those that it may import. */
  const rules = new Map<string, readonly string[]>()
  const line = /^`error` ← nothing.*$/m.exec(architecture)?.[0] ?? ''
  for (const rule of line.replace(/\.$/, '').split(' · ')) {
    const [who = '', whom = ''] = rule.replace(/ \(.*\)/, '').split(' ← ')
    const names = (text: string): readonly string[] => text.replaceAll('`', '').split(', ')
    for (const name of names(who))
      rules.set(name, whom === 'nothing' ? [] : whom === 'all of these' ? [...rules.keys()] : names(whom))
  }

  test('found them', () => {
    expect(loads.get('src/cli.ts')).toEqual(expect.arrayContaining(['src/error.ts', 'src/command/verbs.ts']))
    expect(loads.get('src/up.ts')).not.toContain('src/provider/provider.ts')
    expect([...loads.values()].flat().filter((path) => !sources.includes(path))).toEqual([])
  })

  // The programs that soaks and end-to-end tests start are texts, which no compiler reads.
  test('of the programs in bench and test/e2e that are texts lead to what is exported', () => {
    const imported = ['bench', join('test', 'e2e')]
      .flatMap((folder) => readdirSync(join(root, folder)).map((name) => join(folder, name)))
      .flatMap((path) =>
        [
          ...read(path).matchAll(
            /const \{ ([\w, ]+) \} = await import\((?:\$\{from\('|process\.env\.DIST \+ '\/)([\w/-]+)\.js'/g,
          ),
        ].flatMap(([, names = '', module = '']) => names.split(', ').map((name) => ({ path, name, module }))),
      )
    expect(imported.length).toBeGreaterThan(10)
    const exists = (module: string, name: string): boolean =>
      existsSync(join(root, 'src', `${module}.ts`)) &&
      new RegExp(`^export (async )?(const|function|class) ${name}\\b`, 'm').test(read(`src/${module}.ts`))
    expect(imported.filter(({ module, name }) => !exists(module, name))).toEqual([])
  })

  // eslint.config.js knows the folders, and static imports; these are all files, and import() too.
  test('are those that ARCHITECTURE.md allows', () => {
    expect([...rules.keys()].sort()).toEqual(
      [...new Set(sources.map(unitOf))].filter((unit) => unit !== 'machine/sh').sort(),
    )
    const against = [...imported].flatMap(([from, to]) =>
      to
        .filter((path) => unitOf(path) !== unitOf(from) && !path.startsWith(`src/${unitOf(from)}/`))
        .filter((path) => {
          const allowed = rules.get(unitOf(from).replace(/\/.*/, '')) ?? []
          const file = path.replace(/^src\/|\.ts$/g, '')
          return !allowed.some((one) => file === one || file.startsWith(`${one}/`))
        })
        .map((path) => `${from} imports ${path}`),
    )
    expect(against).toEqual([])
  })

  test('are those that eslint.config.js enforces, folder by folder', async () => {
    interface Config {
      readonly files?: readonly (string | readonly string[])[]
      readonly rules?: Readonly<Record<string, unknown>>
    }
    const file = '../eslint.config.js'
    const { default: configs } = (await import(file)) as { default: readonly Config[] }
    const enforced = new Map<string, readonly string[]>()
    for (const { files, rules: set } of configs) {
      const rule = set?.['@typescript-eslint/no-restricted-imports'] as
        readonly [string, { patterns: readonly { regex: string }[] }] | undefined
      const folder = /^src\/([a-z]+)\/\*\*/.exec(String(files?.[0]))?.[1]
      const allowed = /\(\?!\\\.\\\.\/\|\(\?:(.*?)\)\(\?:/.exec(rule?.[1].patterns[0]?.regex ?? '')?.[1]
      if (folder !== undefined && allowed !== undefined)
        enforced.set(
          folder,
          allowed.split('|').filter((name) => name !== folder),
        )
    }
    expect([...enforced.keys()].sort()).toEqual(
      [...rules.keys()].filter((name) => existsSync(join(root, 'src', name))).sort(),
    )
    for (const [folder, allowed] of enforced)
      if (folder === 'command') expect(rules.get(folder)).toEqual(expect.arrayContaining([...allowed]))
      else expect([folder, [...allowed].sort()]).toEqual([folder, [...(rules.get(folder) ?? [])].sort()])
  })

  test('go round in no circle, neither of files nor of folders', () => {
    expect(
      circle(
        new Map([
          ['a', ['b']],
          ['b', ['c']],
          ['c', ['b']],
        ]),
      ),
    ).toEqual(['b', 'c', 'b'])
    expect(circle(loads)).toBeUndefined()
    const units = new Map<string, string[]>()
    for (const [from, to] of imported)
      units.set(unitOf(from), [
        ...(units.get(unitOf(from)) ?? []),
        ...to.map(unitOf).filter((unit) => unit !== unitOf(from)),
      ])
    expect(circle(units)).toBeUndefined()
  })

  test('of the supervisor are Node alone: it has to start fast', () => {
    for (const program of ['supervisor', 'dial']) {
      const [own, foreign] = [[`src/provider/uml/${program}.ts`], [] as string[]]
      for (const path of own) {
        for (const next of loads.get(path) ?? []) if (!own.includes(next)) own.push(next)
        foreign.push(...importsOf(path).filter((name) => !name.startsWith('node:') && !name.startsWith('.')))
      }
      expect(foreign).toEqual([])
      expect(own.filter((path) => !path.startsWith('src/provider/uml/'))).toEqual([])
    }
  })

  test('of packages: each that is needed to run lab is used, and no other is', () => {
    const used = sources
      .flatMap((path) => importsOf(path))
      .filter((name) => !name.startsWith('.') && !name.startsWith('node:'))
      .map((name) =>
        name
          .split('/')
          .slice(0, name.startsWith('@') ? 2 : 1)
          .join('/'),
      )
    expect([...new Set(used)].sort()).toEqual([...dependencies].sort())
  })
})

/** The words of `lab --help`, the command `help` left out. */
const commands = async (): Promise<readonly string[]> => {
  const { stdout } = await execa(process.execPath, [cli, '--help'], { env: { COLUMNS: '200' } })
  const below = stdout.slice(stdout.indexOf('\nCommands:'))
  return [...below.matchAll(/^ {2}([a-z]+) /gm)]
    .map(([, name = '']) => name)
    .filter((name) => name !== 'help')
}

describe('README.md', () => {
  test.each(['README.md', 'README.ja.md'])(
    '%s has every command in its table, and no other',
    async (file) => {
      const named = read(file)
        .split('\n')
        .filter((line) => line.startsWith('| `lab '))
        .flatMap((line) => code(line.split('|')[1] ?? ''))
        .flatMap((word) => /^lab ([a-z]+)(?: (?:[A-Z[-].*|[a-z]+|…)|$)/.exec(word)?.[1] ?? [])
      expect([...new Set(named)].sort()).toEqual([...(await commands())].sort())
    },
  )

  test.each(['README.md', 'README.ja.md'])('%s types only commands that there are', async (file) => {
    const known = [...(await commands()), 'help']
    const typed = [...read(file).matchAll(/(?:^|`|&& |npx |Hint: )lab ([a-z]+)\b/gm)].map(
      ([, name = '']) => name,
    )
    expect(typed.length).toBeGreaterThan(20)
    // What messages say of lab itself.
    expect([...new Set(typed)].filter((name) => !known.includes(name) && name !== 'cannot')).toEqual([])
  })

  test('has every exit code, and no other', () => {
    const documented = rows(section(readme, 'For programs')).map(([number]) => Number(number))
    expect(documented).toEqual(Object.values(exitCodes).sort((a, b) => a - b))
  })

  test('has every kind of JSON that is printed, and no other', () => {
    const kinds = (text: string): readonly string[] =>
      [...new Set(text.match(/\blab\.[a-z]+\/v\d\b/g))].sort()
    expect(kinds(readme)).toEqual(kinds(sources.map(read).join('\n')))
  })

  test('has every variable that is read, and no other', () => {
    const variables = (text: string): readonly string[] => [...new Set(text.match(/\bLAB_[A-Z_]+\b/g))].sort()
    expect(variables(readme)).toEqual(variables(sources.map(read).join('\n')))
  })

  test('has every lab that is shipped, with its machines', () => {
    const labs = rows(section(readme, 'The labs')).map(([name = '', machines = '']) => [
      name.replaceAll('`', ''),
      machines.replace(/;.*/, ''),
    ])
    expect(labs.map(([name]) => name).sort()).toEqual(shippedLabs().map(({ name }) => name))
    for (const [name = '', machines = ''] of labs)
      expect(machines.split(', ')).toEqual(
        [...read(`labs/${name}.yaml`).matchAll(/^ {2}- \{ name: (\w+)/gm)].map(([, machine]) => machine),
      )
  })

  test.each(everything.filter((path) => /^[\w.]+\.md$/.test(path)))(
    '%s links to nothing that is not there',
    (file) => {
      const links = [...read(file).matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, link = '']) => link)
      expect(links.filter((link) => !existsSync(join(root, link)))).toEqual([])
    },
  )
})
