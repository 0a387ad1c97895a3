import { link, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { exitCodes, LabError, unlessAborted } from './error.js'
import { cannotWrite, makeFolder } from './trust.js'

/**
 * What somebody holds a lock for. `change`: the lab is changed on purpose, so what goes meanwhile is not lost.
 * `run`: it is broken on purpose, and what goes is to be fenced. `fence`: a node is being fenced, or its fence undone.
 * `watch`: the fencing agent's own.
 */
export type LockPurpose = 'change' | 'run' | 'fence' | 'watch'

export interface Holder {
  readonly pid: number
  /** Start time of the process: a pid alone may belong to somebody else by now. */
  readonly started: string
  /** What it does: `lab up iscsi-ha`. For people: decide by the purpose. */
  readonly command: string
  readonly purpose: LockPurpose
  readonly since: string
}

/** Field 22 of /proc/PID/stat; undefined where the process, or /proc, is not there. */
const startTimeOf = (pid: number): string | undefined => {
  try {
    const stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    // A process that has ended but was not collected holds nothing any more.
    return fields[0] === 'Z' ? undefined : fields[19]
  } catch {
    return undefined
  }
}

const isAlive = (holder: Holder): boolean => {
  if (process.platform === 'linux') return startTimeOf(holder.pid) === holder.started
  try {
    return process.kill(holder.pid, 0)
  } catch {
    return false
  }
}

/** What a lock file says; undefined where that is nothing, as after a power cut. */
const holderIn = (text: string): Holder | undefined => {
  try {
    return JSON.parse(text) as Holder
  } catch {
    return undefined
  }
}

/** The text of a lock file; undefined: there is none. One that cannot be read may be held: it is no free one. */
const textOf = (path: string): Promise<string | undefined> =>
  readFile(path, 'utf8').catch((error: unknown) => {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    if (code === 'EISDIR')
      throw new LabError('bad-lock', `${path} is a folder, where lab notes down which command is at work`, {
        hint: `rm -r ${path}`,
        exitCode: exitCodes.host,
        cause: error,
      })
    throw error
  })

/** Who holds a lock at this moment; undefined: nobody who lives. */
export const holderOf = async (path: string): Promise<Holder | undefined> => {
  const text = await textOf(path)
  const holder = text === undefined ? undefined : holderIn(text)
  return holder && isAlive(holder) ? holder : undefined
}

/** Gives our file the lock's name too, unless somebody has it who lives: then it says who. */
const attempt = async (path: string, mine: string): Promise<Holder | undefined> => {
  for (;;) {
    // link fails where the name exists: exactly one process gets it, with its content complete.
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
 * Removes the lock of a dead process. Only one of several finders at a time, and it looks again: by now it may
 * be the lock of one that was quicker.
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

/** Several holders in one process want the same lock at once, too. */
let asked = 0

export interface LockOptions {
  readonly command: string
  readonly purpose: LockPurpose
  /** The folder of the lock must be there: a lab that was removed must not get its folder again. */
  readonly folderExists?: boolean
  /** Wait until it is free; called once with who holds it. */
  readonly wait?: ((holder: string) => void) | undefined
  readonly signal: AbortSignal
}

/**
 * Takes the lock for this process; returns how to give it back. A holder that was killed holds nothing: the
 * next one takes over at once, without a time to wait for.
 * @throws LabError `busy`, which says who holds it.
 */
export const takeLock = async (
  path: string,
  { command, purpose, folderExists = false, wait, signal }: LockOptions,
): Promise<() => Promise<void>> => {
  if (!folderExists) await unlessAborted(signal, makeFolder(dirname(path)))
  const mine = `${path}.${String(process.pid)}-${String(asked++)}`
  const me: Holder = {
    pid: process.pid,
    started: startTimeOf(process.pid) ?? '',
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
        throw new LabError('busy', `${who} is at work on this lab`, {
          hint: 'wait for it, or add --wait',
          exitCode: exitCodes.busy,
        })
      if (!announced) wait(who)
      announced = true
      await delay(200, undefined, { signal })
    }
  } finally {
    // On a read-only file system there is nothing to remove, and that would hide why.
    await rm(mine, { force: true }).catch(() => undefined)
  }
}
