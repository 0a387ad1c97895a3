/**
 * The media to which a client outside the cluster writes: rows of the database, lines of a plain file on the same LUN,
 * and if the API server has an address of its own, ConfigMaps (`api-store.ts`). Rows and lines are reached through any
 * node's address.
 */
import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { type Connection, createConnection, type RowDataPacket } from 'mysql2/promise'
import { Interrupted } from '../error.js'
import { type DatabaseSpec, nodesOf } from '../lab/lab.js'
import type { Context } from '../context.js'
import type { Medium, ReadBack, Server } from './ledger.js'

/** Milliseconds between the starts of two attempts to connect, each to the next node's address. */
const stagger = 200
/** Timeout of one attempt to connect and of one query, in milliseconds. */
const requestTimeout = 1500
/** Timeout for reading all rows or lines, and for creating or removing a table, in milliseconds. */
export const longTimeout = 10_000

export type Dialer = Pick<Context, 'lab' | 'provider'>

/** A node port, and how a connection through it is opened. */
export interface Endpoint<T> {
  readonly port: number
  /** Resolves once a server has sent its greeting. */
  open(socket: Duplex): Promise<T>
}

/** A connection, and the node address that it uses. */
export interface Connected<T> {
  readonly connection: T
  /** `192.168.56.21:32306` */
  readonly address: string
}

/** A connection that runs one query at a time. */
export interface Session {
  readonly address: string
  /**
   * @returns the server that acknowledged it
   * @throws if none did in time
   */
  write(seq: number, content: string): Promise<Server>
  /**
   * Reads the latest write.
   * @returns the server that answered
   * @throws if none did in time
   */
  read(): Promise<Server>
  close(): void
}

export interface Store {
  readonly medium: Medium
  /** A sentence about who answers while all is read back, if the servers are not ended before. */
  readonly source?: string | undefined
  /**
   * Retries until some address answers, or the signal.
   * @param first the index of the node address to begin with
   */
  connect(signal: AbortSignal, first?: number): Promise<Session>
  /** Prepares the medium for a run. */
  create(signal: AbortSignal): Promise<void>
  /**
   * Everything that is stored, a file's lines in order; retried until the signal, since a server may still be
   * starting.
   */
  readBack(signal: AbortSignal): Promise<readonly ReadBack[]>
  remove(signal: AbortSignal): Promise<void>
}

export interface StoreOptions {
  readonly dialer: Dialer
  readonly database: DatabaseSpec
  /** Name of the table or the file: letters, digits and `_`. */
  readonly run: string
  /** The node of a pod, as far as it is known. */
  readonly nodeOf: (pod: string) => string
}

interface Closable {
  destroy(): void
}

const attempt = async <T>(
  { lab, provider }: Dialer,
  endpoint: Endpoint<T>,
  host: string,
): Promise<Connected<T>> => {
  const socket = await provider.dial(lab, host, endpoint.port)
  // A server that sends no greeting stays silent, so the client has to hang up.
  const late = setTimeout(() => socket.destroy(new Error('no handshake')), requestTimeout)
  try {
    return { connection: await endpoint.open(socket), address: `${host}:${String(endpoint.port)}` }
  } catch (error) {
    socket.destroy()
    throw error
  } finally {
    clearTimeout(late)
  }
}

/**
 * Retries until some address answers. A node that was switched off is silent rather than refusing connections, and so
 * is a Service that still leads to a deleted pod. Waiting for one attempt to end would measure the client, so another
 * one begins every 200 ms, and the first handshake wins.
 */
export const connectAnywhere = <T extends Closable>(
  dialer: Dialer,
  endpoint: Endpoint<T>,
  signal: AbortSignal,
  first = 0,
): Promise<Connected<T>> =>
  new Promise((resolve, reject) => {
    const hosts = nodesOf(dialer.lab).map(({ address }) => address)
    let done = false as boolean
    let next = first
    const begin = (): void => {
      const host = hosts[next++ % hosts.length] ?? ''
      attempt(dialer, endpoint, host).then(
        (way) => {
          if (done) way.connection.destroy()
          else {
            finish()
            resolve(way)
          }
        },
        // The next attempt is already on its way.
        () => undefined,
      )
    }
    const timer = setInterval(begin, stagger)
    const finish = (): void => {
      done = true
      clearInterval(timer)
      signal.removeEventListener('abort', interrupt)
    }
    const interrupt = (): void => {
      finish()
      reject(new Interrupted())
    }
    signal.addEventListener('abort', interrupt, { once: true })
    if (signal.aborted) interrupt()
    else begin()
  })

const withConnection = async <T extends Closable, Result>(
  dialer: Dialer,
  endpoint: Endpoint<T>,
  signal: AbortSignal,
  use: (connection: T) => Promise<Result>,
): Promise<Result> => {
  const { connection } = await connectAnywhere(dialer, endpoint, signal)
  try {
    return await use(connection)
  } finally {
    connection.destroy()
  }
}

/**
 * Retries until it succeeds.
 * @throws the last failure once the signal comes
 */
export const retryUntilAborted = async <Result>(
  signal: AbortSignal,
  act: () => Promise<Result>,
): Promise<Result> => {
  let last: unknown
  for (;;) {
    try {
      return await act()
    } catch (error) {
      if (signal.aborted) throw last ?? error
      last = error
      await delay(stagger, undefined, { signal }).catch(() => undefined)
    }
  }
}

export const databaseDoor = ({ nodePort, user, password, database }: DatabaseSpec): Endpoint<Connection> => ({
  port: nodePort,
  open: async (stream) => {
    const connection = await createConnection({
      stream,
      user,
      password,
      database,
      connectTimeout: requestTimeout,
    })
    // mysql2 reports a connection lost between two queries as an event, which would end the process if nobody
    // listened.
    connection.on('error', () => undefined)
    return connection
  },
})

/** The database's error code for a missing table. */
const noSuchTable = 1146

/** A table in the database. Its data must survive every fault, so it uses the engine that guarantees that. */
export const rowStore = ({ dialer, database, run: table, nodeOf }: StoreOptions): Store => {
  const endpoint = databaseDoor(database)
  const answeredBy = (rows: RowDataPacket[]): Server => {
    const [row] = rows as { server?: string }[]
    // An answer that does not name its server is rejected, since two writers could not be distinguished.
    if (row?.server === undefined) throw new Error('the answer does not say which server gave it')
    return { pod: row.server, node: nodeOf(row.server) }
  }
  const run = (sql: string, signal: AbortSignal): Promise<void> =>
    withConnection(dialer, endpoint, signal, async (connection) => {
      await connection.query({ sql, timeout: longTimeout })
    })
  return {
    medium: 'row',
    connect: async (signal, first) => {
      const { connection, address } = await connectAnywhere(dialer, endpoint, signal, first)
      return {
        address,
        // The statement commits by itself, and its answer names the server.
        write: async (seq, content) => {
          const [rows] = await connection.query<RowDataPacket[]>({
            sql: `INSERT INTO ${table} (seq, content, server) VALUES (?, ?, @@hostname) RETURNING server`,
            values: [seq, content],
            timeout: requestTimeout,
          })
          return answeredBy(rows)
        },
        read: async () => {
          const [rows] = await connection.query<RowDataPacket[]>({
            sql: `SELECT @@hostname AS server, (SELECT MAX(seq) FROM ${table}) AS last`,
            timeout: requestTimeout,
          })
          return answeredBy(rows)
        },
        close: () => {
          connection.destroy()
        },
      }
    },
    create: (signal) =>
      run(
        `CREATE TABLE ${table} (seq INT UNSIGNED PRIMARY KEY, content VARCHAR(200) NOT NULL, server VARCHAR(100) NOT NULL) ENGINE=InnoDB`,
        signal,
      ),
    readBack: (signal) =>
      retryUntilAborted(signal, () =>
        withConnection(dialer, endpoint, signal, async (connection) => {
          try {
            const [rows] = await connection.query<RowDataPacket[]>({
              sql: `SELECT seq, content, server FROM ${table} ORDER BY seq`,
              timeout: longTimeout,
            })
            return (rows as { seq: number; content: string; server: string }[]).map(
              ({ seq, content, server }) => ({ seq, content, server: { pod: server, node: nodeOf(server) } }),
            )
          } catch (error) {
            // A missing table has lost all its rows, and asking again does not bring it back.
            if ((error as { errno?: number }).errno === noSuchTable) return []
            throw error
          }
        }),
      ),
    remove: (signal) => run(`DROP TABLE IF EXISTS ${table}`, signal),
  }
}

/** The protocol of `templates/manifests/ledger.pl`: one request line, several answer lines. */
class LineConnection {
  readonly #socket: Duplex
  readonly #lines: AsyncGenerator<string, undefined>

  constructor(socket: Duplex) {
    this.#socket = socket
    this.#lines = linesFrom(socket)
    // A connection lost between two queries is reported as an event, which would end the process if nobody listened.
    socket.on('error', () => undefined)
  }

  /** @throws when the other side closed the connection */
  async next(): Promise<string> {
    const { value } = await this.#lines.next()
    if (value === undefined) throw new Error('the connection was closed')
    return value
  }

  /**
   * @param take reads the answer
   * @throws if it takes longer than this many milliseconds
   */
  async ask<Result>(request: string, milliseconds: number, take: () => Promise<Result>): Promise<Result> {
    const late = setTimeout(() => {
      this.#socket.destroy(new Error(`no answer within ${String(milliseconds)} ms`))
    }, milliseconds)
    try {
      this.#socket.write(`${request}\n`)
      return await take()
    } finally {
      clearTimeout(late)
    }
  }

  destroy(): void {
    this.#socket.destroy()
  }
}

async function* linesFrom(socket: Duplex): AsyncGenerator<string, undefined> {
  let rest = ''
  for await (const text of socket.setEncoding('utf8')) {
    const lines = (rest + String(text)).split('\n')
    rest = lines.pop() ?? ''
    yield* lines
  }
  return undefined
}

const fileDoor = ({ ledgerPort }: DatabaseSpec): Endpoint<LineConnection> => ({
  port: ledgerPort,
  open: async (socket) => {
    const connection = new LineConnection(socket)
    const greeting = await connection.next()
    if (!greeting.startsWith('ready ')) throw new Error(`it greets with ${greeting}`)
    return connection
  },
})

/**
 * Parses a line of the file: number, pod, content. A partial line, as a power cut leaves it, has no number: if it was
 * acknowledged, it is missing. Any other line was never sent, and gets a number that no write has.
 */
const lineRead = (text: string, nodeOf: (pod: string) => string): ReadBack[] => {
  const [, seq, pod, content] = /^(\d{1,15}) (\S+) (.*)$/s.exec(text) ?? []
  if (seq !== undefined && pod !== undefined && content !== undefined)
    return [{ seq: Number(seq), content, server: { pod, node: nodeOf(pod) } }]
  return /^\d{0,15}( \S*)?$/.test(text) ? [] : [{ seq: 0, content: text }]
}

/** A plain file next to the database's files. */
export const fileStore = ({ dialer, database, run, nodeOf }: StoreOptions): Store => {
  const endpoint = fileDoor(database)
  return {
    medium: 'file',
    connect: async (signal, first) => {
      const { connection, address } = await connectAnywhere(dialer, endpoint, signal, first)
      return {
        address,
        write: async (seq, content) => {
          const answer = await connection.ask(`append ${run} ${String(seq)} ${content}`, requestTimeout, () =>
            connection.next(),
          )
          const [, answered, pod] = /^ok (\d+) (\S+)$/.exec(answer) ?? []
          if (pod === undefined || Number(answered) !== seq) throw new Error(answer)
          return { pod, node: nodeOf(pod) }
        },
        read: async () => {
          const answer = await connection.ask(`last ${run}`, requestTimeout, () => connection.next())
          const [, pod] = /^last (\S+) \d+ /.exec(answer) ?? []
          if (pod === undefined) throw new Error(answer)
          return { pod, node: nodeOf(pod) }
        },
        close: () => {
          connection.destroy()
        },
      }
    },
    // The first line creates the file.
    create: () => Promise.resolve(),
    readBack: (signal) =>
      retryUntilAborted(signal, () =>
        withConnection(dialer, endpoint, signal, (connection) =>
          connection.ask(`read ${run}`, longTimeout, async () => {
            const lines: string[] = []
            for (;;) {
              const answer = await connection.next()
              if (answer.startsWith('line ')) lines.push(answer.slice('line '.length))
              else if (answer === `end ${String(lines.length)}`)
                return lines.flatMap((line) => lineRead(line, nodeOf))
              else throw new Error(answer)
            }
          }),
        ),
      ),
    remove: (signal) =>
      withConnection(dialer, endpoint, signal, async (connection) => {
        const answer = await connection.ask(`remove ${run}`, longTimeout, () => connection.next())
        if (answer !== `removed ${run}`) throw new Error(answer)
      }),
  }
}
