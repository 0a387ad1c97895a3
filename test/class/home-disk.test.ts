/** The disk of a seat, on real loop devices: as root, where there are any. */
import { mkdir, readdir, readFile, stat, statfs, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { isMounted, mountHome, removeLab, unmountHome, whyNoLoop } from '../../src/class/home-disk.js'
import { temporaryFolder } from '../helpers/folder.js'

const MiB = 1024 ** 2
const size = 64 * MiB
const able = process.getuid?.() === 0 && (await whyNoLoop()) === undefined
const mounted: string[] = []
afterEach(async () => {
  for (const home of mounted.splice(0)) await unmountHome(home)
})

const seat = async () => {
  const folder = await temporaryFolder()
  const [image, home] = [join(folder, 'home.ext4'), join(folder, 'home')]
  mounted.push(home)
  return { image, home, mount: () => mountHome(image, home, size, { uid: 4321, gid: 4322 }) }
}

test.runIf(able)(
  'the disk of a seat belongs to its account, and takes hardly any space while it is empty',
  async () => {
    const { image, home, mount } = await seat()
    await mount()
    const { uid, gid, mode } = await stat(home)
    expect([uid, gid, mode & 0o777]).toEqual([4321, 4322, 0o700])
    expect((await stat(image)).blocks * 512).toBeLessThan(8 * MiB)
  },
)

test.runIf(able)(
  'the disk of a seat is full when a student has filled it, and that of the host is not',
  async () => {
    const { home, mount } = await seat()
    await mount()
    await expect(writeFile(join(home, 'big'), Buffer.alloc(size))).rejects.toMatchObject({ code: 'ENOSPC' })
    const { bavail, bsize } = await statfs(join(home, '..'))
    expect(bavail * bsize).toBeGreaterThan(size)
  },
)

test.runIf(able)(
  'the disk of a seat keeps its files when it is mounted again, as after a restart of the host',
  async () => {
    const { home, mount } = await seat()
    await mount()
    await writeFile(join(home, 'notes'), 'mine')
    await unmountHome(home)
    expect(isMounted(home)).toBe(false)
    await mount()
    await mount()
    expect(await readFile(join(home, 'notes'), 'utf8')).toBe('mine')
  },
)

test.runIf(able)('the disk of a seat is made anew if making it was interrupted', async () => {
  const { image, mount } = await seat()
  await mkdir(join(image, '..'), { recursive: true })
  await writeFile(`${image}.new`, 'half')
  await mount()
  expect((await stat(image)).size).toBe(size)
})

test.runIf(able)('a reset removes the lab from the disk of a seat, and keeps the other files', async () => {
  const { home, mount } = await seat()
  await mount()
  await mkdir(join(home, '.lab', 'iscsi'), { recursive: true })
  await writeFile(join(home, 'notes'), 'mine')
  await removeLab(home)
  await removeLab(home)
  expect(await readdir(home)).toEqual(['notes'])
})
