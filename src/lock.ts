/**
 * The lock of a lab, which allows one command at a time. It names the process that holds it, so it works only if all
 * processes can see each other. docs/design/locks.md explains this and the other kinds of locks.
 */
import { link, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { exitCodes, LabError, unlessAborted } from './error.js'
import { startOf } from './processes.js'
import { cannotWrite, makeFolder } from './trust.js'

/**
 * Why a lock is held. `change`: the lab is changed on purpose, so a machine that goes away is not lost. `run`: the lab
 * is broken on purpose, and a machine that goes away must be fenced. `fence`: a node is being fenced or its fence
 * undone. `watch`: the fencing agent's own lock.
 */
export type LockPurpose = 'change' | 'run' | 'fence' | 'watch'

export interface Holder {
  readonly pid: number
  /** Start time of the process, since its pid may have been reused. */
  readonly started: string
  /** The command: `lab up iscsi-ha`. For people only; decide by the purpose. */
  readonly command: string
  readonly purpose: LockPurpose
  readonly since: string
}

const isAlive = (holder: Holder): boolean => {
  if (process.platform === 'linux') return startOf(holder.pid) === holder.started
  try {
    return process.kill(holder.pid, 0)
  } catch {
    return false
  }
}

const isHolder = (value: unknown): value is Holder => {
  const holder = value as Partial<Record<keyof Holder, unknown>> | null
  return (
    typeof holder?.pid === 'number' &&
    typeof holder.started === 'string' &&
    typeof holder.command === 'string' &&
    typeof holder.since === 'string'
  )
}

/**
 * The holder in a lock file; undefined for invalid content, as after a power cut. A holder without a start time must
 * not count: the start time of a process that does not exist is undefined as well, so it would live for ever.
 */
const holderIn = (text: string): Holder | undefined => {
  try {
    const value: unknown = JSON.parse(text)
    return isHolder(value) ? value : undefined
  } catch {
    return undefined
  }
}

/**
 * The text of a lock file; undefined if there is none. A file that cannot be read is an error, since the lock may be
 * held.
 */
const textOf = (path: string): Promise<string | undefined> =>
  readFile(path, 'utf8').catch((error: unknown) => {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    if (code === 'EISDIR')
      throw new LabError(
        'bad-lock',
        `${path} is a folder; lab needs this name for a file that says which command is working`,
        {
          hint: `rm -r ${path}`,
          exitCode: exitCodes.host,
          cause: error,
        },
      )
    throw error
  })

/** The living holder of a lock; undefined if there is none. */
export const holderOf = async (path: string): Promise<Holder | undefined> => {
  const text = await textOf(path)
  const holder = text === undefined ? undefined : holderIn(text)
  return holder && isAlive(holder) ? holder : undefined
}

/** Tries to link our file to the lock's name. Returns the holder if a living process has the lock. */
const attempt = async (path: string, mine: string): Promise<Holder | undefined> => {
  for (;;) {
    // link fails if the name exists: exactly one process gets it, with its complete content.
    const got = await link(mine, path).then(
      () => true,
      (error: unknown) => {
        if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
        throw error
      },
    )
    if (got) return undefined
    const text = await textOf(path)
    if (text === undefined) continue
    const holder = holderIn(text)
    if (holder && isAlive(holder)) return holder
    await removeStale(path, text, mine)
  }
}

/**
 * Removes the lock of a dead process. One process at a time does this, and it checks again: another one may have
 * taken the lock meanwhile.
 */
const removeStale = async (path: string, text: string, mine: string): Promise<void> => {
  const guard = `${path}.stale`
  if (await attempt(guard, mine)) {
    await delay(5)
    return
  }
  try {
    if ((await textOf(path)) === text) await rm(path, { force: true })
  } finally {
    await rm(guard, { force: true })
  }
}

/** Several callers within one process may ask for the same lock at once. */
let asked = 0

export interface LockOptions {
  readonly command: string
  readonly purpose: LockPurpose
  /** Whether to refuse a lock whose folder is missing: a lab that was removed must not get its folder again. */
  readonly folderExists?: boolean
  /** Waits for the lock; called once with the holder. */
  readonly wait?: ((holder: string) => void) | undefined
  readonly signal: AbortSignal
}

/**
 * Takes the lock for this process and returns its release. The lock of a killed process is free at once, without a
 * timeout.
 * @throws LabError `busy`, which names the holder
 */
export const takeLock = async (
  path: string,
  { command, purpose, folderExists = false, wait, signal }: LockOptions,
): Promise<() => Promise<void>> => {
  if (!folderExists) await unlessAborted(signal, makeFolder(dirname(path)))
  const mine = `${path}.${String(process.pid)}-${String(asked++)}`
  const me: Holder = {
    pid: process.pid,
    started: startOf(process.pid) ?? '',
    command,
    purpose,
    since: new Date().toISOString(),
  }
  try {
    await writeFile(mine, JSON.stringify(me), { mode: 0o600 }).catch((error: unknown) => {
      throw cannotWrite(dirname(path), error)
    })
    for (let announced = false; ;) {
      const holder = await attempt(path, mine)
      if (!holder) return () => rm(path, { force: true })
      const who = `${holder.command} (pid ${String(holder.pid)}, since ${holder.since})`
      if (!wait)
        throw new LabError('busy', `${who} is working on this lab`, {
          hint: 'wait for it, or add --wait',
          exitCode: exitCodes.busy,
        })
      if (!announced) wait(who)
      announced = true
      await delay(200, undefined, { signal })
    }
  } finally {
    // On a read-only file system there is nothing to remove, and the error would hide the cause.
    await rm(mine, { force: true }).catch(() => undefined)
  }
}
