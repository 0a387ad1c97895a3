/** The disk space for building parts. */
import { LabError } from '../error.js'
import { freeSpace } from '../state.js'
import { makeFolder } from '../trust.js'
import type { Cache } from './cache.js'
import { precedence } from './company.js'
import type { Part } from './part.js'

/**
 * The most mebibytes in use while these parts are built: the result of every part that may exist while one is built,
 * its scratch space, and that of the parts that may be built concurrently.
 * @param parts each listed after its inputs
 */
export const spaceNeeded = (parts: readonly Part[]): number => {
  const comesBefore = precedence(parts)
  const most = parts.map((part) => {
    const scratch = new Map<string, number>()
    for (const other of parts)
      if (other.lane !== part.lane && !comesBefore(other, part) && !comesBefore(part, other))
        scratch.set(other.lane, Math.max(scratch.get(other.lane) ?? 0, other.reference.scratch))
    return [
      part.reference.scratch,
      ...scratch.values(),
      ...parts.filter((other) => !comesBefore(part, other)).map(({ reference }) => reference.kept),
    ].reduce((sum, each) => sum + each)
  })
  return Math.max(0, ...most)
}

/** @throws LabError `disk-space` */
export const checkSpace = async (cache: Cache, missing: readonly Part[]): Promise<void> => {
  await makeFolder(cache.root, 0o755)
  const free = (await freeSpace(cache.root)) / 1024 ** 3
  const needed = spaceNeeded(missing) / 1024
  if (free < needed)
    throw new LabError(
      'disk-space',
      `${cache.root}: ${free.toFixed(1)} GiB are free; building ${String(missing.length)} parts needs ${needed.toFixed(1)} GiB`,
      { hint: 'make room, or use another disk: LAB_CACHE=/path/to/folder', exitCode: 3 },
    )
}
