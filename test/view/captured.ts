import { Writable } from 'node:stream'

/** A stream that keeps its input; a terminal only as far as it claims to be one. */
export class Captured extends Writable {
  readonly isTTY: boolean
  text = ''

  constructor(isTTY = false) {
    super()
    this.isTTY = isTTY
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.text += chunk.toString()
    done()
  }

  get asStream(): NodeJS.WriteStream {
    return this as unknown as NodeJS.WriteStream
  }
}
