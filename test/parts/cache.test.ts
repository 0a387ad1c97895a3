import { existsSync, readdirSync } from 'node:fs'
import { chown, mkdir, readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { execa } from 'execa'
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { Cache, cacheRoot } from '../../src/parts/cache.js'
import { builderUser } from '../../src/parts/sandbox.js'
import { dist } from '../helpers/cli.js'
import { temporaryFolder } from '../helpers/folder.js'
import { setEnvironment } from '../provider/vagrant-tools.js'

let cache: Cache
beforeEach(async () => {
  cache = new Cache(join(await temporaryFolder(), 'cache'))
})

const parts = (): readonly string[] => readdirSync(join(cache.root, 'parts')).sort()

const quiet = { busy: () => undefined, lost: () => undefined, signal: new AbortController().signal }

/** Another process that takes the lock of a part, starts to make it, and stays. */
const otherBuilder = async (key: string) => {
  const child = execa(
    process.execPath,
    [
      '--input-type=module',
      '--eval',
      `import { writeFileSync } from 'node:fs'
       import { setTimeout as delay } from 'node:timers/promises'
       import { Cache } from '${join(dist, 'parts', 'cache.js')}'
       const cache = new Cache(process.argv[1])
       const options = { signal: new AbortController().signal, busy: () => undefined, lost: () => undefined }
       await cache.locked('${key}', () => cache.create('${key}', async (out) => {
         writeFileSync(out + '/half', '')
         console.log('began')
         for await (const _ of process.stdin);
         writeFileSync(out + '/whole', '')
       }), options)`,
      cache.root,
    ],
    { reject: false, stdin: 'pipe', buffer: false },
  )
  onTestFinished(() => void child.kill('SIGKILL'))
  await new Promise((resolve) => child.stdout.once('data', resolve))
  return { pid: child.pid ?? 0, child }
}

test.each([
  { env: { LAB_CACHE: '/a/b', XDG_CACHE_HOME: '/x' }, root: '/a/b' },
  { env: { LAB_CACHE: '', XDG_CACHE_HOME: '/x' }, root: '/x/lab' },
  { env: { LAB_CACHE: '', XDG_CACHE_HOME: '', HOME: '/home/me' }, root: '/home/me/.cache/lab' },
  { env: { LAB_CACHE: 'relative' }, root: join(process.cwd(), 'relative') },
])('the cache is at $root with $env', ({ env, root }) => {
  setEnvironment(env)
  expect(cacheRoot()).toBe(root)
})

describe('a part', () => {
  test('a part gets its final name only once it is complete', async () => {
    await cache.create('a-1', async (out, work) => {
      await writeFile(join(out, 'file'), 'made')
      await writeFile(join(work, 'scratch'), '')
      expect(cache.has('a-1')).toBe(false)
      expect(parts()).toEqual([`a-1.building-${process.pid}`])
    })
    expect(cache.has('a-1')).toBe(true)
    expect(parts()).toEqual(['a-1'])
    expect(readdirSync(cache.path('a-1'))).toEqual(['file'])
  })

  test('a part that fails to build leaves nothing behind and reports what went wrong', async () => {
    const failing = cache.create('a-1', async (out) => {
      await writeFile(join(out, 'half'), '')
      throw new Error('no compiler')
    })
    await expect(failing).rejects.toThrow('no compiler')
    expect(parts()).toEqual([])
  })

  test('a build starts from scratch and removes what a killed builder left', async () => {
    const left = join(cache.root, 'parts', 'a-1.building-999999999', 'out')
    await mkdir(left, { recursive: true })
    await writeFile(join(left, 'half'), '')
    await mkdir(join(cache.root, 'parts', 'a-10.building-999999999'))
    await cache.create('a-1', (out) => writeFile(join(out, 'whole'), ''))
    expect(parts()).toEqual(['a-1', 'a-10.building-999999999'])
    expect(readdirSync(cache.path('a-1'))).toEqual(['whole'])
  })
})

describe('the lock of a part', () => {
  test('one process at a time holds the lock of a part, and others are told which one', async () => {
    const { pid, child } = await otherBuilder('a-1')
    const told = new Set<string>()
    const mine = cache.locked('a-1', () => Promise.resolve(cache.has('a-1')), {
      ...quiet,
      busy: (holder) => void told.add(holder),
    })
    await vi.waitFor(() => expect([...told]).toEqual([`process ${pid}`]), 5000)
    child.stdin.end()
    // And once the lock is free, the part is there.
    expect(await mine).toBe(true)
    expect(readdirSync(cache.path('a-1')).sort()).toEqual(['half', 'whole'])
  })

  test('two parts have different locks', async () => {
    await otherBuilder('a-1')
    expect(await cache.locked('a-2', () => Promise.resolve('at once'), quiet)).toBe('at once')
  })

  test('the lock of a part is released when the build fails', async () => {
    await expect(cache.locked('a-1', () => Promise.reject(new Error('no')), quiet)).rejects.toThrow('no')
    expect(await cache.locked('a-1', () => Promise.resolve('again'), quiet)).toBe('again')
    expect(await readdir(join(cache.root, 'locks'))).toEqual([])
  })

  test('Ctrl-C ends the wait for the lock of a part', async () => {
    await otherBuilder('a-1')
    const stop = new AbortController()
    const waiting = cache.locked('a-1', () => Promise.resolve(), { ...quiet, signal: stop.signal })
    setTimeout(() => stop.abort(), 100)
    await expect(waiting).rejects.toThrow(/abort/)
  })
})

describe('sweeping', () => {
  test('sweeping removes what killed builders left and spares what a running builder uses', async () => {
    await mkdir(join(cache.root, 'parts', 'whole-1'), { recursive: true })
    await mkdir(join(cache.root, 'parts', 'dead-1.building-999999999', 'out'), { recursive: true })
    const { pid } = await otherBuilder('alive-1')
    await cache.sweep()
    expect(parts()).toEqual([`alive-1.building-${pid}`, 'whole-1'])
  })

  test('sweeping a cache that does not exist yet succeeds', async () => {
    await cache.sweep()
    expect(existsSync(cache.root)).toBe(false)
  })
})

describe('old parts', () => {
  const make = async (key: string): Promise<void> =>
    cache.create(key, (out) => writeFile(join(out, 'file'), 'x'.repeat(10_000)))

  test('pruning lists only parts that nothing refers to, and removing one spares the others', async () => {
    for (const key of ['kernel-1', 'kernel-2', 'disk-1', 'disk-2']) await make(key)
    await mkdir(join(cache.root, 'parts', 'disk-3.building-1'))
    const old = await cache.old(new Set(['kernel-2', 'disk-2']), [join(cache.path('disk-1'), 'disk.ext4')])
    expect(old.map(({ path }) => path)).toEqual([cache.path('kernel-1')])
    expect(old[0]?.bytes).toBeGreaterThanOrEqual(10_000)
    for (const part of old) await cache.remove(part)
    expect(parts()).toEqual(['disk-1', 'disk-2', 'disk-3.building-1', 'kernel-2'])
  })

  test('a part is not kept merely because its name starts like the name of a kept one', async () => {
    for (const key of ['disk-1', 'disk-10']) await make(key)
    const old = await cache.old(new Set(), [join(cache.path('disk-10'), 'disk.ext4'), cache.path('none')])
    expect(old.map(({ path }) => path)).toEqual([cache.path('disk-1')])
  })
})

describe('what is kept beside parts', () => {
  test('the cache remembers how long a part took the last time', async () => {
    expect(await cache.measured('kernel')).toBeUndefined()
    await cache.measure('kernel', { seconds: 100, lines: 5 })
    await cache.measure('kernel', { seconds: 90, lines: 6 })
    expect(await cache.measured('kernel')).toEqual({ seconds: 90, lines: 6 })
    expect(await readdir(join(cache.root, 'measured'))).toEqual(['kernel.json'])
  })

  test('the cache keeps one log per build and removes old ones', async () => {
    const first = await cache.log('kernel')
    expect(first).toMatch(/\/logs\/kernel-\d{8}T\d{6}\.log$/)
    await writeFile(first, 'first')
    await delay(1100)
    const second = await cache.log('kernel')
    expect(second > first).toBe(true)
    await writeFile(second, 'second')
    const days = (count: number): number => Date.now() / 1000 - count * 86_400
    await utimes(first, days(31), days(31))
    await utimes(second, days(29), days(29))
    await cache.removeLogs(30)
    expect(existsSync(first)).toBe(false)
    expect(await readFile(second, 'utf8')).toBe('second')
  })
})

describe.skipIf(process.getuid?.() !== 0)('a cache', () => {
  test('the cache trusts unprivileged builders with its download folder, and trusts no part that they own', async () => {
    const root = await temporaryFolder()
    setEnvironment({ LAB_CACHE: root })
    await mkdir(join(root, 'go'))
    await chown(join(root, 'go'), builderUser, builderUser)
    expect(cacheRoot()).toBe(root)
    const other = await temporaryFolder()
    setEnvironment({ LAB_CACHE: other })
    await mkdir(join(other, 'parts', 'kernel-0'), { recursive: true })
    await chown(join(other, 'parts', 'kernel-0'), builderUser, builderUser)
    expect(() => cacheRoot()).toThrow(/kernel-0 belongs to/)
  })
})
