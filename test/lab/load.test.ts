import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { exitCodes } from '../../src/error.js'
import { podRangeOf, type Lab } from '../../src/lab/lab.js'
import { loadLab, parseLab } from '../../src/registry.js'
import { shipped } from '../helpers/shipped.js'
import { initLab } from '../../src/lab/load.js'
import { LabFileError } from '../../src/lab/parse.js'
import { schemaFile } from '../../src/lab/schema.js'
import { here, problemsOf, versions } from './problems.js'

const yamlIn = (folder: string): string[] =>
  readdirSync(join(here, folder)).filter((file) => file.endsWith('.yaml'))

/** The path of a lab file differs between clones. */
const withoutFile = (lab: Lab): object => ({
  ...lab,
  file: undefined,
  ...(lab.manifests === undefined ? {} : { manifests: relative(join(here, '..', '..'), lab.manifests) }),
})

describe('invalid files', () => {
  test.each(yamlIn('invalid'))('an invalid file is refused: %s', async (file) => {
    const text = readFileSync(join(here, 'invalid', file), 'utf8')
    const error = problemsOf(text, `test/lab/invalid/${file}`)
    expect(error.exitCode).toBe(exitCodes.usage)
    expect(error.code).toBe('bad-lab-file')
    expect(error.hint).toBe(`lab validate test/lab/invalid/${file}`)
    await expect(`${error.message}\n`).toMatchFileSnapshot(`invalid/${file.replace('.yaml', '.txt')}`)
  })
})

describe('valid files', () => {
  test.each(yamlIn('valid'))('a valid file is accepted: %s', async (file) => {
    const lab = parseLab(readFileSync(join(here, 'valid', file), 'utf8'), file, versions)
    await expect(`${JSON.stringify(withoutFile(lab), null, 2)}\n`).toMatchFileSnapshot(
      `valid/${file.replace('.yaml', '.json')}`,
    )
  })

  test('the shipped labs load with their defaults', async () => {
    expect(shipped.map(({ name }) => name)).toEqual([
      'cassandra',
      'control-planes',
      'deployment',
      'deployment-ha',
      'hacmp',
      'iscsi',
      'iscsi-ha',
      'iscsi-pair',
      'replicaset',
      'statefulset',
      'wordpress',
      'zookeeper',
    ])
    for (const { name, file, description } of shipped) {
      const lab = await loadLab(name)
      expect(lab).toMatchObject({ name, file, description })
      expect(description).not.toBe('')
      await expect(`${JSON.stringify(withoutFile(lab), null, 2)}\n`).toMatchFileSnapshot(`valid/${name}.json`)
    }
  })

  test('a byte order mark and Windows line ends are accepted', () => {
    const text = readFileSync(join(here, 'valid', 'nasty-secrets.yaml'), 'utf8')
    const plain = parseLab(text, 'lab.yaml', versions)
    expect(parseLab(`\ufeff${text.replaceAll('\n', '\r\n')}`, 'lab.yaml', versions)).toEqual(plain)
  })

  test('the default pod range follows from the host number', async () => {
    const lab = await loadLab('iscsi-ha')
    const ranges = lab.machines.slice(1).map((machine) => podRangeOf(lab, machine))
    expect(ranges).toEqual(['10.244.11.0/24', '10.244.21.0/24', '10.244.22.0/24'])
    const wide = parseLab(readFileSync(join(here, 'valid', 'other-subnet.yaml'), 'utf8'), 'x', versions)
    expect(wide.machines.map((machine) => podRangeOf(wide, machine))).toEqual([
      '10.128.2.0/24',
      '10.131.254.0/24',
    ])
  })
})

describe('input that is hard to report on', () => {
  const many = (count: number, line: (index: number) => string): string =>
    Array.from({ length: count }, (_, index) => line(index)).join('\n')

  test.each([
    ['nothing', '', 'lab.yaml  is empty; lab init NAME writes a file to start from'],
    ['white space', ' \n\n', 'lab.yaml  is empty; lab init NAME writes a file to start from'],
    ['comments', '# a\n# b\n', 'lab.yaml  contains only comments; lab init NAME writes a file to start from'],
    ['a marker', '---\n', 'lab.yaml  contains only comments; lab init NAME writes a file to start from'],
    [
      'a list',
      '- a\n',
      'lab.yaml:1:1  is a list of 1; expected a mapping that begins with apiVersion: lab/v1',
    ],
    ['a word', 'hello', 'lab.yaml:1:1  "hello": expected a mapping that begins with apiVersion: lab/v1'],
    [
      'an alias in its own anchor',
      'kubernetes:\n  kubelet: &a { x: *a }\n',
      'lab.yaml  an alias (*name) is inside its own anchor (&name); write the value itself',
    ],
    [
      'aliases that multiply',
      `a0: &a0 [x, x]\n${many(30, (n) => `a${String(n + 1)}: &a${String(n + 1)} [*a${String(n)}, *a${String(n)}]`)}`,
      'lab.yaml  its aliases (*name) multiply into far too many values; write the values themselves',
    ],
  ])('input that is hard to report on is reported at its place: %s', (_, text, message) => {
    expect(problemsOf(text).message).toBe(message)
  })

  test.each(['[', '{ a: ', '- ', '? ', '&a [', '[? '])(
    'deep nesting with %j does not crash the process',
    (opening) => {
      const { message } = problemsOf(`kubernetes:\n  kubelet:\n    ${opening.repeat(20_000)}`)
      expect(message).toMatch(/^lab.yaml:3:\d+ {2}nested too deeply for a lab file\n/)
    },
  )

  test('a long file of another format is refused quickly', () => {
    const { problems } = problemsOf(many(30_000, (index) => `k${String(index)}: 1`))
    expect(problems).toHaveLength(201)
    expect(problems.at(-1)?.message).toBe('and 29803 more problems')
    // Two seconds alone, ten times that next to other tests; comparing every key with every other took minutes.
  }, 60_000)

  test('more than a hundred aliases are refused', () => {
    const text = `a: &a 1\nb:\n${many(101, () => '  - *a')}`
    expect(problemsOf(text).message).toMatch(/^lab.yaml:3:5 {2}the first of 101 aliases/)
  })

  test.each(['{ a: 1 }: x', '? [a]\n: x', ': x', 'null: x', '&a b: 1\n*a : 2'])(
    'an empty key is refused: %j',
    (text) => {
      expect(problemsOf(text).message).toMatch(
        /^lab.yaml:\d:\d {2}not a key; expected a word before the colon/,
      )
    },
  )

  test('control characters of a file never reach the terminal', () => {
    const { message } = problemsOf('"\u001b[31mred\\e[0m": 1\nname: "a\\e[31m\\u202e"\n')
    // eslint-disable-next-line no-control-regex
    expect(message).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
  })

  test('no message contains a secret', () => {
    const text = readFileSync(join(here, 'valid', 'nasty-secrets.yaml'), 'utf8')
      .replace(/username: .*/, 'username: "hush\\n"')
      .replace(/password: .*/, 'password: " hush"')
    const { message, problems } = problemsOf(text)
    expect(problems).toHaveLength(2)
    expect(message).not.toContain('hush')
  })

  test('no message contains a password that YAML reads as a number', () => {
    const text = readFileSync(join(here, 'valid', 'nasty-secrets.yaml'), 'utf8')
    const { message } = problemsOf(text.replace(/password: .*/, 'password: 31415926'))
    expect(message).toBe(
      'lab.yaml:12:19  iscsi.targets[0].chap.password: YAML reads it as a number; put it in quotes',
    )
  })

  test('the place of a problem is right with Windows line ends', () => {
    const { problems } = problemsOf('apiVersion: lab/v1\r\nname: x\r\nmachines:\r\n  - cpu: 1\r\n')
    expect(problems.find(({ field }) => field === 'machines[0].cpu')).toMatchObject({ line: 4, column: 5 })
  })

  test('a document marker is accepted before the only document, and a second one is refused', () => {
    const text = initLab('marker')
    expect(parseLab(`---\n${text}`, 'lab.yaml').name).toBe('marker')
    expect(parseLab(`---\n${text}...\n`, 'lab.yaml').name).toBe('marker')
    expect(problemsOf(`---\nname: a\n---\nname: b\n`).message).toContain('lab.yaml:3:1  a second document')
  })

  test('the hint quotes a file name that a shell would split', () => {
    expect(problemsOf('', 'my lab.yaml').hint).toBe("lab validate 'my lab.yaml'")
  })

  test('a mapping named __proto__ is an unknown field', () => {
    expect(problemsOf('__proto__: { polluted: 1 }\n').message).toContain('__proto__: unknown field')
    expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  })
})

describe('any mutation of a lab file is reported as an error in the file', { timeout: 180_000 }, () => {
  // One file has every fault; the many scenarios of iscsi-ha would only take time.
  const text = [
    readFileSync(join(schemaFile, '..', 'iscsi-ha.yaml'), 'utf8').replace(/^scenarios:[^]*/m, ''),
    ...['two-targets', 'every-fault'].map((name) =>
      readFileSync(join(here, 'valid', `${name}.yaml`), 'utf8'),
    ),
  ]
  const tryOut = (broken: string): void => {
    try {
      parseLab(broken, 'lab.yaml', versions)
    } catch (error) {
      if (!(error instanceof LabFileError))
        throw new Error(`not a LabFileError for:\n${broken}`, { cause: error })
      for (const { line = 1, column = 1, message } of error.problems) {
        expect(line).toBeGreaterThan(0)
        expect(column).toBeGreaterThan(0)
        expect(message).not.toMatch(/undefined|\[object|NaN|Invalid input/)
      }
    }
  }

  /** Every path in a value, so that `set` can replace what is there. */
  const pathsOf = (value: unknown, path: string[] = []): string[][] =>
    typeof value === 'object' && value !== null
      ? [path, ...Object.entries(value).flatMap(([key, child]) => pathsOf(child, [...path, key]))]
      : [path]

  const set = (value: unknown, path: readonly string[], other: unknown): unknown => {
    const [key, ...rest] = path
    if (key === undefined) return other
    const copy = Array.isArray(value) ? [...(value as unknown[])] : { ...(value as object) }
    const owner = copy as Record<string, unknown>
    owner[key] = set(owner[key], rest, other)
    return copy
  }

  test.each(text)('an unusual value in any place is reported as an error in the file', (whole) => {
    const value: unknown = parse(whole)
    for (const path of pathsOf(value)) {
      for (const odd of [null, true, -1, 2 ** 60, 0.5, '', 'x', '\u0000', [], [null], {}, { a: 1 }]) {
        tryOut(JSON.stringify(set(value, path, odd)))
      }
    }
  })

  test.each(text)('a missing, shortened or doubled line is reported as an error in the file', (whole) => {
    const lines = whole.split('\n')
    lines.forEach((line, index) => {
      const before = lines.slice(0, index)
      const after = lines.slice(index + 1)
      for (const other of [
        [],
        [line, line],
        [line.slice(0, line.length / 2)],
        [`${line}:`],
        [` ${line}`],
        [`\t${line}`],
      ]) {
        tryOut([...before, ...other, ...after].join('\n'))
      }
      tryOut([...before, line].join('\n'))
    })
  })
})
