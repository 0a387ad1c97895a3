/** The ledger of an exercise, on a lab whose database does not answer. */
import { mkdir, readdir } from 'node:fs/promises'
import { expect, test, vi } from 'vitest'
import type { Context } from '../../src/context.js'
import { LabError } from '../../src/error.js'
import { openLedger } from '../../src/learn/ledger.js'
import { loadLab } from '../../src/registry.js'
import { pathsOf } from '../../src/state.js'
import { temporaryFolder } from '../helpers/folder.js'

test('a database that does not answer in time is named, and is not reported as an interruption', async () => {
  vi.stubEnv('LAB_STATE', await temporaryFolder())
  const lab = await loadLab('iscsi-ha')
  await mkdir(pathsOf(lab).root, { recursive: true })
  const never = (): Promise<never> => Promise.reject(new Error('no answer'))
  const context = {
    lab,
    signal: new AbortController().signal,
    provider: { dial: never },
    machine: () => ({ try: never, run: never, follow: never }),
    kubectl: { run: never, get: never, watch: never, follow: never },
  } as unknown as Context
  const error: unknown = await openLedger(context, lab.database!, 0.3).catch((reason: unknown) => reason)
  expect(error).toBeInstanceOf(LabError)
  expect(error).toMatchObject({
    code: 'no-ledger',
    message: 'the database of iscsi-ha cannot be written to: no answer within 0.3 s',
    hint: 'lab up iscsi-ha, or lab restore iscsi-ha clean',
  })
  expect(await readdir(pathsOf(lab).learn)).toHaveLength(1)
})
