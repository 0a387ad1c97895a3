/** The process that keeps a class. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execa } from 'execa'
import { afterEach, expect, test, vi } from 'vitest'
import { type ClassFile, classPaths, newSecret, writeClass } from '../../src/class/class.js'
import { boardSoon, startGateway } from '../../src/class/gateway-process.js'
import { keepClass } from '../../src/class/serve.js'
import { temporaryFolder } from '../helpers/folder.js'

const { port } = await new Promise<AddressInfo>((resolve) => {
  const server = createServer().listen(0, '127.0.0.1', () => {
    const address = server.address() as AddressInfo
    server.close(() => resolve(address))
  })
})

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
    // `lab class serve` waits until this file is corrected; its start may take long on a busy host.
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

test('a running gateway ends when somebody has removed the file of the class, so it opens no seat again', async () => {
  vi.stubEnv('LAB_CLASSES', await temporaryFolder())
  const wanted: ClassFile = {
    schema: 'lab.class/v1',
    lab: 'iscsi',
    from: 'iscsi',
    size: 'full',
    language: 'en',
    seats: [],
    teacher: 'a-b-c-d-e-f',
    secret: newSecret(),
    host: '127.0.0.1',
    port,
    address: '127.0.0.1',
    until: new Date(Date.now() + 3_600_000).toISOString(),
  }
  await writeClass(wanted)
  const { signal } = new AbortController()
  const kept = keepClass(wanted, signal)
  expect((await boardSoon('iscsi', signal)).seats).toEqual([])
  await rm(classPaths('iscsi').file)
  await kept
  await expect(fetch(`https://127.0.0.1:${String(port)}/`)).rejects.toMatchObject({
    cause: { code: 'ECONNREFUSED' },
  })
})
