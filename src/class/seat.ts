/**
 * A seat on this host: a user account of its own, in namespaces of its own (see namespaces.ts). Its home folder has its
 * lab. A student is root on the machines of the seat, and cannot gain any right elsewhere.
 *
 * The first process of a seat does nothing. What runs there later enters its namespaces, so the end of that process is
 * the end of everything at the seat. All this is done as root.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { chown, mkdir, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { execa } from 'execa'
import { exitCodes, LabError } from '../error.js'
import { mountsBelow } from '../mounts.js'
import { startOf } from '../processes.js'
import { type ClassFile, classPaths } from './class.js'
import { isMounted, mountHome, unmountHome } from './home-disk.js'
import { type Account, inside, openingCommand } from './namespaces.js'
import { besideProcess, inScope } from './systemd-scope.js'

/** A Linux user name: `lab-iscsi-07`, at most 32 characters. */
export const accountOf = (lab: string, seat: string): string =>
  `lab-${lab.slice(0, 32 - 4 - 1 - seat.length)}-${seat}`

const findAccount = async (name: string): Promise<Account | undefined> => {
  const { stdout } = await execa('getent', ['passwd', name], { reject: false, stdin: 'ignore' })
  const [found, , uid, gid] = stdout.trim().split(':')
  return found === name && uid !== undefined && gid !== undefined
    ? { name, uid: Number(uid), gid: Number(gid) }
    : undefined
}

/** The limit of processes and threads of a seat; a lab with four nodes uses about 1500. */
const mostTasks = 4000

/** Which seat of which class. */
export interface SeatNamed {
  readonly class: Pick<ClassFile, 'lab'>
  readonly id: string
}

export interface SeatOf extends SeatNamed {
  readonly class: ClassFile
}

const pathsOfSeat = ({ class: { lab }, id }: SeatNamed) => classPaths(lab).seat(id)

/** The first process of a seat, with its pid on this host; undefined if the seat does not run. */
export const seatProcess = async (seat: SeatNamed): Promise<number | undefined> => {
  const text = await readFile(pathsOfSeat(seat).pid, 'utf8').catch(() => '')
  const [pid = '', began = ''] = text.trim().split(/\s+/)
  return began !== '' && startOf(Number(pid)) === began ? Number(pid) : undefined
}

/** Whether a seat of an earlier version has its files on the host's disk: mounting another one would hide them. */
const isOnHost = async (home: string): Promise<boolean> =>
  !isMounted(home) && (await readdir(home).catch(() => [])).length > 0

/** Creates the account and its folders, if they do not exist. */
export const makeAccount = async (seat: SeatOf): Promise<Account> => {
  const name = accountOf(seat.class.lab, seat.id)
  let account = await findAccount(name)
  if (!account) {
    // --system: no mail spool, no range of subordinate users, and a number below those of people.
    const made = await execa(
      'useradd',
      [
        '--system',
        '--user-group',
        '--no-create-home',
        '--home-dir',
        inside.home(name),
        '--shell',
        '/bin/bash',
        '--comment',
        `seat ${seat.id} of a class of lab`,
        name,
      ],
      { reject: false, stdin: 'ignore' },
    )
    account = await findAccount(name)
    if (!account)
      throw new LabError(
        'no-account',
        `the account ${name} cannot be made: ${(made.stderr || (made.shortMessage ?? '')).trim()}`,
        {
          hint: 'apt-get install -y passwd; getent passwd | tail',
          exitCode: exitCodes.host,
        },
      )
  }
  const { root, home } = pathsOfSeat(seat)
  await mkdir(root, { recursive: true, mode: 0o700 })
  if (seat.class.seatDisk !== undefined && !(await isOnHost(home)))
    await mountHome(pathsOfSeat(seat).disk, home, seat.class.seatDisk, account)
  await mkdir(home, { recursive: true, mode: 0o700 })
  await chown(home, account.uid, account.gid)
  return account
}

/** Starts the seat's first process, unless it runs. */
export const openSeat = async (seat: SeatOf): Promise<number> => {
  const running = await seatProcess(seat)
  if (running !== undefined) return running
  const account = await makeAccount(seat)
  const paths = pathsOfSeat(seat)
  const { lab, size } = seat.class
  await mkdir(paths.emptyRoot, { recursive: true, mode: 0o700 })
  const opening = await openingCommand({
    root: paths.emptyRoot,
    home: paths.home,
    account,
    labFile: size === 'full' ? undefined : { path: classPaths(lab).labFile, lab },
  })
  const limits = { memory: seat.class.seatMemory, tasks: mostTasks }
  const [program = '', ...words] = inScope(`lab-seat-${lab}-${seat.id}`, limits, opening)
  const log = await open(paths.log, 'a', 0o600)
  const number = await open(`${paths.pid}.new`, 'w', 0o600)
  const child = spawn(program, words, {
    stdio: ['ignore', log.fd, log.fd, number.fd],
    detached: true,
    cwd: '/',
  })
  let ended = false as boolean
  child.once('error', () => (ended = true)).once('exit', () => (ended = true))
  child.unref()
  await number.close()
  await log.close()
  const until = Date.now() + 20_000
  for (;;) {
    await delay(20)
    const text = await readFile(`${paths.pid}.new`, 'utf8')
    if (/^\d+\n$/.test(text)) {
      const pid = Number(text)
      await writeFile(paths.pid, `${String(pid)} ${startOf(pid) ?? ''}\n`, { mode: 0o600 })
      await rm(`${paths.pid}.new`)
      return pid
    }
    if (ended || Date.now() > until)
      throw new LabError('no-seat', `seat ${seat.id}: its namespaces cannot be made`, {
        hint: 'lab doctor',
        log: paths.log,
        exitCode: exitCodes.host,
      })
  }
}

const environment = ({ class: { lab }, id }: SeatOf): Readonly<Record<string, string>> => {
  const account = accountOf(lab, id)
  return {
    HOME: inside.home(account),
    USER: account,
    LOGNAME: account,
    SHELL: '/bin/bash',
    PATH: `${inside.bin}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin`,
    LANG: 'C.UTF-8',
    TERM: 'xterm-256color',
    LAB_SEAT: id,
    LAB_STATE: `${inside.home(account)}/.lab`,
    LAB_CACHE: inside.cache,
  }
}

/** The command line that runs a command at a seat, as the student would, without this process's environment. */
export const atSeat = (
  seat: SeatOf,
  pid: number,
  account: Account,
  command: readonly string[],
): readonly [string, ...string[]] => [
  'nsenter',
  // No --wd: it would open a folder of the host before it enters, and a student could follow /proc/PID/cwd to it.
  ...['--target', String(pid), '--mount', '--pid', '--net', '--ipc', '--uts', '--'],
  ...['prlimit', `--nproc=${String(mostTasks)}`, '--core=0', '--'],
  ...['setpriv', '--reuid', String(account.uid), '--regid', String(account.gid), '--clear-groups'],
  ...['--no-new-privs', '--inh-caps=-all', '--bounding-set=-all', '--'],
  ...['env', '-i', ...Object.entries(environment(seat)).map(([name, value]) => `${name}=${value}`)],
  // Each in its own session, so that our terminal is out of reach.
  ...['setsid', '--wait', 'sh', '-c', 'cd "$HOME" && exec "$@"', 'seat', ...command],
]

/** A process through which a seat can be entered. @throws LabError `seat-gone` */
const entrance = async (seat: SeatOf): Promise<{ readonly pid: number; readonly account: Account }> => {
  const pid = await seatProcess(seat)
  const account = await findAccount(accountOf(seat.class.lab, seat.id))
  if (pid === undefined || !account)
    throw new LabError('seat-gone', `seat ${seat.id} does not run`, {
      hint: `lab class up ${seat.class.lab} --count ${String(seat.class.seats.length)}`,
    })
  return { pid, account }
}

export interface Ran {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs a command at a seat and waits for its end. */
export const runAtSeat = async (
  seat: SeatOf,
  command: readonly string[],
  {
    signal,
    timeout,
    input,
  }: { readonly signal?: AbortSignal; readonly timeout: number; readonly input?: string },
): Promise<Ran> => {
  const { pid, account } = await entrance(seat)
  const [program, ...words] = besideProcess(pid, atSeat(seat, pid, account, command))
  const result = await execa(program, words, {
    reject: false,
    timeout,
    maxBuffer: 8 * 1024 ** 2,
    ...(input === undefined ? { stdin: 'ignore' as const } : { input }),
    ...(signal ? { cancelSignal: signal } : {}),
  })
  return {
    exitCode: result.exitCode ?? 1,
    stdout: result.stdout,
    stderr: result.stderr || (result.exitCode === undefined ? (result.shortMessage ?? '') : ''),
  }
}

/** Starts a command at a seat, with pipes. */
export const startAtSeat = async (seat: SeatOf, command: readonly string[]): Promise<ChildProcess> => {
  const { pid, account } = await entrance(seat)
  const [program, ...words] = besideProcess(pid, atSeat(seat, pid, account, command))
  return spawn(program, words, { stdio: ['pipe', 'pipe', 'pipe'] })
}

/** The processes of an account, wherever they are. */
const processesOfUser = async (uid: number): Promise<readonly number[]> => {
  const { stdout } = await execa('ps', ['-eo', 'pid=,uid='], { stdin: 'ignore' })
  return stdout
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .flatMap(([pid = 0, user]) => (user === uid ? [pid] : []))
}

/** Bytes of memory that the processes of a seat hold; what several of them share counts once. */
export const heldBySeat = async (seat: SeatNamed): Promise<number> => {
  const account = await findAccount(accountOf(seat.class.lab, seat.id))
  const held = await Promise.all(
    (account ? await processesOfUser(account.uid) : []).map(async (pid) => {
      // It may have ended meanwhile.
      const text = await readFile(`/proc/${String(pid)}/smaps_rollup`, 'utf8').catch(() => '')
      return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) * 1024
    }),
  )
  return held.reduce((sum, bytes) => sum + bytes, 0)
}

/** Ends everything that runs at a seat. The kernel ends a PID namespace together with its first process. */
export const closeSeat = async (seat: SeatNamed): Promise<void> => {
  const pid = await seatProcess(seat)
  if (pid !== undefined) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It has just ended.
    }
    for (const until = Date.now() + 20_000; Date.now() < until && (await seatProcess(seat)) !== undefined;)
      await delay(50)
  }
  await rm(pathsOfSeat(seat).pid, { force: true })
}

/** Ends a seat, and removes its account and its folder. */
export const removeSeat = async (seat: SeatNamed): Promise<void> => {
  await closeSeat(seat)
  const account = await findAccount(accountOf(seat.class.lab, seat.id))
  if (account) {
    const until = Date.now() + 10_000
    while (Date.now() < until) {
      const left = await processesOfUser(account.uid)
      if (left.length === 0) break
      for (const pid of left)
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // It has just ended.
        }
      await delay(100)
    }
    await execa('userdel', [account.name], { reject: false, stdin: 'ignore' })
    await execa('groupdel', [account.name], { reject: false, stdin: 'ignore' })
  }
  await unmountHome(pathsOfSeat(seat).home)
  await rm(pathsOfSeat(seat).root, { recursive: true, force: true })
}

/** What is left of a seat, observed anew. */
export const leftOfSeat = async (seat: SeatNamed): Promise<readonly string[]> => {
  const name = accountOf(seat.class.lab, seat.id)
  const account = await findAccount(name)
  const processes = account ? await processesOfUser(account.uid) : []
  const folder = await stat(pathsOfSeat(seat).root).catch(() => undefined)
  return [
    ...(account ? [`account ${name}`] : []),
    ...processes.map((pid) => `process ${String(pid)} of ${name}`),
    ...((await seatProcess(seat)) === undefined ? [] : [`namespaces of seat ${seat.id}`]),
    ...(folder ? [pathsOfSeat(seat).root] : []),
    ...mountsBelow(pathsOfSeat(seat).root).map(({ text }) => text),
  ]
}

/** The folder of the seat's lab, as the student's processes see it. */
export const labFolder = ({ class: { lab }, id }: SeatNamed): string =>
  join(inside.home(accountOf(lab, id)), '.lab', `${lab}@${id}`)

/** @throws LabError `not-root` */
export const needRoot = (): void => {
  if (process.getuid?.() !== 0)
    throw new LabError(
      'not-root',
      'lab class needs root: it gives every seat a user account and namespaces of its own, which only root can make',
      {
        hint: 'sudo lab class up LAB --count N; without root, LAB_SEAT=01 lab up LAB makes one more lab of the same name, without a card and under your own account',
        exitCode: exitCodes.usage,
      },
    )
}
