/**
 * ARCHITECTURE.md and docs/design match the sources. Rules that eslint.config.js enforces by itself are not tested
 * again.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { describe, expect, test } from 'vitest'
import { code, rows } from './helpers/markdown.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

const architecture = read('ARCHITECTURE.md')
const imports = read('docs/design/imports.md')
const packageJson = JSON.parse(read('package.json')) as Readonly<
  Record<string, Readonly<Record<string, string>>>
>
const dependencies = Object.keys(packageJson['dependencies'] ?? {})
const devDependencies = Object.keys(packageJson['devDependencies'] ?? {})

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
  const places = rows(architecture.slice(architecture.indexOf('| where |'), architecture.indexOf('**Rules')))

  test('ARCHITECTURE.md fits on one page: 60 lines of at most 200 characters', () => {
    const lines = architecture.trimEnd().split('\n')
    expect(lines.length).toBeLessThanOrEqual(60)
    expect(lines.filter((line) => line.length > 200)).toEqual([])
  })

  test('ARCHITECTURE.md has a line for everything in src and for nothing else there', () => {
    const named = places.flatMap(([where = '']) => code(where))
    const inSrc = readdirSync(join(root, 'src'), { withFileTypes: true }).map((entry) =>
      entry.isDirectory() ? `src/${entry.name}/` : entry.name,
    )
    // If several files share a row, the first is written with its folder.
    const wanted = named.filter((name) => name.startsWith('src/') || /^[a-z]+\.ts$/.test(name))
    expect(wanted.map((name) => name.replace(/^src\/([a-z]+\.ts)$/, '$1')).sort()).toEqual(inSrc.sort())
  })

  test.each([
    'ARCHITECTURE.md',
    ...readdirSync(join(root, 'docs/design')).map((name) => `docs/design/${name}`),
    'docs/contributing.md',
  ])('every file and folder that %s names exists', (document) => {
    const named = code(read(document)).filter((word) =>
      /^[\w.-]*\/?(?:[\w.-]+\/)*[\w.-]+\.(?:ts|js|ya?ml|json|hbs)$|^[a-z/-]+\/$/.test(word),
    )
    // Matched by its end, because a table row or a paragraph says in which folder a file is: `up.ts`, in the row of
    // src/plan.
    expect(
      named.filter((word) => !everything.some((path) => `/${path}`.endsWith(`/${word.replace(/\/$/, '')}`))),
    ).toEqual([])
    const onMachines = code(read(document)).filter((word) => word.startsWith('/usr/'))
    expect(onMachines.filter((path) => !existsSync(join(root, 'templates/base', path)))).toEqual([])
  })
})

/** Lines; the first comment of a longer file must say why it is not split. */
const longest = 400

test('no file of src, test and bench has more than 400 lines, unless its first comment says why', () => {
  const others = ['test', 'bench'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.(?:ts|mjs)$/.test(name))
      .map((name) => join(folder, name)),
  )
  const long = [...sources, ...others].filter((path) => read(path).trimEnd().split('\n').length > longest)
  const saysWhy = (path: string): boolean =>
    read(path).slice(0, read(path).indexOf('*/')).includes('Over 400 lines because ')
  expect(long.filter((path) => !saysWhy(path))).toEqual([])
})

test('docs/design/dependencies.md explains every package and names no other', () => {
  const named = rows(read('docs/design/dependencies.md')).flatMap(([packages = '', why = '']) => {
    expect(why).not.toBe('')
    return packages.split(', ')
  })
  expect(named).toEqual(expect.arrayContaining(dependencies))
  expect([...dependencies, ...devDependencies]).toEqual(
    expect.arrayContaining(named.filter((name) => name !== '---')),
  )
})

/** Every source file, parsed once. */
const parsed = new Map(
  sources.map((path) => [path, ts.createSourceFile(path, read(path), ts.ScriptTarget.ES2022, true)]),
)

/**
 * The modules that a source file imports.
 * @param which those that it loads when it runs, also later; or only those that it loads at its start; or also those
 * from which it only takes types
 */
const importsOf = (path: string, which: 'runs' | 'at-start' | 'types' = 'runs'): readonly string[] => {
  const types = which === 'types'
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
    if (
      which !== 'at-start' &&
      ts.isCallExpression(node) &&
      node.expression.kind === ts.SyntaxKind.ImportKeyword
    )
      add(node.arguments[0])
    ts.forEachChild(node, visit)
  }
  const file = parsed.get(path)
  if (file) visit(file)
  return found
}

const ownImports = (path: string, which: 'runs' | 'at-start' | 'types'): readonly string[] =>
  importsOf(path, which)
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => join(dirname(path), specifier.replace(/\.js$/, '.ts')))

/** The files of this project that a file loads. */
const loads = new Map(sources.map((path) => [path, ownImports(path, 'runs')]))

/** Those that it loads at its start. */
const atStart = new Map(sources.map((path) => [path, ownImports(path, 'at-start')]))

/** The files of this project that a file imports, types included. */
const imported = new Map(sources.map((path) => [path, ownImports(path, 'types')]))

/** The unit that a file belongs to in the rules: its folder, or itself; `machine/sh` has its own rules. */
const unitOf = (path: string): string => {
  const inside = relative('src', path).replace(/\.ts$/, '')
  return inside === 'machine/sh' ? inside : (inside.split(sep)[0] ?? inside)
}

/** A path of imports that forms a circle; undefined: there is none. */
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
  /** The list of docs/design/imports.md: each unit with the units that it may import. */
  const rules = new Map<string, readonly string[]>()
  for (const [, rule = ''] of imports.matchAll(/^- (`.*)$/gm)) {
    const [who = '', whom = ''] = rule.replace(/ \(.*\)/, '').split(' ← ')
    const names = (text: string): readonly string[] => text.replaceAll('`', '').split(', ')
    for (const name of names(who))
      rules.set(name, whom === 'nothing' ? [] : whom === 'all of these' ? [...rules.keys()] : names(whom))
  }

  test('the search for imports finds them all', () => {
    expect(loads.get('src/cli.ts')).toEqual(expect.arrayContaining(['src/error.ts', 'src/command/verbs.ts']))
    expect(loads.get('src/up.ts')).not.toContain('src/provider/provider.ts')
    expect([...loads.values()].flat().filter((path) => !sources.includes(path))).toEqual([])
  })

  // The programs that soaks and end-to-end tests start are strings, which no compiler checks.
  test('programs embedded as text in bench and test/e2e import only what src exports', () => {
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
  test('the imports between folders are those that docs/design/imports.md allows', () => {
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

  test('eslint.config.js enforces the allowed imports folder by folder', async () => {
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
      const folder = /^src\/([a-z-]+)\/\*\*/.exec(String(files?.[0]))?.[1]
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

  test('every file of src/command is a verb, part of one, or the list of verbs', () => {
    const folder = 'src/command'
    const listed = ['verbs.ts']
    for (const name of listed)
      for (const path of loads.get(`${folder}/${name}`) ?? [])
        if (dirname(path) === folder && !listed.includes(basename(path))) listed.push(basename(path))
    const modules = readdirSync(join(root, folder)).filter((name) => name !== 'verbs.ts')
    expect(modules.filter((name) => !listed.includes(name))).toEqual([])
    // Parts of the group `lab class`: a long verb, and what its verbs do on other hosts.
    const parts = ['class-up.ts', 'class-hosts.ts']
    const isVerb = (name: string): boolean =>
      parts.includes(name) || /^export const verbs?: /m.test(read(`${folder}/${name}`))
    expect(modules.filter((name) => !isVerb(name))).toEqual([])
  })

  test('no files and no folders import each other in a circle', () => {
    expect(
      circle(
        new Map([
          ['a', ['b']],
          ['b', ['c']],
          ['c', ['b']],
        ]),
      ),
    ).toEqual(['b', 'c', 'b'])
    expect(circle(imported)).toBeUndefined()
    const units = new Map<string, string[]>()
    for (const [from, to] of imported)
      units.set(unitOf(from), [
        ...(units.get(unitOf(from)) ?? []),
        ...to.map(unitOf).filter((unit) => unit !== unitOf(from)),
      ])
    expect(circle(units)).toBeUndefined()
  })

  /** The files that these load at their start, directly or through one another, and the packages that those load. */
  const loadedBy = (...first: readonly string[]) => {
    const files = [...first]
    const packages = new Set<string>()
    for (const path of files) {
      for (const next of atStart.get(path) ?? []) if (!files.includes(next)) files.push(next)
      for (const name of importsOf(path, 'at-start').filter((each) => !/^(node:|\.)/.test(each)))
        packages.add(name)
    }
    return { files, packages: [...packages] }
  }

  // Packages take most of the time: 0.4 s of processor time for those that bring a lab up.
  test.each(['list', 'status', 'events', 'snapshots', 'logs', 'ssh'])(
    'lab %s starts without parsers, connections and plans',
    (verb) => {
      const { files, packages } = loadedBy('src/cli.ts', `src/command/${verb}.ts`)
      expect(packages).toEqual(['commander'])
      expect(files.length).toBeLessThanOrEqual(30)
    },
  )

  test('lab report starts without the template engine that writes the page', () => {
    expect(loadedBy('src/cli.ts', 'src/command/report.ts').packages.sort()).toEqual([
      'commander',
      'fastest-levenshtein',
      'zod',
    ])
  })

  test.each(['uml/uml', 'vagrant/vagrant'])(
    'the provider %s observes machines without any package',
    (module) => {
      const { files, packages } = loadedBy(`src/provider/${module}.ts`)
      expect(packages).toEqual([])
      expect(files.length).toBeLessThanOrEqual(25)
    },
  )

  test('the supervisor imports only Node modules, because it has to start fast', () => {
    for (const program of ['supervisor', 'dial']) {
      const [own, foreign] = [[`src/provider/uml/${program}.ts`], [] as string[]]
      for (const path of own) {
        for (const next of loads.get(path) ?? []) if (!own.includes(next)) own.push(next)
        foreign.push(...importsOf(path).filter((name) => !name.startsWith('node:') && !name.startsWith('.')))
      }
      expect(foreign).toEqual([])
      // What locks and classes use as well, and needs nothing but Node.
      const shared = ['src/processes.ts']
      expect(own.filter((path) => !path.startsWith('src/provider/uml/') && !shared.includes(path))).toEqual(
        [],
      )
    }
  })

  test('the names of the files in the folder of a lab are in src/state.ts only', () => {
    const others = sources.filter((path) => path !== 'src/state.ts')
    expect(others.filter((path) => /join\(\s*pathsOf\([^)]*\)\.root,/.test(read(path)))).toEqual([])
  })

  test('package.json declares exactly the packages that src imports', () => {
    const used = sources
      .flatMap((path) => importsOf(path))
      .filter((name) => !name.startsWith('.') && !name.startsWith('node:'))
      .map((name) =>
        name
          .split('/')
          .slice(0, name.startsWith('@') ? 2 : 1)
          .join('/'),
      )
    // The gateway serves these to browsers, but does not import them.
    const served = ['@xterm/addon-fit', '@xterm/xterm']
    expect([...new Set([...used, ...served])].sort()).toEqual([...dependencies].sort())
  })
})
