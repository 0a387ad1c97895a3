/**
 * The disk of a seat: its home folder, which also has its lab, is a file system of its own, in a file with holes. A
 * student who fills it fills nothing else.
 */
import { chmod, lstat, mkdir, open, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { exitCodes, LabError } from '../error.js'
import { mounts } from '../mounts.js'
import type { Account } from './namespaces.js'

/** Why this host cannot mount a file; undefined if it can. Containers often have no loop devices. */
export const whyNoLoop = async (): Promise<string | undefined> => {
  for (const command of [
    ['mkfs.ext4', '-V'],
    ['losetup', '--find'],
  ] as const) {
    const [program, ...words] = command
    const { exitCode, stderr, shortMessage } = await execa(program, words, { reject: false, stdin: 'ignore' })
    if (exitCode !== 0) return `${command.join(' ')}: ${stderr.trim() || (shortMessage ?? 'failed')}`
  }
  return undefined
}

/** Whether a file system is mounted at this folder, according to this process's own mounts. */
export const isMounted = (folder: string): boolean => mounts().some(({ point }) => point === folder)

const must = async (what: string, program: string, words: readonly string[]): Promise<void> => {
  const { exitCode, stderr, shortMessage } = await execa(program, words, { reject: false, stdin: 'ignore' })
  if (exitCode !== 0)
    throw new LabError('no-home-disk', `${what}: ${stderr.trim() || (shortMessage ?? program)}`, {
      hint: 'losetup --list; df -h',
      exitCode: exitCodes.host,
    })
}

/**
 * Mounts the disk at the home folder, and makes it first if there is none. A half-made one has another name.
 * @param image absolute path of the file
 */
export const mountHome = async (
  image: string,
  home: string,
  bytes: number,
  { uid, gid }: Pick<Account, 'uid' | 'gid'>,
): Promise<void> => {
  await mkdir(home, { recursive: true, mode: 0o700 })
  if (isMounted(home)) return
  if (!(await stat(image).catch(() => undefined))) {
    const next = `${image}.new`
    await rm(next, { force: true })
    const file = await open(next, 'wx', 0o600)
    await file.truncate(bytes)
    await file.close()
    const settings = `root_owner=${String(uid)}:${String(gid)},lazy_itable_init=1,lazy_journal_init=1`
    await must(`${image} cannot be formatted`, 'mkfs.ext4', ['-q', '-F', '-m', '0', '-E', settings, next])
    await rename(next, image)
  }
  // discard: what a student deletes is free on the host, too.
  await must(`${image} cannot be mounted`, 'mount', ['-o', 'loop,discard,nosuid,nodev', image, home])
  await chmod(home, 0o700)
  await rm(join(home, 'lost+found'), { recursive: true, force: true })
}

/** Unmounts a home folder, if something is mounted there. A process that still uses it has been killed. */
export const unmountHome = async (home: string): Promise<void> => {
  if (isMounted(home)) await must(`${home} cannot be unmounted`, 'umount', ['--lazy', home])
}

/**
 * Removes the lab of a seat at which nothing runs. Its folder is renamed first, so that an interruption leaves either
 * the whole lab or nothing; within the home folder, because that may be another file system than the one above it.
 */
export const removeLab = async (home: string): Promise<void> => {
  const [lab, removed] = [join(home, '.lab'), join(home, '.lab-removed')]
  await rm(removed, { recursive: true, force: true })
  if (!(await lstat(lab).catch(() => undefined))) return
  await rename(lab, removed)
  await rm(removed, { recursive: true, force: true })
}
