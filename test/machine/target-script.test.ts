/** The script of a target and its folders, on a stand-in for configfs. */
import { mkdir, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { execa } from 'execa'
import { describe, expect, test } from 'vitest'
import { type Lab } from '../../src/lab/lab.js'
import { parseLab } from '../../src/registry.js'
import { targetFolders } from '../../src/machine/files.js'
import { temporaryFolder } from '../helpers/folder.js'
import { contentOf, labNamed, nastyText } from './lab-files.js'

/**
 * The kernel's configfs creates the contents of a folder when the folder is made, and removes them with it. These
 * shell functions do the same on an ordinary file system.
 */
const asConfigfs = `
mountpoint() { :; }
mkdir() {
  command mkdir "$@" || return
  for made in "$@"; do case "$made" in
    */target/iscsi) command mkdir -p "$made"/discovery_auth ;;
    */acls/*/lun_*) ;;
    */acls/*) command mkdir -p "$made"/auth ;;
    */tpgt_1) command mkdir -p "$made"/attrib "$made"/acls "$made"/np "$made"/lun ;;
    */iblock_*/*) command mkdir -p "$made"/wwn ;;
  esac; done
}
rmdir() { command rm -r "$@"; }
`

const runTarget = async (folder: string, lab: Lab, machine: string): Promise<string> => {
  const script = contentOf(lab, machine, '/etc/lab/boot.d/50-target')
    .replaceAll('/sys/kernel/config', join(folder, 'config'))
    .replaceAll('/etc/target', join(folder, 'etc'))
    .replaceAll('/run/lab-target.lock', `${folder}.lock`)
    .replaceAll('/var/lib/lab/fenced', join(folder, 'fenced'))
  const { stdout, stderr } = await execa('/bin/sh', ['-x', '-c', asConfigfs + script])
  expect(stdout).toBe('')
  return stderr
}

describe('the script of a target, run on a stand-in for configfs', () => {
  const valueOf = (folder: string, ...path: readonly string[]): Promise<string> =>
    readFile(join(folder, 'config', 'target', ...path), 'utf8')

  test('names and passwords are written byte for byte', async () => {
    const lab = labNamed('nasty')
    for (const { iqn, chap, machine } of lab.targets) {
      const folder = await temporaryFolder()
      await runTarget(folder, lab, machine)
      const acls = join('iscsi', iqn, 'tpgt_1', 'acls')
      expect((await readdir(join(folder, 'config', 'target', acls))).sort()).toEqual([
        'iqn.2016-04.world.srv:w1',
        'iqn.2016-04.world.srv:w3',
        'iqn.2024-01.example.lab:second',
      ])
      for (const { iqn: initiator } of lab.machines.filter(({ role }) => role === 'worker')) {
        expect(await valueOf(folder, acls, initiator ?? '', 'auth', 'userid')).toBe(chap.username)
        expect(await valueOf(folder, acls, initiator ?? '', 'auth', 'password')).toBe(chap.password)
      }
    }
  })

  test('nobody can log in without CHAP, and the target is enabled only after CHAP is set', async () => {
    const folder = await temporaryFolder()
    const log = await runTarget(folder, labNamed('iscsi'), 'target')
    const group = ['iscsi', 'iqn.2016-04.world.srv:target00', 'tpgt_1'] as const
    expect(await valueOf(folder, ...group, 'attrib', 'authentication')).toBe('1')
    expect(await valueOf(folder, ...group, 'attrib', 'generate_node_acls')).toBe('0')
    expect(await valueOf(folder, ...group, 'enable')).toBe('1')
    expect(await readdir(join(folder, 'config', 'target', ...group, 'np'))).toEqual(['192.168.56.70:3260'])
    expect(log.indexOf('auth/password')).toBeLessThan(log.indexOf('/enable 1', log.indexOf('auth/password')))
  })

  test('every LUN has its own disk across all targets of a machine', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, labNamed('nasty'), 'disks')
    const devices = await Promise.all(
      [
        ['one', '0'],
        ['one', '7'],
        ['two', '0'],
      ].map(async ([target = '', lun = '']) => {
        const path = join('iscsi', `iqn.2016-04.world.srv:${target}`, 'tpgt_1', 'lun', `lun_${lun}`, 'store')
        const store = await readlink(join(folder, 'config', 'target', path))
        return readFile(join(store, 'udev_path'), 'utf8')
      }),
    )
    expect(devices).toEqual(['/dev/ubdc', '/dev/ubdd', '/dev/ubde'])
  })

  // Initiators identify disks by it: if two had the same number, by-id links and multipath would take them for one.
  test('every disk of a lab has its own serial number, whichever machine serves it', () => {
    const lab = labNamed('nasty')
    const targets = lab.targets.map((target) => ({ ...target, luns: [{ lun: 0, size: 1024 ** 3 }] }))
    const serials = ['disks', 'more-disks'].flatMap((machine) =>
      [
        ...contentOf({ ...lab, targets }, machine, '/etc/lab/boot.d/50-target').matchAll(
          /printf %s '?(\S+?)'? > \S+vpd_unit_serial/g,
        ),
      ].map(([, serial]) => serial),
    )
    expect(serials).toHaveLength(3)
    expect(new Set(serials).size).toBe(3)
  })

  test('a second run of the script changes nothing', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, labNamed('nasty'), 'disks')
    const files = async (): Promise<readonly string[]> => {
      const { stdout } = await execa('find', [folder, '-printf', '%p %l %T@\n'])
      return stdout.split('\n').sort()
    }
    const before = await files()
    await runTarget(folder, labNamed('nasty'), 'disks')
    expect(await files()).toEqual(before)
  })

  test('a new password is applied, and a removed initiator loses access', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, labNamed('nasty'), 'disks')
    const changed = parseLab(
      nastyText.replace(/^ {2}- \{ name: w3.*\n/m, '').replace("username: 'a  b'", "username: 'c d'"),
      'nasty.yaml',
      { built: '1.36.3', minors: ['1.36'] },
    )
    await runTarget(folder, changed, 'disks')
    const acls = join('iscsi', 'iqn.2016-04.world.srv:two', 'tpgt_1', 'acls')
    expect((await readdir(join(folder, 'config', 'target', acls))).sort()).toEqual([
      'iqn.2016-04.world.srv:w1',
      'iqn.2024-01.example.lab:second',
    ])
    expect(await valueOf(folder, acls, 'iqn.2016-04.world.srv:w1', 'auth', 'userid')).toBe('c d')
  })

  test('a target that is no longer in the lab file is not served', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, labNamed('nasty'), 'disks')
    const lab = labNamed('nasty')
    const fewer: Lab = { ...lab, targets: lab.targets.filter(({ iqn }) => !iqn.endsWith(':two')) }
    await runTarget(folder, fewer, 'disks')
    expect(await readdir(join(folder, 'config', 'target', 'iscsi'))).toEqual([
      'discovery_auth',
      'iqn.2016-04.world.srv:one',
    ])
  })

  test('only an initiator with the CHAP secret of the first target can discover the targets', async () => {
    const folder = await temporaryFolder()
    const lab = labNamed('nasty')
    await runTarget(folder, lab, 'disks')
    const auth = async (name: string): Promise<string> => valueOf(folder, 'iscsi', 'discovery_auth', name)
    expect(await auth('userid')).toBe(lab.targets[0]?.chap.username)
    expect(await auth('password')).toBe(lab.targets[0]?.chap.password)
    expect(await auth('enforce_discovery_auth')).toBe('1')
    for (const name of ['one', 'two'])
      expect(
        await valueOf(
          folder,
          'iscsi',
          `iqn.2016-04.world.srv:${name}`,
          'tpgt_1',
          'attrib',
          'demo_mode_discovery',
        ),
      ).toBe('0')
  })

  const mutual = { username: 'answer', password: "it's $HOME" }
  const answering = (lab: Lab): Lab => ({
    ...lab,
    targets: lab.targets.map((target) => ({ ...target, chap: { ...target.chap, mutual } })),
  })

  test('the target answers with the mutual name and password at login and at discovery', async () => {
    const folder = await temporaryFolder()
    const lab = answering(labNamed('iscsi'))
    await runTarget(folder, lab, 'target')
    const acl = join(
      'iqn.2016-04.world.srv:target00',
      'tpgt_1',
      'acls',
      'iqn.2016-04.world.srv:initiator',
      'auth',
    )
    for (const place of [acl, 'discovery_auth']) {
      expect(await valueOf(folder, 'iscsi', place, 'userid_mutual')).toBe(mutual.username)
      expect(await valueOf(folder, 'iscsi', place, 'password_mutual')).toBe(mutual.password)
    }
    // The kernel enables it once it has both; if they are not in the lab file, it must forget them.
    const says = join(folder, 'config', 'target', 'iscsi', acl, 'authenticate_target')
    await writeFile(says, '1\n')
    await runTarget(folder, labNamed('iscsi'), 'target')
    expect(await valueOf(folder, 'iscsi', acl, 'userid_mutual')).toBe('NULL')
    expect(await valueOf(folder, 'iscsi', acl, 'password_mutual')).toBe('NULL')
  })

  test('a value with an extra line end is rewritten, and one in the kernel’s own form is left alone', async () => {
    const folder = await temporaryFolder()
    const lab = labNamed('iscsi')
    await runTarget(folder, lab, 'target')
    const auth = join(folder, 'config', 'target', 'iscsi', 'discovery_auth')
    await writeFile(join(auth, 'password'), 'password\n\n')
    await writeFile(join(auth, 'userid'), 'username\n')
    await runTarget(folder, lab, 'target')
    expect(await readFile(join(auth, 'password'), 'utf8')).toBe('password')
    expect(await readFile(join(auth, 'userid'), 'utf8')).toBe('username\n')
  })

  const masked = (): Lab =>
    parseLab(
      readFileSync(join(import.meta.dirname, '..', 'lab', 'valid', 'masking.yaml'), 'utf8'),
      'masking.yaml',
      {
        built: '1.36.3',
        minors: ['1.36'],
      },
    )

  const mappings = async (folder: string): Promise<readonly string[]> => {
    const { stdout } = await execa(
      'sh',
      ['-c', "cd iscsi/*/tpgt_1/acls && find . -type l -printf '%P %l\n' | sed 's|/lun .*/| = |'"],
      { cwd: join(folder, 'config', 'target') },
    )
    return stdout
      .split('\n')
      .map((line) => line.replace('iqn.2016-04.world.srv:', ''))
      .sort()
  }

  const meant = [
    'c1/lun_1 = lun_1',
    'c1/lun_3 = lun_3',
    'c2/lun_3 = lun_3',
    'w1/lun_0 = lun_0',
    'w1/lun_2 = lun_2',
    'w2/lun_0 = lun_0',
    'w2/lun_2 = lun_2',
  ]

  test('every initiator sees its own LUNs: of the database, of its file systems, and those that name it', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, masked(), 'target')
    expect(await mappings(folder)).toEqual(meant)
  })

  test('a LUN that was mapped by hand is unmapped, whatever its number', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, masked(), 'target')
    const { stdout: group } = await execa('sh', ['-c', 'echo iscsi/*/tpgt_1'], {
      cwd: join(folder, 'config', 'target'),
    })
    const acls = join(folder, 'config', 'target', group, 'acls')
    const lun = (number: number): string =>
      join(folder, 'config', 'target', group, 'lun', `lun_${String(number)}`)
    // LUN 0 is for c2, the database's disk; LUN 1 of c1 leads to the database's disk as well; the link has another
    // name.
    await mkdir(join(acls, 'iqn.2016-04.world.srv:c2', 'lun_0'))
    await symlink(lun(0), join(acls, 'iqn.2016-04.world.srv:c2', 'lun_0', 'mine'))
    await rm(join(acls, 'iqn.2016-04.world.srv:c1', 'lun_1', 'lun'))
    await symlink(lun(0), join(acls, 'iqn.2016-04.world.srv:c1', 'lun_1', 'lun'))
    await writeFile(join(acls, 'iqn.2016-04.world.srv:w1', 'lun_0', 'write_protect'), '1\n')
    await runTarget(folder, masked(), 'target')
    expect(await mappings(folder)).toEqual(meant)
    expect(await readFile(join(acls, 'iqn.2016-04.world.srv:w1', 'lun_0', 'write_protect'), 'utf8')).toBe('0')
  })

  test('a fenced initiator has no access list, whatever the lab file says, until the fence is undone', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, masked(), 'target')
    const fenced = join(folder, 'fenced')
    await mkdir(fenced)
    await writeFile(join(fenced, 'iqn.2016-04.world.srv:w1'), '')
    await runTarget(folder, masked(), 'target')
    expect(await mappings(folder)).toEqual(meant.filter((line) => !line.startsWith('w1/')))
    await rm(join(fenced, 'iqn.2016-04.world.srv:w1'))
    await runTarget(folder, masked(), 'target')
    expect(await mappings(folder)).toEqual(meant)
  })

  test('addresses and ports that are no longer in the lab file are closed', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, labNamed('nasty'), 'disks')
    const lab = labNamed('nasty')
    const moved: Lab = {
      ...lab,
      targets: lab.targets.map((target) => (target.port === 3261 ? { ...target, port: 3262 } : target)),
    }
    await runTarget(folder, moved, 'disks')
    const portals = join(folder, 'config', 'target', 'iscsi', 'iqn.2016-04.world.srv:two', 'tpgt_1', 'np')
    expect(await readdir(portals)).toEqual(['172.20.16.70:3262'])
  })
})

describe('the folders that a target machine should have', () => {
  const foldersIn = async (folder: string): Promise<readonly string[]> => {
    const patterns = [
      'core/iblock_*/*',
      'iscsi/*/tpgt_1',
      ...['np/*', 'lun/*', 'acls/*', 'acls/*/lun_*'].map((kind) => `iscsi/*/tpgt_1/${kind}`),
    ]
    const { stdout } = await execa('sh', ['-c', `ls -d ${patterns.join(' ')}`], {
      cwd: join(folder, 'config', 'target'),
    })
    return stdout.split('\n').sort()
  }

  const sorted = (lab: Lab, machine: string): readonly string[] =>
    [
      ...targetFolders(
        lab,
        lab.machines.find(({ name }) => name === machine)!,
      ),
    ].sort()

  test.each(['disks', 'more-disks'])(
    'the expected folders are those that the script of %s makes',
    async (machine) => {
      const folder = await temporaryFolder()
      await runTarget(folder, labNamed('nasty'), machine)
      expect(await foldersIn(folder)).toEqual(sorted(labNamed('nasty'), machine))
    },
  )

  test('the expected folders are right after any edit of targets, LUNs, ports and initiators, in any order', async () => {
    const folder = await temporaryFolder()
    const lab = labNamed('nasty')
    await runTarget(folder, lab, 'disks')
    const edited: Lab = {
      ...lab,
      machines: lab.machines.filter(({ name }) => name !== 'w3'),
      targets: [...lab.targets].reverse().map((target, index) => ({
        ...target,
        iqn: index === 1 ? 'iqn.2016-04.world.srv:renamed' : target.iqn,
        port: target.port + 10,
        luns: target.luns.map(({ lun, size }) => ({ lun: lun === 7 ? 8 : lun, size })),
      })),
    }
    await runTarget(folder, edited, 'disks')
    expect(await foldersIn(folder)).toEqual(sorted(edited, 'disks'))
    await runTarget(folder, lab, 'disks')
    expect(await foldersIn(folder)).toEqual(sorted(lab, 'disks'))
  })
})
