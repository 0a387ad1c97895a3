/** A test that forgets to choose a folder for its classes, and runs as root, must not find or change the host's own. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export default (): (() => void) => {
  const folder = mkdtempSync(join(tmpdir(), 'lab-classes-'))
  process.env['LAB_CLASSES'] = folder
  return () => rmSync(folder, { recursive: true, force: true })
}
