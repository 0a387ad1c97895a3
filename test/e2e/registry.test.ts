/** Images pulled from a registry: Debian's real one, on loopback, in its own root directory. */
import { createHash } from 'node:crypto'
import { type ChildProcess, spawn } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { execa } from 'execa'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { Cache } from '../../src/parts/cache.js'
import { hostArchitecture } from '../../src/parts/architecture.js'
import { catalog } from '../../src/parts/catalog.js'
import { hashesOf } from '../../src/parts/graph.js'
import type { Part } from '../../src/parts/part.js'
import { writeImageArchive, writeLayer } from '../../src/parts/image-archive.js'
import { pins } from '../../src/parts/pins.js'
import { build, states } from '../parts/fake.js'

const architecture = hostArchitecture() ?? 'amd64'
const other = architecture === 'amd64' ? 'arm64' : 'amd64'
const referenceOf = (name: string): string => pins().images.find((image) => image.name === name)!.reference

let folder: string
let cache: Cache
let registry: ChildProcess | undefined
let address: string

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => {
        resolve(port)
      })
    })
  })

const startRegistry = async (root: string): Promise<void> => {
  const mirror = process.env['LAB_DEBIAN_MIRROR'] ?? pins().debian.mirror
  const packages = '--include=docker-registry,base-files'
  await execa('mmdebstrap', ['--mode=root', '--variant=extract', packages, pins().debian.suite, root, mirror])
  const config = {
    version: 0.1,
    storage: { filesystem: { rootdirectory: '/images' } },
    http: { addr: address },
  }
  await writeFile(join(root, 'registry.json'), JSON.stringify(config))
  registry = spawn('chroot', [root, 'docker-registry', 'serve', '/registry.json'], { stdio: 'ignore' })
  const answers = async (): Promise<boolean> =>
    fetch(`http://${address}/v2/`).then(
      ({ ok }) => ok,
      () => false,
    )
  for (let tries = 0; !(await answers()); tries += 1) {
    if (tries === 100 || registry.exitCode !== null) throw new Error('the registry does not answer')
    await delay(100)
  }
}

/** Puts an image of one file into the registry. @returns the digest of its layer */
const push = async (name: string, of: string): Promise<string> => {
  const [layer, archive] = [join(folder, 'layer.tar'), join(folder, 'image.tar')]
  const digest = await writeLayer(layer, [{ path: `/${name}`, content: `${name} of others\n` }])
  const reference = referenceOf(name)
  await writeImageArchive(archive, { reference, architecture: of }, { path: layer, digest })
  const client = join(
    cache.path(`registry-client-${hashesOf(catalog(pins(), cache.root)).get('registry-client')}`),
    'root',
  )
  await copyFile(archive, join(client, 'tmp', 'image.tar'))
  const to = `docker://${address}/${reference.split('/').slice(1).join('/')}`
  await execa('chroot', [
    client,
    ...['skopeo', '--insecure-policy', 'copy', '--dest-tls-verify=false'],
    ...['docker-archive:/tmp/image.tar', to],
  ])
  pins().digests[reference] = await manifestDigest(reference)
  return digest
}

/** The digest of an image in the registry, or of whatever it has under that name. */
const manifestDigest = async (reference: string): Promise<string> => {
  const [, name = '', tag = ''] = /^[^/]*\/(.*):(.*)$/.exec(reference) ?? []
  const answer = await fetch(`http://${address}/v2/${name}/manifests/${tag}`, {
    headers: {
      accept:
        'application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json',
    },
  })
  return createHash('sha256')
    .update(Buffer.from(await answer.arrayBuffer()))
    .digest('hex')
}

beforeAll(async () => {
  folder = await mkdtemp(join('/var/tmp', 'lab-registry-'))
  cache = new Cache(join(folder, 'cache'))
  address = `127.0.0.1:${String(await freePort())}`
  vi.stubEnv('LAB_REGISTRY', `http://${address}`)
  vi.stubEnv('LAB_RELEASES', 'no')
  await mkdir(join(folder, 'root'))
  await startRegistry(join(folder, 'root'))
  await build(cache, catalog(pins(), cache.root), ['registry-client'])
})

afterAll(async () => {
  registry?.kill('SIGKILL')
  vi.unstubAllEnvs()
  await rm(folder, { recursive: true, force: true })
})

/** The real parts, but with an image that builds instantly: the question is only whether it gets built. */
const withQuickBuild = (id: string): readonly Part[] =>
  catalog(pins(), cache.root).map((part) =>
    part.id === id
      ? { ...part, needs: [], build: (it) => writeFile(join(it.out, 'image.tar'), 'built here') }
      : part,
  )

/** The log of the attempt to pull it. */
const pullLog = async (id: string): Promise<string> => {
  const folder = join(cache.root, 'logs')
  const name = (await readdir(folder)).find((log) => log.startsWith(`${id}-fetch-`))
  return readFile(join(folder, name ?? ''), 'utf8')
}

const archiveOf = (parts: readonly Part[], id: string): string =>
  join(cache.path(`${id}-${hashesOf(parts).get(id) ?? ''}`), 'image.tar')

test('lab prepare pulls an image that the registry has under its own name, and compiles nothing for it', async () => {
  const digest = await push('pause', architecture)
  const parts = catalog(pins(), cache.root)
  const seen = await build(cache, parts, ['image-pause'])
  expect(states(seen, 'image-pause').at(-1)).toBe('fetched')
  for (const id of ['builder', 'pause']) expect(states(seen, id)).toEqual(['waiting', 'spared'])

  const read = async (file: string): Promise<string> =>
    (await execa('tar', ['-xOf', archiveOf(parts, 'image-pause'), file])).stdout
  const [manifest] = JSON.parse(await read('manifest.json')) as [{ Config: string; RepoTags: string[] }]
  expect(manifest.RepoTags).toEqual([referenceOf('pause')])
  expect(JSON.parse(await read(manifest.Config))).toMatchObject({
    architecture,
    rootfs: { diff_ids: [`sha256:${digest}`] },
  })
})

test('lab prepare rejects an image that differs from the pinned one, names both digests, and builds it', async () => {
  await push('kube-scheduler', architecture)
  const reference = referenceOf('kube-scheduler')
  const found = pins().digests[reference]
  pins().digests[reference] = '0'.repeat(64)
  const parts = withQuickBuild('image-kube-scheduler')
  const seen = await build(cache, parts, ['image-kube-scheduler'])
  expect(states(seen, 'image-kube-scheduler').at(-1)).toBe('built')
  expect(await pullLog('image-kube-scheduler')).toContain(`has sha256 ${found}, pinned is ${'0'.repeat(64)}`)
  expect(await readFile(archiveOf(parts, 'image-kube-scheduler'), 'utf8')).toBe('built here')
})

test('lab prepare builds an image that the registry does not have', async () => {
  const parts = withQuickBuild('image-etcd')
  const seen = await build(cache, parts, ['image-etcd'])
  expect(states(seen, 'image-etcd').at(-1)).toBe('built')
  expect(seen.map(({ note }) => note)).toContain(`not available from ${address}`)
  expect(await pullLog('image-etcd')).toContain('manifest unknown')
  expect(await readFile(archiveOf(parts, 'image-etcd'), 'utf8')).toBe('built here')
})

test('lab prepare builds an image that the registry has only for another architecture', async () => {
  await push('coredns', other)
  const parts = withQuickBuild('image-coredns')
  await build(cache, parts, ['image-coredns'])
  expect(await pullLog('image-coredns')).toContain(`it is for ${other}`)
  expect(await readFile(archiveOf(parts, 'image-coredns'), 'utf8')).toBe('built here')
})
