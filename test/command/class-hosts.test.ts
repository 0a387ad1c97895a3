/** Other hosts of a class over real SSH: what is kept when one of them fails. What `lab` says there is written here. */
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { type AddressInfo, connect, createServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import { certificateFor } from '../../src/class/certificate.js'
import {
  type ClassFile,
  classPaths,
  newSecret,
  newTeacher,
  seatsOf,
  writeClass,
} from '../../src/class/class.js'
import { joinedAnswer, roomAnswer } from '../../src/class/elsewhere.js'
import { boardSoon } from '../../src/class/gateway-process.js'
import { partsElsewhere, readRoster, type Roster, writeRoster } from '../../src/class/roster.js'
import { keepClass } from '../../src/class/serve.js'
import {
  dropHost,
  droppedText,
  extendElsewhere,
  isBehind,
  joinOthers,
  leaveOthers,
  resetElsewhere,
  spreadSeats,
} from '../../src/command/class-hosts.js'
import type { Io } from '../../src/command-line/verb.js'
import { temporaryFolder } from '../helpers/folder.js'
import { clientKeys, TestSshServer } from '../helpers/ssh-server.js'

// openssl and SSH take long on a busy host.
vi.setConfig({ testTimeout: 120_000 })

const stop = new AbortController()
const io = { signal: stop.signal, stderr: process.stderr } as unknown as Io

/** A port that nothing listens at. */
const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** What `lab` at a host answers: an exit code, and its output or error. */
type Answer = readonly [number, string]

/** A host with SSH at a port of this one. @returns its line in hosts.yaml */
const hostWith = async (
  folder: string,
  name: string,
  answer: (command: string) => Answer,
): Promise<string> => {
  const ssh = await TestSshServer.start()
  ssh.instead = (channel, command) => {
    channel.resume().once('end', () => {
      const [exitCode, said] = answer(command)
      ;(exitCode === 0 ? channel : channel.stderr).write(said)
      channel.exit(exitCode)
      channel.end()
    })
  }
  const listener = createServer((socket) => {
    const other = connect(ssh.path)
    socket.on('error', () => other.destroy()).pipe(other)
    other.on('error', () => socket.destroy()).pipe(socket)
  }).listen(0, '127.0.0.1')
  await once(listener, 'listening')
  onTestFinished(() => void listener.close())
  const { port } = listener.address() as AddressInfo
  const login = `user: root, key: ${join(folder, 'key')}, hostKey: ssh-ed25519 ${ssh.endpoint().hostKey}`
  return `  ${name}: { address: 127.0.0.1, port: ${String(port)}, ${login} }`
}

let folder: string
let hosts: string
let here: ClassFile

const write = async (...lines: readonly string[]): Promise<void> =>
  writeFile(hosts, ['apiVersion: lab.hosts/v1', 'hosts:', ...lines, ''].join('\n'))

/** A host that does not answer. @returns its line in hosts.yaml */
const silent = async (name: string): Promise<string> =>
  `  ${name}: { address: 127.0.0.1, port: ${String(await freePort())}, user: root, key: ${join(folder, 'key')} }`

/** Of a class that has seat 01 on blue and seat 02 on green. */
const rosterOf = (): Roster => ({
  schema: 'lab.class-roster/v1',
  hosts,
  elsewhere: [
    ...partsElsewhere(
      { ...here, seats: [...seatsOf(2)] },
      new Map([
        ['01', 'blue'],
        ['02', 'green'],
      ]),
      [
        { name: 'blue', address: '192.0.2.1' },
        { name: 'green', address: '192.0.2.2' },
      ],
      undefined,
    ),
  ],
})

beforeEach(async () => {
  folder = await temporaryFolder()
  hosts = join(folder, 'hosts.yaml')
  vi.stubEnv('LAB_CLASSES', join(folder, 'classes'))
  await writeFile(join(folder, 'key'), clientKeys.privateKey, { mode: 0o600 })
  here = {
    schema: 'lab.class/v1',
    lab: 'iscsi',
    from: 'iscsi',
    size: 'full',
    language: 'en',
    seats: [],
    teacher: newTeacher(),
    secret: newSecret(),
    host: '127.0.0.1',
    port: await freePort(),
    address: '127.0.0.1',
    until: new Date(Date.now() + 3_600_000).toISOString(),
  }
  await mkdir(join(folder, 'classes'))
  await writeClass(here)
})

afterEach(() => vi.unstubAllEnvs())

const refuses = (): Answer => [3, '✖ /var/tmp is full\n  Hint: df -h\n']

test('a host that cannot join is named, and the one that joined is kept in the roster and on the cards', async () => {
  const { cert } = await certificateFor('iscsi', here.address)
  await write(
    await hostWith(folder, 'blue', () => [0, joinedAnswer(cert)]),
    await hostWith(folder, 'green', refuses),
  )
  const ended = new AbortController()
  const kept = keepClass(here, ended.signal)
  await boardSoon('iscsi', stop.signal)
  await expect(joinOthers({ here, roster: rosterOf() }, {}, io)).rejects.toMatchObject({
    message: 'green (127.0.0.1): lab class join: /var/tmp is full',
    hint: 'on green: df -h',
  })
  expect((await readRoster('iscsi'))?.elsewhere.map(({ name, certificate }) => [name, certificate])).toEqual([
    ['blue', cert],
    ['green', undefined],
  ])
  expect((await boardSoon('iscsi', stop.signal)).seats.map(({ id, detail }) => [id, detail])).toEqual([
    ['01', 'blue: no answer yet'],
    ['02', 'green has not joined yet'],
  ])
  const cards = await readFile(classPaths('iscsi').cards, 'utf8')
  expect(cards).toContain('https://192.0.2.1:')
  expect(cards).not.toContain('https://192.0.2.2:')
  ended.abort()
  await kept
})

test('a host whose seats could not be ended stays in the roster, and a second attempt asks only that one', async () => {
  const asked: string[] = []
  let full = true
  const answers =
    (name: string, refused: () => boolean) =>
    (command: string): Answer => {
      asked.push(name)
      expect(command).toMatch(/exec lab class leave --lab iscsi$/)
      return refused() ? refuses() : [0, '']
    }
  await write(
    await hostWith(
      folder,
      'blue',
      answers('blue', () => false),
    ),
    await hostWith(
      folder,
      'green',
      answers('green', () => full),
    ),
  )
  await writeRoster('iscsi', rosterOf())
  await expect(leaveOthers('iscsi', io)).rejects.toMatchObject({
    code: 'left-over',
    message:
      'iscsi: seats on these hosts could not be ended:\n  green (127.0.0.1): lab class leave: /var/tmp is full',
    hint: expect.stringContaining('lab class drop green --lab iscsi') as string,
  })
  expect((await readRoster('iscsi'))?.elsewhere.map(({ name }) => name)).toEqual(['green'])
  full = false
  expect(await leaveOthers('iscsi', io)).toBe(1)
  expect(asked.sort()).toEqual(['blue', 'green', 'green'])
  expect(await leaveOthers('iscsi', io)).toBe(0)
})

test('seats are spread over the hosts that answer with their room, and a host of the class must be in the file', async () => {
  const room = (fits: number, place: string) => (): Answer => [0, roomAnswer(fits, place)]
  const [blue, green] = [
    await hostWith(folder, 'blue', room(1, 'blue')),
    await hostWith(folder, 'green', room(2, 'green')),
  ]
  await write(blue, green)
  const whole = { ...here, host: '0.0.0.0', seats: [...seatsOf(4)] }
  const none = () => Promise.resolve(0)
  const spread = (count: number, roster?: Roster) =>
    spreadSeats({ ...whole, seats: [...seatsOf(count)] }, hosts, { here, roster }, none, {}, io)
  const { roster, here: left } = await spread(3)
  expect(left.seats).toEqual([])
  expect(roster.elsewhere.map(({ name, class: part }) => [name, part.seats.length])).toEqual([
    ['blue', 1],
    ['green', 2],
  ])
  await expect(spread(4)).rejects.toMatchObject({ code: 'no-room' })
  await write(blue)
  await expect(spread(4, roster)).rejects.toMatchObject({
    code: 'no-host',
    message: `${hosts} has no host green, which has seats of the class`,
  })
  await write(blue, await hostWith(folder, 'twin', room(9, 'blue')))
  await expect(spread(3)).rejects.toMatchObject({
    code: 'same-host',
    message: `${hosts}: twin is the same host as blue`,
  })
})

test('a host that cannot be reached is named before anything is made', async () => {
  await write(await hostWith(folder, 'blue', () => [0, roomAnswer(9, 'blue')]), await silent('green'))
  const whole = { ...here, host: '0.0.0.0', seats: [...seatsOf(4)] }
  const none = () => Promise.resolve(0)
  const nothing = { here: undefined, roster: undefined }
  await expect(spreadSeats(whole, hosts, nothing, none, {}, io)).rejects.toMatchObject({
    message: expect.stringContaining('green') as string,
    hint: expect.any(String) as string,
  })
  expect(await readRoster('iscsi')).toBeUndefined()
})

test('a seat is reset by the host that has it, and one of this host is not asked for elsewhere', async () => {
  await write(
    await hostWith(folder, 'blue', refuses),
    await hostWith(folder, 'green', (command) => [
      command.endsWith('exec lab class reset 02 --lab iscsi') ? 0 : 1,
      'seat 02 is new again\n',
    ]),
  )
  await writeRoster('iscsi', rosterOf())
  expect(await resetElsewhere(here, '02', io)).toBe('seat 02 is new again\n')
  expect(await resetElsewhere(here, '03', io)).toBeUndefined()
})

/** Keeps the class until the test ends. */
const keep = async (): Promise<void> => {
  const ended = new AbortController()
  const kept = keepClass(here, ended.signal)
  onTestFinished(async () => {
    ended.abort()
    await kept
  })
  await boardSoon('iscsi', stop.signal)
}

test('an extension that did not reach a host is completed by the same command, which tells only that host', async () => {
  const { cert } = await certificateFor('iscsi', here.address)
  const told: string[] = []
  let full = true
  const answers = (name: string, refused: () => boolean) => (): Answer => {
    told.push(name)
    return refused() ? refuses() : [0, joinedAnswer(cert)]
  }
  await write(
    await hostWith(
      folder,
      'blue',
      answers('blue', () => false),
    ),
    await hostWith(
      folder,
      'green',
      answers('green', () => full),
    ),
  )
  await writeRoster('iscsi', rosterOf())
  await keep()
  expect(await isBehind(here)).toBe(false)
  const until = new Date(Date.parse(here.until) + 1_800_000).toISOString()
  const later = { ...here, until }
  await writeClass(later)
  await expect(extendElsewhere(later, io)).rejects.toMatchObject({
    code: 'not-extended',
    message: `iscsi: it continues until ${until}, but not on these hosts:\n  green (127.0.0.1): lab class join: /var/tmp is full`,
    hint: expect.stringContaining('the same command again adds nothing') as string,
  })
  expect(await isBehind(later)).toBe(true)
  full = false
  await extendElsewhere(later, io)
  expect(told.sort()).toEqual(['blue', 'green', 'green'])
  expect(await isBehind(later)).toBe(false)
  expect((await readRoster('iscsi'))?.elsewhere.map((part) => part.class.until)).toEqual([until, until])
})

test('a host that is gone for good is dropped: its seats are given up, and the others keep theirs', async () => {
  await write(await hostWith(folder, 'green', () => [0, '']), await silent('blue'))
  await writeRoster('iscsi', rosterOf())
  await keep()
  const dropped = await dropHost(here, 'blue', io)
  expect(dropped.part.class.seats.map(({ id }) => id)).toEqual(['01'])
  expect(dropped.reason).toBeDefined()
  expect((await readRoster('iscsi'))?.elsewhere.map(({ name }) => name)).toEqual(['green'])
  expect((await boardSoon('iscsi', stop.signal)).seats.map(({ id }) => id)).toEqual(['02'])
  const text = droppedText(here, dropped)
  expect(text).toContain('  given up: seats 01, their labs')
  expect(text).toContain(`  because: ${dropped.reason ?? ''}`)
  expect(text).toContain('typed on it: lab class down --lab iscsi')
  expect(text).toContain('  left on green: seats 02\n')
  expect(text).toContain('lab class up iscsi --count 2\n')
  expect(text).toContain(`first remove blue from ${hosts}`)
  expect(await leaveOthers('iscsi', io)).toBe(1)
})

test('a host that is dropped and still answers ends its seats, so none is given up', async () => {
  const asked: string[] = []
  await write(
    await hostWith(folder, 'blue', (command) => {
      asked.push(command)
      return [0, '']
    }),
  )
  await writeRoster('iscsi', rosterOf())
  await keep()
  const dropped = await dropHost(here, 'blue', io)
  expect(asked).toEqual([expect.stringMatching(/exec lab class leave --lab iscsi$/)])
  expect(dropped.reason).toBeUndefined()
  expect(droppedText(here, dropped)).toContain('  ended there: seats 01; nothing of them is left\n')
})

test('a host without seats of the class cannot be dropped, and the error names those that have some', async () => {
  await expect(dropHost(here, 'blue', io)).rejects.toMatchObject({
    code: 'no-host',
    hint: 'all its seats are on this host: lab class status',
  })
  await writeRoster('iscsi', rosterOf())
  await expect(dropHost(here, 'red', io)).rejects.toMatchObject({
    message: 'iscsi has no seats on another host called red',
    hint: 'it has seats on blue, green',
  })
})
