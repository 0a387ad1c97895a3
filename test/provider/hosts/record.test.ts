/**
 * The state of a host is written down before it is changed, and restored from the last change to the first: with this
 * computer's own shell, in a folder.
 */
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { manifestDifference } from '../../../src/provider/hosts/manifest.js'
import { Recorder, readRecord } from '../../../src/provider/hosts/undo-record.js'
import { undoRecord, undoScript } from '../../../src/provider/hosts/undo.js'
import type { Transport } from '../../../src/machine/machine.js'
import { temporaryFolder } from '../../helpers/folder.js'

let root: string
let commands: string[]
/** A host whose /var/lib/lab is in a folder of this test; nothing runs as root there. */
let host: Transport
/** A part of the command that breaks this host's connection. */
let killAt: ((command: string) => boolean) | undefined

beforeEach(async () => {
  root = await temporaryFolder()
  commands = []
  killAt = undefined
  host = {
    address: 'host',
    exec: (command, { input }) => {
      commands.push(command)
      if (killAt?.(command)) return Promise.reject(new Error('the connection was lost'))
      const text = command.replaceAll('/var/lib/lab', join(root, 'lab')).replaceAll('systemctl', 'true')
      try {
        const stdout = execFileSync('sh', ['-c', text], {
          input: input ?? '',
          encoding: 'utf8',
          stdio: 'pipe',
        })
        return Promise.resolve({ exitCode: 0, stdout, stderr: '' })
      } catch (error) {
        const { status, stderr } = error as { status: number; stderr: string }
        return Promise.resolve({ exitCode: status, stdout: '', stderr })
      }
    },
    close: () => Promise.resolve(),
  }
})

const at = (path: string): string => join(root, 'etc', path)
const record = async (...paths: readonly string[]): Promise<void> => {
  const recorder = await Recorder.open(host)
  await recorder.files('configuration', paths.map(at))
}

describe('the record of a host', () => {
  beforeEach(() => {
    mkdirSync(at('iscsi'), { recursive: true })
    writeFileSync(at('hosts'), 'mine\n', { mode: 0o640 })
    writeFileSync(at('iscsi/name'), 'before\n')
    symlinkSync('hosts', at('link'))
  })

  const change = (): void => {
    writeFileSync(at('hosts'), 'the lab’s\n')
    writeFileSync(at('iscsi/name'), 'changed\n')
    writeFileSync(at('iscsi/more'), 'came\n')
    mkdirSync(at('lab/boot.d'), { recursive: true })
    writeFileSync(at('lab/boot.d/10'), 'came\n')
  }

  const expectAsBefore = (): void => {
    expect(readFileSync(at('hosts'), 'utf8')).toBe('mine\n')
    expect(statSync(at('hosts')).mode & 0o777).toBe(0o640)
    expect(readdirSync(at('iscsi'))).toEqual(['name'])
    expect(readFileSync(at('iscsi/name'), 'utf8')).toBe('before\n')
    expect(existsSync(at('lab'))).toBe(false)
    expect(readdirSync(at('')).sort()).toEqual(['hosts', 'iscsi', 'link'])
  }

  test('the record of a host restores files with their modes, and removes new files and folders', async () => {
    await record('hosts', 'iscsi', 'lab/boot.d/10', 'link')
    change()
    await undoRecord(host, () => undefined)
    expectAsBefore()
    expect(await readRecord(host)).toEqual([])
  })

  test('the record of a host keeps the first state, however often it is asked for, and adds new paths', async () => {
    await record('hosts', 'iscsi')
    change()
    await record('hosts', 'iscsi', 'iscsi/name')
    await record('hosts', 'iscsi', 'lab/boot.d/10')
    expect((await readRecord(host)).map(({ number }) => number)).toEqual(['001', '002'])
    writeFileSync(at('lab/boot.d/10'), 'changed')
    await undoRecord(host, () => undefined)
    expect(readFileSync(at('hosts'), 'utf8')).toBe('mine\n')
    // It existed before the lab asked for it.
    expect(readFileSync(at('lab/boot.d/10'), 'utf8')).toBe('came\n')
  })

  test('the record of a host is on disk before it counts, so that a lost connection leaves nothing half recorded', async () => {
    killAt = (command) => command.includes('.json.new')
    await expect(record('hosts')).rejects.toThrow('the connection was lost')
    killAt = undefined
    expect(await readRecord(host)).toEqual([])
    await record('hosts')
    expect(commands.find((command) => command.includes('.json.new'))).toMatch(
      /sync .*\.json\.new; mv .*; sync /,
    )
  })

  test.each(['undone', 'taken out of the record'])(
    'the record of a host is undone completely by the next attempt if one was killed before a change was %s',
    async (moment) => {
      await record('hosts', 'iscsi', 'lab/boot.d/10')
      await record('link')
      change()
      let left = moment === 'undone' ? 1 : 1
      killAt = (command) =>
        (moment === 'undone' ? command.includes('tar --extract') : command.includes('rm -f')) && left-- > 0
      await expect(undoRecord(host, () => undefined)).rejects.toThrow('the connection was lost')
      await undoRecord(host, () => undefined)
      expectAsBefore()
    },
  )

  test('the record of a host refuses to remove files whose saved copies are gone', async () => {
    await record('hosts')
    execFileSync('sh', ['-c', `rm ${join(root, 'lab/undo/001.tar')}`])
    change()
    await expect(undoRecord(host, () => undefined)).rejects.toThrow('the saved files are gone')
    expect(existsSync(at('hosts'))).toBe(true)
  })
})

describe('the script that undoes a change', () => {
  const scriptOf = (before: Parameters<typeof undoScript>[0]['before']): string =>
    undoScript({ number: '001', key: 'x', before })

  test('the script that undoes a change purges the packages that were installed, and no others, and removes only new system users', () => {
    const script = scriptOf({
      kind: 'packages',
      names: ['open-iscsi', 'libisns0t64'],
      users: ['root'],
      groups: [],
    })
    expect(script).toContain('open-iscsi libisns0t64')
    expect(script).not.toContain('autoremove')
    expect(script).toMatch(/-ge 1000 \] && .*-lt 60000 \] \|\| userdel/)
  })

  test('the script that undoes a change waits for an apt-get that a killed lab left at work, and purges the packages then', async () => {
    const folder = await temporaryFolder()
    const program = async (name: string, text: string): Promise<void> => {
      await writeFile(join(folder, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
    }
    await program('dpkg-query', 'echo installed open-iscsi')
    await program(
      'dpkg',
      `case $* in --purge*) [ -e ${folder}/free ] || { touch ${folder}/free; echo 'dpkg: error: dpkg frontend lock was locked by apt-get' >&2; exit 2; }; echo "$*" >> ${folder}/did ;; esac`,
    )
    for (const name of ['userdel', 'groupdel', 'ldconfig']) await program(name, 'exit 0')
    const script = scriptOf({ kind: 'packages', names: ['open-iscsi'], users: [], groups: [] })
    execFileSync('sh', ['-e'], { input: script, env: { PATH: `${folder}:${process.env['PATH'] ?? ''}` } })
    expect(await readFile(join(folder, 'did'), 'utf8')).toBe('--purge open-iscsi\n')
  })

  test.each([
    ['enabled', true, ['systemctl start x.service', 'systemctl enable --quiet x.service']],
    ['disabled', false, ['systemctl stop x.service', 'systemctl disable --quiet x.service']],
    ['masked', false, ['systemctl stop x.service', 'systemctl mask --quiet x.service']],
    ['not-found', false, ['systemctl stop x.service', 'systemctl disable --quiet x.service']],
  ])('the script that undoes a change restores a unit to %s, active %s', (enabled, active, wanted) => {
    const script = scriptOf({ kind: 'units', units: [{ name: 'x.service', enabled, active }] })
    for (const line of wanted) expect(script).toContain(line)
  })

  test.each([
    { kind: 'sysctls', values: [['net.ipv4.ip_forward', '0']] },
    { kind: 'modules', names: ['iscsi_tcp'], loaded: [] },
    { kind: 'hostname', name: "it's" },
    { kind: 'swap', devices: ['/dev/zram0'] },
    { kind: 'target' },
    { kind: 'sessions', targets: ['iqn.2016-04.world.srv:target00'] },
    { kind: 'containers', interfaces: ['lo'], tables: ['ip nat'], mounts: ["/mnt/it's"] },
    { kind: 'packages', names: ['a'], users: ['root'], groups: ['root'] },
    { kind: 'files', saved: ["/etc/it's"], absent: [] },
    { kind: 'units', units: [] },
  ] as const)('the script that undoes a change can be parsed by a shell, for $kind', (before) => {
    expect(() => execFileSync('sh', ['-n'], { input: scriptOf(before) })).not.toThrow()
  })
})

describe('the difference of two manifests', () => {
  test.each([
    ['nothing changed', 'package a 1 ii\nmount / ext4', 'mount / ext4\npackage a 1 ii\n', []],
    ['a package was installed', 'package a 1 ii', 'package a 1 ii\npackage b 2 ii', ['+ package b 2 ii']],
    [
      'a file changed',
      'content aa  /etc/hosts',
      'content bb  /etc/hosts',
      ['+ content bb  /etc/hosts', '- content aa  /etc/hosts'],
    ],
    ['a rule stayed', '', 'nftables table ip kube-proxy {', ['+ nftables table ip kube-proxy {']],
    ['lab’s own folder is removed last', '', 'name lab', []],
    ['useradd kept a copy', 'content aa  /etc/passwd-', 'content bb  /etc/passwd-', []],
  ])('the difference of two manifests shows exactly what differs when %s', (_, before, after, wanted) => {
    expect(manifestDifference(before, after)).toEqual(wanted)
  })
})
