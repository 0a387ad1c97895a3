/**
 * Keeps the seats of a class in their desired state. It checks which seats exist, and works on a few at a time. If the
 * first process of a seat has ended, it opens the seat again and brings its lab up. So an interrupted run simply
 * continues.
 */
import { existsSync } from 'node:fs'
import { appendFile, mkdir, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { availableParallelism } from 'node:os'
import { LabError, messageOf } from '../error.js'
import { writePrivate } from '../state.js'
import type { ClassFile } from './class.js'
import { classPaths } from './class.js'
import { removeLab } from './home-disk.js'
import { type Progress, progressIn } from './progress.js'
import { closeSeat, labFolder, makeAccount, openSeat, runAtSeat, seatProcess, type SeatOf } from './seat.js'

/** `waiting`: its turn has not come yet. `failed`: it will be tried again later. */
export type SeatStatus = 'waiting' | 'starting' | 'ready' | 'failed'

export interface SeatState {
  readonly id: string
  readonly status: SeatStatus
  /** The state in a few words: how long it took, or what failed. */
  readonly detail: string
  readonly progress?: Progress
}

/**
 * Timeout of `lab up` at one seat in milliseconds: an iSCSI lab takes 20 s on an idle host, one with Kubernetes 2 min.
 */
const upDeadline = 30 * 60_000
/** Attempts before a seat counts as failed: on a busy host, the second attempt succeeds. */
const tries = 3
/** Milliseconds until a failed seat is tried again, and between two checks of a seat that is ready. */
const tryAgain = 30_000
const lookAgain = 5000

interface Kept {
  status: SeatStatus
  detail: string
  /** When it is checked next. */
  next: number
  busy: boolean
  /** Consecutive attempts. */
  tries: number
  /** Whether its lab is removed before it is brought up. */
  reset: boolean
  progress?: Progress | undefined
}

/** The reason that a failed command prints, or else its last line. */
export const reasonIn = (text: string): string =>
  /^✖ (.*)$/m.exec(text)?.[1]?.trim() ?? text.trim().split('\n').at(-1)?.trim() ?? ''

/** A reset may be requested while the lab comes up. */
const isReset = ({ reset }: Kept): boolean => reset

const failed = (seat: Kept, why: string): void => {
  seat.tries++
  const last = seat.tries >= tries
  Object.assign(seat, {
    status: last ? 'failed' : 'waiting',
    detail: last ? why : `${why}; trying again`,
    next: Date.now() + (last ? tryAgain : 1000),
  })
}

export class Keeper {
  readonly #seats = new Map<string, Kept>()
  #wanted: ClassFile
  readonly #parallel: number
  #running = 0
  #timer: NodeJS.Timeout | undefined
  #ended = false

  constructor(wanted: ClassFile, parallel = Math.max(1, availableParallelism())) {
    this.#wanted = wanted
    this.#parallel = parallel
    this.want(wanted)
  }

  want(wanted: ClassFile): void {
    this.#wanted = wanted
    for (const { id } of wanted.seats)
      if (!this.#seats.has(id))
        this.#seats.set(id, {
          status: 'waiting',
          detail: 'waiting for its turn',
          next: 0,
          busy: false,
          // The reset was requested before this process began.
          reset: existsSync(classPaths(wanted.lab).seat(id).reset),
          tries: 0,
        })
  }

  get wanted(): ClassFile {
    return this.#wanted
  }

  states(): readonly SeatState[] {
    return [...this.#seats].map(([id, { status, detail, progress }]) => ({
      id,
      status,
      detail,
      ...(progress === undefined ? {} : { progress }),
    }))
  }

  start(): void {
    this.#timer = setInterval(() => this.#deal(), 250)
  }

  stop(): void {
    this.#ended = true
    clearInterval(this.#timer)
  }

  /** The seat's lab and its terminals are rebuilt; its home folder is kept. The request is recorded first. */
  async reset(id: string): Promise<void> {
    const seat = this.#seats.get(id)
    if (!seat) throw new LabError('no-seat', `there is no seat ${id}`, { hint: 'lab class status' })
    await writePrivate(classPaths(this.#wanted.lab).seat(id).reset, '')
    Object.assign(seat, { reset: true, next: 0, status: 'waiting', detail: 'it is being reset' })
  }

  #deal(): void {
    for (const [id, seat] of this.#seats) {
      if (this.#ended || seat.busy || seat.next > Date.now()) continue
      // Checks are cheap; only a few labs come up at the same time.
      const heavy = seat.status !== 'ready'
      if (heavy && this.#running >= this.#parallel) continue
      seat.busy = true
      if (heavy) this.#running++
      this.#tend({ class: this.#wanted, id }, seat)
        .catch((error: unknown) => {
          failed(seat, messageOf(error))
        })
        .finally(() => {
          seat.busy = false
          if (heavy) this.#running--
        })
    }
  }

  async #tend(of: SeatOf, seat: Kept): Promise<void> {
    if (seat.status === 'ready') {
      if ((await seatProcess(of)) === undefined) {
        Object.assign(seat, { status: 'waiting', detail: 'the seat had ended; starting it again', next: 0 })
        return
      }
      seat.progress = await readProgress(of)
      seat.next = Date.now() + lookAgain
      return
    }
    const began = Date.now()
    seat.status = 'starting'
    seat.detail = seat.reset ? 'is reset' : 'comes up'
    if (seat.reset) {
      await closeSeat(of)
      // After a restart of the host, the disk is not mounted yet.
      await makeAccount(of)
      await removeLab(classPaths(of.class.lab).seat(of.id).home)
      await rm(classPaths(of.class.lab).seat(of.id).reset, { force: true })
      seat.reset = false
    }
    await makeAccount(of)
    await openSeat(of)
    // A `lab up` that was started before this process ended continues, so it is waited for.
    const up = await runAtSeat(of, ['lab', 'up', of.class.from, '--offline', '--yes', '--wait'], {
      timeout: upDeadline,
    })
    const { log } = classPaths(of.class.lab).seat(of.id)
    await mkdir(dirname(log), { recursive: true })
    await appendFile(log, `${up.stdout}\n${up.stderr}\n`)
    if (up.exitCode !== 0) {
      const why = reasonIn(up.stderr) || reasonIn(up.stdout)
      failed(seat, `lab up ended with ${String(up.exitCode)}: ${why}`)
      return
    }
    seat.tries = 0
    Object.assign(seat, {
      status: isReset(seat) ? 'waiting' : 'ready',
      detail: `up in ${((Date.now() - began) / 1000).toFixed(0)} s`,
      next: 0,
    })
  }
}

/**
 * Reads as the seat's own user, so that a student's symbolic links cannot lead to files that the student cannot read.
 */
const readProgress = async (seat: SeatOf): Promise<Progress | undefined> => {
  const file = join(labFolder(seat), 'learn', 'progress.ndjson')
  const { exitCode, stdout } = await runAtSeat(seat, ['tail', '-c', '200000', file], { timeout: 10_000 })
  return exitCode === 0 ? progressIn(stdout) : undefined
}
