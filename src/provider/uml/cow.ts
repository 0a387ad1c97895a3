/** The copy-on-write disk of User-Mode Linux: the sectors of the base disk that were written to. */
import { open, rename, rm, stat } from 'node:fs/promises'

const sector = 512
const page = 4096
/** 32-bit numbers and a path of 4096 bytes, without padding: arch/um/drivers/cow_user.c. */
const headerSize = 4128

const roundUp = (size: number, to: number): number => Math.ceil(size / to) * to

/**
 * Creates an empty one, as the machine's kernel would do, so that the kernel needs no writable folder.
 *
 * @param seenAs the path at which the machine sees the base disk
 */
export const makeCow = async (path: string, baseDisk: string, seenAs: string): Promise<void> => {
  const { size, mtimeMs } = await stat(baseDisk)
  const header = Buffer.alloc(headerSize)
  header.writeUInt32BE(0x4f4f4f4d, 0) // The magic number
  header.writeUInt32BE(3, 4) // Version
  header.writeUInt32BE(Math.floor(mtimeMs / 1000) >>> 0, 8)
  header.writeBigUInt64BE(BigInt(size), 12)
  header.writeUInt32BE(sector, 20)
  header.writeUInt32BE(page, 24)
  header.writeUInt32BE(0, 28) // A bitmap follows: which sectors are here.
  header.write(seenAs, 32, 'latin1')
  const bitmap = Math.ceil(Math.ceil(size / sector) / 8)
  const data = roundUp(roundUp(headerSize, page) + bitmap, page)
  // The file gets its name only when it is complete.
  const next = `${path}.new`
  await rm(next, { force: true })
  const file = await open(next, 'wx', 0o600)
  try {
    await file.write(header, 0, headerSize, 0)
    await file.truncate(data + size)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(next, path)
}
