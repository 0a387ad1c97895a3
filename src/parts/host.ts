import { execa } from 'execa'
import { existsSync } from 'node:fs'
import { exitCodes, LabError } from '../error.js'
import type { Preparation } from './preparation.js'

interface HostProgram {
  /** Tried with these arguments: found is what runs, not what a database lists. */
  readonly command: readonly [string, ...string[]]
  readonly debianPackage: string
  readonly onlyWithoutRoot?: boolean
}

const programs: readonly HostProgram[] = [
  { command: ['mmdebstrap', '--version'], debianPackage: 'mmdebstrap' },
  // Essential packages of Debian and Ubuntu: missing only in containers that were cut down, or elsewhere.
  { command: ['unshare', '--version'], debianPackage: 'util-linux' },
  { command: ['setpriv', '--version'], debianPackage: 'util-linux' },
  { command: ['chroot', '--version'], debianPackage: 'coreutils' },
  { command: ['tar', '--version'], debianPackage: 'tar' },
  { command: ['mount', '--version'], debianPackage: 'mount' },
  { command: ['apt-get', '--version'], debianPackage: 'apt' },
  { command: ['newuidmap'], debianPackage: 'uidmap', onlyWithoutRoot: true },
]

/**
 * Debian's keys, with which apt checks what it fetches. Debian has them; Ubuntu has them packaged. LAB_DEBIAN_KEYRING:
 * those of whoever signs a mirror of one's own.
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

/** What this host lacks to build parts, found by trying. */
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
 * Installs what `hostPackages` found missing. It changes the host, so the caller says so before.
 * @throws LabError `host-packages` when it cannot: not root, no apt, or apt failed.
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
  if (!isRoot()) throw fail('only root can install', install)
  const options = {
    reject: false,
    stdin: 'ignore',
    all: true,
    env: { DEBIAN_FRONTEND: 'noninteractive' },
  } as const
  // A mirror of which a part is out of date is no reason to stop: the package may be there all the same.
  await execa('apt-get', ['update'], options)
  const result = await execa('apt-get', ['install', '-y', '--no-install-recommends', ...missing], options)
  if (result.exitCode !== 0)
    throw fail(`apt-get: ${result.all.trim().split('\n').at(-1) ?? 'failed'}`, `apt-get update && ${install}`)
}

/**
 * Before anything is built: installs what this host lacks, as root, after saying so.
 * @throws LabError `host-packages` with the command to type, where we are not root.
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
