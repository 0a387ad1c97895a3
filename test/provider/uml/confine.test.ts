/** The user that a machine runs as, and the small files for that. test/e2e checks the effect in the kernel. */
import { appendFile, readFile, stat, truncate, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { listedNumbers, userNumber } from '../../../src/provider/uml/confine.js'
import { BoundedLog, endOf } from '../../../src/provider/uml/console.js'
import { makeCow } from '../../../src/provider/uml/cow.js'
import { temporaryFolder } from '../../helpers/folder.js'

const host = '         0          0 4294967295\n'

describe('the user that a machine runs as', () => {
  it('the user that a machine runs as is never the id of a person or a container', () => {
    for (const place of [0, 1, 12_345, 2 ** 32 - 1]) {
      const user = userNumber(host, place, new Set())!
      // systemd gives the lower ids to containers, and higher ids are negative for some programs.
      expect(user).toBeGreaterThanOrEqual(1_879_048_192)
      expect(user).toBeLessThan(2_147_352_576)
    }
  })

  it('the user that a machine runs as is the same for the same machine and different for others', () => {
    expect(userNumber(host, 7, new Set())).toBe(userNumber(host, 7, new Set()))
    expect(userNumber(host, 7, new Set())).not.toBe(userNumber(host, 8, new Set()))
  })

  it('the user that a machine runs as is never an id that the host has assigned', () => {
    const first = userNumber(host, 7, new Set())!
    expect(userNumber(host, 7, new Set([first]))).toBe(first + 1)
  })

  it('the user that a machine runs as is an id of the container when lab runs in one', () => {
    const user = userNumber('0 100000 65536\n', 40_000, new Set([65_534]))!
    expect(user).toBeGreaterThanOrEqual(32_768)
    expect(user).toBeLessThan(65_536)
  })

  it('the user that a machine runs as is the current user when no other id is available', () => {
    expect(userNumber('0 1000 1\n', 5, new Set())).toBeUndefined()
    expect(userNumber('', 5, new Set())).toBeUndefined()
  })

  it('the user that a machine runs as is never root', () => {
    for (let place = 0; place < 8; place++) expect(userNumber('0 1000 2\n', place, new Set())).not.toBe(0)
  })

  it("the user that a machine runs as is checked against the host's own lists", () => {
    expect(listedNumbers('root:x:0:0:root:/root:/bin/bash\nme:x:1000:1000::/:\n\n')).toEqual([0, 1000])
  })
})

describe('a bounded log', () => {
  it('a bounded log keeps the latest output in two small files', async () => {
    const path = join(await temporaryFolder(), 'console.log')
    const log = new BoundedLog(path, 1000)
    for (let line = 0; line < 500; line++) log.write(Buffer.from(`line ${String(line)}\n`))
    log.close()
    const now = await readFile(path, 'utf8')
    const before = await readFile(`${path}.1`, 'utf8')
    expect(now.length).toBeLessThanOrEqual(1000)
    expect(before.length).toBeLessThanOrEqual(1000)
    expect(`${before}${now}`).toMatch(/line 498\nline 499\n$/)
  })

  it('a bounded log continues the file of an earlier run', async () => {
    const path = join(await temporaryFolder(), 'console.log')
    await writeFile(path, 'x'.repeat(990))
    const log = new BoundedLog(path, 1000)
    log.write(Buffer.from('a line that does not fit\n'))
    log.close()
    expect(await readFile(path, 'utf8')).toBe('a line that does not fit\n')
    expect((await stat(`${path}.1`)).size).toBe(990)
    expect((await stat(path)).mode & 0o777).toBe(0o600)
  })

  it('a bounded log is read from its end, even when an earlier version let it grow', async () => {
    const path = join(await temporaryFolder(), 'console.log')
    await writeFile(path, 'begin')
    await truncate(path, 3 * 1024 ** 3)
    await appendFile(path, '\nKernel panic\n')
    const end = await endOf(path)
    expect(end).toMatch(/\nKernel panic\n$/)
    expect(end.length).toBeLessThanOrEqual(64 * 1024)
    expect(await endOf(join(path, 'none'))).toBe('')
  })
})

describe('an empty copy-on-write disk', () => {
  it('an empty copy-on-write disk names its base disk and has the size its kernel expects', async () => {
    const folder = await temporaryFolder()
    const base = join(folder, 'disk')
    await writeFile(base, '')
    await truncate(base, 20 * 1024 ** 3)
    await utimes(base, 1_700_000_000, 1_700_000_000)
    await makeCow(join(folder, 'root.cow'), base, '/base')
    const { size, blocks, mode } = await stat(join(folder, 'root.cow'))
    // Like a file that User-Mode Linux 7.2 made for a disk of 20 GiB: header, bitmap, data, in pages of 4 KiB.
    expect(size).toBe(21_480_087_552)
    expect(blocks * 512).toBeLessThan(64 * 1024)
    expect(mode & 0o777).toBe(0o600)
    const header = Buffer.alloc(40)
    const { open } = await import('node:fs/promises')
    const file = await open(join(folder, 'root.cow'))
    await file.read(header, 0, 40, 0)
    await file.close()
    expect(header.toString('latin1', 0, 4)).toBe('OOOM')
    expect(header.readUInt32BE(4)).toBe(3)
    expect(header.readUInt32BE(8)).toBe(1_700_000_000)
    expect(header.readBigUInt64BE(12)).toBe(20n * 1024n ** 3n)
    expect(header.toString('latin1', 32, 38)).toBe('/base\0')
  })
})
