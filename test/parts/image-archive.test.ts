import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdtemp, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { extract } from 'tar-stream'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { digestOf, writeImageArchive, writeLayer } from '../../src/parts/image-archive.js'

let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lab-image-'))
  await writeFile(join(folder, 'program'), 'I am a program\n')
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

const entries = () => [
  { path: '/usr/local/bin/program', from: join(folder, 'program') },
  { path: '/etc/passwd', content: 'root:x:0:0:root:/:/bin/sh\n', mode: 0o644 },
  { path: '/bin', link: 'usr/local/bin' },
  { path: '/tmp', mode: 0o1777 },
]

const make = async (name: string): Promise<string> => {
  const layer = join(folder, `${name}.layer`)
  const digest = await writeLayer(layer, entries())
  const archive = join(folder, `${name}.tar`)
  await writeImageArchive(
    archive,
    {
      reference: 'registry.k8s.io/program:v1',
      architecture: 'amd64',
      entrypoint: ['/usr/local/bin/program'],
      command: ['--help'],
    },
    { path: layer, digest },
  )
  return archive
}

const list = async (path: string): Promise<Record<string, { text: string; line: string }>> => {
  const found: Record<string, { text: string; line: string }> = {}
  const archive = extract()
  createReadStream(path).pipe(archive)
  for await (const entry of archive) {
    const chunks: Buffer[] = []
    for await (const chunk of entry) chunks.push(chunk as Buffer)
    const { name, type, mode, uid, gid, mtime, linkname } = entry.header
    found[name] = {
      text: Buffer.concat(chunks).toString(),
      line: [type, mode.toString(8), uid, gid, mtime.getTime(), linkname].join(' '),
    }
  }
  return found
}

test('the same entries make the same bytes, whatever the time and the order', async () => {
  const first = await digestOf(await make('first'))
  await utimes(join(folder, 'program'), 1, 1)
  expect(await digestOf(await make('second'))).toBe(first)
  expect(await writeLayer(join(folder, 'third'), entries().reverse())).toBe(
    await digestOf(join(folder, 'first.layer')),
  )
  // Golden: a change of these bytes gives every image another identity.
  expect(first).toBe('1920ae07e583597310329b23e05ac4409363b3ad054e34e8e0ceaec6dfff7abb')
})

test('a layer contains every entry and its parent folders, owned by root', async () => {
  await make('image')
  const layer = await list(join(folder, 'image.layer'))
  expect(Object.fromEntries(Object.entries(layer).map(([name, { line }]) => [name, line]))).toEqual({
    bin: 'symlink 777 0 0 0 usr/local/bin',
    'etc/': 'directory 755 0 0 0 ',
    'etc/passwd': 'file 644 0 0 0 ',
    'tmp/': 'directory 1777 0 0 0 ',
    'usr/': 'directory 755 0 0 0 ',
    'usr/local/': 'directory 755 0 0 0 ',
    'usr/local/bin/': 'directory 755 0 0 0 ',
    'usr/local/bin/program': 'file 755 0 0 0 ',
  })
  expect(layer['usr/local/bin/program']?.text).toBe('I am a program\n')
})

test('an archive refers to its configuration and its layer by digest, and names its image', async () => {
  const archive = await list(await make('image'))
  const [manifest] = JSON.parse(archive['manifest.json']?.text ?? '') as [
    { Config: string; RepoTags: string[]; Layers: [string] },
  ]
  expect(manifest.RepoTags).toEqual(['registry.k8s.io/program:v1'])
  const config = archive[manifest.Config]?.text ?? ''
  expect(manifest.Config).toBe(`${createHash('sha256').update(config).digest('hex')}.json`)
  const layer = await readFile(join(folder, 'image.layer'))
  const digest = createHash('sha256').update(layer).digest('hex')
  expect(manifest.Layers).toEqual([`${digest}/layer.tar`])
  expect(JSON.parse(config)).toMatchObject({
    architecture: 'amd64',
    os: 'linux',
    config: { Entrypoint: ['/usr/local/bin/program'], Cmd: ['--help'] },
    rootfs: { type: 'layers', diff_ids: [`sha256:${digest}`] },
  })
})

test('a missing file is an error and leaves no archive behind', async () => {
  await expect(
    writeLayer(join(folder, 'layer'), [{ path: '/x', from: join(folder, 'none') }]),
  ).rejects.toThrow('ENOENT')
  const layer = { path: join(folder, 'none'), digest: '0' }
  await expect(
    writeImageArchive(join(folder, 'bad.tar'), { reference: 'x', architecture: 'amd64' }, layer),
  ).rejects.toThrow('ENOENT')
  await expect(digestOf(join(folder, 'bad.tar'))).rejects.toThrow('ENOENT')
})
