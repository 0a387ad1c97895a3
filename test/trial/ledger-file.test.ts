import { appendFile, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createLedger, readLedger } from '../../src/trial/ledger-file.js'
import type { LedgerRecord } from '../../src/trial/ledger.js'
import { temporaryFolder } from '../helpers/folder.js'

const sent = (seq: number): LedgerRecord => ({
  type: 'sent',
  client: 'writer-1',
  operation: 'write',
  medium: 'row',
  seq,
  address: '192.168.56.21:32306',
  at: '2026-11-21T15:04:05.000Z',
  ms: seq,
  content: 'a\n"b"',
})

test('an acknowledged record is on disk, in order', async () => {
  const path = join(await temporaryFolder(), 'ledger.ndjson')
  const ledger = await createLedger(path)
  await ledger.append(sent(0))
  expect((await readLedger(path)).records).toEqual([sent(0)])
  await Promise.all(Array.from({ length: 200 }, (_, index) => ledger.append(sent(index + 1))))
  const { records, torn } = await readLedger(path)
  expect(records).toEqual(Array.from({ length: 201 }, (_, seq) => sent(seq)))
  expect(torn).toBeUndefined()
  await ledger.close()
})

test('close waits for pending records', async () => {
  const path = join(await temporaryFolder(), 'ledger.ndjson')
  const ledger = await createLedger(path)
  const appended = ledger.append(sent(1))
  await ledger.close()
  await appended
  expect((await readLedger(path)).records).toHaveLength(1)
})

test('a record that cannot be written is not acknowledged', async () => {
  const ledger = await createLedger(join(await temporaryFolder(), 'ledger.ndjson'))
  await ledger.close()
  await expect(ledger.append(sent(1))).rejects.toThrow()
  await expect(ledger.append(sent(2))).rejects.toThrow()
})

test('a ledger is never overwritten', async () => {
  const path = join(await temporaryFolder(), 'ledger.ndjson')
  await (await createLedger(path)).close()
  await expect(createLedger(path)).rejects.toMatchObject({ code: 'EEXIST' })
})

test('a last line that was cut short is reported wherever the cut is', async () => {
  const path = join(await temporaryFolder(), 'ledger.ndjson')
  const last = JSON.stringify(sent(2))
  for (let length = 1; length <= last.length; length++) {
    await writeFile(path, `${JSON.stringify(sent(1))}\n${last.slice(0, length)}`)
    expect(await readLedger(path)).toEqual({ records: [sent(1)], torn: last.slice(0, length) })
  }
})

test.each(['', '{', 'null', '{"type":"sent"}', '\u0000\u0000'])(
  'a broken line in the middle is an error: %j',
  async (line) => {
    const path = join(await temporaryFolder(), 'ledger.ndjson')
    await writeFile(path, `${JSON.stringify(sent(1))}\n${line}\n${JSON.stringify(sent(2))}\n`)
    await expect(readLedger(path)).rejects.toMatchObject({
      code: 'bad-ledger',
      message: `${path}:2: not a record of a ledger`,
    })
  },
)

test('an empty ledger has no records', async () => {
  const path = join(await temporaryFolder(), 'ledger.ndjson')
  await appendFile(path, '')
  expect(await readLedger(path)).toEqual({ records: [] })
  expect(await readFile(path, 'utf8')).toBe('')
})
