/** The documents are true: links, commands, exit codes, labs, generated parts. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { execa } from 'execa'
import { beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { exitCodes } from '../src/error.js'
import { shipped } from './helpers/shipped.js'
import { cli } from './helpers/cli.js'
import { code, rows, section } from './helpers/markdown.js'
import { blocksOf } from './helpers/readme.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const within = (folder: string, ending: string): readonly string[] =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending))
    .map((name) => join(folder, name))

const documents = [...readdirSync(root).filter((name) => name.endsWith('.md')), ...within('docs', '.md')]
const sources = within('src', '.ts').map(read).join('\n')
const english = documents.filter((path) => path !== 'README.ja.md' && !path.startsWith('docs/ja/'))
const readmes = ['README.md', 'README.ja.md'] as const
/** Each Japanese document with the English one that it translates. */
const translations = [
  { japanese: 'README.ja.md', original: 'README.md' },
  ...within('docs/ja', '.md').map((japanese) => ({ japanese, original: japanese.replace('/ja/', '/') })),
]
const script = <T>(path: string): Promise<T> => import(pathToFileURL(join(root, path)).href) as Promise<T>

/** Anchors of a document's headings, as GitHub makes them. */
const anchorsOf = (text: string): readonly string[] =>
  [...text.replace(/^```[^]*?^```$/gm, '').matchAll(/^#{1,6} (.*)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .trim()
      .replace(/\s/g, '-'),
  )

/** Dead links: to a file that does not exist, or to a heading that the file does not have. */
const deadLinks = (file: string, text = read(file)): readonly string[] =>
  [...text.replace(/^```[^]*?^```$/gm, '').matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, link = '']) => link)
    .filter((link) => !/^https?:/.test(link))
    .filter((link) => {
      const [path = '', anchor] = link.split('#')
      const target = path === '' ? file : relative(root, join(root, dirname(file), path))
      if (!existsSync(join(root, target))) return true
      return anchor !== undefined && !anchorsOf(path === '' ? text : read(target)).includes(anchor)
    })

/** The commands that `lab --help` lists, except `help`. */
let commands: readonly string[] = []
beforeAll(async () => {
  const { stdout } = await execa(process.execPath, [cli, '--help'], { env: { COLUMNS: '200' } })
  const below = stdout.slice(stdout.indexOf('\nCommands:'))
  commands = [...below.matchAll(/^ {2}([a-z]+) /gm)]
    .map(([, name = '']) => name)
    .filter((name) => name !== 'help')
})

describe('links', () => {
  test('the link checker distinguishes a dead file, a dead anchor and a live link', () => {
    const text = '# A heading, here\n[1](missing.md) [2](#a-heading-here) [3](#none) [4](docs/limits.md#none)'
    expect(deadLinks('README.md', text)).toEqual(['missing.md', '#none', 'docs/limits.md#none'])
  })

  test.each(documents)('every link of %s leads somewhere', (file) => {
    expect(deadLinks(file)).toEqual([])
  })
})

describe('command blocks', () => {
  test('every command block of README.md is run by a test or by .ci/run', () => {
    const tests = within('test/e2e', '.ts').map(read).join('\n')
    const blocks = blocksOf('README.md')
    const run = blocks.filter(
      ({ name, script: typed }) =>
        name !== undefined &&
        (tests.includes(`bench.readme('${name}')`) ||
          (name === 'ci' && read('.ci/run').includes(typed.trim()))),
    )
    expect(blocks.filter((block) => !run.includes(block))).toEqual([])
    expect(run.length).toBeGreaterThan(4)
  })

  test('README.ja.md has the names of command blocks that README.md has', () => {
    const names = (file: string) => blocksOf(file).map(({ name }) => name)
    expect(names('README.ja.md')).toEqual(names('README.md'))
  })

  test.each(documents)('every command in %s exists in lab', (file) => {
    const typed = [...read(file).matchAll(/(?:^|`|&& |npx |Hint: )lab ([a-z]+)\b/gm)].map(
      ([, name = '']) => name,
    )
    // In messages, `lab cannot` is not a command.
    const known = [...commands, 'help', 'cannot']
    expect([...new Set(typed)].filter((name) => !known.includes(name))).toEqual([])
  })

  test('every npm script that a document names exists in package.json', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Readonly<Record<string, string>> }
    const named = documents.flatMap((file) =>
      [...read(file).matchAll(/npm run ([\w:]+)/g)].map(([, name = '']) => name),
    )
    expect(named).toContain('generate')
    expect(named.filter((name) => !(name in scripts))).toEqual([])
  })
})

/**
 * What both languages must have in common: the levels of headings, the rows of tables, the items of lists, and all
 * code.
 */
const shapeOf = (text: string): readonly string[] =>
  text.split('\n').flatMap((line) => {
    const [heading] = /^#+(?= )/.exec(line) ?? []
    if (heading !== undefined) return [heading]
    if (line.startsWith('| ')) return ['row']
    if (/^(- |\d+\. |!\[)/.test(line)) return ['item']
    return line.startsWith('```') ? [line] : []
  })
/** Code without its comments, which are translated. */
const codeOf = (text: string): readonly string[] =>
  [...text.matchAll(/^```\w+\n([^]*?)^```$/gm)].flatMap(([, block = '']) =>
    block.split('\n').map((line) => line.replace(/ *#(?![^']*' \}).*$/, '').trim()),
  )

describe('what is translated', () => {
  test.each(translations)(
    '$japanese has the sections, tables, lists and code of $original',
    ({ japanese, original }) => {
      expect(shapeOf(read(japanese))).toEqual(shapeOf(read(original)))
      expect(codeOf(read(japanese))).toEqual(codeOf(read(original)))
    },
  )

  test.each([
    ...translations.map(({ japanese }) => japanese),
    ...within('labs/learn', 'ja.md'),
    ...['src/learn/screen.ts', 'src/class/cards.ts', 'templates/class/files/desk.js'],
  ])('%s uses one Japanese word for one thing', (file) => {
    const text = read(file)
    const banned = [
      ...['ポッド', '報告書', '予算', '空白', '材料', 'ディレクトリ', 'レジャー', 'ターミナル'],
      ...['サーバー', 'クラスター', 'フォルダー', 'コンピューター', 'ブラウザー', 'コントローラー'],
      ...['ユーザ名', '読み返'],
    ]
    expect(banned.filter((word) => text.includes(word))).toEqual([])
    // There must be a space between a Latin word and Japanese text.
    expect(text.match(/(?:Pod|box)(?=[ぁ-んァ-ヶ一-龠])/g) ?? []).toEqual([])
  })
})

describe('what is documented', () => {
  test.each(['docs/commands.md', 'docs/ja/commands.md'])(
    '%s documents every command and no other',
    (file) => {
      const named = rows(read(file))
        .flatMap(([typed = '']) => code(typed))
        .flatMap((word) => /^lab ([a-z]+)(?: (?:[A-Z[-].*|[a-z]+|…)|$)/.exec(word)?.[1] ?? [])
      expect([...new Set(named)].sort()).toEqual([...commands].sort())
    },
  )

  test('the documents list every exit code and no other', () => {
    const documented = rows(section(read('docs/commands.md'), 'For programs')).map(([number]) =>
      Number(number),
    )
    expect(documented).toEqual(Object.values(exitCodes).sort((a, b) => a - b))
  })

  test('the documents list every kind of printed JSON and no other', () => {
    const kinds = (text: string): readonly string[] =>
      [...new Set(text.match(/\blab\.[a-z]+\/v\d\b/g))].sort()
    expect(kinds(read('docs/commands.md'))).toEqual(kinds(sources))
  })

  test('the documents list every environment variable that lab reads and no other', () => {
    const variables = (text: string): readonly string[] => [...new Set(text.match(/\bLAB_[A-Z_]+\b/g))].sort()
    expect(variables(english.map(read).join('\n'))).toEqual(variables(sources))
  })

  test('every message in docs/troubleshooting.md occurs in the sources', () => {
    const printed = [sources, ...within('parts', '.sh').map(read)].join('\n').replace(/\$\{[^}]*\}/g, '…')
    const listed = rows(read('docs/troubleshooting.md'))
      .flatMap(([message = '']) => code(message))
      // npm and Kubernetes print the first two of these; the third one is an example of a place.
      .filter((message) => !/^(npm error|'fsck' found|my-lab\.yaml)/.test(message))
      .flatMap((message) => message.split('…').map((part) => part.trim()))
      .filter((part) => part.length > 12)
    expect(listed.length).toBeGreaterThan(20)
    expect(listed.filter((part) => !printed.includes(part))).toEqual([])
  })

  test.each(readmes)('%s lists every shipped lab with its machines', (file) => {
    const labs = rows(section(read(file), file === 'README.md' ? 'The labs' : 'ラボ')).map(
      ([name = '', machines = '']) =>
        [name.replaceAll('`', ''), machines.replace(/[;(].*/, '').trim()] as const,
    )
    expect(labs.map(([name]) => name).sort()).toEqual(shipped.map(({ name }) => name))
    for (const [name, machines] of labs)
      expect(machines.split(', ')).toEqual(
        [...read(`labs/${name}.yaml`).matchAll(/^ {2}- \{ name: (\w+)/gm)].map(([, machine]) => machine),
      )
  })
})

describe('what is generated', () => {
  test('docs/lab-file-reference.md matches the schema', async () => {
    const { reference } = await script<{ reference: (schema: unknown) => string }>('docs/reference.mjs')
    expect(read('docs/lab-file-reference.md')).toBe(reference(JSON.parse(read('labs/lab.schema.json'))))
  })

  test('the picture of the topology matches the lab file', async () => {
    const { topology } = await script<{ topology: (lab: unknown) => string }>('docs/pictures/topology.mjs')
    expect(read('docs/pictures/topology.svg')).toBe(topology(parse(read('labs/iscsi-ha.yaml'))))
  })

  test('a recording says when it plays faster than real time, and ends on its last screen', async () => {
    const { recording } = await script<{
      recording: (cast: string, options: { command: string; seconds: number }) => string
    }>('docs/pictures/recording.mjs')
    const lines = Array.from({ length: 60 }, (_, second) => [
      second,
      'o',
      `\u001b[32mstep ${String(second)}\u001b[39m\r\n`,
    ])
    const cast = [{ version: 2, width: 40, height: 5 }, ...lines]
      .map((line) => JSON.stringify(line))
      .join('\n')
    const svg = recording(cast, { command: 'lab up <x>', seconds: 10 })
    expect(svg).toContain('lab up &#60;x&#62;: 59 s, shown in 10 s')
    expect(svg).toContain('<tspan class="green">step 59</tspan>')
    expect(svg).toContain('prefers-reduced-motion')
    expect(svg).not.toMatch(/<script|href="(?!#)/)
  })
})
