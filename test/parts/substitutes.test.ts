/**
 * Pins that others withdraw. A small Debian mirror with its own key is on loopback; apt, its signatures, and the
 * source package are real.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { describe, expect, it, onTestFinished, test } from 'vitest'
import { catalog } from '../../src/parts/catalog.js'
import type { Build } from '../../src/parts/part.js'
import { partsFolder, pins, type Pins } from '../../src/parts/pins.js'
import { runInSandbox } from '../../src/parts/sandbox.js'
import {
  chooseGo,
  chooseSource,
  compareVersions,
  fetchPackage,
  findSubstitutes,
  type Offer,
  rememberedSubstitutes,
  withGo,
} from '../../src/parts/substitutes.js'
import { temporaryFolder } from '../helpers/folder.js'
import { setEnvironment } from '../provider/vagrant-tools.js'

const { source } = pins().kernel
const offer = (version: string, suite = 'trixie-backports', name = source.package): Offer => ({
  suite,
  package: name,
  version,
  sha256: version,
})

test.each(['', '{', '\0', 'null', '5', '[]', '{}', '{"kernel":{}}', '{"pinned":null,"go":"1"}'])(
  'a damaged record of substitutes counts as none, and stops no command: %j',
  async (text) => {
    const cacheRoot = await temporaryFolder()
    await writeFile(join(cacheRoot, 'substitutes.json'), text)
    expect(rememberedSubstitutes(pins(), cacheRoot)).toEqual({})
  },
)

describe('the version that is taken', () => {
  test.each<{ offers: readonly Offer[]; taken: string | undefined; what: string }>([
    {
      what: 'the pinned one if it is available',
      offers: [offer('7.2.13-1'), offer(source.version)],
      taken: 'pinned',
    },
    {
      what: 'the newest of the series if the pinned one is gone',
      offers: [offer('7.2.9-1~bpo13+1'), offer('7.2.14-1~bpo13+1'), offer('7.2.13-1~bpo13+1')],
      taken: '7.2.14-1~bpo13+1',
    },
    {
      what: 'an older one if there is no other',
      offers: [offer('7.2.6-1~bpo13+1')],
      taken: '7.2.6-1~bpo13+1',
    },
    {
      what: 'one built for this Debian rather than a newer one from elsewhere',
      offers: [offer('7.2.13-1~bpo13+1'), offer('7.2.14-1', 'sid')],
      taken: '7.2.13-1~bpo13+1',
    },
    {
      what: 'one from another suite if backports has none',
      offers: [offer('7.2.14-1', 'sid')],
      taken: '7.2.14-1',
    },
    {
      what: 'never one of another series',
      offers: [offer('7.20.1-1'), offer('7.3.4-1', 'trixie-backports', 'linux-source-7.3')],
      taken: undefined,
    },
    { what: 'none if there is none', offers: [], taken: undefined },
  ])('the version that is taken is $what', ({ offers, taken }) => {
    const found = chooseSource(source, offers)
    expect(typeof found === 'object' ? found.version : found).toBe(taken)
  })

  test('the compiler for Go is the pinned one, or else the oldest newer one', () => {
    const of = (...names: string[]): Offer[] => names.map((name) => offer('1', 'trixie-backports', name))
    expect(chooseGo('golang-1.26-go', of('golang-1.27-go', 'golang-1.26-go'))).toBe('golang-1.26-go')
    expect(chooseGo('golang-1.26-go', of('golang-1.25-go', 'golang-1.28-go', 'golang-1.27-go'))).toBe(
      'golang-1.27-go',
    )
    expect(chooseGo('golang-1.26-go', of('golang-1.25-go'))).toBeUndefined()
    expect(withGo(pins(), 'golang-1.27-go').builder).toMatchObject({
      goRoot: '/usr/lib/go-1.27',
      packages: expect.arrayContaining(['golang-1.27-go']) as unknown,
    })
  })

  test.each([
    ['7.2.9-1', '7.2.12-1'],
    ['7.2.12-1~bpo13+1', '7.2.12-1'],
    ['7.2.12-1~bpo13+1', '7.2.12-1~bpo13+2'],
    ['7.2~rc3-1', '7.2-1'],
    ['1:1.0-1', '2:0.1-1'],
    ['1.0a-1', '1.0+-1'],
  ])('%s is older than %s, as in dpkg', async (older, newer) => {
    expect(compareVersions(older, newer)).toBeLessThan(0)
    expect(compareVersions(newer, older)).toBeGreaterThan(0)
    expect(compareVersions(older, older)).toBe(0)
    await execa('dpkg', ['--compare-versions', older, 'lt', newer])
  })
})

/** A kernel source package with one file, `Makefile`, and a signed mirror that has it with this version. */
const mirrorWith = async (packages: readonly { name: string; version: string }[]): Promise<void> => {
  const folder = await temporaryFolder()
  const dist = join(folder, 'dists', 'trixie-backports')
  const binary = join(dist, 'main', 'binary-amd64')
  await mkdir(binary, { recursive: true })
  await mkdir(join(folder, 'pool'))
  for (const { name, version } of packages) {
    const tree = join(folder, `tree-${name}-${version}`)
    await mkdir(join(tree, 'DEBIAN'), { recursive: true })
    await mkdir(join(tree, 'usr', 'src', 'linux'), { recursive: true })
    await writeFile(join(tree, 'usr', 'src', 'linux', 'Makefile'), `# ${version}\n`)
    await execa('tar', ['-cJf', join(tree, source.archive), '-C', join(tree, 'usr', 'src'), 'linux'])
    const control = [
      `Package: ${name}`,
      `Version: ${version}`,
      'Architecture: all',
      'Maintainer: Lab <lab@lab.invalid>',
    ]
    await writeFile(join(tree, 'DEBIAN', 'control'), `${control.join('\n')}\nDescription: a small one\n`)
    await execa('dpkg-deb', [
      '--build',
      '--root-owner-group',
      tree,
      join(folder, 'pool', `${name}_${version}_all.deb`),
    ])
  }
  const list = await execa('dpkg-scanpackages', ['--multiversion', 'pool'], { cwd: folder })
  await writeFile(join(binary, 'Packages'), `${list.stdout}\n`)
  const { stdout } = await execa('sha256sum', ['main/binary-amd64/Packages'], { cwd: dist })
  const size = String(Buffer.byteLength(`${list.stdout}\n`))
  await writeFile(
    join(dist, 'Release'),
    `Suite: trixie-backports\nCodename: trixie-backports\nArchitectures: amd64\nComponents: main\nDate: ${new Date().toUTCString()}\nSHA256:\n ${stdout.split(' ')[0] ?? ''} ${size} main/binary-amd64/Packages\n`,
  )
  const home = join(folder, 'keys')
  await mkdir(home, { mode: 0o700 })
  const gpg = (...args: string[]) => execa('gpg', ['--homedir', home, '--batch', '--yes', ...args])
  await gpg('--passphrase', '', '--quick-generate-key', 'lab@lab.invalid', 'rsa2048', 'sign', 'never')
  await gpg('--output', join(folder, 'keyring.gpg'), '--export')
  await gpg('--output', join(dist, 'InRelease'), '--clearsign', join(dist, 'Release'))
  await execa('gpgconf', ['--homedir', home, '--kill', 'all'])
  const server = createServer((request, response) => {
    readFile(join(folder, decodeURIComponent(request.url ?? ''))).then(
      (content) => response.end(content),
      () => response.writeHead(404).end(),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  setEnvironment({
    LAB_DEBIAN_MIRROR: `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`,
    LAB_DEBIAN_KEYRING: join(folder, 'keyring.gpg'),
    no_proxy: '127.0.0.1',
  })
}

/** Like parts.yaml, but without other suites. */
const ours = (): Pins => {
  const copy = structuredClone(pins())
  copy.kernel.otherSuites = []
  return copy
}

const find = async (cacheRoot: string, wanted = { kernel: true, go: false }) => {
  const notices: string[] = []
  const { signal } = new AbortController()
  const notice = (text: string): void => void notices.push(text)
  const found = await findSubstitutes(ours(), cacheRoot, wanted, { signal, notice })
  return { found, notices }
}

const buildIn = async (folder: string): Promise<Build> => {
  const [out, work] = [join(folder, 'out'), join(folder, 'work')]
  await mkdir(out)
  await mkdir(work)
  const { signal } = new AbortController()
  return {
    out,
    work,
    hash: '',
    signal,
    need: (id) => join(folder, id),
    say: () => undefined,
    run: async (command, { environment, network } = {}) => {
      const ending = await runInSandbox(command, { signal, environment, network })
      if (ending) throw new Error(ending.tail.join('\n'))
    },
  }
}

// Its lists are for amd64.
describe.skipIf(process.arch !== 'x64')('a mirror that has only another version of the kernel source', () => {
  it(
    'the newest kernel source of the series replaces a missing one, is announced, and makes another kernel',
    { timeout: 240_000 },
    async () => {
      await mirrorWith([
        { name: source.package, version: '7.2.13-1~bpo13+1' },
        { name: source.package, version: '7.2.14-1~bpo13+1' },
        { name: 'linux-source-7.3', version: '7.3.1-1~bpo13+1' },
      ])
      const cacheRoot = await temporaryFolder()
      const { found, notices } = await find(cacheRoot)
      expect(found.kernel).toMatchObject({ version: '7.2.14-1~bpo13+1', suite: 'trixie-backports' })
      expect(notices).toEqual([
        `Debian no longer has the pinned ${source.package} ${source.version}. Using 7.2.14-1~bpo13+1 of trixie-backports, which Debian signs: the patches must apply to it, and it must boot`,
      ])
      expect(rememberedSubstitutes(ours(), cacheRoot)).toEqual(found)
      // Nothing is reported twice, and nothing about other pins.
      expect((await find(cacheRoot)).notices).toEqual([])
      const others = ours()
      others.kernel.source.version = '7.2.15-1'
      expect(rememberedSubstitutes(others, cacheRoot)).toEqual({})
      const title = (taken: object): string | undefined =>
        catalog(ours(), cacheRoot, [], taken).find(({ id }) => id === 'kernel')?.title
      expect([title({}), title(found)]).toEqual(['Linux 7.2.12', 'Linux 7.2.14'])

      const folder = await temporaryFolder()
      const build = await buildIn(folder)
      await fetchPackage(build, ours(), found.kernel!)
      const archive = join(build.work, 'source', 'linux-source-7.2.tar.xz')
      expect((await execa('tar', ['-xOf', archive, 'linux/Makefile'])).stdout).toBe('# 7.2.14-1~bpo13+1')
    },
  )

  it(
    'a mirror with no kernel source of the series ends the build with an error that says what to type',
    { timeout: 240_000 },
    async () => {
      await mirrorWith([{ name: 'linux-source-7.3', version: '7.3.1-1~bpo13+1' }])
      await expect(find(await temporaryFolder())).rejects.toMatchObject({
        code: 'kernel-source',
        message: expect.stringContaining(`Debian no longer has ${source.package}`) as unknown,
        hint: expect.stringContaining('LAB_DEBIAN_MIRROR=https://snapshot.debian.org') as unknown,
      })
    },
  )

  it('a kernel source with a foreign signature is rejected', { timeout: 240_000 }, async () => {
    await mirrorWith([{ name: source.package, version: '7.2.14-1~bpo13+1' }])
    const right = process.env['LAB_DEBIAN_KEYRING'] ?? ''
    // The next mirror has another key.
    await mirrorWith([{ name: source.package, version: '7.2.99-1' }])
    setEnvironment({ LAB_DEBIAN_KEYRING: right })
    const told = await find(await temporaryFolder()).then(
      ({ found, notices }) => ({ found, notices }),
      (error: unknown) => error,
    )
    expect(JSON.stringify(told)).not.toContain('7.2.99')
  })

  it('a newer compiler for Go is accepted when the mirror has no other', { timeout: 240_000 }, async () => {
    await mirrorWith([{ name: 'golang-1.27-go', version: '1.27.4-1~bpo13+1' }])
    const { found, notices } = await find(await temporaryFolder(), { kernel: false, go: true })
    expect(found).toEqual({ go: 'golang-1.27-go' })
    expect(notices).toEqual(['Debian no longer has the pinned golang-1.26-go. Using golang-1.27-go'])
  })
})

describe('a mirror that cannot be reached', () => {
  it('a mirror that cannot be reached changes no version', { timeout: 240_000 }, async () => {
    setEnvironment({ LAB_DEBIAN_MIRROR: 'http://127.0.0.1:1', no_proxy: '127.0.0.1' })
    expect(await find(await temporaryFolder())).toEqual({ found: {}, notices: [] })
  })
})

test('a patch that a newer kernel source already contains is skipped, and the others are applied', async () => {
  const folder = await temporaryFolder()
  const work = join(folder, 'work')
  await mkdir(join(folder, 'linux', 'arch'), { recursive: true })
  await mkdir(work)
  await mkdir(join(folder, 'src'))
  await writeFile(join(folder, 'linux', 'arch', 'fixed.c'), 'new\n')
  await writeFile(join(folder, 'linux', 'arch', 'open.c'), 'old\n')
  // Like the kernel patch that makes it static: the lines that it keeps are also around those that it removes.
  await writeFile(join(folder, 'linux', 'arch', 'less.c'), '1\n2\nbool\nselect\nhelp\n3\n')
  await writeFile(
    join(folder, 'src', 'less.patch'),
    '--- a/arch/less.c\n+++ b/arch/less.c\n@@ -3,3 +3,2 @@\n bool\n-select\n help\n',
  )
  for (const name of ['fixed', 'open'])
    await writeFile(
      join(folder, 'src', `${name}.patch`),
      `--- a/arch/${name}.c\n+++ b/arch/${name}.c\n@@ -1 +1 @@\n-old\n+new\n`,
    )
  await execa('tar', ['-cJf', join(folder, 'linux.tar.xz'), '-C', folder, 'linux'])
  const script = (await readFile(join(partsFolder, 'upstream', 'patches.sh'), 'utf8')).replaceAll(
    '/lab/',
    `${folder}/`,
  )
  await execa('bash', ['-c', script], {
    env: { ARCHIVE: join(folder, 'linux.tar.xz'), PATCHES: 'fixed.patch open.patch less.patch' },
  })
  expect(await readFile(join(work, 'patches'), 'utf8')).toBe('open.patch\nless.patch\n')
})
