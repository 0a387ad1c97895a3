/**
 * The gateways of a class on other hosts, as the gateway with the teacher's board sees them: it asks them for their
 * boards, and leads the teacher to their terminals. It logs in there as the teacher.
 */
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { type RawData, WebSocket } from 'ws'
import { messageOf } from '../error.js'
import { cookieFor, cookieName } from './access.js'
import type { Board } from './board.js'
import { cardUrl } from './class.js'
import type { Elsewhere } from './roster.js'

/** Milliseconds between two questions, for an answer, until an answer is out of date, and until the first one. */
const period = 2000
const answerDeadline = 5000
const outOfDate = 15_000
const firstAnswer = 60_000

/** The longest answer in bytes: 99 seats, each with its evidence. */
const longestAnswer = 4 * 1024 ** 2

const addressOf = (part: Elsewhere, path: string): URL => new URL(path, cardUrl(part.class, ''))

const cookieOf = ({ class: part }: Elsewhere): string => `${cookieName}=${cookieFor(part, 'teacher')}`

const textOf = async (response: IncomingMessage): Promise<string> => {
  let text = ''
  for await (const chunk of response) {
    text += String(chunk)
    if (text.length > longestAnswer) throw new Error('the answer is too long')
  }
  return text
}

const boardAt = (part: Elsewhere): Promise<Board> =>
  new Promise((resolve, reject) => {
    const call = request(
      addressOf(part, '/board'),
      {
        ca: part.certificate,
        headers: { cookie: cookieOf(part) },
        agent: false,
        timeout: answerDeadline,
      },
      (response) => {
        if (response.statusCode === 200)
          textOf(response)
            .then((text) => resolve(JSON.parse(text) as Board))
            .catch(reject)
        else reject(new Error(`HTTP ${String(response.statusCode)}`))
      },
    )
    call.on('timeout', () => call.destroy(new Error(`no answer in ${String(answerDeadline / 1000)} s`)))
    call.on('error', reject)
    call.end()
  })

interface Asked {
  readonly since: number
  board?: { readonly at: number; readonly seats: Board['seats'] }
  problem?: string
  busy: boolean
}

export class OtherGateways {
  #parts: readonly Elsewhere[] = []
  readonly #asked = new Map<string, Asked>()
  #timer: NodeJS.Timeout | undefined

  /** @param parts those of which no certificate is known yet have no gateway */
  want(parts: readonly Elsewhere[]): void {
    this.#parts = parts
    for (const name of this.#asked.keys())
      if (!parts.some((part) => part.name === name)) this.#asked.delete(name)
  }

  start(): void {
    this.#timer ??= setInterval(() => void this.look().catch(() => undefined), period)
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** Asks every other gateway once. */
  async look(): Promise<void> {
    await Promise.all(this.#parts.map((part) => this.#ask(part)))
  }

  async #ask(part: Elsewhere): Promise<void> {
    const asked = this.#askedOf(part.name)
    if (asked.busy || part.certificate === undefined) return
    asked.busy = true
    try {
      asked.board = { at: Date.now(), seats: (await boardAt(part)).seats }
    } catch (error) {
      asked.problem = messageOf(error)
    } finally {
      asked.busy = false
    }
  }

  #askedOf(name: string): Asked {
    const asked = this.#asked.get(name) ?? { since: Date.now(), busy: false }
    this.#asked.set(name, asked)
    return asked
  }

  /** The seats on other hosts, each with the name of its host. */
  seats(now = Date.now()): Board['seats'] {
    return this.#parts.flatMap(({ name, class: { seats }, certificate }) => {
      const { since, board, problem } = this.#askedOf(name)
      const current = board !== undefined && now - board.at < outOfDate ? board.seats : undefined
      const silent =
        certificate === undefined
          ? { status: 'waiting' as const, detail: `${name} has not joined yet` }
          : board === undefined && now - since < firstAnswer
            ? { status: 'waiting' as const, detail: `${name}: no answer yet` }
            : { status: 'failed' as const, detail: `${name} does not answer${problem ? `: ${problem}` : ''}` }
      return seats.map(({ id }) => {
        if (!current) return { id, ...silent, hand: false, windows: 0 }
        const seat = current.find((one) => one.id === id)
        return seat
          ? { ...seat, detail: `${name}: ${seat.detail}` }
          : { id, status: 'waiting' as const, detail: `${name}: not there yet`, hand: false, windows: 0 }
      })
    })
  }

  partWith(seat: string): Elsewhere | undefined {
    return this.#parts.find((part) => part.class.seats.some(({ id }) => id === seat))
  }
}

/** Bytes from a browser that are kept until the other gateway has answered. */
const mostEarly = 64 * 1024

/**
 * Connects a teacher's browser to a terminal at a seat of another host.
 * @param query of the request, which the gateway there checks
 */
export const relayTerminal = (socket: WebSocket, part: Elsewhere, query: URLSearchParams): void => {
  const there = addressOf(part, `/terminal?${query.toString()}`)
  const other = new WebSocket(there.href.replace(/^https/, 'wss'), {
    ca: part.certificate,
    headers: { cookie: cookieOf(part), origin: there.origin },
    handshakeTimeout: answerDeadline,
  })
  const early: (readonly [RawData, boolean])[] = []
  let kept = 0
  const failed = (why: string): void => {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ ended: why }))
    socket.close(1011)
    other.terminate()
  }
  socket.on('message', (data: RawData, binary: boolean) => {
    if (other.readyState === WebSocket.OPEN) other.send(data, { binary })
    else if (other.readyState === WebSocket.CONNECTING) {
      kept += (data as Buffer).length
      if (kept > mostEarly) failed(`${part.name} does not answer`)
      else early.push([data, binary])
    }
  })
  socket.on('close', () => other.close())
  socket.on('error', () => other.terminate())
  other.on('open', () => {
    for (const [data, binary] of early) other.send(data, { binary })
  })
  other.on('message', (data: RawData, binary: boolean) => {
    if (socket.readyState !== WebSocket.OPEN) return
    socket.send(data, { binary }, () => {
      if (socket.bufferedAmount === 0) other.resume()
    })
    // A slow browser slows down the other gateway, which pauses the terminal.
    if (socket.bufferedAmount > mostEarly) other.pause()
  })
  other.on('close', () => socket.close(1000))
  other.on('error', (error) => failed(`${part.name}: ${error.message}`))
}
