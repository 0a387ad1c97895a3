/** Who has a host, according to the lock on the host itself. */
import { execFileSync } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import { holderToReturn, readHolder } from '../../../src/provider/hosts/give-back.js'
import { type Holder, holderIn, lockFile } from '../../../src/provider/hosts/lock.js'
import type { Transport } from '../../../src/machine/machine.js'
import { temporaryFolder } from '../../helpers/folder.js'

const alice: Holder = { who: 'alice@desk', lab: 'iscsi', key: 'AAAA', since: '2026-11-21T10:00:00.000Z' }

let lock = ''
/** A host whose lock is in a folder of this test; nothing runs as root there. */
let host: Transport
beforeEach(async () => {
  lock = `${await temporaryFolder()}/lab/lock`
  host = {
    address: 'pi1 (10.0.0.11)',
    exec: (command) =>
      Promise.resolve({
        exitCode: 0,
        stdout: execFileSync('sh', ['-c', command.replaceAll('/var/lib/lab', dirname(lock))], {
          encoding: 'utf8',
        }),
        stderr: '',
      }),
    close: () => Promise.resolve(),
  }
})

const write = async (text: string): Promise<void> => {
  await mkdir(dirname(lock), { recursive: true })
  await writeFile(lock, text)
}

test('a host without a lock is free, and with one it belongs to the lab that the lock names', async () => {
  expect(await readHolder(host)).toBeUndefined()
  await write(JSON.stringify(alice))
  expect(await readHolder(host)).toEqual(alice)
})

test.each(['', '\n', '{', 'null', '{}', '[]', '5', JSON.stringify({ ...alice, key: undefined })])(
  'a host whose lock is damaged is neither free nor given back, and the error says what to type: %j',
  async (text) => {
    await write(text)
    expect(holderIn(text)).toBeUndefined()
    await expect(readHolder(host)).rejects.toMatchObject({
      code: 'bad-lock',
      message: `pi1 (10.0.0.11): ${lockFile} does not say which lab uses it`,
      hint: `if no lab uses it any more, type there: rm ${lockFile}`,
    })
  },
)

test('a host without a lock is given back as long as it has a record of what was changed', async () => {
  const mine = { key: 'BBBB', lab: 'iscsi' }
  expect(await holderToReturn(host, mine)).toBeUndefined()
  await mkdir(`${dirname(lock)}/undo`, { recursive: true })
  const entry = { number: '001', key: 'hostname', before: { kind: 'hostname', name: 'pi1' } }
  await writeFile(`${dirname(lock)}/undo/001.json`, `${JSON.stringify(entry)}\n`)
  expect(await holderToReturn(host, mine)).toEqual(mine)
  await write(JSON.stringify(alice))
  expect(await holderToReturn(host, mine)).toEqual(alice)
})
