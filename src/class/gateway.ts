/**
 * What students and the teacher reach with a browser: a terminal at their seat, and the board. One process serves
 * HTTPS, and answers nothing without a token. The terminals are tmux sessions at the seats, so this process may end at
 * any time.
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { WebSocketServer } from 'ws'
import { cookieFor, cookieName, Guesses, holderOfCookie, holderOfToken, type Who } from './access.js'
import { type Board, Desks } from './board.js'
import { attachTerminal, mostWaiting, sessions, type Window } from './browser-terminal.js'
import type { Keeper } from './keeper.js'
import { OtherGateways, relayTerminal } from './other-gateways.js'
import { page, pageFiles, policy } from './pages.js'

/** Concurrent terminals: of a student with several windows, and of the teacher. */
const mostTerminals = 8
/** The largest message of a browser in bytes: a large paste. */
const longestMessage = 256 * 1024
/** Milliseconds between two states of a board. */
const boardPeriod = 2000

type WhoIs = (request: { readonly headers: { readonly cookie?: string | undefined } }) => Who | undefined

/** The answer does not even reveal that the page exists. */
const nothing = (reply: FastifyReply): FastifyReply => reply.code(404).send()

/** A server that answers strangers nothing, and errors without a word about this process. */
const serverFor = (
  { key, cert }: { readonly key: string; readonly cert: string },
  whoIs: WhoIs,
): FastifyInstance => {
  const app = Fastify({
    https: { key, cert, minVersion: 'TLSv1.2' },
    logger: false,
    bodyLimit: 4096,
    requestTimeout: 20_000,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 200 },
  })
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
  app.addHook('onRequest', async (request, reply) => {
    if (request.routeOptions.url === '/:token' || whoIs(request)) return
    await nothing(reply)
  })
  return app
}

/** A token in the address logs in. */
const serveLogin = (app: FastifyInstance, keeper: Keeper): void => {
  const guesses = new Guesses()
  app.get('/:token', async (request: FastifyRequest<{ Params: { token: string } }>, reply) => {
    if (!guesses.may(request.ip)) return reply.code(429).header('retry-after', '60').send()
    const who = holderOfToken(keeper.wanted, request.params.token)
    if (!who) {
      guesses.wrong(request.ip)
      return nothing(reply)
    }
    return reply
      .header(
        'set-cookie',
        `${cookieName}=${cookieFor(keeper.wanted, who)}; Path=/; Secure; HttpOnly; SameSite=Strict`,
      )
      .redirect(who === 'teacher' ? '/page/board' : '/page/desk', 303)
  })
}

const servePages = (app: FastifyInstance, whoIs: WhoIs): void => {
  app.get('/page/desk', (_, reply) => reply.type('text/html; charset=utf-8').send(page('desk')))
  app.get('/page/board', (request, reply) =>
    whoIs(request) === 'teacher'
      ? reply.type('text/html; charset=utf-8').send(page('board'))
      : nothing(reply),
  )
  for (const [path, { type, text }] of pageFiles())
    app.get(path, (_, reply) => reply.type(type).header('cache-control', 'private, max-age=3600').send(text))
}

/** The state that pages show: once, or as a stream of events. */
const serveState = (app: FastifyInstance, keeper: Keeper, desks: Desks, whoIs: WhoIs): void => {
  app.get('/me', (request) => {
    const who = whoIs(request)
    const seat = who !== undefined && who !== 'teacher' ? who.seat : undefined
    const { lab, language, until } = keeper.wanted
    return {
      who: seat ?? 'teacher',
      lab,
      language,
      until,
      ...(seat === undefined ? {} : { hand: desks.of(seat).hand }),
    }
  })
  app.get('/board', (request, reply) =>
    whoIs(request) === 'teacher' ? reply.send(desks.board()) : nothing(reply),
  )
  app.get('/board/events', (request, reply) => {
    if (whoIs(request) !== 'teacher') return nothing(reply)
    reply.hijack()
    reply.raw.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'content-security-policy': policy,
    })
    const leave = desks.showOn((now) => {
      // Do not wait for a browser that does not read.
      if (reply.raw.writableLength < mostWaiting) reply.raw.write(`data: ${JSON.stringify(now)}\n\n`)
    })
    request.raw.on('close', leave)
    return reply
  })
}

/** The query of a request for a terminal; undefined if it is refused, whoever sent it. */
const queryOf = (request: IncomingMessage): URLSearchParams | undefined => {
  const url = new URL(request.url ?? '/', 'https://gateway')
  // Another site's page may open sockets to this server, and the browser sends the cookie along.
  const { origin, host = '' } = request.headers
  return url.pathname !== '/terminal' || (origin !== undefined && origin !== `https://${host}`)
    ? undefined
    : url.searchParams
}

/** The terminal on this host that is asked for; undefined if it is refused. */
const windowFor = (query: URLSearchParams, who: Who, keeper: Keeper, desks: Desks): Window | undefined => {
  const id = who === 'teacher' ? (query.get('seat') ?? '') : who.seat
  if (!keeper.wanted.seats.some((seat) => seat.id === id)) return undefined
  const { own, guests } = desks.of(id)
  if (own.size + guests.size >= mostTerminals) return undefined
  return {
    seat: { class: keeper.wanted, id },
    mode: who === 'teacher' ? (query.get('mode') === 'join' ? 'join' : 'watch') : 'own',
    session: sessions.find((name) => name === query.get('session')) ?? 'desk',
  }
}

/** Terminals, as WebSockets at `/terminal`. */
const serveTerminals = (
  app: FastifyInstance,
  keeper: Keeper,
  desks: Desks,
  others: OtherGateways,
  whoIs: WhoIs,
): WebSocketServer => {
  const sockets = new WebSocketServer({ noServer: true, maxPayload: longestMessage })
  app.server.on('upgrade', (request: IncomingMessage, stream: Duplex, head: Buffer) => {
    stream.on('error', () => stream.destroy())
    const [who, query] = [whoIs(request), queryOf(request)]
    const part = who === 'teacher' && query ? others.partWith(query.get('seat') ?? '') : undefined
    if (part && query) {
      sockets.handleUpgrade(request, stream, head, (socket) => relayTerminal(socket, part, query))
      return
    }
    const window = who && query ? windowFor(query, who, keeper, desks) : undefined
    if (!window) {
      stream.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
      return
    }
    sockets.handleUpgrade(request, stream, head, (socket) => {
      attachTerminal(desks, socket, window).catch(() => socket.terminate())
    })
  })
  return sockets
}

export type { Board }

export interface Gateway {
  readonly app: FastifyInstance
  close(): Promise<void>
}

export const openGateway = (
  keeper: Keeper,
  certificate: { readonly key: string; readonly cert: string },
  others = new OtherGateways(),
  desks = new Desks(keeper, others),
): Gateway => {
  const whoIs: WhoIs = (request) => holderOfCookie(keeper.wanted, request.headers.cookie)
  const app = serverFor(certificate, whoIs)
  serveLogin(app, keeper)
  servePages(app, whoIs)
  serveState(app, keeper, desks, whoIs)
  const sockets = serveTerminals(app, keeper, desks, others, whoIs)
  const ticking = setInterval(() => {
    desks.tellBoards()
    if (Date.now() > Date.parse(keeper.wanted.until))
      for (const socket of sockets.clients) socket.close(1000, 'the class is over')
  }, boardPeriod)

  return {
    app,
    close: async () => {
      clearInterval(ticking)
      for (const socket of sockets.clients) socket.terminate()
      sockets.close()
      await app.close()
    },
  }
}
