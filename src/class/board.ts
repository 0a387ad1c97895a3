/** What the gateway knows of each seat beyond its lab: raised hands, open windows, and who watches. */
import { readFileSync } from 'node:fs'
import { loadavg } from 'node:os'
import { WebSocket } from 'ws'
import type { Keeper, SeatState } from './keeper.js'
import { byNumber } from './roster.js'

export interface Board {
  readonly lab: string
  readonly until: string
  readonly now: string
  readonly load: number
  /** Bytes. */
  readonly memoryFree: number
  readonly memory: number
  /** Files of the class that cannot be used, and what to type; absent if there are none. */
  readonly problems?: readonly string[]
  readonly seats: readonly (SeatState & {
    readonly hand: boolean
    /** When its terminal was last used: ISO 8601. */
    readonly seen?: string
    readonly windows: number
  })[]
}

const memoryOf = (): { readonly free: number; readonly all: number } => {
  const text = readFileSync('/proc/meminfo', 'utf8')
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) * 1024
  return { free: field('MemAvailable'), all: field('MemTotal') }
}

export interface Desk {
  hand: boolean
  seen: number | undefined
  /** Sockets of the student, and of a teacher who watches. */
  readonly own: Set<WebSocket>
  readonly guests: Map<WebSocket, 'watch' | 'join'>
}

/** Sends JSON to a browser, unless it has gone. */
export const say = (socket: WebSocket, what: unknown): void => {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(what))
}

/** A student is told who watches. */
export const tellGuests = ({ own, guests }: Desk): void => {
  const joined = [...guests.values()].includes('join')
  for (const socket of own) say(socket, { guest: guests.size === 0 ? 'none' : joined ? 'join' : 'watch' })
}

/** Seats that other hosts keep. */
export interface SeatsElsewhere {
  seats(): Board['seats']
}

/** The desks of all seats, and the boards that show them. */
export class Desks {
  readonly #keeper: Keeper
  readonly #others: SeatsElsewhere
  readonly #desks = new Map<string, Desk>()
  readonly #boards = new Set<(board: Board) => void>()
  readonly #problems = new Map<string, string>()

  constructor(keeper: Keeper, others: SeatsElsewhere) {
    this.#keeper = keeper
    this.#others = others
  }

  of(seat: string): Desk {
    const desk = this.#desks.get(seat) ?? { hand: false, seen: undefined, own: new Set(), guests: new Map() }
    this.#desks.set(seat, desk)
    return desk
  }

  /** @param problem why a file cannot be used; undefined: it can */
  note(file: string, problem: string | undefined): void {
    if (problem === undefined) this.#problems.delete(file)
    else this.#problems.set(file, problem)
  }

  board(): Board {
    const { lab, until } = this.#keeper.wanted
    const { free, all } = memoryOf()
    const here = this.#keeper.states().map((state) => {
      const { hand, seen, own } = this.of(state.id)
      return {
        ...state,
        hand,
        windows: own.size,
        ...(seen === undefined ? {} : { seen: new Date(seen).toISOString() }),
      }
    })
    return {
      lab,
      until,
      now: new Date().toISOString(),
      load: loadavg()[0] ?? 0,
      memoryFree: free,
      memory: all,
      ...(this.#problems.size === 0 ? {} : { problems: [...this.#problems.values()] }),
      seats: [...here, ...this.#others.seats()].sort(byNumber),
    }
  }

  /** @returns a function that stops it */
  showOn(board: (now: Board) => void): () => void {
    this.#boards.add(board)
    board(this.board())
    return () => this.#boards.delete(board)
  }

  tellBoards(): void {
    if (this.#boards.size === 0) return
    const now = this.board()
    for (const board of this.#boards) board(now)
  }
}
