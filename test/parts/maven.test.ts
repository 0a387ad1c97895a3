import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, test } from 'vitest'
import { runApart } from '../../src/parts/enter.js'
import { repositoryOf } from '../../src/parts/maven.js'
import { partsFolder } from '../../src/parts/pins.js'
import { runInSandbox } from '../../src/parts/sandbox.js'
import { temporaryFolder } from '../helpers/folder.js'

const mirror = (of: string): string =>
  `<settings><mirrors><mirror><id>m</id><mirrorOf>${of}</mirrorOf><url>https://mirror.example/maven</url></mirror></mirrors>`

describe('fetching jars with Maven', () => {
  test.each([
    { settings: '', host: 'repo.maven.apache.org' },
    { settings: `${mirror('*')}</settings>`, host: 'mirror.example' },
    { settings: `${mirror('external:*')}</settings>`, host: 'mirror.example' },
    { settings: `${mirror('snapshots, central')}</settings>`, host: 'mirror.example' },
    { settings: `${mirror('*,!central')}</settings>`, host: 'repo.maven.apache.org' },
    { settings: `${mirror('external:http:*')}</settings>`, host: 'repo.maven.apache.org' },
    { settings: `<!-- ${mirror('*')} -->`, host: 'repo.maven.apache.org' },
  ])('$settings makes Maven fetch from $host', ({ settings, host }) => {
    expect(repositoryOf(settings).repository.host).toBe(host)
  })

  it('credentials for a repository are passed in a file and never in an address', () => {
    const server =
      '<servers><server><id>m</id><username>u</username><password>p</password></server></servers>'
    expect(repositoryOf(`${mirror('*')}${server}</settings>`)).toEqual({
      repository: new URL('https://mirror.example/maven'),
      login: 'machine https://mirror.example login u password p\n',
    })
  })

  it('jars are fetched through the proxy that Maven is configured with', () => {
    const proxy = (active: string): string =>
      `<proxies><proxy><active>${active}</active><host>proxy.example</host><port>3128</port></proxy></proxies>`
    expect(repositoryOf(proxy('true')).proxy).toBe('http://proxy.example:3128')
    expect(repositoryOf(proxy('false')).proxy).toBeUndefined()
  })
})

/** Runs the real script against a local server. */
const fetchJars = async (given: string) => {
  const server = createServer((_, response) => void response.end(given))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  const folder = await temporaryFolder()
  const [out, work, lines] = [join(folder, 'out'), join(folder, 'work'), [] as string[]]
  await mkdir(out)
  await mkdir(work)
  const digest = createHash('sha256').update('a jar').digest('hex')
  const [list, auth] = [join(folder, 'list'), join(folder, 'auth')]
  await writeFile(list, `# comment\n${digest}  org/example/a/1/a-1.jar\n`)
  await writeFile(auth, '')
  let ended: number | undefined
  const run = async (command: readonly string[], options: object = {}): Promise<void> => {
    const onLine = (line: string): void => void lines.push(line)
    const signal = new AbortController().signal
    ended = (await runInSandbox(command, { signal, ...options, onLine }))?.exitCode ?? 0
  }
  const address = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`
  await runApart({ out, work, run }, ['bash', '/lab/jars.sh', address], {
    inputs: {
      '/lab/jars.sh': join(partsFolder, 'fetcher', 'jars.sh'),
      '/lab/jars.sha256': list,
      '/lab/auth': auth,
    },
    network: true,
  })
  return { ended, lines, out, digest, address }
}

describe('a jar', () => {
  it('a jar with the pinned digest is accepted and belongs to the user who builds', async () => {
    const { ended, out, lines } = await fetchJars('a jar')
    expect(ended, lines.join('\n')).toBe(0)
    expect(await readdir(join(out, 'lib'))).toEqual(['a-1.jar'])
    expect((await stat(join(out, 'lib', 'a-1.jar'))).uid).toBe(process.getuid?.())
  })

  it('a jar with another digest is rejected with both digests, wherever it came from', async () => {
    const { ended, out, lines, digest, address } = await fetchJars('another jar')
    const found = createHash('sha256').update('another jar').digest('hex')
    expect(ended).toBe(1)
    expect(await readdir(out)).toEqual([])
    expect(lines).toContain(
      `digest mismatch: ${address}/org/example/a/1/a-1.jar has sha256 ${found}, pinned is ${digest}`,
    )
  })
})
