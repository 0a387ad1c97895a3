/** Which files and folders are trusted, and how folders are made. Most of it can be tested by root only. */
import { chmod, chown, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { afterEach, describe, expect, onTestFinished, test } from 'vitest'
import { pathsOf } from '../src/state.js'
import { makeFolder, refuseForeign, refuseForeignIn } from '../src/trust.js'
import { dist } from './helpers/cli.js'
import { temporaryFolder } from './helpers/folder.js'

const place = { variable: 'LAB_STATE', danger: 'lab would do what it says' }
const root = process.getuid?.() === 0
/** Another user, who has no name here. */
const stranger = 4321

describe.runIf(root)('trusting a folder', () => {
  const made = async (): Promise<string> => {
    const folder = join(await temporaryFolder(), 'state')
    await mkdir(folder, { mode: 0o700 })
    return folder
  }

  test('lab trusts our own folder inside one that everybody may write to, such as /tmp', async () => {
    const folder = await made()
    expect(refuseForeign(folder, place)).toBe(folder)
  })

  test('lab names the real path of a folder that is reached through links', async () => {
    const folder = await made()
    await symlink(folder, `${folder}-link`)
    expect(refuseForeign(join(`${folder}-link`, 'x', '..'), place)).toBe(folder)
  })

  test('lab trusts a folder that does not exist yet', async () => {
    expect(refuseForeign(join(await made(), 'a', 'b'), place)).toBeUndefined()
  })

  test.each<{ why: string; change: (folder: string) => Promise<unknown>; says: RegExp; hint: RegExp }>([
    {
      why: 'belongs to somebody else',
      change: (folder) => chown(folder, stranger, 0),
      says: /state belongs to user 4321: lab would do what it says/,
      hint: /chown -R root .*state\nor use another folder, of your own: LAB_STATE=/,
    },
    {
      why: 'is writable by everybody',
      change: (folder) => chmod(folder, 0o777),
      says: /state is writable by everybody/,
      hint: /^chmod go-w .*state\n/,
    },
    {
      why: 'is writable by a group of others',
      change: async (folder) => {
        await chown(folder, 0, stranger)
        await chmod(folder, 0o770)
      },
      says: /state is writable by the group group 4321/,
      hint: /^chmod go-w/,
    },
    {
      why: 'is in a folder of somebody else, who could replace it',
      change: (folder) => chown(join(folder, '..'), stranger, 0),
      says: /belongs to user 4321, and .*state is inside it/,
      hint: /^use another folder, of your own: LAB_STATE=/,
    },
    {
      why: 'is in a folder that everybody may write, unlike /tmp',
      change: (folder) => chmod(join(folder, '..'), 0o777),
      says: /is writable by everybody, and .*state is inside it/,
      hint: /^chmod go-w/,
    },
  ])('refuses a folder that $why', async ({ change, says, hint }) => {
    const folder = await made()
    await change(folder)
    expect(() => refuseForeign(folder, place)).toThrow(
      expect.objectContaining({
        code: 'not-trusted',
        exitCode: 3,
        message: expect.stringMatching(says),
        hint: expect.stringMatching(hint),
      }),
    )
  })

  test('lab refuses a folder when another user made the link that leads to it', async () => {
    const folder = await made()
    const link = `${folder}-link`
    await symlink(folder, link)
    await execa('chown', ['--no-dereference', String(stranger), link])
    expect(() => refuseForeign(link, place)).toThrow(/state-link belongs to user 4321/)
  })

  test('lab refuses a folder whose links form a circle', async () => {
    const folder = await made()
    await symlink('b', join(folder, 'a'))
    await symlink('a', join(folder, 'b'))
    expect(() => refuseForeign(join(folder, 'a'), place)).toThrow(/symbolic links form a loop/)
  })

  test('lab trusts folders of the user who typed sudo when root asks', async () => {
    const folder = await made()
    await chown(folder, stranger, 0)
    process.env['SUDO_UID'] = String(stranger)
    onTestFinished(() => void Reflect.deleteProperty(process.env, 'SUDO_UID'))
    expect(refuseForeign(folder, place)).toBe(folder)
  })

  test('lab refuses files of other users and files that could be read forever', async () => {
    const folder = await made()
    await mkdir(join(folder, 'deep'))
    await writeFile(join(folder, 'deep', 'file'), '')
    refuseForeignIn(folder, place, 'ours')
    await execa('mkfifo', [join(folder, 'deep', 'pipe')])
    expect(() => refuseForeignIn(folder, place, 'ours')).toThrow(/deep\/pipe is not an ordinary file/)
    refuseForeignIn(folder, place, 'ours', { into: () => false })
    await chown(join(folder, 'deep', 'file'), stranger, 0)
    await execa('rm', [join(folder, 'deep', 'pipe')])
    expect(() => refuseForeignIn(folder, place, 'ours')).toThrow(/deep\/file belongs to user 4321/)
  })
})

describe.runIf(root)('the folder of a lab', () => {
  const before = process.env['LAB_STATE']
  afterEach(() => {
    if (before === undefined) Reflect.deleteProperty(process.env, 'LAB_STATE')
    else process.env['LAB_STATE'] = before
  })

  test.each([
    'lab.yaml',
    'lab.json',
    'provider',
    'ssh_config',
    'kubeconfig',
    'secrets.json',
    'faults/1.json',
    'fencing/lock',
    'ssh/id_ed25519',
    'manifests/web.yaml',
    'machines/target/base.json',
    'machines/target/host_key',
    '../.mine.lock',
  ])('lab refuses the folder of a lab with a file of another user in it: %s', async (file) => {
    process.env['LAB_STATE'] = await temporaryFolder()
    const path = join(process.env['LAB_STATE'], 'mine', file)
    await mkdir(join(path, '..'), { recursive: true })
    await mkdir(join(process.env['LAB_STATE'], 'mine'), { recursive: true })
    await writeFile(path, '')
    await chown(path, stranger, 0)
    expect(() => pathsOf({ name: 'mine' })).toThrow(/belongs to user 4321/)
  })
})

describe('making a folder', () => {
  test('lab makes a folder and its missing parents, readable only by the owner', async () => {
    const folder = await temporaryFolder()
    await makeFolder(join(folder, 'a', 'b'))
    await makeFolder(join(folder, 'a', 'b'))
    const { stdout } = await execa('stat', ['-c', '%a', join(folder, 'a'), join(folder, 'a', 'b')])
    expect(stdout).toBe('700\n700')
  })

  test.each([
    {
      where: '/proc/lab/x',
      says: /^\/proc\/lab\/x cannot be created \(at \/proc\/lab\): nothing can be created in \/proc$/,
    },
    { where: '/dev/null', says: /^\/dev\/null cannot be created: a file is in the way$/ },
    { where: '/dev/null/x', says: /^\/dev\/null\/x cannot be created: .*a part of its path is a file/ },
    { where: `/tmp/${'x'.repeat(300)}`, says: /a name in it is too long/ },
  ])('lab refuses at once to make a folder where that is impossible: $where', async ({ where, says }) => {
    const begun = performance.now()
    await expect(makeFolder(where)).rejects.toMatchObject({
      exitCode: 3,
      message: expect.stringMatching(says),
    })
    expect(performance.now() - begun).toBeLessThan(1000)
  })

  test('lab refuses to make a folder below a link that leads nowhere or in a circle', async () => {
    const folder = await temporaryFolder()
    await symlink('nowhere', join(folder, 'dangling'))
    await symlink('loop', join(folder, 'loop'))
    await expect(makeFolder(join(folder, 'dangling', 'x'))).rejects.toThrow(
      /a broken symbolic link is in the way/,
    )
    await expect(makeFolder(join(folder, 'loop'))).rejects.toThrow(/symbolic links form a loop/)
  })

  test.runIf(root).each([
    { mount: 'mount -t tmpfs -o ro tmpfs', says: 'its file system is read-only' },
    { mount: 'mount -t tmpfs -o nr_inodes=1 tmpfs', says: 'its file system is full' },
  ])('refuses to make a folder where $says', async ({ mount, says }) => {
    const folder = await temporaryFolder()
    const program = `import { makeFolder } from '${join(dist, 'trust.js')}'; await makeFolder('${folder}/a').catch((error) => console.log(error.message, error.exitCode))`
    const { stdout } = await execa('unshare', [
      '--mount',
      'sh',
      '-c',
      `${mount} "$1" && exec "$2" --input-type=module --eval "$3"`,
      'sh',
      folder,
      process.execPath,
      program,
    ])
    expect(stdout).toBe(`${folder}/a cannot be created: ${says} 3`)
  })
})

test('lab makes each folder of a path separately', async () => {
  const { stdout } = await execa(
    'grep',
    [
      '-rnE',
      'mkdir\\([^;]*recursive: true',
      'src/state.ts',
      'src/lock.ts',
      'src/command',
      'src/parts/cache.ts',
      'src/parts/graph.ts',
    ],
    { reject: false, cwd: join(import.meta.dirname, '..') },
  )
  expect(stdout).toBe('')
  expect(await readFile(join(import.meta.dirname, '..', 'src', 'lock.ts'), 'utf8')).toContain('makeFolder(')
})
