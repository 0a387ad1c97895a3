/**
 * Programs as a project released them. No upstream can be reached from every host that runs these tests, so a server of
 * our own stands in for one; apt's downloader and the sandbox are real.
 */
import { createHash } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { mkdir, readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { catalog, hostArchitecture } from '../../src/parts/catalog.js'
import { hashesOf, type Build } from '../../src/parts/graph.js'
import { pins } from '../../src/parts/pins.js'
import { runInSandbox } from '../../src/parts/sandbox.js'
import { temporaryFolder } from '../helpers/folder.js'
import { setEnvironment } from '../provider/vagrant-tools.js'

const programs = pins().releases['kubernetes']?.programs ?? []
const contentOf = (program: string): string => `#!/bin/sh\necho ${program}\n`
const digestOf = (text: string): string => createHash('sha256').update(text).digest('hex')

let served: Map<string, string>
let server: Server
let address = ''

beforeEach(async () => {
  served = new Map(
    programs.flatMap((program) => [
      [`/v1.36.3/${program}`, contentOf(program)],
      [`/v1.36.3/${program}.sha256`, digestOf(contentOf(program))],
    ]),
  )
  server = createServer((request, response) => {
    const found = served.get(request.url ?? '')
    response.writeHead(found === undefined ? 404 : 200).end(found)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  address = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}/{version}`
})

afterEach(() => {
  server.close()
})

/** What compiling says instead of compiling, which takes minutes: only whether it comes to that is asked here. */
class Compiles extends Error {}

const build = async (): Promise<{ out: string; lines: string[] }> => {
  const folder = await temporaryFolder()
  const [out, work, lines] = [join(folder, 'out'), join(folder, 'work'), [] as string[]]
  await mkdir(out)
  await mkdir(work)
  const part = catalog(pins(), join(folder, 'cache')).find(({ id }) => id === 'kubernetes')!
  const it: Build = {
    out,
    work,
    hash: '',
    signal: new AbortController().signal,
    need: () => {
      throw new Compiles(lines.join('\n'))
    },
    say: (line) => void lines.push(line),
    run: async (command, { environment } = {}) => {
      const onLine = (line: string): void => void lines.push(line)
      expect(await runInSandbox(command, { signal: it.signal, environment, onLine })).toBeUndefined()
    },
  }
  await part.build(it)
  return { out, lines }
}

test('are taken where they can be had, and are what their checksums say', async () => {
  setEnvironment({ LAB_RELEASES: address })
  const { out } = await build()
  expect((await readdir(out)).sort()).toEqual([...programs].sort())
  for (const program of programs) {
    expect(await readFile(join(out, program), 'utf8')).toBe(contentOf(program))
    expect((await stat(join(out, program))).mode & 0o777).toBe(0o755)
  }
})

test.each([
  {
    what: 'that is another one than its checksum says',
    change: () => served.set('/v1.36.3/kubelet', 'other'),
  },
  { what: 'that is not there', change: () => served.delete('/v1.36.3/kube-proxy') },
  {
    what: 'whose checksum is the page of a hotel',
    change: () => served.set('/v1.36.3/kubectl.sha256', '<html>Welcome</html>'),
  },
])('a program $what: all are compiled, and nothing of them is left', async ({ change }) => {
  change()
  setEnvironment({ LAB_RELEASES: address })
  await expect(build()).rejects.toThrow(/cannot be had from here as it was released: compiling/)
})

test('a host that is not there: compiled at once', async () => {
  server.close()
  setEnvironment({ LAB_RELEASES: address })
  await expect(build()).rejects.toThrow(/cannot be had from here/)
})

test('LAB_RELEASES=no: nobody is asked', async () => {
  setEnvironment({ LAB_RELEASES: 'no' })
  await expect(build()).rejects.toThrow(/^Fetching the modules of k8s.io.kubernetes$/)
})

test('the released programs are those that are compiled', async () => {
  const source = await readFile(
    join(import.meta.dirname, '..', '..', 'parts', 'kubernetes', 'go.mod'),
    'utf8',
  )
  const tools = [...source.matchAll(/k8s\.io\/kubernetes\/cmd\/(\S+)/g)].map(([, name]) => name)
  expect(tools.sort()).toEqual([...programs].sort())
})

test('where programs come from is no part of their key', () => {
  const other = structuredClone(pins())
  other.releases['kubernetes'] = { address: 'https://mirror.example', programs: [] }
  expect(hashesOf(catalog(other, '/cache'))).toEqual(hashesOf(catalog(pins(), '/cache')))
  expect(hostArchitecture()).toBeDefined()
})
