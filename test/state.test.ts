import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { writePrivate } from '../src/state.js'
import { temporaryFolder } from './helpers/folder.js'

test('a file that several steps write at once is one complete version, with nothing left next to it', async () => {
  const folder = await temporaryFolder()
  const file = join(folder, 'made', 'Vagrantfile')
  const texts = Array.from({ length: 50 }, (_, index) => String(index).repeat(10_000))
  await Promise.all(texts.map((text) => writePrivate(file, text)))
  expect(texts).toContain(await readFile(file, 'utf8'))
  expect(await readdir(join(folder, 'made'))).toEqual(['Vagrantfile'])
  expect((await stat(file)).mode & 0o777).toBe(0o600)
})

test('a file that cannot be written leaves nothing behind', async () => {
  const folder = await temporaryFolder()
  await writePrivate(join(folder, 'folder', 'x'), '')
  await expect(writePrivate(join(folder, 'folder'), 'text')).rejects.toThrow()
  expect(await readdir(folder)).toEqual(['folder'])
})
