/** Disk space that a lab needs of this host: asked of the file system where its disks will be, LUNs included. */
import { join } from 'node:path'
import { beforeEach, expect, test, vi } from 'vitest'
import { preflight } from '../../../src/provider/uml/preflight.js'
import { loadLab } from '../../../src/registry.js'
import { temporaryFolder } from '../../helpers/folder.js'

/** Free bytes of the file system with this folder, and of all others. */
const free = vi.hoisted(() => ({ at: '', bytes: 0, elsewhere: 0 }))
vi.mock('../../../src/state.js', async (original) => ({
  ...(await original<object>()),
  freeSpace: (folder: string) => Promise.resolve(folder.startsWith(free.at) ? free.bytes : free.elsewhere),
}))

const gib = 1024 ** 3
const lab = await loadLab('iscsi')

let state = ''
beforeEach(async () => {
  state = await temporaryFolder()
  vi.stubEnv('LAB_STATE', join(state, 'not', 'made', 'yet'))
})

const diskProblems = async (): Promise<readonly { problem: string; may?: boolean | undefined }[]> =>
  (await preflight(lab, false)).filter(({ problem }) => problem.includes('of disk are free'))

test('a small file system elsewhere, such as /var/tmp, does not matter', async () => {
  Object.assign(free, { at: state, bytes: 100 * gib, elsewhere: 0 })
  expect(await diskProblems()).toEqual([])
})

test('a small file system of the state folder is refused, however much is free elsewhere', async () => {
  Object.assign(free, { at: state, bytes: 0.01 * gib, elsewhere: 100 * gib })
  const [found] = await diskProblems()
  expect(found?.problem).toMatch(
    new RegExp(`^${state}: 0\\.0 GiB of disk are free; iscsi needs .* its LUNs may grow to 4\\.0 GiB$`),
  )
  expect(found?.may).toBeFalsy()
})

test('LUNs that may fill the disk are a question, not a refusal', async () => {
  Object.assign(free, { at: state, bytes: 3 * gib, elsewhere: 100 * gib })
  expect(await diskProblems()).toMatchObject([
    { may: true, problem: expect.stringContaining('its LUNs may grow to 4.0 GiB') },
  ])
})
