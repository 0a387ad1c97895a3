/** The ledger of an exercise, on a lab whose database does not answer. */
import { mkdir, readdir } from 'node:fs/promises'
import { expect, test, vi } from 'vitest'
import type { Context } from '../../src/context.js'
import { LabError } from '../../src/error.js'
import { openLedger, tallied } from '../../src/learn/ledger.js'
import { loadLab } from '../../src/registry.js'
import { pathsOf } from '../../src/state.js'
import type { LedgerRecord } from '../../src/trial/ledger.js'
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

test('a row that was changed counts as lost, and rows that were sent while they were read do not', () => {
  const at = '2026-01-01T00:00:00.000Z'
  const server = { pod: 'db-1', node: 'worker1' }
  const records = [1, 2, 3].flatMap((seq): LedgerRecord[] => {
    const one = {
      at,
      client: 'writer-1',
      operation: 'write',
      medium: 'row',
      seq,
      address: '10.0.0.1',
    } as const
    return [
      { ...one, type: 'sent', ms: seq * 10, content: `row ${String(seq)}` },
      { ...one, type: 'acknowledged', ms: seq * 10 + 1, server },
    ]
  })
  const there = (contents: readonly string[]) =>
    contents.map((content, place) => ({ seq: place + 1, content }))
  expect(tallied(records, there(['row 1', 'row 2', 'row 3', 'row 4']))).toEqual({
    lost: 0,
    turns: false,
    acknowledged: 3,
  })
  expect(tallied(records, there(['row 1', 'row 9'])).lost).toBe(2)
})
