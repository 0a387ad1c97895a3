/** Carries a terminal at a seat to a browser: bytes as binary messages, everything else as JSON. */
import { type RawData, WebSocket } from 'ws'
import { messageOf } from '../error.js'
import { type Desks, say, tellGuests } from './board.js'
import type { SeatOf } from './seat.js'
import { openTerminal, type Terminal, type TerminalEvents, type TerminalMode } from './terminal.js'

/** The terminals of a seat: two of the student's, and one for `lab class verify`. */
export const sessions = ['desk', 'second', 'check'] as const

/** Bytes that may be queued for a slow browser before its terminal is paused. */
export const mostWaiting = 1024 ** 2

export interface Window {
  readonly seat: SeatOf
  readonly mode: TerminalMode
  readonly session: (typeof sessions)[number]
}

/** What a browser sends as text. */
interface Message {
  readonly columns?: unknown
  readonly rows?: unknown
  readonly hand?: unknown
}

const bytesOf = (data: RawData): Buffer =>
  Buffer.isBuffer(data) ? data : Buffer.concat(Array.isArray(data) ? data : [Buffer.from(data)])

const messageIn = (bytes: Buffer): Message => {
  try {
    return (JSON.parse(bytes.toString('utf8')) ?? {}) as Message
  } catch {
    return {}
  }
}

const within = (value: unknown, most: number): number => Math.min(most, Math.max(2, Number(value)))

/** What the terminal prints, at the speed at which the browser reads. */
const eventsTo = (socket: WebSocket, terminal: () => Terminal | undefined): TerminalEvents => ({
  output: (data) => {
    if (socket.readyState !== WebSocket.OPEN) return
    socket.send(data, () => {
      if (socket.bufferedAmount < mostWaiting / 2) terminal()?.resume()
    })
    if (socket.bufferedAmount > mostWaiting) terminal()?.pause()
  },
  sized: (columns, rows) => say(socket, { columns, rows }),
  ended: (why) => {
    say(socket, { ended: why })
    socket.close(1000)
  },
})

/** Opens the terminal for this browser, and closes it when the browser goes. */
export const attachTerminal = async (
  desks: Desks,
  socket: WebSocket,
  { seat, mode, session }: Window,
): Promise<void> => {
  const desk = desks.of(seat.id)
  const mine = mode === 'own' && session !== 'check'
  if (mine) desk.own.add(socket)
  if (mode !== 'own') desk.guests.set(socket, mode)
  let terminal: Terminal | undefined
  let left = false as boolean
  const early: (() => void)[] = []
  const withTerminal = (act: (terminal: Terminal) => void): void => {
    if (terminal) act(terminal)
    else early.push(() => terminal && act(terminal))
  }
  socket.on('message', (data: RawData, binary: boolean) => {
    const bytes = bytesOf(data)
    if (binary) {
      if (mine) desk.seen = Date.now()
      withTerminal((open) => open.type(bytes))
      return
    }
    const { columns, rows, hand } = messageIn(bytes)
    if (Number.isInteger(columns) && Number.isInteger(rows))
      withTerminal((open) => open.resize(within(columns, 500), within(rows, 300)))
    if (typeof hand === 'boolean' && mine) {
      desk.hand = hand
      for (const other of desk.own) say(other, { hand })
      desks.tellBoards()
    }
  })
  socket.on('error', () => socket.terminate())
  socket.on('close', () => {
    left = true
    desk.own.delete(socket)
    desk.guests.delete(socket)
    terminal?.close()
    tellGuests(desk)
    desks.tellBoards()
  })
  tellGuests(desk)
  say(socket, { hand: desk.hand })
  try {
    terminal = await openTerminal(
      seat,
      session,
      mode,
      eventsTo(socket, () => terminal),
    )
  } catch (error) {
    say(socket, { ended: messageOf(error) })
    socket.close(1011)
    return
  }
  if (left) terminal.close()
  for (const act of early) act()
  desks.tellBoards()
}
