/** The parts of a class that need no seat: budget, tokens, cookies, terminal lines, progress, cards. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { cookieFor, cookieName, Guesses, holderOfCookie, holderOfToken } from '../../src/class/access.js'
import { budget } from '../../src/class/budget.js'
import { cardsPage, qrSvg } from '../../src/class/cards.js'
import {
  cardUrl,
  type ClassFile,
  classPaths,
  classToEnd,
  newSecret,
  seatsOf,
  theClass,
  writeClass,
} from '../../src/class/class.js'
import { wantedClass } from '../../src/class/desired.js'
import type { Board } from '../../src/class/gateway.js'
import { progressIn } from '../../src/class/progress.js'
import { resultsCsv, resultsJunit } from '../../src/class/results.js'
import { inScope, scopeOf } from '../../src/class/systemd-scope.js'
import { refuseTooMany } from '../../src/class/room.js'
import { accountOf, needRoot } from '../../src/class/seat.js'
import { smallLab } from '../../src/class/smaller-lab.js'
import { controlReader, keyCommands, unescaped } from '../../src/class/terminal.js'
import { newToken, tokenOf, words } from '../../src/class/tokens.js'
import { loadLab, parseLab } from '../../src/registry.js'
import { Desk } from '../helpers/cli.js'
import { temporaryFolder } from '../helpers/folder.js'

const GiB = 1024 ** 3

const wanted = (count = 3): ClassFile => ({
  schema: 'lab.class/v1',
  lab: 'iscsi',
  from: 'iscsi',
  size: 'full',
  language: 'en',
  seats: [...seatsOf(count)],
  teacher: 'a-b-c-d-e-f',
  secret: newSecret(),
  host: '127.0.0.1',
  port: 8443,
  address: '192.168.1.5',
  until: new Date(Date.now() + 3_600_000).toISOString(),
})

describe('a scope of systemd', () => {
  test('a command runs in place in a scope of systemd, with limits, if systemd runs the host', () => {
    const command = inScope('lab-seat-iscsi-07', { memory: GiB, tasks: 4000 }, ['unshare', '--pid'], true)
    expect(command.slice(0, 5)).toEqual([
      'systemd-run',
      '--scope',
      '--quiet',
      '--collect',
      '--slice=lab-class.slice',
    ])
    expect(command[5]).toMatch(/^--unit=lab-seat-iscsi-07-[a-z0-9]+$/)
    expect(command.slice(6)).toEqual([
      ...['--property=CPUWeight=100', '--property=MemoryMax=1073741824', '--property=TasksMax=4000'],
      ...['--', 'unshare', '--pid'],
    ])
    expect(inScope('x', { tasks: 1 }, ['true'], false)).toEqual(['true'])
  })

  test('processes that start at the seat later join its scope, and no others do', () => {
    expect(scopeOf('0::/lab.slice/lab-class.slice/lab-seat-iscsi-07-a.scope\n')).toBe(
      '/sys/fs/cgroup/lab.slice/lab-class.slice/lab-seat-iscsi-07-a.scope/cgroup.procs',
    )
    expect(scopeOf('0::/user.slice/user-0.slice/session-1.scope\n')).toBeUndefined()
    expect(scopeOf('4:memory:/lab-class.slice/x\n0::/\n')).toBeUndefined()
  })
})

describe('the budget of a class', () => {
  const seat = { memory: GiB, tasks: 100, disk: GiB / 4, diskAtMost: 4 * GiB, processors: 0.01 }
  const room = { memory: 20 * GiB, tasks: 10_000, disk: 100 * GiB, processors: 2 }

  test.each([
    ['memory', {}, 20, 'memory: 30 seats need 30.0 GiB, and 20.0 GiB are free'],
    ['disk', { memory: 99 * GiB, disk: 5 * GiB }, 20, 'disk: 30 seats need 7.5 GiB, and 5.0 GiB are free'],
    ['processes', { memory: 99 * GiB, tasks: 1000 }, 10, 'processes: 30 seats need 3000, and 1000 are free'],
    [
      'processors',
      { memory: 99 * GiB, processors: 0.2 },
      15,
      'processors at rest: 30 seats need 0.3, and 0.1 are free',
    ],
  ])('the budget of a class says how many seats fit when %s is short', (_, change, fits, sentence) => {
    const verdict = budget(30, seat, { ...room, ...change })
    expect([verdict.fits, verdict.short]).toEqual([fits, [sentence.replace('and 0.1', 'and 0.2')]])
  })

  test('the budget of a class has room for exactly as many seats as fit, and warns of LUNs that may grow', () => {
    expect(budget(20, seat, room)).toMatchObject({ fits: 20, short: [], warnings: [] })
    expect(budget(20, seat, { ...room, disk: 70 * GiB }).warnings).toHaveLength(1)
    expect(budget(1, seat, { ...room, memory: 0 }).fits).toBe(0)
  })
})

describe('a token', () => {
  test('a token consists of four of 256 different words that can be typed', () => {
    expect(new Set(words).size).toBe(256)
    expect(words.filter((word) => !/^[a-z]{3,9}$/.test(word))).toEqual([])
    expect(
      newToken()
        .split('-')
        .every((word) => words.includes(word)),
    ).toBe(true)
    expect(newToken().split('-')).toHaveLength(4)
  })

  test('a token is accepted as people type it, and opens the seat that it belongs to', () => {
    const now = wanted()
    const [, second] = now.seats
    expect(tokenOf(' Maple  OTTER.clock-garden ')).toBe('maple-otter-clock-garden')
    expect(holderOfToken(now, second!.token.toUpperCase().replaceAll('-', ' '))).toEqual({ seat: '02' })
    expect(holderOfToken(now, now.teacher)).toBe('teacher')
    expect(holderOfToken(now, '')).toBeUndefined()
    expect(holderOfToken(now, 'maple')).toBeUndefined()
  })

  test('a token ends with the class, and so does the cookie', () => {
    const now = wanted()
    const cookie = `a=b; ${cookieName}=${cookieFor(now, { seat: '01' })}`
    const later = Date.parse(now.until) + 1
    expect(holderOfCookie(now, cookie)).toEqual({ seat: '01' })
    expect(holderOfCookie(now, cookie, later)).toBeUndefined()
    expect(holderOfToken(now, now.teacher, later)).toBeUndefined()
  })

  test('a token that is replaced invalidates the cookie of the old one, and a cookie of another seat is invalid', () => {
    const now = wanted()
    const cookie = `${cookieName}=${cookieFor(now, { seat: '01' })}`
    const [first, ...others] = now.seats
    expect(
      holderOfCookie({ ...now, seats: [{ ...first!, token: newToken() }, ...others] }, cookie),
    ).toBeUndefined()
    expect(holderOfCookie(now, cookie.replace('01.', '02.'))).toBeUndefined()
    expect(holderOfCookie(now, cookie.replace('01.', 'teacher.'))).toBeUndefined()
    expect(holderOfCookie(now, undefined)).toBeUndefined()
  })

  test('a token can be guessed ten times a minute from one address, and a hundred times from all together', () => {
    const guesses = new Guesses()
    for (let count = 0; count < 10; count++) guesses.wrong('10.0.0.1', 0)
    expect([guesses.may('10.0.0.1', 1), guesses.may('10.0.0.2', 1), guesses.may('10.0.0.1', 60_001)]).toEqual(
      [false, true, true],
    )
    for (let count = 0; count < 100; count++) guesses.wrong(`10.0.1.${count}`, 0)
    expect(guesses.may('10.0.0.2', 1)).toBe(false)
  })
})

describe('a terminal', () => {
  test('a terminal treats only blocks with the flag 1 as answers, since the block of tmux itself may come after them', () => {
    const output =
      '%begin 1795989817 276 1\n120 30\n%end 1795989817 276 1\n%begin 1795989817 279 0\n%end 1795989817 279 0\n' +
      '%output %0 hello\n%begin 1795989817 280 1\n%end 1795989817 276 1\n%error 1795989817 280 1\n'
    for (const size of [1, 7, output.length]) {
      const seen: string[] = []
      const read = controlReader({
        answered: (lines, good) => seen.push(`${good ? 'good' : 'bad'}: ${lines.join('|')}`),
        notified: (line) => seen.push(line.toString()),
      })
      for (let at = 0; at < output.length; at += size) read(Buffer.from(output.slice(at, at + size)))
      // A line of the screen that looks like the end of another block is text.
      expect(seen).toEqual(['good: 120 30', '%output %0 hello', 'bad: %end 1795989817 276 1'])
    }
  })

  test('a terminal shows the bytes that tmux writes as octal digits', () => {
    expect(unescaped(Buffer.from('a\\033[1mb\\134\\015\\012é')).toString()).toBe('a\u001b[1mb\\\r\né')
    expect(unescaped(Buffer.from('\\9 \\0')).toString()).toBe('\\9 \\0')
  })

  test('a terminal types every byte, however long the paste', () => {
    expect(keyCommands(Buffer.from('a\r\u001b[A'))).toEqual(['send-keys -H 61 0d 1b 5b 41'])
    expect(keyCommands(Buffer.alloc(600, 'x')).map((line) => line.split(' ').length - 2)).toEqual([
      256, 256, 88,
    ])
    expect(keyCommands(Buffer.alloc(0))).toEqual([])
  })
})

test('progress is read from the lines of lab learn, and incomplete lines are left out', () => {
  const line = (minute: number, what: string, more: object = {}): string =>
    JSON.stringify({
      at: `2026-11-29T10:${String(minute).padStart(2, '0')}:00.000Z`,
      exercise: 'chap',
      attempt: 1,
      what,
      ...more,
    })
  const text = [
    line(1, 'begun'),
    line(1, 'step', { step: 'login' }),
    line(2, 'hint', { step: 'login' }),
    line(3, 'done', { step: 'login' }),
    line(3, 'step', { step: 'file' }),
    line(9, 'saw', { step: 'file', saw: 'no file yet' }),
    '{"at": "2026',
  ].join('\n')
  expect(progressIn(text)).toEqual({
    exercise: 'chap',
    step: 'file',
    since: '2026-11-29T10:03:00.000Z',
    done: 1,
    hints: 1,
    saw: 'no file yet',
    finished: false,
  })
  expect(progressIn('')).toBeUndefined()
  expect(progressIn(`${text}\n${line(10, 'finished')}`)).toMatchObject({ finished: true })
})

describe('cards', () => {
  test('cards have the number, address, words and code of every seat, in English and in Japanese', () => {
    const now = wanted(9)
    const page = cardsPage(now, [{ class: now, fingerprint: 'AB:CD' }])
    expect(page.match(/<section>/g)).toHaveLength(9)
    for (const { id, token } of now.seats) {
      expect(page).toContain(`Seat ${id}`)
      expect(page).toContain(qrSvg(cardUrl(now, token)))
    }
    expect(cardsPage({ ...now, language: 'ja' }, [{ class: now, fingerprint: '' }])).toContain('座席 01')
    expect(page).not.toMatch(/<script|https?:\/\/(?!192\.168\.1\.5)/)
    expect(cardUrl({ ...now, address: 'fd00::1' }, 'x')).toBe('https://[fd00::1]:8443/x')
  })
})

test('seats keep their tokens when a class grows, and have account names that Linux accepts', () => {
  const before = seatsOf(2)
  expect(seatsOf(3, before).slice(0, 2)).toEqual(before)
  expect(accountOf('iscsi', '07')).toBe('lab-iscsi-07')
  expect(accountOf('a'.repeat(40), '07')).toHaveLength(32)
})

test('a small lab has the same machines with less memory, and is a lab file', () => {
  const file = join(import.meta.dirname, '../../labs/iscsi-ha.yaml')
  const full = parseLab(readFileSync(file, 'utf8'), file)
  const small = parseLab(smallLab(readFileSync(file, 'utf8')), file)
  expect(small.machines.map(({ memory }) => memory / 1024 ** 2)).toEqual([256, 1536, 768, 768])
  expect({ ...small, machines: [] }).toEqual({ ...full, machines: [] })
})

test('results identify seats by their numbers, as CSV and as JUnit', () => {
  const progress = {
    exercise: 'chap',
    step: 'file',
    since: '',
    done: 1,
    hints: 2,
    saw: 'a "b", <c>',
    finished: false,
  }
  const board: Board = {
    lab: 'iscsi',
    until: '',
    now: '',
    load: 0,
    memory: 0,
    memoryFree: 0,
    seats: [
      { id: '01', status: 'ready', detail: '', hand: false, windows: 0, progress },
      { id: '02', status: 'ready', detail: '', hand: false, windows: 0 },
    ],
  }
  expect(resultsCsv(board).split('\n')[1]).toBe('01,ready,chap,file,1,2,false,"a ""b"", <c>"')
  expect(resultsJunit(board)).toContain('tests="2" failures="1" skipped="1"')
  expect(resultsJunit(board)).toContain('a &quot;b&quot;, &lt;c&gt;')
})

test.each(['0', '-3', '1.5', '100', 'ten', ''])(
  'a class of %j seats is refused with the numbers that are possible',
  async (count) => {
    const lab = await loadLab('iscsi')
    expect(() => wantedClass(lab, { count }, undefined)).toThrow(
      expect.objectContaining({
        code: 'bad-number',
        message: `--count ${count}: from 1 to 99`,
        hint: 'lab class up iscsi --count 10',
      }),
    )
  },
)

test('a class that does not fit is refused with the number of seats that would', async () => {
  vi.stubEnv('LAB_CLASSES', await temporaryFolder())
  const lab = await loadLab('iscsi')
  // No host has 64 TiB of memory for each seat.
  const huge = { ...lab, machines: lab.machines.map((machine) => ({ ...machine, memory: 64 * 1024 * GiB })) }
  await expect(refuseTooMany(huge, wanted(2), () => undefined)).rejects.toMatchObject({
    code: 'no-room',
    message: expect.stringMatching(
      /^2 seats of iscsi do not fit on this host:\n {2}memory: 2 seats need .* GiB are free/,
    ) as string,
    hint: expect.stringMatching(/^not even one seat fits: lab list .*; or with less memory/) as string,
  })
  vi.unstubAllEnvs()
})

test('a class without root is refused with what is missing and what to type', () => {
  vi.spyOn(process, 'getuid').mockReturnValue(1000)
  expect(needRoot).toThrow(
    expect.objectContaining({
      code: 'not-root',
      message: expect.stringContaining('lab class needs root') as string,
      hint: expect.stringContaining('sudo lab class up LAB --count N') as string,
    }),
  )
  vi.restoreAllMocks()
})

test('a gateway needs a port of its own, because it is on the cards', async () => {
  const lab = await loadLab('iscsi')
  expect(() => wantedClass(lab, { count: '2', listen: '127.0.0.1:0' }, undefined)).toThrow(
    /a port of its own/,
  )
})

test('tests that choose no folder for their classes find and make none among those of this host', () => {
  expect(classPaths('iscsi').root).toContain(tmpdir())
  expect(new Desk().env['LAB_CLASSES']).toContain(tmpdir())
})

test('a class whose file cannot be read, or was removed, can be ended: its seats are those that have folders', async () => {
  const folder = await temporaryFolder()
  vi.stubEnv('LAB_CLASSES', folder)
  await writeClass(wanted())
  expect((await classToEnd(undefined)).seats).toHaveLength(3)
  for (const id of ['01', '07', 'x']) mkdirSync(join(folder, 'iscsi', 'seats', id), { recursive: true })
  writeFileSync(join(folder, 'iscsi', 'class.json'), '{"schema":"lab.class/v0"}')
  await expect(theClass(undefined)).rejects.toMatchObject({
    code: 'bad-class',
    hint: 'correct the file, or end the class: lab class down --lab iscsi',
  })
  const known = { lab: 'iscsi', seats: [{ id: '01' }, { id: '07' }] }
  expect(await classToEnd(undefined)).toEqual(known)
  rmSync(join(folder, 'iscsi', 'class.json'))
  await expect(theClass(undefined)).rejects.toMatchObject({ code: 'no-class' })
  expect(await classToEnd(undefined)).toEqual(known)
  vi.unstubAllEnvs()
})
