/** A row in the database, written and read by a client outside the cluster through the node port. */
import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise'
import { type DatabaseSpec, type Lab, machinesWith, nodesOf } from '../lab/lab.js'
import type { Check, Context, Step } from '../context.js'
import type { Verdict } from '../plan/step.js'
import { eventually } from './checks.js'
import { rowText } from './database-pods.js'

const phase = 'database'

/** Connects as a client outside the cluster does: to a node's address and the node port. */
const connectTo = async (context: Context, address: string, database: DatabaseSpec): Promise<Connection> => {
  const socket = await context.provider.dial(context.lab, address, database.nodePort)
  return createConnection({
    stream: socket,
    user: database.user,
    password: database.password,
    database: database.database,
    connectTimeout: 10_000 * (context.provider.slowdown ?? 1),
  })
}

const withConnection = async <T>(
  context: Context,
  address: string,
  database: DatabaseSpec,
  use: (connection: Connection) => Promise<T>,
): Promise<T> => {
  const connection = await connectTo(context, address, database)
  try {
    return await use(connection)
  } finally {
    connection.destroy()
  }
}

const readRow = (context: Context, address: string, database: DatabaseSpec): Promise<Verdict> =>
  withConnection(context, address, database, async (connection) => {
    const [rows] = await connection.query<RowDataPacket[]>('SELECT text, at FROM lab_row WHERE id = 1')
    const row = rows[0] as { text: string; at: Date } | undefined
    return {
      ok: row?.text === rowText(context.lab),
      saw: row ? `row 1: ${row.text}, ${new Date(row.at).toISOString()}` : 'no row',
    }
  })

/** Every node answers on the node port, no matter which node runs the pod. */
const rowThrough = (lab: Lab, database: DatabaseSpec, name: string, address: string): Check => ({
  id: `row-through-${name}`,
  title: `the row reads back through ${address}:${String(database.nodePort)} (${name})`,
  machine: name,
  within: 60,
  hint: `lab up ${lab.name}`,
  probe: (context) => readRow(context, address, database),
})

export const writeRow = (lab: Lab, database: DatabaseSpec): Step => ({
  id: 'write-row',
  title: `Write a row through node port ${String(database.nodePort)} from this host`,
  phase,
  // The row is read back through every node, and a node port leads nowhere before kube-proxy runs there.
  needs: ['deploy-database', 'prove-kube-proxy'],
  apply: async (context) => {
    const node = machinesWith(lab, 'worker')[0]
    if (!node) throw new Error('a database without a worker')
    // A node port leads to a pod a moment after the pod is ready: kube-proxy must learn of it first.
    await eventually(context, 60, () =>
      withConnection(context, node.address, database, async (connection) => {
        await connection.query(
          'CREATE TABLE IF NOT EXISTS lab_row (id INT PRIMARY KEY, text VARCHAR(200), at DATETIME)',
        )
        await connection.query('REPLACE INTO lab_row VALUES (1, ?, UTC_TIMESTAMP())', [rowText(lab)])
      }),
    )
  },
  checks: nodesOf(lab).map(({ name, address }) =>
    rowThrough(lab, database, name, address),
  ) as unknown as Step['checks'],
})
