/** Where the parts of a lab come from, when everything is in the cache already. */
import { join } from 'node:path'
import { afterEach, expect, test, vi } from 'vitest'
import { type PartsSource, prepareParts } from '../../src/lifecycle/parts.js'
import type { Provider } from '../../src/provider/provider.js'
import { loadLab } from '../../src/registry.js'
import { temporaryFolder } from '../helpers/folder.js'

const lab = await loadLab('iscsi')

afterEach(() => {
  vi.unstubAllEnvs()
})

const prepared = async (source: PartsSource): Promise<number> => {
  const prepare = vi.fn(async () => undefined)
  const parts = async () => [{ key: 'kernel-0123456789ab', title: 'Linux', there: true }]
  const provider = { name: 'uml', prepare, machines: { parts } } as unknown as Provider
  await prepareParts(lab, provider, source, {
    signal: new AbortController().signal,
    notice: () => {},
    progress: () => {},
  })
  return prepare.mock.calls.length
}

test('a bundle that does not exist is an error even if none of its parts is needed', async () => {
  const from = join(await temporaryFolder(), 'nowhere')
  for (const offline of [true, false])
    await expect(prepared({ from, offline })).rejects.toMatchObject({ code: 'bad-source' })
  await expect(prepared({ from: 'http://nowhere:x', offline: true })).rejects.toMatchObject({
    code: 'bad-source',
  })
})

test('a stick that LAB_PARTS names may be taken out once its parts are in the cache', async () => {
  const from = join(await temporaryFolder(), 'stick')
  vi.stubEnv('LAB_PARTS', from)
  expect(await prepared({ from, offline: true })).toBe(1)
})

test('a server is not contacted if none of its parts is needed', async () => {
  expect(await prepared({ from: 'http://127.0.0.1:9', offline: true })).toBe(1)
})
