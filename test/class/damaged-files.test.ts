/** Damaged files of a class: one error names the file, the reason and what to type, and everything else goes on. */
import { once } from 'node:events'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import { certificateFor } from '../../src/class/certificate.js'
import {
  type ClassFile,
  classPaths,
  newSecret,
  newTeacher,
  readClass,
  seatsOf,
  writeClass,
} from '../../src/class/class.js'
import { callControl } from '../../src/class/control-socket.js'
import { boardOf, boardSoon } from '../../src/class/gateway-process.js'
import { Keeper } from '../../src/class/keeper.js'
import { partsElsewhere, readRoster, type Roster, writeRoster } from '../../src/class/roster.js'
import { classSoon, keepClass } from '../../src/class/serve.js'
import { entranceOf } from '../../src/command/class-hosts.js'
import { temporaryFolder } from '../helpers/folder.js'

vi.setConfig({ testTimeout: 120_000 })

const { signal } = new AbortController()
let wanted: ClassFile

beforeEach(async () => {
  vi.stubEnv('LAB_CLASSES', await temporaryFolder())
  // The seats themselves are not what is tested.
  vi.spyOn(Keeper.prototype, 'start').mockReturnValue()
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  wanted = {
    schema: 'lab.class/v1',
    lab: 'iscsi',
    from: 'iscsi',
    size: 'full',
    language: 'en',
    seats: [...seatsOf(2)],
    teacher: newTeacher(),
    secret: newSecret(),
    host: '127.0.0.1',
    port,
    address: '127.0.0.1',
    until: new Date(Date.now() + 3_600_000).toISOString(),
  }
  await writeClass(wanted)
})

afterEach(() => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
})

/** Of a class that has seat 03 on blue. */
const rosterOf = (): Roster => ({
  schema: 'lab.class-roster/v1',
  hosts: '/root/hosts.yaml',
  elsewhere: [
    ...partsElsewhere(
      { ...wanted, seats: [...seatsOf(3)] },
      new Map([['03', 'blue']]),
      [{ name: 'blue', address: '192.0.2.1' }],
      undefined,
    ),
  ],
})

const keep = async (): Promise<void> => {
  const ended = new AbortController()
  const kept = keepClass(wanted, ended.signal)
  onTestFinished(async () => {
    ended.abort()
    await kept
  })
  await Promise.race([boardSoon('iscsi', signal), kept])
}

const reload = (): Promise<unknown> => callControl(classPaths('iscsi').socket, 'POST', '/reload')

const board = async (): Promise<{ readonly ids: readonly string[]; readonly problems: string }> => {
  const { seats, problems = [] } = await boardOf(wanted)
  return { ids: seats.map(({ id }) => id), problems: problems.join('\n') }
}

const pages = (): Promise<unknown> => fetch(`https://127.0.0.1:${String(wanted.port)}/`)

test.each([
  ['empty', '', 'not valid JSON'],
  ['cut short', '{"schema": "lab.class-roster/v1", "hosts"', 'not valid JSON'],
  ['of another version', '{"schema": "lab.class-roster/v0"}', 'schema: Invalid input: expected'],
])(
  'the gateway starts with a roster that is %s, names it on the board, and uses it once it is corrected',
  async (_, text, reason) => {
    const { roster } = classPaths('iscsi')
    await writeFile(roster, text)
    await keep()
    const now = await board()
    expect(now.ids).toEqual(['01', '02'])
    expect(now.problems).toContain(`${roster} cannot be used: ${reason}`)
    expect(now.problems).toContain('next: correct the file')
    await expect(pages()).rejects.toMatchObject({ cause: { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' } })
    await writeRoster('iscsi', rosterOf())
    await reload()
    expect(await board()).toEqual({ ids: ['01', '02', '03'], problems: '' })
  },
)

test('a roster that is damaged while the class runs leaves the seats of other hosts on the board', async () => {
  await writeRoster('iscsi', rosterOf())
  await keep()
  await writeFile(classPaths('iscsi').roster, '[')
  await reload()
  expect(await board()).toEqual({
    ids: ['01', '02', '03'],
    problems: expect.stringContaining(classPaths('iscsi').roster) as string,
  })
})

test('a seat of this host is entered although the roster is damaged', async () => {
  await writeFile(classPaths('iscsi').roster, '{')
  const { cert } = await certificateFor('iscsi', wanted.address)
  expect(await entranceOf(wanted, '01')).toEqual({
    url: `https://127.0.0.1:${String(wanted.port)}/${wanted.seats[0]!.token}`,
    certificate: cert,
  })
  await expect(entranceOf(wanted, '03')).rejects.toMatchObject({ code: 'bad-roster' })
})

test('a class file that is damaged while the class runs keeps the seats, and the board names it', async () => {
  await keep()
  const { file } = classPaths('iscsi')
  await writeFile(file, JSON.stringify({ ...wanted, port: 'https' }))
  await reload()
  expect(await board()).toEqual({
    ids: ['01', '02'],
    problems: `${file} cannot be used: port: Invalid input: expected number, received string; next: correct the file, or end the class: lab class down --lab iscsi`,
  })
})

test('the gateway waits until its class file is corrected, says once what is wrong, and ends if the file goes', async () => {
  const { file } = classPaths('iscsi')
  await writeFile(file, '{"seats":')
  const told: string[] = []
  const soon = classSoon('iscsi', (problem) => told.push(problem), signal)
  await vi.waitFor(() => expect(told).toHaveLength(1))
  await new Promise((resolve) => setTimeout(resolve, 2500))
  expect(told).toHaveLength(1)
  await writeClass(wanted)
  expect(await soon).toEqual(wanted)
  await rm(file)
  expect(await classSoon('iscsi', () => undefined, signal)).toBeUndefined()
})

test('a damaged certificate closes the pages only, and they open when it is removed', async () => {
  const { certificate, key } = classPaths('iscsi')
  await certificateFor('iscsi', wanted.address)
  await writeFile(certificate, 'x')
  await keep()
  const now = await board()
  expect(now.ids).toEqual(['01', '02'])
  expect(now.problems).toContain(`${certificate} and its key cannot be read; next: rm ${key} ${certificate}`)
  await expect(pages()).rejects.toMatchObject({ cause: { code: 'ECONNREFUSED' } })
  await rm(certificate)
  await rm(key)
  await reload()
  expect((await board()).problems).toBe('')
  await expect(pages()).rejects.toMatchObject({ cause: { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' } })
})

test('the error about a damaged file of a class does not print its tokens', async () => {
  const { file, roster } = classPaths('iscsi')
  const { token } = wanted.seats[0]!
  for (const text of [`{"token":"${token}"x`, `"${token}`, JSON.stringify({ ...wanted, secret: token })]) {
    await writeFile(file, text)
    await writeFile(roster, text)
    for (const read of [readClass, readRoster]) {
      const error = await read('iscsi').catch((caught: unknown) => caught as Error)
      expect(error).toBeInstanceOf(Error)
      expect((error as Error).message).not.toContain(token)
    }
  }
  expect(await readFile(file, 'utf8')).toContain(token)
})
