/** Which parts are in use: `prepare --prune` must not remove the base disk of another user, seat or state folder. */
import { chmod, mkdir, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { execa } from 'execa'
import { Cache, openCache } from '../../src/parts/cache.js'
import { forgetUse, noteUse, partsInUse } from '../../src/parts/uses.js'
import { temporaryFolder } from '../helpers/folder.js'

let root = ''
let state = ''
const disk = (): string => join(root, 'parts', 'base-disk-1', 'disk.ext4')

beforeEach(async () => {
  root = join(await temporaryFolder(), 'cache')
  state = await temporaryFolder()
  await openCache(root)
  await mkdir(join(root, 'parts', 'base-disk-1'))
  await mkdir(join(root, 'parts', 'base-disk-2'))
})

describe('parts that machines need', () => {
  test('parts that machines need are kept for a machine of another state folder, until that folder is gone', async () => {
    const machine = join(state, 'iscsi', 'machines', 'target')
    await mkdir(machine, { recursive: true })
    expect(await noteUse(machine, [disk()])).toBe(true)
    const cache = new Cache(root)
    const old = async (): Promise<readonly string[]> =>
      (await cache.old(new Set(), await partsInUse(root))).map(({ path }) => path)
    expect(await old()).toEqual([cache.path('base-disk-2')])
    await rm(machine, { recursive: true })
    expect((await old()).toSorted()).toEqual([cache.path('base-disk-1'), cache.path('base-disk-2')])
    expect(await readdir(join(root, 'uses'))).toEqual([])
  })

  test('parts that machines need are no longer kept once the machine is forgotten', async () => {
    await noteUse(state, [disk()])
    await forgetUse(state, [disk()])
    expect(await partsInUse(root)).toEqual([])
  })

  test.runIf(process.getuid?.() === 0)(
    'parts that machines need are kept for a machine of another user, who cannot write to the cache',
    async () => {
      await chmod(join(root, '..'), 0o755)
      const folder = await temporaryFolder()
      await chmod(folder, 0o755)
      expect((await stat(join(root, 'uses'))).mode & 0o7777).toBe(0o1777)
      const note = join(root, 'uses', 'other.json')
      await execa(
        'setpriv',
        ['--reuid=65534', '--regid=65534', '--clear-groups', 'sh', '-c', `cat > ${note}`],
        {
          input: JSON.stringify({ folder: state, parts: ['base-disk-1'] }),
        },
      )
      expect(await partsInUse(root)).toEqual([join(root, 'parts', 'base-disk-1')])
    },
  )

  test('parts that machines need do not include parts that a link, a long file or garbage in the folder of notes names', async () => {
    await writeFile(join(state, 'note'), JSON.stringify({ folder: state, parts: ['base-disk-1'] }))
    await symlink(join(state, 'note'), join(root, 'uses', 'link.json'))
    await writeFile(join(root, 'uses', 'long.json'), 'x'.repeat(10_000))
    await writeFile(
      join(root, 'uses', 'bad.json'),
      JSON.stringify({ folder: state, parts: ['../../etc', 7] }),
    )
    expect(await partsInUse(root)).toEqual([])
  })
})
