/**
 * `lab class up`: writes the desired state, and makes sure that the process that keeps the class is running; that
 * process does the rest.
 */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, open, readFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { budget } from '../class/budget.js'
import { cardsPage } from '../class/cards.js'
import { certificateFor } from '../class/certificate.js'
import {
  cardUrl,
  type ClassFile,
  classPaths,
  mostSeats,
  newSecret,
  readClass,
  seatsOf,
  writeClass,
} from '../class/class.js'
import { callControl } from '../class/control-socket.js'
import type { Board } from '../class/gateway.js'
import { mostMemory, roomHere, seatNeeds } from '../class/needs.js'
import { inScope } from '../class/systemd-scope.js'
import { heldBySeat, seatProcess } from '../class/seat.js'
import { projectRoot } from '../class/class.js'
import { smallLab } from '../class/smaller-lab.js'
import { newToken } from '../class/tokens.js'
import { exitCodes, type ExitCode, LabError, messageOf } from '../error.js'
import { holderOf, takeLock } from '../lock.js'
import { forgetUse, neededParts, noteUse } from '../parts/parts.js'
import { imagesOf } from '../lab/images.js'
import type { Lab } from '../lab/lab.js'
import { chooseProvider } from '../provider/load.js'
import { writePrivate } from '../state.js'
import { makeFolder } from '../trust.js'
import { prepareParts } from '../lifecycle/parts.js'
import { listenAddress, reachableAt } from './bundle.js'
import { loadLab } from '../lifecycle/load-lab.js'
import type { Io, Options } from '../command-line/verb.js'
import { preparationOf, viewFor } from '../command-line/with-lab.js'

export interface UpOptions extends Options {
  readonly count: string
  readonly listen?: string
  readonly address?: string
  readonly hours?: string
  readonly lang?: 'en' | 'ja'
  readonly size?: 'full' | 'small'
}

export const needRoot = (): void => {
  if (process.getuid?.() !== 0)
    throw new LabError(
      'not-root',
      'a class gives every seat a user account of its own, which only root can make',
      {
        hint: 'sudo lab class up LAB --count N',
        exitCode: exitCodes.usage,
      },
    )
}

const wholeNumber = (text: string, what: string, most: number): number => {
  const value = /^\d{1,6}$/.test(text) ? Number(text) : 0
  if (value < 1 || value > most)
    throw new LabError('bad-number', `${what} ${text}: from 1 to ${String(most)}`, {
      hint: 'lab class up iscsi --count 10',
      exitCode: exitCodes.usage,
    })
  return value
}

/** The nearest existing folder: the path itself, or one above it. */
const nearest = (path: string): string => (existsSync(path) || path === '/' ? path : nearest(dirname(path)))

/** @throws LabError `no-room`, with the number of seats that fit */
const refuseTooMany = async (
  lab: Lab,
  wanted: ClassFile,
  view: { notice(text: string): void },
): Promise<void> => {
  const needs = seatNeeds(lab)
  let running = 0
  /** Bytes that the seats which run may still come to hold. */
  let promised = 0
  for (const { id } of wanted.seats) {
    const seat = { class: wanted, id }
    if ((await seatProcess(seat)) === undefined) continue
    running++
    promised += Math.max(0, needs.memory - (await heldBySeat(seat)))
  }
  const room = await roomHere(nearest(classPaths(lab.name).root))
  const { fits, short, warnings } = budget(wanted.seats.length - running, needs, {
    ...room,
    memory: Math.max(0, room.memory - promised),
  })
  for (const warning of warnings) view.notice(warning)
  if (short.length === 0) return
  throw new LabError(
    'no-room',
    [
      `${String(wanted.seats.length)} seats of ${lab.name} do not fit on this host:`,
      ...short.map((line) => `  ${line}`),
    ].join('\n'),
    {
      hint: `lab class up ${lab.name} --count ${String(running + fits)}${wanted.size === 'small' ? '' : '; or with less memory for each machine: --size small'}`,
      exitCode: exitCodes.host,
    },
  )
}

/** @throws LabError if it is impossible to listen there: before anything is made */
const refuseTaken = async ({ lab, host, port, seats }: ClassFile): Promise<void> => {
  const server = createServer()
  try {
    server.listen(port, host)
    await once(server, 'listening')
  } catch (error) {
    throw new LabError('cannot-listen', `${host}:${String(port)}: ${messageOf(error)}`, {
      hint: `lab class up ${lab} --count ${String(seats.length)} --listen ADDRESS:PORT`,
      exitCode: exitCodes.host,
      cause: error,
    })
  } finally {
    server.close()
  }
}

/** Starts the process that keeps the class, and restarts it whenever it ends unexpectedly. */
const startGateway = async (lab: string): Promise<void> => {
  const paths = classPaths(lab)
  if (await holderOf(paths.gatewayLock)) return
  const log = await open(paths.gatewayLog, 'a', 0o600)
  const loop = 'while :; do "$@"; code=$?; [ $code -ne 0 ] && [ $code -ne 4 ] || exit 0; sleep 1; done'
  const serve = [process.execPath, join(projectRoot, 'dist', 'cli.js'), 'class', 'serve', '--lab', lab]
  const [program = '', ...words] = inScope(`lab-class-${lab}`, {}, ['sh', '-c', loop, 'lab-class', ...serve])
  const child = spawn(program, words, { stdio: ['ignore', log.fd, log.fd], detached: true, cwd: '/' })
  child.unref()
  await log.close()
}

const lastLines = async (path: string): Promise<string> =>
  (await readFile(path, 'utf8').catch(() => '')).trim().split('\n').slice(-3).join('\n')

/** The gateway's answer, once it answers: it may be restarting. @throws LabError `no-gateway` */
export const boardSoon = async (lab: string, signal: AbortSignal): Promise<Board> => {
  const paths = classPaths(lab)
  for (const until = Date.now() + 60_000; ;) {
    signal.throwIfAborted()
    try {
      return await callControl<Board>(paths.socket, 'GET', '/board')
    } catch (error) {
      if (Date.now() > until)
        throw new LabError('no-gateway', `the gateway does not start: ${await lastLines(paths.gatewayLog)}`, {
          log: paths.gatewayLog,
          hint: `tail ${paths.gatewayLog}`,
          exitCode: exitCodes.host,
          cause: error,
        })
    }
    await delay(300, undefined, { signal })
  }
}

/** The desired state of a class: its present state, changed by what was typed. */
const wantedClass = (lab: Lab, options: UpOptions, before: ClassFile | undefined): ClassFile => {
  const count = wholeNumber(options.count, '--count', mostSeats)
  const { host, port } = listenAddress(
    options.listen ??
      (before
        ? `${before.host.includes(':') ? `[${before.host}]` : before.host}:${String(before.port)}`
        : '127.0.0.1:8443'),
  )
  if (before && count < before.seats.length)
    throw new LabError(
      'fewer-seats',
      `the class ${lab.name} has ${String(before.seats.length)} seats, but --count is ${String(count)}: the number of seats can only grow`,
      {
        hint: `lab class down --lab ${lab.name}`,
        exitCode: exitCodes.usage,
      },
    )
  if (before && (host !== before.host || port !== before.port))
    throw new LabError(
      'other-address',
      `the gateway of ${lab.name} listens at ${before.host}, port ${String(before.port)}, which is also the address on the cards`,
      { hint: `lab class down --lab ${lab.name}`, exitCode: exitCodes.usage },
    )
  if (before && options.size !== undefined && options.size !== before.size)
    throw new LabError('other-size', `the seats of ${lab.name} have the size ${before.size}`, {
      hint: `lab class down --lab ${lab.name}`,
      exitCode: exitCodes.usage,
    })
  const hours = wholeNumber(options.hours ?? '10', '--hours', 24 * 31)
  return {
    schema: 'lab.class/v1',
    lab: lab.name,
    from: lab.name,
    size: options.size ?? before?.size ?? 'full',
    language: options.lang ?? before?.language ?? 'en',
    seats: [...seatsOf(count, before?.seats)],
    teacher: before?.teacher ?? `${newToken(6)}-${randomBytes(4).toString('hex').replaceAll(/\d/g, 'x')}`,
    secret: before?.secret ?? newSecret(),
    host,
    port,
    address: options.address ?? before?.address ?? reachableAt(host)[0] ?? hostname(),
    until:
      before && options.hours === undefined
        ? before.until
        : new Date(Date.now() + hours * 3_600_000).toISOString(),
  }
}

export const up = async (name: string, options: UpOptions, io: Io): Promise<ExitCode> => {
  needRoot()
  const view = viewFor(io, options)
  try {
    const full = await loadLab(name)
    if (!full.file.startsWith(join(projectRoot, 'labs')))
      throw new LabError('own-lab-file', `${name}: a class needs a shipped lab`, {
        hint: `lab list shows them; or put the file next to them: ${join(projectRoot, 'labs')}`,
        exitCode: exitCodes.usage,
      })
    const paths = classPaths(full.name)
    const before = await readClass(full.name)
    const wanted = wantedClass(full, options, before)
    const provider = await chooseProvider('uml', full, io.signal)
    await makeFolder(dirname(paths.lock), 0o755)
    const release = await takeLock(paths.lock, {
      command: `lab class up ${full.name}`,
      purpose: 'change',
      wait: options.wait ? (who) => view.notice(`waiting for ${who}`) : undefined,
      signal: io.signal,
    })
    try {
      const serving = (await holderOf(paths.gatewayLock)) !== undefined
      if (!serving) await refuseTaken(wanted)
      const small = wanted.size === 'small' ? smallLab(await readFile(full.file, 'utf8')) : undefined
      const { parseLab } = await import('../registry.js')
      const lab = small === undefined ? full : parseLab(small, full.file)
      await refuseTooMany(lab, wanted, view)
      await prepareParts(full, provider, { ...options, ask: io.ask }, preparationOf(io, view))
      // Everything that can fail early has succeeded: only now is anything made.
      await writeClass({ ...wanted, seatMemory: mostMemory(lab) })
      if (small !== undefined) {
        await writePrivate(paths.labFile, small)
        // Seats read it, but it is in a folder that they cannot open.
        await chmod(paths.labFile, 0o644)
      }
      // Seats cannot write to the cache, so their use of parts is recorded here.
      await noteUse(
        paths.root,
        neededParts({ images: imagesOf(full) }).map(({ path }) => join(path, 'x')),
      )
      const { fingerprint } = await certificateFor(wanted.lab, wanted.address)
      await writePrivate(paths.cards, cardsPage(wanted, fingerprint))
      if (await holderOf(paths.gatewayLock)) {
        await boardSoon(wanted.lab, io.signal)
        await callControl(paths.socket, 'POST', '/reload')
      } else await startGateway(wanted.lab)
    } finally {
      await release()
    }
    return await untilReady(wanted, io, view)
  } finally {
    await view.close()
  }
}

/** Reports how seats come up, until none is outstanding. */
const untilReady = async (
  wanted: ClassFile,
  io: Io,
  view: { notice(text: string): void; close(): Promise<void> },
): Promise<ExitCode> => {
  const began = Date.now()
  const told = new Map<string, string>()
  let board = await boardSoon(wanted.lab, io.signal)
  for (;;) {
    for (const { id, status, detail } of board.seats) {
      const now = `${status}: ${detail}`
      if (told.get(id) !== now && status !== 'waiting') view.notice(`seat ${id}  ${now}`)
      told.set(id, now)
    }
    if (board.seats.every(({ status }) => status === 'ready' || status === 'failed')) break
    await delay(1000, undefined, { signal: io.signal })
    board = await callControl<Board>(classPaths(wanted.lab).socket, 'GET', '/board').catch(() =>
      boardSoon(wanted.lab, io.signal),
    )
  }
  await view.close()
  const ready = board.seats.filter(({ status }) => status === 'ready').length
  const all = board.seats.length
  io.stdout.write(
    [
      `${String(ready)} of ${String(all)} seats of ${wanted.lab} are up, after ${((Date.now() - began) / 1000).toFixed(0)} s`,
      ...board.seats
        .filter(({ status }) => status === 'failed')
        .map(({ id, detail }) => `  seat ${id}: ${detail}`),
      '',
      `The gateway listens at ${wanted.host}, port ${String(wanted.port)}, until ${wanted.until}`,
      `  board  ${cardUrl(wanted, wanted.teacher)}`,
      `  cards  ${classPaths(wanted.lab).cards}`,
      '',
      'Try next',
      '  lab class verify      checks every seat the way a student reaches it',
      '  lab class status',
      '  lab class down        ends the class and verifies that nothing is left',
      '',
    ].join('\n'),
  )
  return ready === all ? exitCodes.ok : exitCodes.failed
}

/** No machine of the class needs its parts any more. */
export const forgetParts = async (lab: Lab): Promise<void> =>
  forgetUse(
    classPaths(lab.name).root,
    neededParts({ images: imagesOf(lab) }).map(({ path }) => join(path, 'x')),
  )
