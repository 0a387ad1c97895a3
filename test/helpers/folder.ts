import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

/** A folder for one test, removed when the test ends. Its path is short, because Unix sockets go in there. */
export const temporaryFolder = async (): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'lab-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  return folder
}
