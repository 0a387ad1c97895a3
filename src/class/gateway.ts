/**
 * What students and the teacher reach with a browser: a terminal at their seat, and the board. One process serves
 * HTTPS, and answers nothing without a token. The terminals are tmux sessions at the seats, so this process may end at
 * any time.
 */
import { fileURLToPath } from 'node:url'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { loadavg } from 'node:os'
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { type RawData, WebSocket, WebSocketServer } from 'ws'
import { messageOf } from '../error.js'
import { projectRoot } from '../package.js'
import { cookieFor, cookieName, Guesses, holderOfCookie, holderOfToken, type Who } from './access.js'
import type { ClassFile } from './class.js'
import type { Keeper, SeatState } from './keeper.js'
import { openTerminal, type Terminal, type TerminalMode } from './terminal.js'

const pages = join(projectRoot, 'templates', 'class')
const packageFolder = (name: string): string =>
  dirname(fileURLToPath(import.meta.resolve(`${name}/package.json`)))

/** The files that pages load, by address. There are seven: no part of a request is ever used as a path on disk. */
const pageFiles = (): ReadonlyMap<string, { readonly type: string; readonly text: string }> => {
  const packages = [
    ['@xterm/xterm', 'lib/xterm.js'],
    ['@xterm/xterm', 'css/xterm.css'],
    ['@xterm/addon-fit', 'lib/addon-fit.js'],
  ] as const
  const sources = [
    ...readdirSync(join(pages, 'files')).map((name) => [name, join(pages, 'files', name)] as const),
    ...packages.map(([name, file]) => [`${name}/${file}`, join(packageFolder(name), file)] as const),
  ]
  return new Map(
    sources.map(([address, path]) => [
      `/files/${address}`,
      {
        type: `text/${path.endsWith('.css') ? 'css' : 'javascript'}; charset=utf-8`,
        text: readFileSync(path, 'utf8'),
      },
    ]),
  )
}

/** Allows only content from this process, and no embedding in other pages. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  // xterm.js sets colours and sizes as styles of elements.
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "font-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

/** The terminals of a seat: two of the student's, and one for `lab class verify`. */
const sessions = ['desk', 'second', 'check'] as const

/** Concurrent terminals: of a student with several windows, and of the teacher. */
const mostTerminals = 8
/** Bytes that may be queued for a slow browser before its terminal is paused. */
const mostWaiting = 1024 ** 2
/** The largest message of a browser in bytes: a large paste. */
const longestMessage = 256 * 1024

export interface Board {
  readonly lab: string
  readonly until: string
  readonly now: string
  readonly load: number
  /** Bytes. */
  readonly memoryFree: number
  readonly memory: number
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

interface Desk {
  hand: boolean
  seen: number | undefined
  /** Sockets of the student, and of a teacher who watches. */
  readonly own: Set<WebSocket>
  readonly guests: Map<WebSocket, 'watch' | 'join'>
}

export interface Gateway {
  readonly app: FastifyInstance
  board(): Board
  close(): Promise<void>
}

export const openGateway = (
  keeper: Keeper,
  { key, cert }: { readonly key: string; readonly cert: string },
): Gateway => {
  const desks = new Map<string, Desk>()
  const guesses = new Guesses()
  const streams = new Set<(board: Board) => void>()
  const wanted = (): ClassFile => keeper.wanted
  const deskOf = (seat: string): Desk => {
    const desk = desks.get(seat) ?? { hand: false, seen: undefined, own: new Set(), guests: new Map() }
    desks.set(seat, desk)
    return desk
  }
  const board = (): Board => {
    const { free, all } = memoryOf()
    return {
      lab: wanted().lab,
      until: wanted().until,
      now: new Date().toISOString(),
      load: loadavg()[0] ?? 0,
      memoryFree: free,
      memory: all,
      seats: keeper.states().map((state) => {
        const { hand, seen, own } = deskOf(state.id)
        return {
          ...state,
          hand,
          windows: own.size,
          ...(seen === undefined ? {} : { seen: new Date(seen).toISOString() }),
        }
      }),
    }
  }
  const tellBoards = (): void => {
    if (streams.size === 0) return
    const now = board()
    for (const stream of streams) stream(now)
  }

  const app = Fastify({
    https: { key, cert, minVersion: 'TLSv1.2' },
    logger: false,
    bodyLimit: 4096,
    requestTimeout: 20_000,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 200 },
  })
  /** The answer does not even reveal that the page exists. */
  const nothing = (reply: FastifyReply): FastifyReply => reply.code(404).send()
  app.setNotFoundHandler((_, reply) => nothing(reply))
  app.setErrorHandler((error: Error & { statusCode?: number }, _, reply) =>
    reply.code(error.statusCode !== undefined && error.statusCode < 500 ? error.statusCode : 500).send(),
  )
  app.addHook('onSend', (_request, reply, _payload, done) => {
    void reply.headers({
      'content-security-policy': policy,
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cross-origin-opener-policy': 'same-origin',
      'strict-transport-security': 'max-age=86400',
      ...(reply.hasHeader('cache-control') ? {} : { 'cache-control': 'no-store' }),
    })
    done()
  })
  const whoIs = (request: { readonly headers: { readonly cookie?: string | undefined } }): Who | undefined =>
    holderOfCookie(wanted(), request.headers.cookie)
  app.addHook('onRequest', async (request, reply) => {
    if (request.routeOptions.url === '/:token' || whoIs(request)) return
    await nothing(reply)
  })

  app.get('/:token', async (request: FastifyRequest<{ Params: { token: string } }>, reply) => {
    if (!guesses.may(request.ip)) return reply.code(429).header('retry-after', '60').send()
    const who = holderOfToken(wanted(), request.params.token)
    if (!who) {
      guesses.wrong(request.ip)
      return nothing(reply)
    }
    return reply
      .header(
        'set-cookie',
        `${cookieName}=${cookieFor(wanted(), who)}; Path=/; Secure; HttpOnly; SameSite=Strict`,
      )
      .redirect(who === 'teacher' ? '/page/board' : '/page/desk', 303)
  })
  const page = (name: string): string => readFileSync(join(pages, `${name}.html`), 'utf8')
  app.get('/page/desk', (_, reply) => reply.type('text/html; charset=utf-8').send(page('desk')))
  app.get('/page/board', (request, reply) =>
    whoIs(request) === 'teacher'
      ? reply.type('text/html; charset=utf-8').send(page('board'))
      : nothing(reply),
  )
  for (const [path, { type, text }] of pageFiles())
    app.get(path, (_, reply) => reply.type(type).header('cache-control', 'private, max-age=3600').send(text))
  app.get('/me', (request) => {
    const who = whoIs(request)
    const seat = who !== undefined && who !== 'teacher' ? who.seat : undefined
    return {
      who: seat ?? 'teacher',
      lab: wanted().lab,
      language: wanted().language,
      until: wanted().until,
      ...(seat === undefined ? {} : { hand: deskOf(seat).hand }),
    }
  })
  app.get('/board', (request, reply) => (whoIs(request) === 'teacher' ? reply.send(board()) : nothing(reply)))
  app.get('/board/events', (request, reply) => {
    if (whoIs(request) !== 'teacher') return nothing(reply)
    reply.hijack()
    reply.raw.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'content-security-policy': policy,
    })
    const send = (now: Board): void => {
      // Do not wait for a browser that does not read.
      if (reply.raw.writableLength < mostWaiting) reply.raw.write(`data: ${JSON.stringify(now)}\n\n`)
    }
    streams.add(send)
    send(board())
    request.raw.on('close', () => streams.delete(send))
    return reply
  })

  const sockets = new WebSocketServer({ noServer: true, maxPayload: longestMessage })
  const say = (socket: WebSocket, what: unknown): void => {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(what))
  }
  /** A student is told who watches. */
  const tellGuests = ({ own, guests }: Desk): void => {
    const joined = [...guests.values()].includes('join')
    for (const socket of own) say(socket, { guest: guests.size === 0 ? 'none' : joined ? 'join' : 'watch' })
  }
  const attach = async (
    socket: WebSocket,
    seat: string,
    mode: TerminalMode,
    session: string,
  ): Promise<void> => {
    const desk = deskOf(seat)
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
      const bytes = Buffer.isBuffer(data)
        ? data
        : Buffer.concat(Array.isArray(data) ? data : [Buffer.from(data)])
      if (binary) {
        if (mine) desk.seen = Date.now()
        withTerminal((open) => open.type(bytes))
        return
      }
      let message: { columns?: unknown; rows?: unknown; hand?: unknown }
      try {
        message = JSON.parse(bytes.toString('utf8')) as typeof message
      } catch {
        return
      }
      const { columns, rows, hand } = message
      if (Number.isInteger(columns) && Number.isInteger(rows)) {
        const within = (value: unknown, most: number): number => Math.min(most, Math.max(2, Number(value)))
        withTerminal((open) => open.resize(within(columns, 500), within(rows, 300)))
      }
      if (typeof hand === 'boolean' && mine) {
        desk.hand = hand
        for (const other of desk.own) say(other, { hand })
        tellBoards()
      }
    })
    socket.on('error', () => socket.terminate())
    socket.on('close', () => {
      left = true
      desk.own.delete(socket)
      desk.guests.delete(socket)
      terminal?.close()
      tellGuests(desk)
      tellBoards()
    })
    tellGuests(desk)
    say(socket, { hand: desk.hand })
    try {
      terminal = await openTerminal({ class: wanted(), id: seat }, session, mode, {
        output: (data) => {
          if (socket.readyState !== WebSocket.OPEN) return
          socket.send(data, () => {
            if (socket.bufferedAmount < mostWaiting / 2) terminal?.resume()
          })
          if (socket.bufferedAmount > mostWaiting) terminal?.pause()
        },
        sized: (columns, rows) => say(socket, { columns, rows }),
        ended: (why) => {
          say(socket, { ended: why })
          socket.close(1000)
        },
      })
    } catch (error) {
      say(socket, { ended: messageOf(error) })
      socket.close(1011)
      return
    }
    if (left) terminal.close()
    for (const act of early) act()
    tellBoards()
  }
  const upgrade = (request: IncomingMessage, stream: Duplex, head: Buffer): void => {
    const refuse = (): void =>
      void stream.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
    stream.on('error', () => stream.destroy())
    const url = new URL(request.url ?? '/', 'https://gateway')
    const who = whoIs(request)
    // Another site's page may open sockets to this server, and the browser sends the cookie along.
    const origin = request.headers.origin
    if (
      !who ||
      url.pathname !== '/terminal' ||
      (origin !== undefined && origin !== `https://${request.headers.host ?? ''}`)
    ) {
      refuse()
      return
    }
    const asked = url.searchParams.get('seat') ?? ''
    const mode: TerminalMode =
      who === 'teacher' ? (url.searchParams.get('mode') === 'join' ? 'join' : 'watch') : 'own'
    const seat = who === 'teacher' ? asked : who.seat
    const session = sessions.find((name) => name === url.searchParams.get('session')) ?? 'desk'
    const { own, guests } = deskOf(seat)
    if (!wanted().seats.some(({ id }) => id === seat) || own.size + guests.size >= mostTerminals) {
      refuse()
      return
    }
    sockets.handleUpgrade(request, stream, head, (socket) => {
      attach(socket, seat, mode, session).catch(() => socket.terminate())
    })
  }
  app.server.on('upgrade', upgrade)

  const ticking = setInterval(() => {
    tellBoards()
    if (Date.now() > Date.parse(wanted().until))
      for (const socket of sockets.clients) socket.close(1000, 'the class is over')
  }, 2000)

  return {
    app: app,
    board,
    close: async () => {
      clearInterval(ticking)
      for (const socket of sockets.clients) socket.terminate()
      sockets.close()
      await app.close()
    },
  }
}
