import { execa } from 'execa'
import { existsSync } from 'node:fs'
import { exitCodes, LabError } from '../error.js'
import type { Preparation } from './preparation.js'

interface HostProgram {
  /** A program counts as installed if it runs with these arguments, whatever a package database says. */
  readonly command: readonly [string, ...string[]]
  readonly debianPackage: string
  readonly onlyWithoutRoot?: boolean
}

const programs: readonly HostProgram[] = [
  { command: ['mmdebstrap', '--version'], debianPackage: 'mmdebstrap' },
  // Essential packages of Debian and Ubuntu: they are missing only in minimal containers and on other systems.
  { command: ['unshare', '--version'], debianPackage: 'util-linux' },
  { command: ['setpriv', '--version'], debianPackage: 'util-linux' },
  { command: ['chroot', '--version'], debianPackage: 'coreutils' },
  { command: ['tar', '--version'], debianPackage: 'tar' },
  { command: ['mount', '--version'], debianPackage: 'mount' },
  { command: ['apt-get', '--version'], debianPackage: 'apt' },
  { command: ['newuidmap'], debianPackage: 'uidmap', onlyWithoutRoot: true },
]

/**
 * Debian's keys, with which apt verifies downloads. Debian has them, and Ubuntu packages them. LAB_DEBIAN_KEYRING
 * names the keys of a private mirror.
 */
export const keyring = (): string =>
  process.env['LAB_DEBIAN_KEYRING'] ?? '/usr/share/keyrings/debian-archive-keyring.gpg'

const isRoot = (): boolean => process.getuid?.() === 0

export interface HostPackages {
  /** Names of Debian packages, sorted. */
  readonly missing: readonly string[]
  /** The command that installs them; empty if none is missing. */
  readonly install: string
}

/** The packages that this host lacks for building parts, found by running programs. */
export const hostPackages = async (): Promise<HostPackages> => {
  const missing = new Set<string>()
  await Promise.all(
    programs
      .filter(({ onlyWithoutRoot }) => !onlyWithoutRoot || !isRoot())
      .map(async ({ command: [program, ...args], debianPackage }) => {
        const result = await execa(program, args, { reject: false, stdin: 'ignore', timeout: 10_000 })
        if (result.code === 'ENOENT') missing.add(debianPackage)
      }),
  )
  if (!existsSync(keyring())) missing.add('debian-archive-keyring')
  const names = [...missing].sort()
  return {
    missing: names,
    install: names.length
      ? `${isRoot() ? '' : 'sudo '}apt-get install -y --no-install-recommends ${names.join(' ')}`
      : '',
  }
}

/**
 * Installs what `hostPackages` found missing. The caller announces it, since it changes the host.
 * @throws LabError `host-packages` without root or apt, or if apt failed
 */
export const installHostPackages = async (): Promise<void> => {
  const { missing, install } = await hostPackages()
  if (missing.length === 0) return
  const names = missing.join(', ')
  const fail = (why: string, hint: string): LabError =>
    new LabError('host-packages', `this host lacks ${names}: ${why}`, { hint, exitCode: exitCodes.host })
  if (missing.includes('apt'))
    throw fail(
      'it has no apt',
      'use a Debian or Ubuntu host, or a provider with virtual machines: --provider virtualbox',
    )
  if (!isRoot()) throw fail('only root can install them', install)
  const options = {
    reject: false,
    stdin: 'ignore',
    all: true,
    env: { DEBIAN_FRONTEND: 'noninteractive' },
  } as const
  // A partly outdated mirror is no reason to stop: it may still have the package.
  await execa('apt-get', ['update'], options)
  const result = await execa('apt-get', ['install', '-y', '--no-install-recommends', ...missing], options)
  if (result.exitCode !== 0)
    throw fail(`apt-get: ${result.all.trim().split('\n').at(-1) ?? 'failed'}`, `apt-get update && ${install}`)
}

/**
 * Before any build: as root, announces and installs what this host lacks.
 * @throws LabError `host-packages` with the command to type, for other users
 */
export const needHostPackages = async (preparation: Preparation): Promise<void> => {
  const { missing, install } = await hostPackages()
  if (missing.length === 0) return
  if (!isRoot())
    throw new LabError('host-packages', `missing on this host: ${missing.join(', ')}`, {
      hint: install,
      exitCode: exitCodes.host,
    })
  preparation.notice(`Missing on this host: ${missing.join(', ')}. Installing, as root: ${install}`)
  await installHostPackages()
}
