/**
 * Parts that are built, fetched and shared, with builds that are shell commands.
 *
 * Over 400 lines because every test uses the same cache, which is made anew for each.
 */
import { execa } from 'execa'
import { existsSync, readdirSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { LabError } from '../../src/error.js'
import { Cache } from '../../src/parts/cache.js'
import { companyOf } from '../../src/parts/company.js'
import { buildParts, hashesOf } from '../../src/parts/graph.js'
import type { Fetch, Part } from '../../src/parts/part.js'
import { spaceNeeded } from '../../src/parts/disk-space.js'
import type { PartProgress } from '../../src/parts/preparation.js'
import { build as buildIn, buildElsewhere, fake, outputOf as outputIn, states } from './fake.js'

let folder: string
let cache: Cache

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lab-parts-'))
  cache = new Cache(join(folder, 'cache'))
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

const build = (
  parts: readonly Part[],
  targets?: readonly string[],
  signal?: AbortSignal,
): Promise<PartProgress[]> => buildIn(cache, parts, targets, signal)

const outputOf = (parts: readonly Part[], id: string): Promise<string> => outputIn(cache, parts, id)

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
  ])('a change of $changed rebuilds $rebuilt', async ({ changed, rebuilt }) => {
    await writeFile(join(folder, 'input'), 'one')
    const before = hashesOf(graph({}))
    const after = hashesOf(graph({ [changed]: 2 }))
    expect([...after].filter(([id, hash]) => before.get(id) !== hash).map(([id]) => id)).toEqual(rebuilt)
  })

  test('a rebuild follows from the content, name and mode of a file, not from its date', async () => {
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

describe('fetching published parts', () => {
  let server: Server
  let address: string
  beforeEach(async () => {
    server = createServer((socket) => void socket.destroy())
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    address = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`
  })
  afterEach(() => {
    server.close()
  })

  /** A program that needs a compiler, and an image that needs a client to pull and a program to build. */
  const graph = (published: Readonly<Record<string, string>>, from = address): Part[] => {
    const fetch = (id: string, needs: readonly string[] = []): Fetch => ({
      from: () => (from ? new URL(from) : undefined),
      needs,
      run: async (made) => {
        await made.run(['bash', '-euc', published[id] ?? 'echo not there'], {
          environment: { OUT: made.out, NEEDS: needs.map((need) => made.need(need)).join(' ') },
        })
      },
    })
    return [
      fake({ id: 'compiler' }),
      fake({ id: 'client' }),
      fake({ id: 'program', needs: ['compiler'], fetch: fetch('program') }),
      fake({ id: 'image', needs: ['program'], fetch: fetch('image', ['client']) }),
      fake({ id: 'disk', needs: ['image'], script: 'cp $NEEDS/file $OUT/file' }),
    ]
  }
  const published = 'echo published > $OUT/file'
  const ends = (seen: readonly PartProgress[]): Record<string, string> =>
    Object.fromEntries(seen.map(({ part, state }) => [part, state]))

  test.each([
    {
      what: 'everything is published, so that no input of it is made',
      there: { program: published, image: published },
      ended: { compiler: 'spared', client: 'built', program: 'spared', image: 'fetched', disk: 'built' },
      content: 'published\n',
    },
    {
      what: 'nothing is published',
      there: {},
      ended: { compiler: 'built', client: 'built', program: 'built', image: 'built', disk: 'built' },
      content: 'made\n',
    },
    {
      what: 'only an input of another part is published, so that no compiler is made',
      there: { program: published },
      ended: { compiler: 'spared', client: 'built', program: 'fetched', image: 'built', disk: 'built' },
      content: 'made\n',
    },
  ])('every part is fetched or built when $what', async ({ there, ended, content }) => {
    expect(ends(await build(graph(there)))).toEqual(ended)
    expect(await outputOf(graph(there), 'disk')).toBe(content)
    // Its origin does not make it another part: it is also there for hosts that would build it.
    expect(ends(await build(graph({})))).toEqual({ disk: 'cached' })
  })

  test.each([
    { what: 'a host whose name does not resolve', from: 'https://no-such-host.invalid/files' },
    { what: 'a host on which nothing listens', from: 'http://127.0.0.1:9' },
    { what: 'switched off by the user', from: '' },
  ])('a server is not asked, and nothing is made for asking, if it is $what', async ({ from }) => {
    vi.stubEnv('https_proxy', '')
    const seen = await build(graph({ program: published, image: published }, from))
    vi.unstubAllEnvs()
    expect(ends(seen)).toEqual({
      compiler: 'built',
      program: 'built',
      image: 'built',
      disk: 'built',
    })
  })

  test('a fetch that fails halfway leaves nothing behind and names the server', async () => {
    const parts = graph({ program: 'echo half > $OUT/half; rm $OUT/half', image: published })
    const seen = await build(parts, ['program'])
    expect(seen.find(({ note }) => note?.startsWith('not available from 127.0.0.1:'))).toMatchObject({
      part: 'program',
      state: 'waiting',
    })
    expect(readdirSync(cache.path(`program-${hashesOf(parts).get('program') ?? ''}`))).toEqual(['file'])
  })

  test('the time a fetch took is not used to estimate a build', async () => {
    await build(graph({ program: published }), ['program'])
    expect(await cache.measured('program')).toBeUndefined()
  })

  test('a fetch that is interrupted ends instead of falling back to a build', async () => {
    const stop = new AbortController()
    setTimeout(() => {
      stop.abort()
    }, 500)
    const parts = graph({ program: 'sleep 60' })
    await expect(build(parts, ['program'], stop.signal)).rejects.toMatchObject({ code: 'interrupted' })
    expect(cache.has(`compiler-${hashesOf(parts).get('compiler') ?? ''}`)).toBe(false)
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

  test('each part is built once, after its inputs, and not again the second time', async () => {
    const first = await build(chain())
    expect(states(first, 'a')).toEqual(['waiting', 'building', 'built'])
    expect(states(first, 'b')).toEqual(['waiting', 'building', 'built'])
    expect(first.every(({ total }) => total === 2)).toBe(true)
    expect(await outputOf(chain(), 'b')).toBe('made\nmore\n')
    expect(states(await build(chain()), 'b')).toEqual(['cached'])
    expect(readdirSync(join(cache.root, 'parts'))).toHaveLength(2)
  })

  test('an input is not rebuilt when every part made from it exists', async () => {
    await build(chain())
    const a = hashesOf(chain()).get('a') ?? ''
    await rm(cache.path(`a-${a}`), { recursive: true })
    expect(states(await build(chain()), 'a')).toEqual([])
    expect(cache.has(`a-${a}`)).toBe(false)
  })

  test('parts of one lane are built one after another, and lanes run side by side', async () => {
    const together = join(folder, 'together')
    // Each waits for the other to start: this ends only if both run at once.
    const meet = (id: string, other: string): Part =>
      fake({ id, script: `touch ${together}-${id}; until [ -e ${together}-${other} ]; do sleep 0.05; done` })
    const alone = (id: string): Part =>
      fake({ id, lane: 'same', script: `mkdir ${folder}/alone; sleep 0.2; rmdir ${folder}/alone` })
    const parts = [meet('x', 'y'), meet('y', 'x'), alone('p'), alone('q')]
    await build(parts, ['x', 'y', 'p', 'q'])
    expect(readdirSync(join(cache.root, 'parts'))).toHaveLength(4)
  })

  test('a build knows which others run beside it, and which may begin before it ends', () => {
    const part = (id: string, lane: string, ...needs: string[]): Part => fake({ id, lane, needs })
    const [kernel, module, web, base, box] = [
      part('kernel', 'kernel'),
      part('module', 'kernel'),
      part('web', 'images'),
      part('base', 'base-disk', 'web'),
      part('box', 'boxes', 'kernel', 'base'),
    ] as const
    const missing = [kernel, module, web, base, box]
    // The module comes after the kernel, in its lane; the box needs the kernel.
    expect(companyOf(kernel, [kernel, web], missing)).toEqual({ beside: 1, coming: 1 })
    expect(companyOf(web, [kernel, web], missing)).toEqual({ beside: 1, coming: 0 })
    expect(companyOf(kernel, [kernel, base], [kernel, module, base, box])).toEqual({ beside: 1, coming: 0 })
  })

  test('the part of a lane that most others wait for is built first', async () => {
    const order = join(folder, 'order')
    const part = (id: string, needs: readonly string[], seconds: number): Part =>
      fake({
        id,
        needs,
        lane: 'same',
        script: `echo ${id} >> ${order}`,
        reference: { seconds, lines: 1, kept: 1, scratch: 1 },
      })
    const parts = [
      part('short', [], 1),
      part('long', [], 5),
      part('first', [], 2),
      part('after', ['first'], 9),
    ]
    await build(parts, ['short', 'long', 'after'])
    expect(await readFile(order, 'utf8')).toBe('first\nafter\nlong\nshort\n')
  })

  test('a build reports its progress and its last line at least once a second', async () => {
    const part = fake({
      id: 'slow',
      script: 'for i in 1 2 3 4 5; do echo line $i; sleep 0.5; done',
      reference: { seconds: 3, lines: 5, kept: 1, scratch: 1 },
    })
    const seen = (await build([part])).filter(({ state }) => state === 'building')
    expect(seen.length).toBeGreaterThanOrEqual(3)
    expect(seen.at(-1)?.note).toMatch(/^line \d$/)
    expect(seen.at(-1)?.fraction).toBeGreaterThan(0.3)
    // So few lines give no estimate of the time.
    expect(seen.at(-1)).not.toHaveProperty('remaining')
    expect(await readFile(seen.at(-1)?.log ?? '', 'utf8')).toContain('line 1\nline 2\n')
  })

  test.each([
    ['prints more', { seconds: 60, lines: 60, kept: 1, scratch: 1 }],
    ['takes longer', { seconds: 1, lines: 1, kept: 1, scratch: 1 }],
  ])('no time left is shown for a build that %s than ever before', async (_, reference) => {
    const part = fake({ id: 'longer', script: 'seq 100; sleep 3.5', reference })
    const seen = (await build([part])).filter(({ state }) => state === 'building')
    expect(seen.length).toBeGreaterThan(2)
    expect(seen.at(-1)).not.toHaveProperty('remaining')
  })

  test('a part that two callers ask for is built once, and the second is told that it waits', async () => {
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

describe('two processes at once', () => {
  test('two processes that need the same part build it once, and the second says for whom it waits', async () => {
    const count = join(folder, 'count')
    const part = { id: 'shared', script: `echo x >> ${count}; sleep 1; echo made > $OUT/file` }
    const both = await Promise.all([buildElsewhere(cache.root, part), buildElsewhere(cache.root, part)])
    expect(both.map(({ exitCode }) => exitCode)).toEqual([0, 0])
    expect(await readFile(count, 'utf8')).toBe('x\n')
    const told = both.map(({ stdout }) => stdout.split('\n').map((line) => JSON.parse(line) as PartProgress))
    expect(told.map((seen) => seen.at(-1)?.state).sort()).toEqual(['built', 'cached'])
    const waited = told.find((seen) => seen.at(-1)?.state === 'cached')
    expect(waited?.map(({ note }) => note)).toContainEqual(
      expect.stringMatching(/^process \d+ is building it$/),
    )
    expect(readdirSync(join(cache.root, 'parts'))).toHaveLength(1)
    expect(await outputOf([fake(part)], 'shared')).toBe('made\n')
  })

  test('a builder stops when another process has taken over its lock', async () => {
    const part = fake({ id: 'slow', script: 'sleep 100' })
    const building = build([part]).catch((error: unknown) => error)
    const locks = join(cache.root, 'locks')
    await vi.waitFor(() => expect(readdirSync(locks)).toHaveLength(1), 5000)
    // What another process does after ours was suspended for long, like a laptop with its lid closed.
    await rm(join(locks, readdirSync(locks)[0] ?? ''), { recursive: true })
    expect(await building).toMatchObject({
      code: 'part-lock-lost',
      message: 'Part slow: another lab took it over',
      hint: 'run it again',
    })
    expect(await readdir(join(cache.root, 'parts'))).toEqual([])
  })
})

describe('failures', () => {
  const failureOf = async (parts: readonly Part[]): Promise<LabError> => {
    const error: unknown = await build(parts).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(LabError)
    return error as LabError
  }

  test('a failure is one error with its reason and log, keeps nothing incomplete and ends the other builds', async () => {
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
    expect(Date.now() - started).toBeLessThan(20_000)
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
  ])('a build fails as $code when the end of its output says so', async ({ said, code }) => {
    const error = await failureOf([fake({ id: 'broken', script: `echo "${said}" >&2; exit 1` })])
    expect(error.code).toBe(code)
    expect(error.hint).toBeTruthy()
  })

  test.each([
    {
      name: 'the first line that names an error',
      said: 'x.go:1: undefined: y\\nx.go:2: error: z\\nmake: *** 2',
      why: 'x.go:1: undefined: y',
    },
    { name: 'else the last one', said: 'one\\ntwo\\n\\n', why: 'two' },
    { name: 'else that there was none', said: '', why: 'it printed nothing' },
  ])('a failed build says $name, and where the rest is', async ({ said, why }) => {
    const error = await failureOf([fake({ id: 'broken', script: `printf '${said}'; exit 3` })])
    expect(error.message).toBe(`Part broken: bash ended with exit code 3: ${why}`)
    expect(error.log).toMatch(/\/cache\/logs\/broken-\d{8}T\d{6}\.log$/)
    expect(error.hint).toBe(`tail -n 30 ${error.log ?? ''}`)
    expect(await readFile(error.log ?? '', 'utf8')).toMatch(new RegExp(`^${said.replaceAll('*', '\\*')}\n?$`))
  })

  test('a part may explain a failure better than its output does', async () => {
    const blame = { code: 'module-proxy', reason: 'the modules could not be fetched', hint: 'GOPROXY=…' }
    const part = fake({
      id: 'broken',
      build: (made) => made.run(['bash', '-c', 'echo 502 Bad Gateway; exit 1'], { blame }),
    })
    expect(await failureOf([part])).toMatchObject({
      code: 'module-proxy',
      message: 'Part broken: the modules could not be fetched: 502 Bad Gateway',
      hint: 'GOPROXY=…',
    })
  })

  test('a build that a signal ended names the signal', async () => {
    const error = await failureOf([fake({ id: 'broken', script: `bash -c 'kill -SEGV $$'; echo never` })])
    expect(error.message).toMatch(/^Part broken: bash ended with exit code 139: .*Segmentation fault/)
  })

  test('a disk that fills up under a build is named as the reason', async () => {
    const script = 'mount -t tmpfs -o size=64k lab $WORK; dd if=/dev/zero of=$WORK/file bs=1k count=1000'
    expect(await failureOf([fake({ id: 'broken', script })])).toMatchObject({
      code: 'disk-full',
      message: 'Part broken: the disk is full',
      hint: expect.stringContaining('LAB_CACHE='),
    })
  })

  test('a disk that fills up under lab itself is named as the reason', async () => {
    const full = join(folder, 'full')
    await mkdir(full)
    // In a mount namespace of its own, which removes the small disk when it ends.
    const inSmallDisk = [
      'unshare',
      ...(process.getuid?.() === 0 ? [] : ['--user', '--map-root-user']),
      '--mount',
    ]
    const { stdout } = await buildElsewhere(full, { id: 'x', script: 'true' }, [
      ...inSmallDisk,
      'sh',
      '-c',
      // Room for the folders that come before the part, and for no other.
      `mount -t tmpfs -o nr_inodes=6 lab ${full} && mkdir ${full}/logs ${full}/locks ${full}/parts && exec "$@"`,
      'sh',
    ])
    expect(JSON.parse(stdout.split('\n').at(-1) ?? '')).toMatchObject({
      code: 'disk-full',
      message: 'Part x: the disk is full',
      hint: expect.stringContaining('LAB_CACHE='),
    })
  })

  test('a network that is missing for a build is named as the reason', async () => {
    // Nothing listens there, and no name is looked up: apt prints what it prints about a mirror that cannot be
    // reached.
    const script = `
      mkdir -p $WORK/lists/partial $WORK/empty
      echo 'deb [trusted=yes] http://127.0.0.1:1/debian trixie main' > $WORK/sources
      apt-get update --error-on=any -o Dir::Etc::SourceList=$WORK/sources -o Dir::Etc::SourceParts=$WORK/empty \\
        -o Dir::State::Lists=$WORK/lists -o Dir::Cache=$WORK/empty -o Acquire::Retries=0 -o Acquire::http::Proxy=DIRECT`
    const error = await failureOf([fake({ id: 'broken', script })])
    expect(error.code).toBe('debian-mirror')
    expect(error.message).toMatch(/^Part broken: the Debian mirror could not be reached: .*127\.0\.0\.1/)
    expect(error.hint).toContain('http_proxy')
  })

  test('a part that does not declare its inputs is a defect', async () => {
    const parts = [fake({ id: 'a' }), fake({ id: 'b', build: async (made) => void made.need('a') })]
    const error = await failureOf(parts)
    expect(error.message).toBe('Part b: part b does not declare that it needs a')
    expect(() => hashesOf([fake({ id: 'b', needs: ['a'] })])).toThrow(
      'part b needs a, which does not come before it',
    )
  })

  test('a command that the host lacks is named', async () => {
    const part = fake({ id: 'broken', build: (made) => made.run(['lab-has-no-such-program']) })
    expect((await failureOf([part])).message).toContain('lab-has-no-such-program')
  })

  test('a build is refused when too little disk space is free', async () => {
    const part = fake({ id: 'huge', reference: { seconds: 1, lines: 1, kept: 1e12, scratch: 1 } })
    const error = await failureOf([part])
    expect(error.code).toBe('disk-space')
    expect(error.exitCode).toBe(3)
    expect(existsSync(join(cache.root, 'parts'))).toBe(false)
  })
})

describe('the disk space for parts', () => {
  const part = (
    id: string,
    kept: number,
    scratch: number,
    rest: { needs?: readonly string[]; lane?: string } = {},
  ): Part => fake({ id, reference: { seconds: 1, lines: 1, kept, scratch }, ...rest })

  test.each([
    { what: 'no part is zero', parts: [], needed: 0 },
    { what: 'one part is its size and its scratch space', parts: [part('a', 10, 5)], needed: 15 },
    {
      what: 'two parts side by side includes both scratch spaces',
      parts: [part('a', 10, 5), part('b', 1, 2)],
      needed: 18,
    },
    {
      what: 'two parts of one lane includes the larger scratch space',
      parts: [part('a', 10, 5, { lane: 'x' }), part('b', 1, 2, { lane: 'x' })],
      needed: 16,
    },
    {
      what: 'two parts in sequence is the larger of both moments',
      parts: [part('a', 10, 100), part('b', 20, 5, { needs: ['a'] })],
      needed: 110,
    },
    {
      what: 'two parts in sequence is the larger of both moments in the other order as well',
      parts: [part('a', 10, 5), part('b', 20, 100, { needs: ['a'] })],
      needed: 130,
    },
    {
      what: 'two parts with one between them never includes both scratch spaces',
      parts: [part('a', 10, 100), part('b', 1, 1, { needs: ['a'] }), part('c', 50, 1, { needs: ['b'] })],
      needed: 110,
    },
  ])('the space that is needed for $what', ({ parts, needed }) => {
    expect(spaceNeeded(parts)).toBe(needed)
  })
})

describe('being ended', () => {
  test('a build that is aborted before it begins makes nothing', async () => {
    const error: unknown = await build([fake({ id: 'x' })], ['x'], AbortSignal.abort()).catch(
      (reason: unknown) => reason,
    )
    expect(error).toMatchObject({ code: 'interrupted', exitCode: 130 })
    expect(existsSync(join(cache.root, 'parts'))).toBe(false)
  })

  const alive = async (marker: string): Promise<boolean> =>
    (await execa('pgrep', ['-f', marker], { reject: false })).exitCode === 0

  test('a build that is aborted kills everything it started and leaves nothing behind', async () => {
    const stop = new AbortController()
    const marker = `31${String(process.pid)}`
    const parts = [
      fake({
        id: 'endless',
        script: `(sleep ${marker} & sleep ${marker}) & trap '' TERM; touch ${folder}/there; sleep ${marker}; wait`,
      }),
    ]
    const running = build(parts, ['endless'], stop.signal).catch((error: unknown) => error)
    while (!existsSync(join(folder, 'there'))) await delay(20)
    stop.abort()
    expect(await running).toMatchObject({ code: 'interrupted' })
    for (let i = 0; i < 50 && (await alive(`sleep ${marker}`)); i++) await delay(20)
    expect(await alive(`sleep ${marker}`)).toBe(false)
    expect(await readdir(join(cache.root, 'parts'))).toEqual([])
  })

  test('the build after a kill -9 first removes the processes and mounts that were left', async () => {
    const mounted = join(folder, 'mounted')
    await mkdir(mounted)
    const marker = `32${String(process.pid)}`
    const script = `
      if [ -e ${folder}/again ]; then echo made > $OUT/file; exit; fi
      mount -t tmpfs lab ${mounted}; touch $OUT/half ${folder}/there; sleep ${marker}`
    const victim = buildElsewhere(cache.root, { id: 'x', script })
    for (let i = 0; i < 500 && !existsSync(join(folder, 'there')); i++) await delay(20)
    expect(readdirSync(join(cache.root, 'parts'))).toEqual([expect.stringMatching(/^x-\w+\.building-\d+$/)])
    victim.kill('SIGKILL')
    await victim
    for (let i = 0; i < 100 && (await alive(`sleep ${marker}`)); i++) await delay(20)
    expect(await alive(`sleep ${marker}`)).toBe(false)
    expect(await readFile('/proc/mounts', 'utf8')).not.toContain(mounted)

    // The lock of the dead process becomes free by itself.
    await writeFile(join(folder, 'again'), '')
    const parts = [fake({ id: 'x', script })]
    await build(parts)
    expect(await outputOf(parts, 'x')).toBe('made\n')
    expect(readdirSync(join(cache.root, 'parts'))).toHaveLength(1)
  }, 40_000)
})
