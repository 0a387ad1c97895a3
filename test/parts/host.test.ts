/**
 * What is missing on a host. A host that lacks something is a PATH with links to some of the real programs; apt-get is
 * a stand-in, because the real one would change this host.
 */
import { readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { hostPackages, installHostPackages, keyring } from '../../src/parts/host.js'
import { existsSync } from 'node:fs'
import { temporaryFolder } from '../helpers/folder.js'
import { setEnvironment } from '../provider/vagrant-tools.js'

const root = process.getuid?.() === 0
const all = ['mmdebstrap', 'unshare', 'setpriv', 'chroot', 'tar', 'mount', 'apt-get', 'newuidmap']

/** This host with only these programs; stand-ins replace those that it lacks itself. */
const hostWith = async (
  names: readonly string[],
  scripts: Readonly<Record<string, string>> = {},
): Promise<string> => {
  const folder = await temporaryFolder()
  for (const name of [...names, 'sh'].filter((each) => !(each in scripts))) {
    const { stdout, exitCode } = await execa('sh', ['-c', `command -v ${name}`], { reject: false })
    if (exitCode === 0) await symlink(stdout, join(folder, name))
    else await writeFile(join(folder, name), '#!/bin/sh\n', { mode: 0o755 })
  }
  for (const [name, body] of Object.entries(scripts))
    await writeFile(join(folder, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 })
  setEnvironment({ PATH: folder })
  return folder
}

/** Debian's keys are a file; if they are missing here, they are missing in every answer. */
const keys = existsSync(keyring()) ? [] : ['debian-archive-keyring']

const as = (user: number): void => {
  // A process cannot become another user and come back; only its user id matters here.
  const spy = vi.spyOn(process, 'getuid').mockReturnValue(user)
  onTestFinished(() => spy.mockRestore())
}

describe('what this host lacks', () => {
  test('a host with every program lacks nothing', async () => {
    await hostWith(all)
    expect((await hostPackages()).missing).toEqual(keys)
  })

  test.each<{ lacks: readonly string[]; missing: readonly string[] }>([
    { lacks: ['mmdebstrap'], missing: ['mmdebstrap'] },
    { lacks: ['unshare', 'setpriv'], missing: ['util-linux'] },
    { lacks: ['tar', 'mount', 'chroot'], missing: ['coreutils', 'mount', 'tar'] },
    { lacks: ['apt-get'], missing: ['apt'] },
  ])('a host without $lacks is missing the packages $missing', async ({ lacks, missing }) => {
    as(0)
    await hostWith(all.filter((name) => !lacks.includes(name)))
    const found = await hostPackages()
    expect(found.missing).toEqual([...missing, ...keys].sort())
    expect(found.install).toBe(`apt-get install -y --no-install-recommends ${found.missing.join(' ')}`)
  })

  test('newuidmap is needed only by a user other than root', async () => {
    await hostWith(all.filter((name) => name !== 'newuidmap'))
    as(0)
    expect((await hostPackages()).missing).toEqual(keys)
    as(1000)
    const found = await hostPackages()
    expect(found.missing).toEqual(['uidmap', ...keys].sort())
    expect(found.install).toMatch(/^sudo apt-get install -y .*uidmap/)
  })

  test('a program that exists but exits with an error counts as installed', async () => {
    await hostWith(all, { newuidmap: 'echo usage >&2; exit 1', mmdebstrap: 'exit 2' })
    as(1000)
    expect((await hostPackages()).missing).toEqual(keys)
  })
})

describe('installing it', () => {
  const apt = (folder: string, more = ''): string => `echo "$DEBIAN_FRONTEND $*" >> ${folder}/asked; ${more}`

  test('apt is asked for exactly the missing packages, after an update of its lists', async () => {
    as(0)
    const log = await temporaryFolder()
    await hostWith(['unshare', 'setpriv', 'chroot', 'mount'], { 'apt-get': apt(log) })
    await installHostPackages()
    expect(
      (await readFile(join(log, 'asked'), 'utf8')).split('\n').filter((line) => !line.includes('--version')),
    ).toEqual([
      'noninteractive update',
      `noninteractive install -y --no-install-recommends ${['mmdebstrap', 'tar', ...keys].sort().join(' ')}`,
      '',
    ])
  })

  test.skipIf(keys.length > 0)('apt is not run when nothing is missing', async () => {
    as(0)
    const log = await temporaryFolder()
    await hostWith(all, { 'apt-get': apt(log) })
    await installHostPackages()
    expect(await readFile(join(log, 'asked'), 'utf8')).toMatch(/^\w* --version\n$/)
  })

  test('the installation continues with old lists when a mirror does not answer', async () => {
    as(0)
    const log = await temporaryFolder()
    await hostWith(['unshare', 'setpriv', 'chroot', 'mount', 'tar'], {
      'apt-get': apt(log, '[ "$1" != update ] || exit 100'),
    })
    await installHostPackages()
    expect(await readFile(join(log, 'asked'), 'utf8')).toContain('install -y --no-install-recommends')
  })

  test.each<{ name: string; who: number; lacks: string; apt: string; says: RegExp; hint: RegExp }>([
    {
      name: 'apt fails',
      who: 0,
      lacks: 'mmdebstrap',
      apt: '[ "$1" != install ] || { echo Reading; echo "E: Unable to locate package mmdebstrap" >&2; exit 100; }',
      says: /^this host lacks .*mmdebstrap: apt-get: E: Unable to locate package mmdebstrap$/,
      hint: /^apt-get update && apt-get install -y --no-install-recommends .*mmdebstrap/,
    },
    {
      name: 'it is not root',
      who: 1000,
      lacks: 'mmdebstrap',
      apt: '[ "$1" = --version ] || exit 1',
      says: /^this host lacks .*mmdebstrap: only root can install them$/,
      hint: /^sudo apt-get install -y --no-install-recommends .*mmdebstrap/,
    },
    {
      name: 'there is no apt',
      who: 0,
      lacks: 'apt-get',
      apt: '',
      says: /^this host lacks apt.*: it has no apt$/,
      hint: /Debian or Ubuntu/,
    },
  ])(
    'the error says what to type when $name, with exit code 3',
    async ({ who, lacks, apt: script, says, hint }) => {
      as(who)
      const names = all.filter((name) => name !== lacks)
      await hostWith(names, names.includes('apt-get') ? { 'apt-get': script } : {})
      await expect(installHostPackages()).rejects.toMatchObject({
        code: 'host-packages',
        exitCode: 3,
        message: expect.stringMatching(says),
        hint: expect.stringMatching(hint),
      })
    },
  )
})

test.runIf(root && existsSync('/etc/debian_version'))(
  'this host has every program for building, or a way to install it',
  async () => {
    const { missing, install } = await hostPackages()
    expect(install === '').toBe(missing.length === 0)
  },
)
