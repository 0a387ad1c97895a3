/** Logs of bounded size, and their last lines. Standard library only: the supervisor uses it. */
import { closeSync, fstatSync, openSync, renameSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'

/** A file for appending. Beyond `limit` bytes it is renamed to `PATH.1` and replaces the previous one. */
export class BoundedLog {
  private readonly path: string
  private readonly limit: number
  private fd: number
  private size: number

  constructor(path: string, limit: number) {
    this.path = path
    this.limit = limit
    this.fd = openSync(path, 'a', 0o600)
    this.size = fstatSync(this.fd).size
  }

  /** @throws the errors of the file system, such as a full disk */
  write(text: Buffer): void {
    if (this.size > 0 && this.size + text.length > this.limit) {
      closeSync(this.fd)
      renameSync(this.path, `${this.path}.1`)
      this.fd = openSync(this.path, 'a', 0o600)
      this.size = 0
    }
    for (let done = 0; done < text.length;) done += writeSync(this.fd, text, done)
    this.size += text.length
  }

  close(): void {
    closeSync(this.fd)
  }
}

/** The last bytes of a file; empty if it does not exist. */
export const endOf = async (path: string, bytes = 64 * 1024): Promise<string> => {
  const file = await open(path, 'r').catch(() => undefined)
  if (!file) return ''
  try {
    const { size } = await file.stat()
    const from = Math.max(0, size - bytes)
    const buffer = Buffer.alloc(size - from)
    const { bytesRead } = await file.read(buffer, 0, buffer.length, from)
    return buffer.toString('utf8', 0, bytesRead)
  } finally {
    await file.close()
  }
}
