/** Checks a whole bundle: every chunk, and every file of the program. */
import type { Source } from './source.js'
import { chunkPath, type Manifest, sha256Of } from './manifest.js'
import { LabError, messageOf } from '../error.js'

/** @returns what is missing or damaged, one line each */
export const damageOf = async (
  source: Source,
  manifest: Manifest,
  signal: AbortSignal,
): Promise<readonly string[]> => {
  const damage: string[] = []
  const look = async (path: string, size: number, sha256: string, what: string): Promise<void> => {
    try {
      const data = await source.read(path, size, signal)
      if (data.length !== size || sha256Of(data) !== sha256) damage.push(`${path} (${what}): damaged`)
    } catch (error) {
      if (!(error instanceof LabError) || !['bundle-file-missing', 'bad-bundle'].includes(error.code))
        throw error
      damage.push(`${path} (${what}): ${error.code === 'bad-bundle' ? 'damaged' : messageOf(error)}`)
    }
  }
  const seen = new Set<string>()
  for (const { title, files } of manifest.parts)
    for (const { path, chunks } of files)
      for (const { sha256, stored } of chunks) {
        if (seen.has(sha256)) continue
        seen.add(sha256)
        await look(chunkPath(sha256), stored, sha256, `${title}, ${path}`)
      }
  for (const { path, size, sha256 } of manifest.program) await look(path, size, sha256, 'lab itself')
  return damage
}
