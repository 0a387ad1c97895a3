/** A class on several hosts: which host has which seat, how another host is asked, and one board of all gateways. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { WebSocket } from 'ws'
import { cookieFor, cookieName } from '../../src/class/access.js'
import type { Board } from '../../src/class/board.js'
import { cardsPage } from '../../src/class/cards.js'
import { cardUrl, type ClassFile, newSecret, newTeacher, seatsOf, writeClass } from '../../src/class/class.js'
import {
  joinAt,
  leaveAt,
  type OtherHost,
  noSuchCommand,
  placeHere,
  roomAnswer,
  roomAt,
} from '../../src/class/elsewhere.js'
import { openGateway } from '../../src/class/gateway.js'
import { Keeper } from '../../src/class/keeper.js'
import { OtherGateways } from '../../src/class/other-gateways.js'
import { placeSeats, refuseSameHost, thisHost } from '../../src/class/placing.js'
import {
  type Elsewhere,
  partHere,
  partsElsewhere,
  placesIn,
  readRoster,
  refuseLoopback,
  type Roster,
  wholeClass,
  writeRoster,
} from '../../src/class/roster.js'
import { version } from '../../src/package.js'
import { temporaryFolder } from '../helpers/folder.js'

const wanted = (count: number, changes: Partial<ClassFile> = {}): ClassFile => ({
  schema: 'lab.class/v1',
  lab: 'iscsi',
  from: 'iscsi',
  size: 'full',
  language: 'en',
  seats: [...seatsOf(count)],
  teacher: newTeacher(),
  secret: newSecret(),
  host: '0.0.0.0',
  port: 8443,
  address: '192.168.1.5',
  until: new Date(Date.now() + 3_600_000).toISOString(),
  ...changes,
})

const idsOf = ({ seats }: { readonly seats: readonly { readonly id: string }[] }): readonly string[] =>
  seats.map(({ id }) => id)

const { signal } = new AbortController()

afterEach(() => vi.unstubAllEnvs())

describe('the seats of a class on several hosts', () => {
  const rooms = [
    { name: thisHost, fits: 2 },
    { name: 'blue', fits: 1 },
    { name: 'green', fits: 9 },
  ]

  test('each seat goes where most seats still fit, and among equals to the first', () => {
    const places = placeSeats(['01', '02', '03', '04', '05'], new Map(), [
      { name: thisHost, fits: 3 },
      { name: 'blue', fits: 1 },
      { name: 'green', fits: 4 },
    ])
    expect([...places.values()]).toEqual(['green', thisHost, 'green', thisHost, 'green'])
    expect([...placeSeats(['01', '02', '03'], new Map(), rooms).values()]).toEqual(Array(3).fill('green'))
  })

  test('all hosts together take exactly as many seats as fit on them', () => {
    const ids = seatsOf(12).map(({ id }) => id)
    const places = [...placeSeats(ids, new Map(), rooms).values()]
    expect(rooms.map(({ name }) => places.filter((place) => place === name).length)).toEqual([2, 1, 9])
  })

  test('a seat that has a host stays there, also when there is room elsewhere', () => {
    const places = placeSeats(['01', '02', '03'], new Map([['02', 'blue']]), rooms)
    expect([...places]).toEqual([
      ['01', 'green'],
      ['02', 'blue'],
      ['03', 'green'],
    ])
  })

  test('seats that fit nowhere are refused with the room of each host and the number that fits', () => {
    const ids = seatsOf(14).map(({ id }) => id)
    expect(() => placeSeats(ids, new Map([['01', 'green']]), rooms)).toThrow(
      expect.objectContaining({
        code: 'no-room',
        message: [
          '13 more seats do not fit on these hosts:',
          '  this host: room for 2 more',
          '  blue: room for 1 more',
          '  green: room for 9 more',
        ].join('\n'),
        hint: expect.stringContaining('--count 13') as string,
      }),
    )
    expect(() => placeSeats(['01'], new Map(), [{ name: thisHost, fits: 0 }])).toThrow(
      expect.objectContaining({ hint: expect.stringContaining('not even one seat fits') as string }),
    )
  })
})

test('a host that has two names is refused, so that its room is not counted twice', async () => {
  vi.stubEnv('LAB_CLASSES', await temporaryFolder())
  const here = { name: thisHost, place: await placeHere('iscsi') }
  vi.stubEnv('LAB_CLASSES', await temporaryFolder())
  const blue = { name: 'blue', place: await placeHere('iscsi') }
  expect(() => refuseSameHost('hosts.yaml', [here, blue])).not.toThrow()
  expect(() => refuseSameHost('hosts.yaml', [here, blue, { ...blue, name: 'green' }])).toThrow(
    expect.objectContaining({
      message: 'hosts.yaml: green is the same host as blue',
      hint: 'remove green from hosts.yaml',
    }),
  )
  expect(() => refuseSameHost('hosts.yaml', [here, { ...here, name: 'first' }])).toThrow(
    expect.objectContaining({
      message: 'hosts.yaml: first is this host',
      hint: 'remove first from hosts.yaml: this host takes seats in any case',
    }),
  )
})

describe('the roster of a class', () => {
  const hosts = [
    { name: 'blue', address: '192.168.1.6' },
    { name: 'green', address: '192.168.1.7' },
  ]
  const whole = wanted(4)
  const places = new Map([
    ['01', thisHost],
    ['02', 'blue'],
    ['03', thisHost],
    ['04', 'blue'],
  ])
  const rosterOf = (before?: Roster): Roster => ({
    schema: 'lab.class-roster/v1',
    hosts: '/root/hosts.yaml',
    elsewhere: [...partsElsewhere(whole, places, hosts, before)],
  })

  test('each host gets its own seats with their tokens and its own address, and secrets that open no other host', () => {
    const { elsewhere } = rosterOf()
    expect(elsewhere.map(({ name }) => name)).toEqual(['blue'])
    const [blue] = elsewhere
    expect(blue!.class).toMatchObject({ address: '192.168.1.6', host: '0.0.0.0', port: 8443 })
    expect(blue!.class.seats).toEqual([whole.seats[1], whole.seats[3]])
    expect([blue!.class.secret, blue!.class.teacher]).not.toContain(whole.secret)
    expect(blue!.class.teacher).not.toBe(whole.teacher)
    expect(idsOf(partHere(whole, places))).toEqual(['01', '03'])
    const narrow = partsElsewhere({ ...whole, host: '192.168.1.5' }, places, hosts, undefined)
    expect(narrow[0]!.class.host).toBe('192.168.1.6')
  })

  test('the roster is kept, the secrets of a host stay, and all parts are the whole class again', async () => {
    vi.stubEnv('LAB_CLASSES', await temporaryFolder())
    const here = partHere(whole, places)
    await writeClass(here)
    expect(await readRoster('iscsi')).toBeUndefined()
    const [blue] = rosterOf().elsewhere
    const roster = { ...rosterOf(), elsewhere: [{ ...blue!, certificate: 'PEM' }] }
    await writeRoster('iscsi', roster)
    expect(await readRoster('iscsi')).toEqual(roster)
    expect(rosterOf(roster)).toEqual(roster)
    expect(wholeClass(here, roster)).toEqual(whole)
    expect([...placesIn(here, roster)].sort()).toEqual([...places].sort())
  })

  test('a gateway that nobody on another host could reach is refused, with what to type', () => {
    for (const host of ['127.0.0.1', '127.0.1.1', '::1', 'localhost'])
      expect(() => refuseLoopback({ ...whole, host })).toThrow(
        expect.objectContaining({
          code: 'only-here',
          hint: 'lab class up iscsi --count 4 --hosts FILE --listen 0.0.0.0:8443',
        }),
      )
    expect(() => refuseLoopback(whole)).not.toThrow()
  })

  test('the cards of all hosts are on one page in the order of the seats, each with the address of its host', () => {
    const [blue] = rosterOf().elsewhere
    const page = cardsPage(whole, [
      { class: partHere(whole, places), fingerprint: 'AA' },
      { class: blue!.class, fingerprint: 'BB' },
    ])
    expect([...page.matchAll(/Seat (\d+)/g)].map(([, id]) => id)).toEqual(['01', '02', '03', '04'])
    expect([...page.matchAll(/https:\/\/([\d.]+):8443\/<wbr>/g)].map(([, address]) => address)).toEqual([
      '192.168.1.5',
      '192.168.1.6',
      '192.168.1.5',
      '192.168.1.6',
    ])
  })
})

describe('another host of a class', () => {
  const asked: { readonly words: readonly string[]; readonly input: string | undefined }[] = []
  const hostThat = (exitCode: number, stdout: string, stderr = ''): OtherHost => ({
    name: 'blue',
    address: '192.168.1.6',
    lab: (words, { input }) => {
      asked.push({ words, input })
      return Promise.resolve({ exitCode, stdout, stderr })
    },
  })
  afterEach(() => void asked.splice(0))

  test('it is asked for its room, its part and its end, and tokens and secrets are never arguments', async () => {
    const part = wanted(1)
    expect(await roomAt(hostThat(0, roomAnswer(7, 'there')), part, part, signal)).toEqual({
      fits: 7,
      place: 'there',
    })
    expect(await joinAt(hostThat(0, '{"certificate":"PEM"}'), part, ['--offline'], signal)).toBe('PEM')
    await leaveAt(hostThat(0, ''), part, signal)
    expect(asked.map(({ words }) => words.join(' '))).toEqual([
      'class room iscsi --size full',
      'class join --offline',
      'class leave --lab iscsi',
    ])
    expect(asked.map(({ input }) => input)).toEqual([part.secret, JSON.stringify(part), part.secret])
  })

  test.each([
    [
      'without lab',
      hostThat(noSuchCommand, ''),
      'blue (192.168.1.6): there is no command lab',
      /install\.sh/,
    ],
    [
      'whose lab has no Node',
      hostThat(127, '', "env: 'node': No such file or directory\n"),
      "blue (192.168.1.6): lab class room: env: 'node': No such file or directory",
      /^on blue: /,
    ],
    [
      'that refuses',
      hostThat(3, '', '✖ there is a class iscsi here\n  Hint: lab class down\n'),
      'blue (192.168.1.6): lab class room: there is a class iscsi here',
      /^on blue: lab class down$/,
    ],
    [
      'with another version of lab',
      hostThat(0, '{"version":"0.0.9","fits":3,"place":"there"}'),
      `blue (192.168.1.6) has lab 0.0.9, and this is ${version}`,
      /install lab/,
    ],
    [
      'whose answer makes no sense',
      hostThat(0, 'Welcome to blue'),
      'blue (192.168.1.6): its lab gave an answer that this one cannot read',
      /lab --version/,
    ],
  ])('a host %s is named with the reason and what to do', async (_, host, message, hint) => {
    await expect(roomAt(host, wanted(1), undefined, signal)).rejects.toMatchObject({
      message,
      hint: expect.stringMatching(hint) as string,
    })
  })
})

describe('the board of a class on several hosts', () => {
  /** A gateway at an address of this host, as another host would have it. */
  const gatewayAt = async (
    address: string,
    seats: ClassFile['seats'],
    others?: OtherGateways,
  ): Promise<{ readonly part: Elsewhere; readonly close: () => Promise<void> }> => {
    const folder = await temporaryFolder()
    const [key, cert] = [join(folder, 'key'), join(folder, 'cert')]
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1']
    const names = ['-subj', '/CN=localhost', '-addext', `subjectAltName=IP:${address}`]
    execFileSync('openssl', ['req', '-x509', ...curve, ...names, '-keyout', key, '-out', cert], {
      stdio: 'ignore',
    })
    const file = { ...wanted(0, { address, host: address }), seats }
    const certificate = readFileSync(cert, 'utf8')
    const gateway = openGateway(
      new Keeper(file),
      { key: readFileSync(key, 'utf8'), cert: certificate },
      others,
    )
    await gateway.app.listen({ host: address, port: 0 })
    const { port } = gateway.app.server.address() as AddressInfo
    const part = { name: 'blue', class: { ...file, port }, certificate }
    let closed = false
    const close = async (): Promise<void> => {
      if (!closed) await gateway.close()
      closed = true
    }
    onTestFinished(close)
    return { part, close }
  }

  const boardFrom = async (part: Elsewhere): Promise<Board> => {
    const { request } = await import('node:https')
    const call = request(`${cardUrl(part.class, '')}board`, {
      ca: part.certificate,
      agent: false,
      headers: { cookie: `${cookieName}=${cookieFor(part.class, 'teacher')}` },
    }).end()
    const [response] = (await once(call, 'response')) as [NodeJS.ReadableStream]
    let text = ''
    for await (const chunk of response) text += String(chunk)
    return JSON.parse(text) as Board
  }

  test('the board shows the seats of another host with its name, and says so when it no longer answers', async () => {
    vi.stubEnv('LAB_CLASSES', await temporaryFolder())
    const [first, second, third] = seatsOf(3)
    const { part, close } = await gatewayAt('127.0.0.2', [second!])
    const others = new OtherGateways()
    others.want([part])
    const { part: here } = await gatewayAt('127.0.0.1', [first!, third!], others)
    expect((await boardFrom(here)).seats.map(({ id, detail }) => [id, detail])).toEqual([
      ['01', 'waiting for its turn'],
      ['02', 'blue: no answer yet'],
      ['03', 'waiting for its turn'],
    ])
    await others.look()
    expect((await boardFrom(here)).seats[1]).toMatchObject({
      id: '02',
      status: 'waiting',
      detail: 'blue: waiting for its turn',
    })
    await close()
    await others.look()
    expect(others.seats(Date.now() + 20_000)).toEqual([
      {
        id: '02',
        status: 'failed',
        detail: expect.stringMatching(/^blue does not answer: .*ECONNREFUSED/) as string,
        hand: false,
        windows: 0,
      },
    ])
  })

  test('a gateway with another certificate than the one of the roster is not asked', async () => {
    vi.stubEnv('LAB_CLASSES', await temporaryFolder())
    const { part } = await gatewayAt('127.0.0.2', [...seatsOf(1)])
    const { part: stranger } = await gatewayAt('127.0.0.3', [...seatsOf(1)])
    const others = new OtherGateways()
    others.want([{ ...part, certificate: stranger.certificate! }])
    await others.look()
    expect(others.seats(Date.now() + 70_000)[0]).toMatchObject({
      status: 'failed',
      detail: expect.stringContaining('certificate') as string,
    })
  })

  test('the teacher reaches a terminal on another host through the gateway here, and a student does not', async () => {
    vi.stubEnv('LAB_CLASSES', await temporaryFolder())
    const [first, second] = seatsOf(2)
    const { part } = await gatewayAt('127.0.0.2', [second!])
    const others = new OtherGateways()
    others.want([part])
    const { part: here } = await gatewayAt('127.0.0.1', [first!], others)
    const { host, origin } = new URL(cardUrl(here.class, ''))
    const open = (who: Parameters<typeof cookieFor>[1]): WebSocket =>
      new WebSocket(`wss://${host}/terminal?seat=02&mode=watch`, {
        ca: here.certificate,
        headers: { cookie: `${cookieName}=${cookieFor(here.class, who)}`, origin },
      })
    const socket = open('teacher')
    const said: string[] = []
    socket.on('message', (data: Buffer) => said.push(data.toString()))
    await once(socket, 'close')
    // The seat does not run in this test, and the other gateway says so.
    expect(said.map((text) => JSON.parse(text) as unknown)).toEqual([
      { hand: false },
      { ended: 'seat 02 does not run' },
    ])
    const student = open({ seat: '01' })
    const told: string[] = []
    student.on('message', (data: Buffer) => told.push(data.toString()))
    await once(student, 'close')
    // A student's request is for the own seat, whatever it asks for.
    expect(told.at(-1)).toContain('seat 01 does not run')
  })
})
