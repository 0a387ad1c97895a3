import { execa } from 'execa'
import { existsSync, readdirSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { LabError } from '../../src/error.js'
import { Cache } from '../../src/parts/cache.js'
import { buildParts, hashesOf, type Part } from '../../src/parts/graph.js'
import type { PartProgress } from '../../src/provider/provider.js'
import { projectRoot } from '../../src/render.js'

let folder: string
let cache: Cache

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lab-parts-'))
  cache = new Cache(join(folder, 'cache'))
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

interface FakePart extends Partial<Part> {
  readonly id: string
  /** What a shell runs; `$OUT`, `$WORK` and `$NEEDS` are set. */
  readonly script?: string
}

/** A part that a real shell makes in a real sandbox. */
const fake = ({ id, script = 'echo made > $OUT/file', ...rest }: FakePart): Part => ({
  id,
  title: `Part ${id}`,
  needs: [],
  lane: id,
  values: script,
  files: [],
  reference: { seconds: 1, lines: 1, mebibytes: 1 },
  build: async (build) => {
    await build.run(['bash', '-euc', script], {
      environment: {
        OUT: build.out,
        WORK: build.work,
        NEEDS: (rest.needs ?? []).map((need) => build.need(need)).join(' '),
      },
    })
  },
  ...rest,
})

const build = async (
  parts: readonly Part[],
  targets = [parts.at(-1)?.id ?? ''],
  signal: AbortSignal = new AbortController().signal,
): Promise<PartProgress[]> => {
  const seen: PartProgress[] = []
  await buildParts(parts, targets, cache, {
    signal,
    notice: () => undefined,
    progress: (update) => void seen.push(update),
  })
  return seen
}

const states = (seen: readonly PartProgress[], id: string): string[] => [
  ...new Set(seen.filter(({ part }) => part === id).map(({ state }) => state)),
]

const outputOf = (parts: readonly Part[], id: string, file = 'file'): Promise<string> =>
  readFile(join(cache.path(`${id}-${hashesOf(parts).get(id) ?? ''}`), file), 'utf8')

describe('what a change rebuilds', () => {
  const graph = (change: Partial<Record<string, unknown>>, file = join(folder, 'input')): Part[] => [
    fake({ id: 'compiler', values: change['compiler'] ?? 1 }),
    fake({ id: 'kernel', needs: ['compiler'], values: change['kernel'] ?? 1, files: [file] }),
    fake({ id: 'program', needs: ['compiler'], values: change['program'] ?? 1 }),
    fake({ id: 'system', values: change['system'] ?? 1 }),
    fake({ id: 'disk', needs: ['program', 'system'], values: change['disk'] ?? 1 }),
  ]

  test.each([
    { changed: 'compiler', rebuilt: ['compiler', 'kernel', 'program', 'disk'] },
    { changed: 'kernel', rebuilt: ['kernel'] },
    { changed: 'program', rebuilt: ['program', 'disk'] },
    { changed: 'system', rebuilt: ['system', 'disk'] },
    { changed: 'disk', rebuilt: ['disk'] },
  ])('$changed: $rebuilt', async ({ changed, rebuilt }) => {
    await writeFile(join(folder, 'input'), 'one')
    const before = hashesOf(graph({}))
    const after = hashesOf(graph({ [changed]: 2 }))
    expect([...after].filter(([id, hash]) => before.get(id) !== hash).map(([id]) => id)).toEqual(rebuilt)
  })

  test('the content of a file, its name and its permission count; its date does not', async () => {
    const input = join(folder, 'input')
    await writeFile(input, 'one')
    const before = hashesOf(graph({})).get('kernel')
    await writeFile(input, 'one')
    expect(hashesOf(graph({})).get('kernel')).toBe(before)
    await writeFile(input, 'two')
    const other = hashesOf(graph({})).get('kernel')
    expect(other).not.toBe(before)
    await chmod(input, 0o755)
    expect(hashesOf(graph({})).get('kernel')).not.toBe(other)
    await writeFile(join(folder, 'other'), 'one')
    expect(hashesOf(graph({}, join(folder, 'other'))).get('kernel')).not.toBe(before)
  })
})

describe('building', () => {
  const chain = (): Part[] => [
    fake({ id: 'a' }),
    fake({
      id: 'b',
      needs: ['a'],
      script: 'cat $NEEDS/file > $OUT/file; echo more >> $OUT/file; touch $WORK/scratch',
    }),
  ]

  test('each part once, after what it needs; the second time nothing', async () => {
    const first = await build(chain())
    expect(states(first, 'a')).toEqual(['waiting', 'building', 'built'])
    expect(states(first, 'b')).toEqual(['waiting', 'building', 'built'])
    expect(first.every(({ total }) => total === 2)).toBe(true)
    expect(await outputOf(chain(), 'b')).toBe('made\nmore\n')
    expect(states(await build(chain()), 'b')).toEqual(['cached'])
    expect(readdirSync(join(cache.root, 'parts'))).toHaveLength(2)
  })

  test('what is only on the way to a target that is there is not built again', async () => {
    await build(chain())
    const a = hashesOf(chain()).get('a') ?? ''
    await rm(cache.path(`a-${a}`), { recursive: true })
    expect(states(await build(chain()), 'a')).toEqual([])
    expect(cache.has(`a-${a}`)).toBe(false)
  })

  test('parts of one lane one after another, lanes side by side', async () => {
    const together = join(folder, 'together')
    // Each waits for the other to have started: that ends only if both run.
    const meet = (id: string, other: string): Part =>
      fake({ id, script: `touch ${together}-${id}; until [ -e ${together}-${other} ]; do sleep 0.05; done` })
    const alone = (id: string): Part =>
      fake({ id, lane: 'same', script: `mkdir ${folder}/alone; sleep 0.2; rmdir ${folder}/alone` })
    const parts = [meet('x', 'y'), meet('y', 'x'), alone('p'), alone('q')]
    await build(parts, ['x', 'y', 'p', 'q'])
    expect(readdirSync(join(cache.root, 'parts'))).toHaveLength(4)
  })

  test('tells at least once a second how far it is and what was printed last', async () => {
    const part = fake({
      id: 'slow',
      script: 'for i in 1 2 3 4 5; do echo line $i; sleep 0.5; done',
      reference: { seconds: 3, lines: 5, mebibytes: 1 },
    })
    const seen = (await build([part])).filter(({ state }) => state === 'building')
    expect(seen.length).toBeGreaterThanOrEqual(3)
    expect(seen.at(-1)?.note).toMatch(/^line \d$/)
    expect(seen.at(-1)?.fraction).toBeGreaterThan(0.3)
    expect(seen.at(-1)?.remaining).toBeLessThan(3)
    expect(await readFile(seen.at(-1)?.log ?? '', 'utf8')).toContain('line 1\nline 2\n')
  })

  test('two at once build it once: the second waits and says so', async () => {
    const count = join(folder, 'count')
    const parts = [fake({ id: 'shared', script: `echo x >> ${count}; sleep 1; echo made > $OUT/file` })]
    const other = { signal: new AbortController().signal, seen: [] as PartProgress[] }
    await Promise.all([
      build(parts),
      delay(200).then(() =>
        buildParts(parts, ['shared'], new Cache(cache.root), {
          signal: other.signal,
          notice: () => undefined,
          progress: (update) => void other.seen.push(update),
        }),
      ),
    ])
    expect(await readFile(count, 'utf8')).toBe('x\n')
    expect(
      other.seen.some(
        ({ state, note }) => state === 'waiting' && /process \d+ is building it/.test(note ?? ''),
      ),
    ).toBe(true)
    expect(other.seen.at(-1)?.state).toBe('cached')
  })
})

describe('failures', () => {
  const failureOf = async (parts: readonly Part[]): Promise<LabError> => {
    const error: unknown = await build(parts).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(LabError)
    return error as LabError
  }

  test('one error with its reason and log; nothing half-made stays; the others are ended', async () => {
    const parts = [
      fake({ id: 'endless', script: 'sleep 1000' }),
      fake({ id: 'broken', script: 'echo foo.c:3: error: expected; sleep 0.3; exit 2' }),
      fake({ id: 'last', needs: ['endless', 'broken'] }),
    ]
    const started = Date.now()
    const error = await failureOf(parts)
    expect(error.code).toBe('part-failed')
    expect(error.message).toBe('Part broken: bash ended with exit code 2: foo.c:3: error: expected')
    expect(await readFile(error.log ?? '', 'utf8')).toContain('expected')
    expect(Date.now() - started).toBeLessThan(5000)
    expect(await readdir(join(cache.root, 'parts'))).toEqual([])
  })

  test.each([
    {
      said: "E: Failed to fetch http://deb.debian.org/debian/x  Temporary failure resolving 'deb.debian.org'",
      code: 'debian-mirror',
    },
    { said: 'cc1: fatal error: /tmp/x.s: No space left on device', code: 'disk-full' },
    { said: 'go: link: signal: killed', code: 'out-of-memory' },
    { said: 'E: Unable to locate package nonsense', code: 'debian-package' },
  ])('$code', async ({ said, code }) => {
    const error = await failureOf([fake({ id: 'broken', script: `echo "${said}" >&2; exit 1` })])
    expect(error.code).toBe(code)
    expect(error.hint).toBeTruthy()
  })

  test('a command that the host does not have', async () => {
    const part = fake({ id: 'broken', build: (made) => made.run(['lab-has-no-such-program']) })
    expect((await failureOf([part])).message).toContain('lab-has-no-such-program')
  })

  test('too little disk space, before anything is built', async () => {
    const part = fake({ id: 'huge', reference: { seconds: 1, lines: 1, mebibytes: 1e12 } })
    const error = await failureOf([part])
    expect(error.code).toBe('disk-space')
    expect(error.exitCode).toBe(3)
    expect(existsSync(join(cache.root, 'parts'))).toBe(false)
  })
})

describe('being ended', () => {
  const alive = async (marker: string): Promise<boolean> =>
    (await execa('pgrep', ['-f', marker], { reject: false })).exitCode === 0

  test('an abort kills all that was started, and leaves nothing', async () => {
    const stop = new AbortController()
    const marker = `31${String(process.pid)}`
    const parts = [
      fake({
        id: 'endless',
        script: `(sleep ${marker} & sleep ${marker}) & trap '' TERM; sleep ${marker}; wait`,
      }),
    ]
    const running = build(parts, ['endless'], stop.signal).catch((error: unknown) => error)
    while (!(await alive(`sleep ${marker}`))) await delay(20)
    stop.abort()
    expect(await running).toMatchObject({ code: 'interrupted' })
    for (let i = 0; i < 50 && (await alive(`sleep ${marker}`)); i++) await delay(20)
    expect(await alive(`sleep ${marker}`)).toBe(false)
    expect(await readdir(join(cache.root, 'parts'))).toEqual([])
  })

  test('kill -9 in the middle: processes and mounts go, and the next run builds it', async () => {
    const mounted = join(folder, 'mounted')
    await mkdir(mounted)
    const marker = `32${String(process.pid)}`
    const script = `
      if [ -e ${folder}/again ]; then echo made > $OUT/file; exit; fi
      mount -t tmpfs lab ${mounted}; touch $OUT/half; sleep ${marker}`
    const victim = execa('node', ['--input-type=module'], {
      input: `
        import { buildParts } from '${join(projectRoot, 'dist/parts/graph.js')}'
        import { Cache } from '${join(projectRoot, 'dist/parts/cache.js')}'
        const part = {
          id: 'x', title: 'x', needs: [], lane: 'x', files: [], values: process.env.SCRIPT,
          reference: { seconds: 1, lines: 1, mebibytes: 1 },
          build: ({ run, out }) => run(['bash', '-euc', process.env.SCRIPT], { environment: { OUT: out } }),
        }
        await buildParts([part], ['x'], new Cache(process.env.CACHE),
          { signal: new AbortController().signal, progress: () => undefined })`,
      env: { SCRIPT: script, CACHE: cache.root },
      reject: false,
    })
    for (let i = 0; i < 500 && !(await alive(`sleep ${marker}`)); i++) await delay(20)
    expect(readdirSync(join(cache.root, 'parts'))).toEqual([expect.stringMatching(/^x-\w+\.building-\d+$/)])
    victim.kill('SIGKILL')
    await victim
    for (let i = 0; i < 100 && (await alive(`sleep ${marker}`)); i++) await delay(20)
    expect(await alive(`sleep ${marker}`)).toBe(false)
    expect(await readFile('/proc/mounts', 'utf8')).not.toContain(mounted)

    // The lock of the dead process passes on by itself.
    await writeFile(join(folder, 'again'), '')
    const parts = [fake({ id: 'x', script })]
    await build(parts)
    expect(await outputOf(parts, 'x')).toBe('made\n')
    expect(readdirSync(join(cache.root, 'parts'))).toHaveLength(1)
  }, 40_000)
})
