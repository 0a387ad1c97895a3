/** Copies a bundle from one cache into another: complete, damaged, interrupted, from a stranger. */
import { createHash, generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { damageOf } from '../../src/bundle/check.js'
import { makeBundle } from '../../src/bundle/make.js'
import { ownMaker, trustMaker } from '../../src/bundle/makers.js'
import {
  chunkPath,
  fingerprintOf,
  type Manifest,
  readManifest,
  signManifest,
} from '../../src/bundle/manifest.js'
import { lockBeside, neededPackages } from '../../src/bundle/program.js'
import { bundleServer, rangeOf } from '../../src/bundle/serve.js'
import { openBundle, sourceOf, type Source } from '../../src/bundle/source.js'
import { takeParts } from '../../src/bundle/take.js'
import { LabError } from '../../src/error.js'
import { Cache } from '../../src/parts/cache.js'
import type { Preparation } from '../../src/parts/preparation.js'
import { temporaryFolder } from '../helpers/folder.js'

const { signal } = new AbortController()
const quiet: Preparation = { signal, notice: () => {}, progress: () => {} }
const MiB = 1024 ** 2

let bundle = ''
let manifest: Manifest
const key = 'base-disk-0123456789ab'
/** 40 MiB, of which two places are written. */
const disk = Buffer.alloc(40 * MiB)
for (let at = 0; at < 9 * MiB; at += 64) createHash('sha256').update(String(at)).digest().copy(disk, at)
disk.write('at the end', 39 * MiB)

let top = ''
afterAll(() => rm(top, { recursive: true, force: true }))
beforeAll(async () => {
  top = await mkdtemp(join(tmpdir(), 'lab-'))
  const from = join(top, 'cache')
  const part = join(from, key)
  await mkdir(part, { recursive: true })
  await writeFile(join(part, 'disk.ext4'), disk)
  await writeFile(join(part, 'empty'), '')
  await chmod(join(part, 'disk.ext4'), 0o644)
  await utimes(join(part, 'disk.ext4'), 1_700_000_000, 1_700_000_000)
  vi.stubEnv('LAB_CONFIG', join(top, 'config'))
  bundle = join(top, 'bundle')
  const made = await makeBundle(bundle, {
    labs: ['iscsi'],
    parts: [{ key, title: 'Base disk', path: part }],
    maker: await ownMaker(),
    addProgram: async () => [],
    signal,
    tell: () => {},
  })
  manifest = made.manifest
})

let cache: Cache
beforeEach(async () => {
  vi.stubEnv('LAB_CONFIG', join(await temporaryFolder(), 'config'))
  cache = new Cache(join(await temporaryFolder(), 'cache'))
  await mkdir(cache.root)
})
const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

const served = async (): Promise<{ readonly url: string; readonly asked: readonly string[] }> => {
  const asked: string[] = []
  const server = bundleServer(bundle, manifest)
  server.prependListener('request', ({ url }: { url?: string }) => asked.push(url ?? ''))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closing.push(() => {
    server.close()
    server.closeAllConnections()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
}

const expectDisk = async (): Promise<void> => {
  const path = join(cache.path(key), 'disk.ext4')
  expect((await readFile(path)).equals(disk)).toBe(true)
  const { mtimeMs, mode, blocks } = await stat(path)
  expect([mtimeMs, mode & 0o777]).toEqual([1_700_000_000_000, 0o644])
  expect(blocks * 512).toBeLessThan(12 * MiB)
  expect((await stat(join(cache.path(key), 'empty'))).size).toBe(0)
}

describe('a bundle', () => {
  test('a bundle gives a part from a folder, with its holes, time and mode', async () => {
    await takeParts(await sourceOf(bundle), manifest.parts, cache, quiet)
    await expectDisk()
  })

  test('a bundle gives a part from a web server, and leaves no chunks behind', async () => {
    const { url } = await served()
    const source = await sourceOf(url)
    expect((await openBundle(source, signal)).manifest).toEqual(manifest)
    await takeParts(source, manifest.parts, cache, quiet)
    await expectDisk()
    expect(await readdir(join(cache.root, 'incoming'))).toEqual([])
  })

  test('a bundle is asked only for the chunks that did not arrive before an interruption', async () => {
    const { url, asked } = await served()
    const source = await sourceOf(url)
    let chunks = 0
    const dying: Source = {
      ...source,
      read: async (path, longest, stop) => {
        if (++chunks > 2) throw new LabError('bundle-unreachable', 'the cable was pulled')
        return source.read(path, longest, stop)
      },
    }
    await expect(takeParts(dying, manifest.parts, cache, quiet)).rejects.toThrow('the cable was pulled')
    expect(cache.has(key)).toBe(false)
    await takeParts(source, manifest.parts, cache, quiet)
    await expectDisk()
    expect(asked.toSorted()).toEqual([...new Set(asked)].toSorted())
  })

  test('a bundle is asked again for a chunk that arrived damaged, and for no other', async () => {
    const source = await sourceOf(bundle)
    const asked: string[] = []
    const flaky: Source = {
      ...source,
      read: async (path, longest, stop) => {
        const data = await source.read(path, longest, stop)
        asked.push(path)
        return asked.length === 1 ? Buffer.from(data.map((byte) => byte ^ 1)) : data
      },
    }
    await takeParts(flaky, manifest.parts, cache, quiet)
    await expectDisk()
    const count = new Set(asked).size
    expect(asked.length).toBe(count + 1)
  })

  test('a damaged bundle gives nothing, and lab bundle check names the chunk', async () => {
    const chunk = manifest.parts[0]!.files[0]!.chunks[0]!
    const path = join(bundle, chunkPath(chunk.sha256))
    const whole = await readFile(path)
    try {
      await truncate(path, 100)
      const source = await sourceOf(bundle)
      await expect(takeParts(source, manifest.parts, cache, quiet)).rejects.toMatchObject({
        code: 'bad-chunk',
      })
      expect(cache.has(key)).toBe(false)
      expect(await damageOf(source, manifest, signal)).toEqual([expect.stringContaining(chunk.sha256)])
      await rm(path)
      expect(await damageOf(source, manifest, signal)).toEqual([expect.stringContaining('does not exist')])
    } finally {
      await writeFile(path, whole)
    }
  })
})

test('a bundle that is made again keeps the parts of an earlier one that the same maker signed', async () => {
  const folder = await temporaryFolder()
  const part = join(folder, key)
  const into = join(folder, 'bundle')
  await mkdir(part)
  await writeFile(join(part, 'disk.ext4'), disk.subarray(0, 9 * MiB))
  const make = async (): Promise<{ readonly compressed: boolean; readonly chunks: readonly string[] }> => {
    let compressed = false
    const { manifest } = await makeBundle(into, {
      labs: ['iscsi'],
      parts: [{ key, title: 'Base disk', path: part }],
      maker: await ownMaker(),
      addProgram: async () => [],
      signal,
      tell: (title) => (compressed ||= title === 'Base disk'),
    })
    const files = manifest.parts.flatMap(({ files }) => files)
    return { compressed, chunks: files.flatMap(({ chunks }) => chunks.map(({ sha256 }) => sha256)) }
  }
  const { chunks } = await make()
  expect(await make()).toEqual({ compressed: false, chunks })
  await writeFile(join(into, chunkPath(chunks[0]!)), 'damaged')
  expect(await make()).toEqual({ compressed: true, chunks })
  const source = await sourceOf(into)
  expect(await damageOf(source, (await openBundle(source, signal)).manifest, signal)).toEqual([])
  // Another maker signs only what it has compressed itself.
  vi.stubEnv('LAB_CONFIG', join(folder, 'another'))
  expect(await make()).toEqual({ compressed: true, chunks })
})

describe('a manifest', () => {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const maker = publicKey.export({ type: 'spki', format: 'pem' }).toString()
  const signed = (value: unknown): { bytes: Buffer; signature: Buffer; maker: string } => {
    const bytes = Buffer.from(JSON.stringify(value))
    return { bytes, signature: signManifest(bytes, privateKey), maker }
  }

  test('a manifest is trusted as its maker signed it', () => {
    expect(readManifest('here', signed(manifest))).toEqual({
      manifest,
      fingerprint: fingerprintOf(publicKey),
    })
  })

  test('a manifest is refused when one byte differs', () => {
    const { bytes, ...rest } = signed(manifest)
    bytes[bytes.length - 3]! ^= 1
    expect(() => readManifest('here', { bytes, ...rest })).toThrow(/not what its maker signed/)
  })

  test.each([
    ['a path that leaves its folder', { path: '../../etc/passwd' }],
    ['an absolute path', { path: '/etc/passwd' }],
    ['a mode with more than permissions', { mode: 0o4755 }],
    ['chunks beyond the end of the file', { size: 10 }],
  ])('a manifest is refused with %s', (_, change) => {
    const [part] = manifest.parts
    const changed = { ...manifest, parts: [{ ...part, files: [{ ...part!.files[0]!, ...change }] }] }
    expect(() => readManifest('here', signed(changed))).toThrow(LabError)
  })

  test('a manifest of a later version is refused, and the message names both versions', () => {
    expect(() => readManifest('here', signed({ ...manifest, schema: 'lab.bundle/v2' }))).toThrow(
      'it is a lab.bundle/v2, but this lab reads lab.bundle/v1',
    )
  })
})

describe('the maker of a bundle', () => {
  test('lab asks once about the maker of a bundle, and remembers the answer', async () => {
    const ask = vi.fn(async () => true)
    await trustMaker('SHA256:abc', 'here', { ask })
    await trustMaker('SHA256:abc', 'here', {})
    expect(ask).toHaveBeenCalledTimes(1)
  })

  test('the maker of a bundle is not trusted without a terminal to ask at, or if another maker was named', async () => {
    await expect(trustMaker('SHA256:abc', 'here', {})).rejects.toMatchObject({ code: 'unknown-maker' })
    await expect(trustMaker('SHA256:abc', 'here', { given: 'SHA256:x' })).rejects.toMatchObject({
      code: 'other-maker',
    })
    await expect(trustMaker('SHA256:abc', 'here', { ask: async () => false })).rejects.toThrow(LabError)
  })

  test('the maker of a bundle is trusted at once if it is the user', async () => {
    const { fingerprint } = await ownMaker()
    await trustMaker(fingerprint, 'here', {})
    expect((await ownMaker()).fingerprint).toBe(fingerprint)
  })
})

test('a bundle without its signature or its maker is refused, and the hint is no command that fails alike', async () => {
  const folder = await temporaryFolder()
  await writeFile(join(folder, 'manifest.json'), '{}')
  await expect(openBundle(await sourceOf(folder), signal)).rejects.toMatchObject({
    code: 'bundle-file-missing',
    hint: 'lab bundle make LAB --into FOLDER makes a bundle',
  })
})

test('a bundle server serves byte ranges, and nothing that is not in the manifest', async () => {
  const { url } = await served()
  await writeFile(join(bundle, 'private'), 'x')
  for (const path of ['private', '', 'chunks', '..%2f..%2fetc%2fpasswd', '%2e%2e/x'])
    expect((await fetch(`${url}/${path}`)).status).toBe(404)
  expect((await fetch(`${url}/manifest.json`, { method: 'POST' })).status).toBe(405)
  const part = await fetch(`${url}/manifest.json`, { headers: { range: 'bytes=1-8' } })
  expect([part.status, await part.text()]).toEqual([206, '"schema"'])
  expect(rangeOf('bytes=5-', 10)).toEqual({ first: 5, last: 9 })
  expect(rangeOf('bytes=-3', 10)).toEqual({ first: 7, last: 9 })
  expect(rangeOf('bytes=10-', 10)).toBe('none')
  expect(rangeOf('lines=1-2', 10)).toBeUndefined()
})

test('lab in a bundle has the packages that run it, by their names, and none for its development', () => {
  const lock = {
    packages: {
      '': { version: '1.0.0', devDependencies: { vitest: '1' } },
      'node_modules/a': { version: '1.0.0', integrity: 'sha512-x' },
      'node_modules/b/node_modules/@c/d': { version: '2.0.0', integrity: 'sha512-y' },
      'node_modules/vitest': { version: '1.0.0', integrity: 'sha512-z', dev: true },
    },
  }
  expect(neededPackages(lock).map(({ spec, tarball }) => [spec, tarball])).toEqual([
    ['a@1.0.0', 'a-1.0.0.tgz'],
    ['@c/d@2.0.0', 'c-d-2.0.0.tgz'],
  ])
  expect(lockBeside(lock).packages).toEqual({
    '': { version: '1.0.0' },
    'node_modules/a': { version: '1.0.0', integrity: 'sha512-x', resolved: 'file:packages/a-1.0.0.tgz' },
    'node_modules/b/node_modules/@c/d': {
      version: '2.0.0',
      integrity: 'sha512-y',
      resolved: 'file:packages/c-d-2.0.0.tgz',
    },
  })
})
