/** The process that keeps a class, as commands see it: they start it, ask it, and end it. */
import { spawn } from 'node:child_process'
import { open, readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { exitCodes, LabError } from '../error.js'
import { listenAt } from '../listen.js'
import { holderOf } from '../lock.js'
import { projectRoot } from '../package.js'
import { type ClassFile, classPaths } from './class.js'
import { callControl } from './control-socket.js'
import type { Board } from './gateway.js'
import { inScope } from './systemd-scope.js'

/** What to type if the address of a class is taken. */
export const otherAddress = ({ lab, seats }: ClassFile): string =>
  `lab class up ${lab} --count ${String(seats.length)} --listen ADDRESS:PORT`

/** @throws LabError `cannot-listen` if it is impossible to listen there: before anything is made */
export const refuseTaken = async (wanted: ClassFile): Promise<void> => {
  const server = createServer()
  try {
    await listenAt(server, wanted, otherAddress(wanted))
  } finally {
    server.close()
  }
}

/**
 * Starts the process that keeps the class, and restarts it whenever it ends unexpectedly, as long as the class's file
 * is there: someone may remove the folder of a class by hand.
 */
export const startGateway = async (lab: string): Promise<void> => {
  const paths = classPaths(lab)
  if (await holderOf(paths.gatewayLock)) return
  const log = await open(paths.gatewayLog, 'a', 0o600)
  const loop =
    'file=$1; shift; while [ -e "$file" ]; do "$@"; code=$?; [ $code -ne 0 ] && [ $code -ne 4 ] || exit 0; sleep 1; done'
  const serve = [process.execPath, join(projectRoot, 'dist', 'cli.js'), 'class', 'serve', '--lab', lab]
  const [program = '', ...words] = inScope(`lab-class-${lab}`, {}, [
    'sh',
    '-c',
    loop,
    'lab-class',
    paths.file,
    ...serve,
  ])
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

/** The gateway's answer. @throws if it does not answer */
export const boardOf = ({ lab }: Pick<ClassFile, 'lab'>): Promise<Board> =>
  callControl<Board>(classPaths(lab).socket, 'GET', '/board')

/** The gateway reads the class file again; it is started if it does not run. */
export const reloadGateway = async (wanted: ClassFile, signal: AbortSignal): Promise<void> => {
  const paths = classPaths(wanted.lab)
  if (!(await holderOf(paths.gatewayLock))) return startGateway(wanted.lab)
  await boardSoon(wanted.lab, signal)
  await callControl(paths.socket, 'POST', '/reload')
}

/**
 * Waits until no seat is outstanding: each is ready or has failed.
 * @param tell called whenever a seat that has had its turn changes
 */
export const untilSettled = async (
  wanted: ClassFile,
  tell: (seat: Board['seats'][number]) => void,
  signal: AbortSignal,
): Promise<Board> => {
  const told = new Map<string, string>()
  let board = await boardSoon(wanted.lab, signal)
  for (;;) {
    for (const seat of board.seats) {
      const now = `${seat.status}: ${seat.detail}`
      if (told.get(seat.id) !== now && seat.status !== 'waiting') tell(seat)
      told.set(seat.id, now)
    }
    if (board.seats.every(({ status }) => status === 'ready' || status === 'failed')) return board
    await delay(1000, undefined, { signal })
    board = await boardOf(wanted).catch(() => boardSoon(wanted.lab, signal))
  }
}

/** Milliseconds for the gateway to end by itself; it is killed when a third of them is left. */
const endDeadline = 15_000

export const endGateway = async ({ lab }: Pick<ClassFile, 'lab'>): Promise<void> => {
  const paths = classPaths(lab)
  if (!(await holderOf(paths.gatewayLock))) return
  await callControl(paths.socket, 'POST', '/stop').catch(() => undefined)
  const until = Date.now() + endDeadline
  while (Date.now() < until) {
    await delay(100)
    const holder = await holderOf(paths.gatewayLock)
    if (!holder) break
    if (Date.now() > until - endDeadline / 3) process.kill(holder.pid, 'SIGKILL')
  }
}
