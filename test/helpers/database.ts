/** A fake of the database: it speaks MySQL's protocol, keeps one table of rows, and has moods. */
import type { AddressInfo, Server } from 'node:net'
import mysql from 'mysql2'

/** How a server treats a query. */
export type Mood = 'answers' | 'refuses' | 'is silent' | 'has no table'

export interface Row {
  readonly seq: number
  content: string
  readonly server: string
}

export interface FakeDatabase {
  /** On 127.0.0.1. */
  readonly port: number
  readonly rows: Row[]
  readonly close: () => void
}

/** The types of mysql2 hardly cover its servers. */
interface FakeServer {
  readonly _server: Server
  on(event: 'connection', listener: (connection: FakeConnection) => void): void
}

interface FakeConnection {
  on(event: 'error', listener: () => void): void
  on(event: 'query', listener: (sql: string) => void): void
  serverHandshake(options: object): void
  writeTextResult(rows: readonly object[], columns: readonly object[]): void
  writeOk(): void
  writeError(error: object): void
  _resetSequenceId(): void
  _bumpSequenceId(by: number): void
}

const column = (name: string): object => ({
  catalog: 'def',
  schema: '',
  table: '',
  orgTable: '',
  name,
  orgName: '',
  characterSet: 33,
  columnLength: 200,
  columnType: name === 'seq' ? 3 : 253,
  flags: 0,
  decimals: 0,
})

/** @param podOf the pod that answers; called for each query */
export const databaseServer = async (
  podOf: () => string,
  moodOf: () => Mood = () => 'answers',
): Promise<FakeDatabase> => {
  const rows: Row[] = []
  const server = (mysql.createServer as unknown as () => FakeServer)()
  server.on('connection', (connection) => {
    connection.on('error', () => {})
    // Packets of each query and its answer are numbered from 0, which mysql2's servers do not take care of.
    const writeOk = connection.writeOk.bind(connection)
    connection.writeOk = () => {
      writeOk()
      connection._resetSequenceId()
    }
    connection.serverHandshake({
      protocolVersion: 10,
      serverVersion: '11.8.0-MariaDB',
      connectionId: 1,
      statusFlags: 2,
      characterSet: 8,
      capabilityFlags: 0xffffff,
    })
    connection.on('query', (sql) => {
      connection._resetSequenceId()
      connection._bumpSequenceId(1)
      const mood = moodOf()
      const inserted = /^INSERT .* VALUES \((\d+), '([^']*)'/.exec(sql)
      if (mood === 'refuses') connection.writeError({ code: 1064, message: 'disk full' })
      else if (mood === 'has no table') connection.writeError({ code: 1146, message: 'no such table' })
      else if (mood === 'answers') {
        if (inserted) rows.push({ seq: Number(inserted[1]), content: inserted[2] ?? '', server: podOf() })
        if (/^(CREATE|DROP) /.test(sql)) connection.writeOk()
        else if (sql.startsWith('SELECT seq'))
          connection.writeTextResult(rows, ['seq', 'content', 'server'].map(column))
        else connection.writeTextResult([{ server: podOf() }], [column('server')])
      }
      connection._resetSequenceId()
    })
  })
  const inner = server._server
  await new Promise<void>((resolve) => inner.listen(0, '127.0.0.1', resolve))
  return { port: (inner.address() as AddressInfo).port, rows, close: () => inner.close() }
}
