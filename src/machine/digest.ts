import { createHash } from 'node:crypto'
import type { TargetSpec } from '../lab/lab.js'

/** In hexadecimal, as `sha256sum` prints it on a machine. */
export const sha256 = (content: Buffer | string): string => createHash('sha256').update(content).digest('hex')

/**
 * The serial number of a LUN, the same at every boot: initiators identify the disk by it. The kernel makes the disk's
 * WWN of its first 25 hexadecimal digits, so these must be unique as well.
 */
export const serialOf = (target: TargetSpec, lun: number): string =>
  sha256(`${target.iqn} ${String(lun)}`).slice(0, 32)
