import { Option } from 'commander'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { forEachAtOnce } from '../concurrent.js'
import { cardUrl, type ClassFile, classPaths, classToEnd, theClass, writeClass } from '../class/class.js'
import { callControl } from '../class/control-socket.js'
import { resultsCsv, resultsJunit } from '../class/results.js'
import { boardOf, boardSoon } from '../class/gateway-process.js'
import { classSoon, keepClass } from '../class/serve.js'
import { removeClass, removeSeats } from '../class/make.js'
import { needRoot } from '../class/seat.js'
import { type Visit, visitSeat } from '../class/visit.js'
import { exitCodes, type ExitCode, LabError } from '../error.js'
import { takeLock } from '../lock.js'
import { syncFolder } from '../state.js'
import { dirname } from 'node:path'
import { printJson } from '../command-line/json.js'
import { loadLab } from '../lifecycle/load-lab.js'
import {
  dropHost,
  droppedText,
  entranceOf,
  extendElsewhere,
  isBehind,
  leaveOthers,
  resetElsewhere,
  wholeOf,
} from './class-hosts.js'
import { verbs as partVerbs } from './class-part.js'
import { up } from './class-up.js'
import {
  asJson,
  type Io,
  line,
  type Options,
  type Verb,
  type VerbLine,
  withSource,
  withWait,
} from '../command-line/verb.js'

interface ClassOptions extends Options {
  readonly lab?: string
}

const withClass = new Option('--lab <lab>', 'which class; default: the only one there is')

const status = async (options: ClassOptions, io: Io): Promise<ExitCode> => {
  needRoot()
  const wanted = await theClass(options.lab)
  const board = await boardOf(wanted)
  if (options.output === 'json') printJson(io, 'lab.class-status/v1', board)
  else
    io.stdout.write(
      [
        `${wanted.lab}: ${String(board.seats.filter((seat) => seat.status === 'ready').length)} of ${String(board.seats.length)} seats ready; until ${board.until}`,
        ...board.seats.map(
          ({ id, status, detail, hand, progress }) =>
            `  ${id}  ${status.padEnd(8)}  ${detail}${hand ? '  hand up' : ''}${progress ? `  ${progress.exercise}${progress.step === undefined ? '' : `: ${progress.step}`}, ${String(progress.done)} done` : ''}`,
        ),
        ...(board.problems ?? []).map((problem) => `  ${problem}`),
        `board  ${cardUrl(wanted, wanted.teacher)}`,
        `cards  ${classPaths(wanted.lab).cards}`,
        '',
      ].join('\n'),
    )
  return exitCodes.ok
}

const board = async (options: ClassOptions, io: Io): Promise<ExitCode> => {
  needRoot()
  const wanted = await theClass(options.lab)
  await boardOf(wanted)
  io.stdout.write(`${cardUrl(wanted, wanted.teacher)}\n`)
  return exitCodes.ok
}

/** Timeout of `lab verify` at a seat in milliseconds, on a busy host. */
const verifyDeadline = 300_000

/** Seats that are visited at the same time: each queries all its machines. */
const visitsAtOnce = 2

const verify = async (options: ClassOptions, io: Io): Promise<ExitCode> => {
  needRoot()
  const here = await theClass(options.lab)
  // Without a usable roster, the seats here are visited nevertheless, and the roster's error comes last.
  let wanted = here
  let problem: LabError | undefined
  try {
    wanted = await wholeOf(here)
  } catch (error) {
    if (!(error instanceof LabError)) throw error
    problem = error
  }
  const visits: (Visit & { readonly id: string })[] = []
  await forEachAtOnce(wanted.seats, visitsAtOnce, async ({ id }) => {
    const entrance = await entranceOf(here, id)
    const came = entrance
      ? await visitSeat(entrance.url, entrance.certificate, wanted.lab, verifyDeadline, io.signal)
      : { ok: false, saw: 'its host has not joined: lab class up again', failed: [], seconds: 0 }
    visits.push({ id, ...came })
    if (options.output !== 'json')
      io.stdout.write(
        `seat ${id}  ${came.ok ? 'ready' : `not ready: ${came.saw}`}  (${came.seconds.toFixed(1)} s)\n`,
      )
  })
  const good = visits.filter(({ ok }) => ok).length
  if (options.output === 'json')
    printJson(io, 'lab.class-verify/v1', {
      lab: wanted.lab,
      seats: visits.sort((a, b) => a.id.localeCompare(b.id)),
    })
  else
    io.stdout.write(
      `${String(good)} of ${String(visits.length)} seats are ready, as a student finds them at the address on the card\n`,
    )
  if (problem !== undefined) throw problem
  return good === wanted.seats.length ? exitCodes.ok : exitCodes.failed
}

const seatIn = (wanted: ClassFile, typed: string): string => {
  const id = typed.padStart(2, '0')
  if (wanted.seats.some((seat) => seat.id === id)) return id
  throw new LabError(
    'no-seat',
    `${wanted.lab} has no seat ${typed}: its seats are 01 to ${wanted.seats.at(-1)?.id ?? ''}`,
    {
      hint: 'lab class status',
      exitCode: exitCodes.usage,
    },
  )
}

const reset = async (typed: string, options: ClassOptions, io: Io): Promise<ExitCode> => {
  needRoot()
  const wanted = await theClass(options.lab)
  const isHere = wanted.seats.some((seat) => seat.id === typed.padStart(2, '0'))
  const id = seatIn(isHere ? wanted : await wholeOf(wanted), typed)
  const told = isHere ? undefined : await resetElsewhere(wanted, id, io)
  if (told !== undefined) {
    io.stdout.write(told)
    return exitCodes.ok
  }
  const began = Date.now()
  await callControl(classPaths(wanted.lab).socket, 'POST', '/reset', { seat: id })
  for (;;) {
    await delay(500, undefined, { signal: io.signal })
    const seat = (await boardSoon(wanted.lab, io.signal)).seats.find((one) => one.id === id)
    if (seat?.status === 'ready') break
    if (seat?.status === 'failed')
      throw new LabError('not-reset', `seat ${id}: ${seat.detail}`, {
        log: classPaths(wanted.lab).seat(id).log,
        hint: 'lab class status',
      })
  }
  io.stdout.write(
    `seat ${id} is new again, after ${((Date.now() - began) / 1000).toFixed(0)} s; its home folder was kept\n`,
  )
  return exitCodes.ok
}

const extend = async (minutes: string, options: ClassOptions, io: Io): Promise<ExitCode> => {
  needRoot()
  const wanted = await theClass(options.lab)
  const more = /^\d{1,5}$/.test(minutes) ? Number(minutes) : 0
  if (more < 1)
    throw new LabError('bad-number', `${minutes}: expected a number of minutes`, {
      hint: 'lab class extend 30',
      exitCode: exitCodes.usage,
    })
  // Before anything changes: the same command may be typed again after an error, and must not add the time twice.
  await boardOf(wanted)
  const completes = await isBehind(wanted)
  const until = completes
    ? wanted.until
    : new Date(Math.max(Date.now(), Date.parse(wanted.until)) + more * 60_000).toISOString()
  if (!completes) {
    await writeClass({ ...wanted, until })
    await callControl(classPaths(wanted.lab).socket, 'POST', '/reload')
  }
  await extendElsewhere({ ...wanted, until }, io)
  io.stdout.write(
    completes
      ? `An earlier lab class extend had not reached every host; now it has, and nothing was added: the class ${wanted.lab} continues until ${until}\n`
      : `The class ${wanted.lab} continues until ${until}\n`,
  )
  return exitCodes.ok
}

const results = async (
  options: ClassOptions & { readonly format: 'csv' | 'junit' },
  io: Io,
): Promise<ExitCode> => {
  needRoot()
  const now = await boardOf(await theClass(options.lab))
  io.stdout.write(options.format === 'junit' ? resultsJunit(now) : resultsCsv(now))
  return exitCodes.ok
}

const forget = async (options: ClassOptions, io: Io): Promise<ExitCode> => {
  needRoot()
  const { names } = classPaths((await theClass(options.lab)).lab)
  const there = await readFile(names, 'utf8').catch(() => undefined)
  await rm(names, { force: true })
  await syncFolder(dirname(names))
  io.stdout.write(
    there === undefined
      ? `There is no ${names}: lab keeps no names of people here\n`
      : `${names} is removed: lab keeps no names of people here any more\n`,
  )
  return exitCodes.ok
}

const drop = async (
  host: string,
  options: ClassOptions & { readonly wait?: boolean },
  io: Io,
): Promise<ExitCode> => {
  needRoot()
  const wanted = await theClass(options.lab)
  const release = await takeLock(classPaths(wanted.lab).lock, {
    command: `lab class drop ${host}`,
    purpose: 'change',
    wait: options.wait ? () => undefined : undefined,
    signal: io.signal,
  })
  try {
    io.stdout.write(droppedText(wanted, await dropHost(wanted, host, io)))
    return exitCodes.ok
  } finally {
    await release()
  }
}

const down = async (options: ClassOptions & { readonly results?: string }, io: Io): Promise<ExitCode> => {
  needRoot()
  const wanted = await classToEnd(options.lab)
  const release = await takeLock(classPaths(wanted.lab).lock, {
    command: `lab class down ${wanted.lab}`,
    purpose: 'change',
    wait: options.wait ? () => undefined : undefined,
    signal: io.signal,
  })
  try {
    if (options.results !== undefined) {
      await writeFile(options.results, resultsCsv(await boardOf(wanted)))
      io.stdout.write(`${options.results} has the results\n`)
    }
    const elsewhere = await leaveOthers(wanted.lab, io)
    await removeSeats(wanted)
    await removeClass(await loadLab(wanted.lab))
    io.stdout.write(
      `${String(wanted.seats.length + elsewhere)} seats, 0 left: no accounts, processes, namespaces, mounts or files\n`,
    )
    return exitCodes.ok
  } finally {
    await release()
  }
}

/** The process that keeps a class, which `lab class up` starts. */
const serve = async (options: Options & { readonly lab: string }, io: Io): Promise<ExitCode> => {
  const tell = (problem: string): void => void io.stderr.write(`${problem}\n`)
  const wanted = await classSoon(options.lab, tell, io.signal)
  if (wanted) await keepClass(wanted, io.signal)
  return exitCodes.ok
}

const lines = (usage: string, does: string, verb: Verb): VerbLine =>
  line(usage, does, () => Promise.resolve({ verb }))

export const verbs: readonly VerbLine[] = [
  lines('up [options] <lab>', 'make a class of seats, or bring its seats back', {
    options: [
      new Option('--count <number>', 'the number of seats').makeOptionMandatory(),
      new Option('--listen <address:port>', 'the address of the gateway; default: 127.0.0.1:8443'),
      new Option('--address <name>', 'the address on the cards; default: the first address of the gateway'),
      new Option('--hours <hours>', 'how many hours tokens are valid; default: 10'),
      new Option('--lang <language>', 'the language of cards and pages; default: en').choices(['en', 'ja']),
      new Option('--size <size>', 'small: less memory for each machine').choices(['full', 'small']),
      new Option('--hosts <file>', 'a hosts.yaml: more hosts, which take a part of the seats'),
      ...withSource,
      withWait,
    ],
    run: up,
  }),
  lines('status [options]', 'show every seat, and where the board and the cards are', {
    options: [withClass, asJson],
    run: status,
  }),
  lines('verify [options]', 'visit every seat the way a student does, through the address on the card', {
    options: [withClass, asJson],
    run: verify,
  }),
  lines('board [options]', "print the address of the teacher's page", { options: [withClass], run: board }),
  lines('reset [options] <seat>', "rebuild a seat's lab; its home folder is kept", {
    words: { seat: 'its number' },
    options: [withClass],
    run: reset,
  }),
  lines('extend [options] <minutes>', 'extend the class', {
    words: { minutes: 'the number of additional minutes' },
    options: [withClass],
    run: extend,
  }),
  lines('results [options]', 'show what was done at each seat', {
    options: [
      withClass,
      new Option('--format <format>', 'csv or junit').choices(['csv', 'junit']).default('csv'),
    ],
    run: results,
  }),
  lines('forget [options]', 'remove the file that maps people to seats', {
    options: [withClass],
    run: forget,
  }),
  lines('drop [options] <host>', 'take a host that is gone for good out of the class', {
    words: { host: 'its name in hosts.yaml' },
    options: [withClass, withWait],
    run: drop,
  }),
  lines('down [options]', 'end a class, and verify that nothing is left', {
    options: [
      withClass,
      new Option('--results <file>', 'first write the results to a file, as CSV'),
      withWait,
    ],
    run: down,
  }),
  lines('serve [options]', '', { options: [new Option('--lab <lab>').makeOptionMandatory()], run: serve }),
  ...partVerbs,
]
