/** The contract of a provider, on real machines. Uses the built program, because it starts programs of its own. */
import { mkdtempSync } from 'node:fs'
import { mkdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { execa } from 'execa'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { pathsOf } from '../../src/state.js'
import { dist } from '../helpers/cli.js'
import { type Bench, contract, contractLab } from '../provider/contract.js'

type Uml = typeof import('../../src/provider/uml/uml.js')
type Parts = typeof import('../../src/parts/parts.js')
const built = <T>(module: string): Promise<T> => import(pathToFileURL(join(dist, module)).href) as Promise<T>

// /var/tmp, because a lab's folder holds Unix sockets, whose paths must be short, and disks, which may not fit into a
// tmpfs.
const folder = mkdtempSync(join('/var/tmp', 'lab-contract-'))
const before = process.env['LAB_STATE']
beforeAll(() => {
  process.env['LAB_STATE'] = join(folder, 'state')
})
afterAll(async () => {
  if (before === undefined) Reflect.deleteProperty(process.env, 'LAB_STATE')
  else process.env['LAB_STATE'] = before
  await rm(folder, { recursive: true, force: true })
})

contract('uml', async (): Promise<Bench> => {
  const { umlProvider } = await built<Uml>('provider/uml/uml.js')
  const { preparedParts } = await built<Parts>('parts/parts.js')
  const lab = contractLab('256MiB', join(folder, 'contract.yaml'))
  const baseFile = (machine: string): string => join(pathsOf(lab).machine(machine), 'base.json')
  return {
    provider: umlProvider,
    lab,
    tellsRuns: true,
    runsAs: ['process', 'namespace', 'file'],
    breakDisk: async (machine) => {
      const parts = await preparedParts()
      if ('missing' in parts) throw new Error(`not built: ${parts.missing.join(', ')}; lab prepare`)
      const disk = join(folder, 'no-disk')
      await writeFile(disk, '')
      await truncate(disk, 8 * 1024 ** 2)
      await mkdir(pathsOf(lab).machine(machine), { recursive: true })
      await writeFile(baseFile(machine), JSON.stringify({ kernel: parts.kernel, baseDisk: disk }))
    },
    loseBase: async (machine) => {
      const { baseDisk } = JSON.parse(await readFile(baseFile(machine), 'utf8')) as { baseDisk: string }
      await rm(baseDisk)
    },
  }
})

test('the kernel boots ten times of ten in the memory that its build and lab doctor give it', async () => {
  const { preparedParts, trialBoot, trialEnd } = await built<Parts>('parts/parts.js')
  const parts = await preparedParts()
  if ('missing' in parts) throw new Error(`not built: ${parts.missing.join(', ')}; lab prepare`)
  for (let boot = 0; boot < 10; boot += 1) {
    const { all } = await execa(parts.kernel, trialBoot, {
      reject: false,
      all: true,
      timeout: 30_000,
      stdin: 'ignore',
      env: { TMPDIR: '/dev/shm' },
    })
    expect(all).toContain(trialEnd)
  }
})
