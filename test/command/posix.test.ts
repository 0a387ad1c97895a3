/**
 * Machines over SSH from a computer that is no Linux, such as a Mac: `lab` must do with the programs of POSIX and without
 * /proc. Here, a mount namespace hides /proc, and PATH leads to a folder with such programs only.
 */
import { existsSync } from 'node:fs'
import { mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { describe, expect, test, vi } from 'vitest'
import { cli } from '../helpers/cli.js'
import { temporaryFolder } from '../helpers/folder.js'

vi.setConfig({ testTimeout: 120_000 })

/** Utilities of POSIX.1-2017, and ssh, which macOS brings. */
const programs = [
  ...[
    'awk',
    'cat',
    'chmod',
    'cp',
    'cut',
    'env',
    'expr',
    'grep',
    'head',
    'id',
    'kill',
    'ln',
    'ls',
    'mkdir',
    'mv',
  ],
  ...['printf', 'ps', 'rm', 'sed', 'sh', 'sleep', 'sort', 'ssh', 'tail', 'test', 'tr', 'uname', 'wc'],
]

/** Runs `lab` there. */
const desk = async () => {
  const folder = await temporaryFolder()
  const bin = join(folder, 'bin')
  await mkdir(bin)
  for (const program of programs) {
    const found = ['/usr/bin', '/bin'].map((place) => join(place, program)).find((path) => existsSync(path))
    if (found !== undefined) await symlink(found, join(bin, program))
  }
  const mapped = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user']
  return async (...args: readonly string[]) => {
    const { exitCode, stdout, stderr } = await execa(
      '/usr/bin/unshare',
      [
        ...mapped,
        ...['--mount', '/bin/sh', '-c', '/bin/mount -t tmpfs none /proc && exec "$@"', 'lab'],
        ...[process.execPath, cli, ...args],
      ],
      {
        cwd: folder,
        env: { HOME: folder, LAB_STATE: join(folder, 'state'), PATH: bin, NO_COLOR: '1' },
        extendEnv: false,
        reject: false,
        stdin: 'ignore',
      },
    )
    return { exitCode, stdout, stderr }
  }
}

describe('lab on a computer without /proc, and with the programs of POSIX alone', () => {
  test('lab writes a hosts.yaml and checks its hosts without /proc, with the programs of POSIX alone', async () => {
    const lab = await desk()
    expect(await lab('hosts', 'init', 'pi@127.0.0.[1-2]')).toMatchObject({ exitCode: 0 })
    const { exitCode, stdout, stderr } = await lab('hosts', 'check', 'hosts.yaml', '--yes')
    expect(stderr).not.toMatch(/defect of lab/)
    expect(stdout).toMatch(/✖ login/)
    expect(exitCode).toBe(3)
  })

  test.each([
    ['list', ['list'], 0],
    ['status', ['status', 'iscsi'], 1],
    ['up of a lab without hosts', ['up', 'iscsi', '--hosts', 'hosts.yaml'], 2],
    ['down', ['down', 'iscsi'], 0],
  ] as const)('lab %s needs neither /proc nor programs beyond POSIX', async (_, args, code) => {
    const lab = await desk()
    const { exitCode, stderr } = await lab(...args)
    expect(stderr).not.toMatch(/defect of lab|^ +at /m)
    expect(exitCode, stderr).toBe(code)
  })
})
