/** Parts that were made earlier, and what became of their files since. */
import { mkdir, rm, truncate, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { neededParts, preparedParts } from '../../src/parts/parts.js'
import { temporaryFolder } from '../helpers/folder.js'

const files: Readonly<Record<string, readonly string[]>> = {
  kernel: ['linux'],
  kubernetes: ['kubectl', 'kubeadm'],
  'base-disk': ['disk.ext4'],
}
const all = Object.entries(files).flatMap(([part, names]) => names.map((name) => ({ part, name })))

/** The folder of a part in the cache of this test. */
const folderOf = (part: string): string =>
  neededParts().find(({ key }) => key.startsWith(`${part}-`))?.path ?? ''

beforeEach(async () => {
  vi.stubEnv('LAB_CACHE', await temporaryFolder())
  for (const { part, name } of all) {
    await mkdir(folderOf(part), { recursive: true })
    await writeFile(join(folderOf(part), name), 'x')
  }
})

describe('parts that were made', () => {
  test('parts that were made are found by their folders', async () => {
    expect(await preparedParts()).toMatchObject({
      kernel: join(folderOf('kernel'), 'linux'),
      baseDisk: join(folderOf('base-disk'), 'disk.ext4'),
    })
    await rm(folderOf('kernel'), { recursive: true })
    expect(await preparedParts()).toEqual({ missing: ['kernel'] })
  })

  test.each(all)(
    'a part is damaged without its file, or if that is empty: $part/$name',
    async ({ part, name }) => {
      const path = join(folderOf(part), name)
      for (const damage of [() => truncate(path), () => rm(path)]) {
        await damage()
        await expect(preparedParts()).rejects.toMatchObject({
          code: 'broken-part',
          message: `${path} is missing or empty, although its part was made`,
          hint: expect.stringMatching(new RegExp(`^rm -r \\S+/${basename(folderOf(part))} && lab prepare$`)),
          exitCode: 3,
        })
      }
    },
  )
})
