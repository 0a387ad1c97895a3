/** The process that keeps a class. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execa } from 'execa'
import { afterEach, expect, test, vi } from 'vitest'
import { classPaths } from '../../src/class/class.js'
import { startGateway } from '../../src/class/gateway-process.js'

afterEach(() => {
  vi.unstubAllEnvs()
})

const processesOf = async (file: string): Promise<readonly string[]> => {
  const { stdout } = await execa('pgrep', ['--full', file], { reject: false })
  return stdout.split('\n').filter((pid) => pid !== '')
}

test(
  'the process that keeps a class ends when somebody has removed the folder of the class',
  { timeout: 150_000 },
  async () => {
    vi.stubEnv('LAB_CLASSES', await mkdtemp(join(tmpdir(), 'lab-class-')))
    const { root, file } = classPaths('iscsi')
    await mkdir(root)
    // `lab class serve` rejects this file, so it is started again and again; the last start may take long on a busy host.
    await writeFile(file, '{}')
    await startGateway('iscsi')
    await vi.waitFor(async () => {
      expect(await processesOf(file)).not.toEqual([])
    }, 30_000)
    await rm(root, { recursive: true })
    await vi.waitFor(
      async () => {
        expect(await processesOf(file)).toEqual([])
      },
      { timeout: 120_000, interval: 300 },
    )
  },
)
