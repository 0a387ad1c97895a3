/**
 * Parts as their projects publish them. Hosts that run these tests may not reach any upstream, so a local server
 * stands in for one; apt's downloader, the archives and the sandbox are real. test/e2e/registry.test.ts uses a real
 * registry, and the client that pulls from it.
 */
import { createHash } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { hostArchitecture } from '../../src/parts/architecture.js'
import { catalog, foreignCatalog } from '../../src/parts/catalog.js'
import { Cache } from '../../src/parts/cache.js'
import { buildParts, hashesOf } from '../../src/parts/graph.js'
import type { Build, Part } from '../../src/parts/part.js'
import { pins, type Pins } from '../../src/parts/pins.js'
import { runInSandbox } from '../../src/parts/sandbox.js'
import { temporaryFolder } from '../helpers/folder.js'
import { setEnvironment } from '../provider/vagrant-tools.js'
import { fake, outputOf } from './fake.js'

const architecture = hostArchitecture() ?? 'amd64'
const { releases, modules } = pins()
const contentOf = (program: string): string => `#!/bin/sh\necho ${program}\n`
const digestOf = (content: string | Buffer): string => createHash('sha256').update(content).digest('hex')

/** The upstream address without `https://`: a mirror has the file below this path. */
const addressOf = (id: string): string => upstreamOf(id).replace('https://', '/')

const upstreamOf = (id: string): string => {
  const version = modules[id]?.version ?? ''
  return (releases[id]?.address ?? '')
    .replaceAll('{version}', version)
    .replaceAll('{number}', version.slice(1))
    .replaceAll('{architecture}', architecture)
}

/** An archive like those that projects release, in a folder or not. */
const archiveOf = async (programs: readonly string[], folder: string): Promise<Buffer> => {
  const work = await temporaryFolder()
  await mkdir(join(work, 'all', folder), { recursive: true })
  for (const program of [...programs, 'LICENSE'])
    await writeFile(join(work, 'all', folder, program), contentOf(program))
  await execa('tar', ['-czf', join(work, 'it.tgz'), '-C', join(work, 'all'), folder])
  return readFile(join(work, 'it.tgz'))
}

/** Like parts.yaml, but with the digests of the stand-in's files. */
let pinned: Pins
let served: Map<string, string | Buffer>
let server: Server
let mirror = ''

beforeEach(async () => {
  const kubernetes = addressOf('kubernetes')
  served = new Map(
    (releases['kubernetes']?.programs ?? []).flatMap((program) => [
      [`${kubernetes}/${program}`, contentOf(program)],
      [`${kubernetes}/${program}.sha256`, digestOf(contentOf(program))],
    ]),
  )
  pinned = structuredClone(pins())
  pinned.digests = {}
  for (const program of releases['kubernetes']?.programs ?? [])
    pinned.digests[`${upstreamOf('kubernetes')}/${program}`] = digestOf(contentOf(program))
  for (const [id, folder] of [
    ['containerd', 'bin'],
    ['cni-plugins', '.'],
  ] as const) {
    const content = await archiveOf(releases[id]?.programs ?? [], folder)
    const address = addressOf(id)
    served.set(address, content)
    pinned.digests[upstreamOf(id)] = digestOf(content)
  }
  server = createServer((request, response) => {
    const found = served.get(request.url ?? '')
    response.writeHead(found === undefined ? 404 : 200).end(found)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  mirror = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`
})

afterEach(() => {
  server.close()
})

const partOf = (id: string): Part => catalog(pinned, '/cache').find((part) => part.id === id)!

const fetch = async (
  id: string,
): Promise<{ had: boolean; out: string; lines: string[]; exitCode: number | undefined }> => {
  let exitCode: number | undefined = 0
  const folder = await temporaryFolder()
  const [out, work, lines] = [join(folder, 'out'), join(folder, 'work'), [] as string[]]
  await mkdir(out)
  await mkdir(work)
  const build: Build = {
    out,
    work,
    hash: '',
    signal: new AbortController().signal,
    need: () => {
      throw new Error('it needs nothing')
    },
    say: (line) => void lines.push(line),
    run: async (command, options) => {
      const onLine = (line: string): void => void lines.push(line)
      exitCode = (await runInSandbox(command, { signal: build.signal, ...options, onLine }))?.exitCode ?? 0
    },
  }
  const source = partOf(id).fetch!
  await source.run(build, source.from()!)
  return { had: (await readdir(out)).length > 0, out, lines, exitCode }
}

describe('released programs', () => {
  test.each(Object.entries(releases))(
    'the released programs of %s are fetched where they are available',
    async (id, { programs }) => {
      setEnvironment({ LAB_RELEASES: `${mirror}/` })
      const { had, out } = await fetch(id)
      expect(had).toBe(true)
      expect((await readdir(out)).sort()).toEqual([...programs].sort())
      for (const program of programs) {
        expect(await readFile(join(out, program), 'utf8')).toBe(contentOf(program))
        expect((await stat(join(out, program))).mode & 0o777).toBe(0o755)
      }
    },
  )

  test.each<{ id: string; what: string; change: (address: string) => unknown; other?: string }>([
    {
      id: 'kubernetes',
      what: 'a program that differs from the pinned one although the checksum next to it matches',
      change: (address) =>
        served.set(`${address}/kubelet`, 'other').set(`${address}/kubelet.sha256`, digestOf('other')),
      other: '/kubelet',
    },
    {
      id: 'kubernetes',
      what: 'a missing program',
      change: (address) => served.delete(`${address}/kube-proxy`),
    },
    {
      id: 'containerd',
      what: 'an archive that differs from the pinned one although the checksum next to it matches',
      change: (address) =>
        served.set(address, 'other').set(`${address}.sha256sum`, `${digestOf('other')}  it\n`),
      other: '',
    },
    {
      id: 'containerd',
      what: 'a pinned file that is no archive',
      change: (address) => {
        served.set(address, 'none')
        pinned.digests[`https:/${address}`] = digestOf('none')
      },
    },
    {
      id: 'cni-plugins',
      what: 'a pinned archive that lacks one of the programs',
      change: async (address) => {
        const content = await archiveOf(['bridge', 'loopback', 'portmap'], '.')
        served.set(address, content)
        pinned.digests[`https:/${address}`] = digestOf(content)
      },
    },
  ])('$id with $what is rejected and leaves nothing behind', async ({ id, change, other }) => {
    await change(addressOf(id))
    setEnvironment({ LAB_RELEASES: mirror })
    const { had, out, lines, exitCode } = await fetch(id)
    expect(had).toBe(false)
    expect(await readdir(out)).toEqual([])
    expect(exitCode).toBe(other === undefined ? 0 : 1)
    expect(lines.at(-1)).toBe(
      other === undefined
        ? lines.find((line) => line.endsWith('is not available from here as a release'))
        : `digest mismatch: ${mirror}${addressOf(id)}${other} has sha256 ${digestOf('other')}, pinned is ${pinned.digests[`${upstreamOf(id)}${other}`]}`,
    )
  })

  test('a release without a digest in parts.yaml is never asked for', () => {
    setEnvironment({ LAB_RELEASES: mirror })
    Reflect.deleteProperty(pinned.digests, `${upstreamOf('kubernetes')}/kube-proxy`)
    expect(partOf('kubernetes').fetch?.from()).toBeUndefined()
    expect(partOf('containerd').fetch?.from()?.host).toBe(new URL(mirror).host)
  })

  test('a release that differs from its pin is reported with both digests and built here instead', async () => {
    served.set(addressOf('cni-plugins'), 'other')
    setEnvironment({ LAB_RELEASES: mirror })
    const { fetch } = partOf('cni-plugins')
    const parts = [fake({ id: 'cni-plugins', fetch, script: 'echo compiled > $OUT/bridge' })]
    const cache = new Cache(await temporaryFolder())
    const notices: string[] = []
    await buildParts(parts, ['cni-plugins'], cache, {
      signal: new AbortController().signal,
      notice: (text) => void notices.push(text),
      progress: () => undefined,
    })
    expect(await outputOf(cache, parts, 'cni-plugins', 'bridge')).toBe('compiled\n')
    expect(notices).toEqual([
      expect.stringMatching(
        `does not deliver what is pinned: .* has sha256 ${digestOf('other')}, pinned is ${pinned.digests[upstreamOf('cni-plugins')]}. It is built here instead`,
      ),
    ])
  })

  test('a server that does not exist is given up at once', async () => {
    server.close()
    setEnvironment({ LAB_RELEASES: mirror })
    expect((await fetch('kubernetes')).had).toBe(false)
  })

  test('the released programs replace exactly those that would be compiled', async () => {
    const source = await readFile(
      join(import.meta.dirname, '..', '..', 'parts', 'kubernetes', 'go.mod'),
      'utf8',
    )
    const tools = [...source.matchAll(/k8s\.io\/kubernetes\/cmd\/(\S+)/g)].map(([, name]) => name)
    expect(tools.sort()).toEqual([...(releases['kubernetes']?.programs ?? [])].sort())
  })
})

describe('the server that releases are fetched from', () => {
  beforeEach(() => {
    pinned.digests['registry.k8s.io/etcd:3.6.8-0'] = '0'.repeat(64)
  })

  const hostOf = (id: string): string | undefined => partOf(id).fetch?.from()?.host

  test.each<{ set: Record<string, string>; hosts: Record<string, string | undefined> }>([
    {
      set: {},
      hosts: {
        kubernetes: 'dl.k8s.io',
        containerd: 'github.com',
        'image-etcd': 'registry.k8s.io',
        'image-mariadb': undefined,
        etcd: undefined,
      },
    },
    {
      set: { LAB_RELEASES: 'no' },
      hosts: { kubernetes: undefined, containerd: undefined, 'image-etcd': 'registry.k8s.io' },
    },
    { set: { LAB_REGISTRY: 'no' }, hosts: { kubernetes: 'dl.k8s.io', 'image-etcd': undefined } },
    {
      set: { LAB_RELEASES: 'https://mirror.example/files', LAB_REGISTRY: 'mirror.example:5000/k8s' },
      hosts: { kubernetes: 'mirror.example', 'image-etcd': 'mirror.example:5000' },
    },
  ])('the setting $set is accepted', ({ set, hosts }) => {
    setEnvironment(set)
    expect(Object.fromEntries(Object.keys(hosts).map((id) => [id, hostOf(id)]))).toEqual(hosts)
  })

  test.each([
    {
      set: { LAB_RELEASES: 'ftp://mirror.example' },
      id: 'kubernetes',
      said: 'LAB_RELEASES=ftp://mirror.example',
    },
    { set: { LAB_REGISTRY: 'two words' }, id: 'image-etcd', said: 'LAB_REGISTRY=two words' },
  ])('the setting $set is rejected', ({ set, id, said }) => {
    setEnvironment(set)
    expect(() => hostOf(id)).toThrow(`${said} is neither an http address nor \`no\``)
  })
})

test('the source of a part is no input of its hash', () => {
  const other = structuredClone(pins())
  other.releases['kubernetes'] = { address: 'https://mirror.example', programs: [] }
  delete other.releases['containerd']
  other.digests = {}
  expect(hashesOf(catalog(other, '/cache'))).toEqual(hashesOf(catalog(pins(), '/cache')))
})

test('a build for another processor fetches files for that one, with a client that runs on this one', () => {
  for (const program of releases['kubernetes']?.programs ?? [])
    pinned.digests[`${upstreamOf('kubernetes').replace('amd64', 'arm64')}/${program}`] = '0'.repeat(64)
  const all = foreignCatalog(pinned, '/cache', 'arm64')
  const image = all.find(({ id }) => id === 'image-etcd-arm64')
  expect(image?.fetch?.needs).toEqual(['registry-client'])
  expect(all.map(({ id }) => id)).toContain('registry-client')
  expect(all.find(({ id }) => id === 'kubernetes-arm64')?.fetch?.from()?.host).toBe('dl.k8s.io')
})
