/** The client outside the cluster: it writes numbered rows and reads, and writes down what it was answered. */
import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { type Connection, createConnection, type RowDataPacket } from 'mysql2/promise'
import { Interrupted, messageOf } from '../error.js'
import { type DatabaseSpec, nodesOf } from '../lab/lab.js'
import type { Context } from '../plan/step.js'
import type { LedgerFile } from './ledger-file.js'
import type { LedgerRecord, Operation, ReadBack, Server } from './ledger.js'

/** Milliseconds between the beginnings of two attempts to connect: each goes to the next node's address. */
const stagger = 200
/** Milliseconds that one attempt to connect may take, and one question. */
const patience = 1500
/** Milliseconds between two writes, and between two reads. */
const pace = { write: 100, read: 200 } as const

/** A connection, and which of the nodes' addresses it goes through. */
interface Way {
  readonly connection: Connection
  readonly address: string
}

type Reach = Pick<Context, 'lab' | 'provider'>

const attempt = async ({ lab, provider }: Reach, database: DatabaseSpec, host: string): Promise<Way> => {
  const socket = await provider.dial(lab, host, database.nodePort)
  // A server that does not greet says nothing at all: somebody has to hang up.
  const late = setTimeout(() => socket.destroy(new Error('no handshake')), patience)
  try {
    const connection = await createConnection({
      stream: socket,
      user: database.user,
      password: database.password,
      database: database.database,
      connectTimeout: patience,
    })
    // mysql2 tells of a connection that is lost between two questions as an event, which ends a process if unheard.
    connection.on('error', () => undefined)
    return { connection, address: `${host}:${String(database.nodePort)}` }
  } catch (error) {
    socket.destroy()
    throw error
  } finally {
    clearTimeout(late)
  }
}

/**
 * Goes on until some address answers. A node that was switched off does not refuse, it is silent, and so is a
 * Service that still leads to a pod that is gone: waiting for one attempt to end would measure the client, so
 * another begins every 200 ms, and the first handshake wins.
 */
export const connectAnywhere = (reach: Reach, database: DatabaseSpec, signal: AbortSignal): Promise<Way> =>
  new Promise((resolve, reject) => {
    const hosts = nodesOf(reach.lab).map(({ address }) => address)
    let done = false as boolean
    let next = 0
    const begin = (): void => {
      const host = hosts[next++ % hosts.length] ?? ''
      attempt(reach, database, host).then(
        (way) => {
          if (done) way.connection.destroy()
          else {
            finish()
            resolve(way)
          }
        },
        // The next attempt is on its way already.
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

/** Now, for a record: by the operator's clock, and by one that never jumps. */
export const now = (): { readonly at: string; readonly ms: number } => ({
  at: new Date().toISOString(),
  ms: performance.now(),
})

export interface ClientOptions {
  readonly reach: Reach
  readonly database: DatabaseSpec
  readonly ledger: LedgerFile
  /** The table of this run. */
  readonly table: string
  /** The node that a pod runs on, as far as it is known. */
  readonly nodeOf: (pod: string) => string
  /** Told of every record once it is on the disk. */
  readonly seen: (record: LedgerRecord) => void
}

export interface Client {
  /** Begins to write and read. */
  start(): void
  mark(mark: 'begin' | 'fault' | 'healed' | 'end'): Promise<void>
  /** Lets what is on its way be answered, and ends. @throws what went wrong with the ledger itself */
  stop(): Promise<void>
}

/** Makes the table of a run; what it holds must outlive everything, so it has the engine that promises that. */
export const createTable = async (
  reach: Reach,
  database: DatabaseSpec,
  table: string,
  signal: AbortSignal,
): Promise<void> => {
  const { connection } = await connectAnywhere(reach, database, signal)
  try {
    await connection.query({
      sql: `CREATE TABLE ${table} (seq INT UNSIGNED PRIMARY KEY, content VARCHAR(200) NOT NULL, server VARCHAR(100) NOT NULL) ENGINE=InnoDB`,
      timeout: 10_000,
    })
  } finally {
    connection.destroy()
  }
}

/** Every row of the table; tried again until the signal, since a server may yet be on its way. */
export const readRows = async (
  reach: Reach,
  database: DatabaseSpec,
  table: string,
  nodeOf: (pod: string) => string,
  signal: AbortSignal,
): Promise<readonly ReadBack[]> => {
  for (;;) {
    const { connection } = await connectAnywhere(reach, database, signal)
    try {
      const [rows] = await connection.query<RowDataPacket[]>({
        sql: `SELECT seq, content, server FROM ${table} ORDER BY seq`,
        timeout: 5000,
      })
      return (rows as { seq: number; content: string; server: string }[]).map(({ seq, content, server }) => ({
        seq,
        content,
        server: { pod: server, node: nodeOf(server) },
      }))
    } catch (error) {
      if (signal.aborted) throw error
      await delay(stagger, undefined, { signal })
    } finally {
      connection.destroy()
    }
  }
}

export const dropTable = async (
  reach: Reach,
  database: DatabaseSpec,
  table: string,
  signal: AbortSignal,
): Promise<void> => {
  const { connection } = await connectAnywhere(reach, database, signal)
  try {
    await connection.query({ sql: `DROP TABLE IF EXISTS ${table}`, timeout: 10_000 })
  } finally {
    connection.destroy()
  }
}

export const ledgerClient = (options: ClientOptions): Client => {
  const { reach, database, ledger, table, nodeOf, seen } = options
  const ending = new AbortController()

  const record = async (entry: LedgerRecord): Promise<void> => {
    await ledger.append(entry)
    seen(entry)
  }

  const serverOf = (rows: RowDataPacket[]): Server => {
    const [row] = rows as { server?: string }[]
    // An answer that does not say who gave it is none: nobody could tell two writers apart.
    if (row?.server === undefined) throw new Error('the answer does not say which server gave it')
    return { pod: row.server, node: nodeOf(row.server) }
  }

  /** The statement commits by itself, and its answer comes after that: with it comes who gave it. */
  const write = async (connection: Connection, seq: number, content: string): Promise<Server> => {
    const [rows] = await connection.query<RowDataPacket[]>({
      sql: `INSERT INTO ${table} (seq, content, server) VALUES (?, ?, @@hostname) RETURNING server`,
      values: [seq, content],
      timeout: patience,
    })
    return serverOf(rows)
  }

  const read = async (connection: Connection): Promise<Server> => {
    const [rows] = await connection.query<RowDataPacket[]>({
      sql: `SELECT @@hostname AS server, (SELECT MAX(seq) FROM ${table}) AS last`,
      timeout: patience,
    })
    return serverOf(rows)
  }

  const run = async (client: string, operation: Operation): Promise<void> => {
    let way: Way | undefined
    try {
      for (let seq = 1; !ending.signal.aborted; seq++) {
        // A loop that lost its connection has its say when it has another one: nothing is sent meanwhile.
        way ??= await connectAnywhere(reach, database, ending.signal)
        const begun = performance.now()
        const content =
          operation === 'write' ? `row ${String(seq)} ${randomBytes(16).toString('hex')}` : undefined
        const request = { client, operation, medium: 'row', seq, address: way.address } as const
        await record({
          type: 'sent',
          ...now(),
          ...request,
          ...(content === undefined ? {} : { content }),
        })
        try {
          const { connection } = way
          const server = await (content === undefined ? read(connection) : write(connection, seq, content))
          // When it came, not when it was written down.
          const moment = now()
          await record({ type: 'acknowledged', ...moment, ...request, server })
        } catch (error) {
          way.connection.destroy()
          way = undefined
          await record({ type: 'failed', ...now(), ...request, error: messageOf(error) })
        }
        const rest = pace[operation] - (performance.now() - begun)
        if (rest > 0) await delay(rest, undefined, { signal: ending.signal })
      }
    } catch (error) {
      if (!ending.signal.aborted) throw error
    } finally {
      way?.connection.destroy()
    }
  }

  let running: Promise<unknown> = Promise.resolve()
  return {
    start: () => {
      running = Promise.all([run('writer-1', 'write'), run('reader-1', 'read')])
      // It is looked at when the run stops; until then nobody listens.
      running.catch(() => undefined)
    },
    mark: (mark) => record({ type: 'mark', ...now(), mark }),
    stop: async () => {
      ending.abort()
      await running
    },
  }
}
