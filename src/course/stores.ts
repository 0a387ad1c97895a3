/**
 * The databases of the course as a client outside the cluster sees them: through a node port, with the client library
 * that a person would use. Every member accepts writes, so two writing members are no finding.
 */
import { readdir, readFile, readlink } from 'node:fs/promises'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import cassandra from 'cassandra-driver'
import zookeeper from 'node-zookeeper-client'
import { Interrupted } from '../error.js'
import type { Server } from '../trial/ledger.js'
import type { ExperimentContext } from '../trial/experiment-context.js'
import { connectAnywhere, retryUntilAborted, type Dialer, type Session, type Store } from '../trial/store.js'

export interface MemberStoreOptions {
  readonly dialer: Dialer
  /** The node port, which leads to any member. */
  readonly nodePort: number
  /** Name of the keyspace or znode: letters, digits and `_`. */
  readonly run: string
}

/** Timeout of one ledger query, in milliseconds. */
const requestTimeout = 1500
/** Timeout of a schema change or a complete read, in milliseconds. */
const longTimeout = 30_000
/** Milliseconds between two attempts to connect. */
const pause = 200

/** A loopback port for client libraries that open their own connections. It forwards only this program. */
export interface Entrance {
  readonly port: number
  /** Address of the node that the last connection went to. */
  readonly address: () => string
  close(): void
}

/** A loopback address as the kernel's connection table prints it: `0100007F:1F90`. */
const tableAddress = (port: number): string => `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`

/**
 * Whether the other end of a loopback connection is this process and not another one of the host: the database behind
 * the port asks for no password.
 */
export const isOwn = async (remotePort: number, localPort: number): Promise<boolean> => {
  const ends = `${tableAddress(remotePort)} ${tableAddress(localPort)}`
  const row = (await readFile('/proc/self/net/tcp', 'utf8'))
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .find(([, local, remote]) => `${local ?? ''} ${remote ?? ''}` === ends)
  const inode = row?.[9]
  if (inode === undefined) return false
  const ours = await Promise.all(
    (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
  )
  return ours.includes(`socket:[${inode}]`)
}

export const openEntrance = async (dialer: Dialer, nodePort: number, first: number): Promise<Entrance> => {
  const ending = new AbortController()
  const open = new Set<Duplex>()
  let address = ''
  let next = first
  const lead = async (near: Socket): Promise<void> => {
    open.add(near)
    near.on('error', () => undefined)
    near.on('close', () => open.delete(near))
    if (!(await isOwn(near.remotePort ?? 0, near.localPort ?? 0))) {
      near.destroy()
      return
    }
    const endpoint = { port: nodePort, open: (socket: Duplex) => Promise.resolve(socket) }
    const given = AbortSignal.any([ending.signal, AbortSignal.timeout(requestTimeout)])
    const { connection: far, address: through } = await connectAnywhere(dialer, endpoint, given, next++)
    address = through
    open.add(far)
    far.on('error', () => undefined)
    far.on('close', () => {
      open.delete(far)
      near.destroy()
    })
    near.on('close', () => far.destroy())
    if (near.destroyed) far.destroy()
    else near.pipe(far).pipe(near)
  }
  const server = createServer((near) => {
    lead(near).catch(() => near.destroy())
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    port: (server.address() as AddressInfo).port,
    address: () => address,
    close: () => {
      ending.abort()
      server.close()
      for (const socket of open) socket.destroy()
    },
  }
}

/** A connected member: runs one query at a time, and knows which pod answers. */
interface Member<T> {
  readonly client: T
  readonly server: Server
  readonly address: string
  readonly close: () => void
}

type Greet<T> = (entrance: Entrance) => Promise<{ client: T; server: Server; close: () => void }>

/**
 * Retries until a member accepts the connection.
 * @throws Interrupted with the signal
 */
const connect = async <T>(
  { dialer, nodePort }: MemberStoreOptions,
  greet: Greet<T>,
  signal: AbortSignal,
  first = 0,
): Promise<Member<T>> => {
  for (let attempt = first; ; attempt++) {
    if (signal.aborted) throw new Interrupted()
    const entrance = await openEntrance(dialer, nodePort, attempt)
    try {
      const { client, server, close } = await greet(entrance)
      return {
        client,
        server,
        address: entrance.address(),
        close: () => {
          close()
          entrance.close()
        },
      }
    } catch {
      entrance.close()
      await delay(pause, undefined, { signal }).catch(() => undefined)
    }
  }
}

const withMember = async <T, Result>(
  options: MemberStoreOptions,
  greet: Greet<T>,
  signal: AbortSignal,
  use: (client: T) => Promise<Result>,
): Promise<Result> => {
  const member = await connect(options, greet, signal)
  try {
    return await use(member.client)
  } finally {
    member.close()
  }
}

/** The node port of a Service. */
export const nodePortOf = async (context: ExperimentContext, service: string): Promise<number> => {
  const { spec } = await context.get<{ spec: { ports: { nodePort?: number }[] } }>('service', service)
  const [port] = spec.ports
  if (port?.nodePort === undefined) throw new Error(`${service} has no port of the nodes`)
  return port.nodePort
}

/** A store on top of such members. */
const memberStore = <T>(
  options: MemberStoreOptions,
  greet: Greet<T>,
  ask: {
    readonly source: string
    readonly create: (client: T) => Promise<unknown>
    readonly write: (client: T, seq: number, content: string) => Promise<unknown>
    readonly read: (client: T) => Promise<unknown>
    readonly all: (client: T) => Promise<readonly { readonly seq: number; readonly content: string }[]>
    readonly remove: (client: T) => Promise<unknown>
  },
): Store => ({
  medium: 'row',
  source: ask.source,
  connect: async (signal, first): Promise<Session> => {
    const { client, server, address, close } = await connect(options, greet, signal, first)
    return {
      address,
      write: async (seq, content) => {
        await ask.write(client, seq, content)
        return server
      },
      read: async () => {
        await ask.read(client)
        return server
      },
      close,
    }
  },
  create: async (signal) => {
    await retryUntilAborted(signal, () => withMember(options, greet, signal, ask.create))
  },
  readBack: (signal) => retryUntilAborted(signal, () => withMember(options, greet, signal, ask.all)),
  remove: async (signal) => {
    await retryUntilAborted(signal, () => withMember(options, greet, signal, ask.remove))
  },
})

/**
 * @param podAt the pod with an address
 * @param datacenter the datacenter of all members
 */
export const cassandraStore = (
  options: MemberStoreOptions,
  datacenter: string,
  podAt: (address: string) => Server | undefined,
): Store => {
  const { consistencies, distance } = cassandra.types
  const { loadBalancing, reconnection, retry } = cassandra.policies
  const greet: Greet<cassandra.Client> = async (entrance) => {
    const contact = `127.0.0.1:${String(entrance.port)}`
    const client = new cassandra.Client({
      contactPoints: [contact],
      localDataCenter: datacenter,
      // The members report their pod addresses, which cannot be reached from outside.
      policies: {
        loadBalancing: new loadBalancing.AllowListPolicy(new loadBalancing.RoundRobinPolicy(), [contact]),
        reconnection: new reconnection.ConstantReconnectionPolicy(longTimeout),
        // The ledger must judge an unacknowledged write, so the driver must not repeat it.
        retry: new retry.FallthroughRetryPolicy(),
      },
      pooling: { coreConnectionsPerHost: { [distance.local]: 1 }, heartBeatInterval: 0 },
      socketOptions: { connectTimeout: requestTimeout, readTimeout: requestTimeout },
      queryOptions: { consistency: consistencies.quorum },
      isMetadataSyncEnabled: false,
    })
    const close = (): void => {
      client.shutdown().catch(() => undefined)
    }
    try {
      await client.connect()
      const { rows } = await client.execute('SELECT broadcast_address FROM system.local', [], {
        consistency: consistencies.one,
      })
      const address = String(rows[0]?.get('broadcast_address') ?? '')
      return { client, server: podAt(address) ?? { pod: address, node: 'not known' }, close }
    } catch (error) {
      close()
      throw error
    }
  }
  const table = `${options.run}.ledger`
  const longRead = { readTimeout: longTimeout }
  let last = 1
  return memberStore(options, greet, {
    source: 'read at QUORUM from members that were not ended before, so they may have answered from memory',
    create: async (client) => {
      await client.execute(
        `CREATE KEYSPACE IF NOT EXISTS ${options.run} WITH replication = {'class': 'NetworkTopologyStrategy', 'replication_factor': 3}`,
        [],
        longRead,
      )
      await client.execute(
        `CREATE TABLE IF NOT EXISTS ${table} (seq int PRIMARY KEY, content text)`,
        [],
        longRead,
      )
    },
    write: async (client, seq, content) => {
      await client.execute(`INSERT INTO ${table} (seq, content) VALUES (?, ?)`, [seq, content], {
        hints: ['int', 'text'],
      })
      last = seq
    },
    read: (client) =>
      client.execute(`SELECT content FROM ${table} WHERE seq = ?`, [last], { hints: ['int'] }),
    all: async (client) => {
      const { rows } = await client.execute(`SELECT seq, content FROM ${table}`, [], {
        ...longRead,
        fetchSize: 1_000_000,
      })
      return rows.map((row) => ({ seq: Number(row.get('seq')), content: String(row.get('content')) }))
    },
    remove: (client) => client.execute(`DROP KEYSPACE IF EXISTS ${options.run}`, [], longRead),
  })
}

/**
 * Awaits one query of a callback-style client.
 * @throws after this many milliseconds
 */
const answer = <Result>(
  milliseconds: number,
  question: (answered: (error: Error | zookeeper.Exception | null, result: Result) => void) => void,
): Promise<Result> =>
  new Promise((resolve, reject) => {
    const late = setTimeout(() => {
      reject(new Error(`no answer within ${String(milliseconds)} ms`))
    }, milliseconds)
    question((error, result) => {
      clearTimeout(late)
      if (error) reject(error instanceof Error ? error : new Error(String(error)))
      else resolve(result)
    })
  })

/** Milliseconds after which a server drops a silent client; ZooKeeper allows 4 s and more. */
const sessionTimeout = 6000

/** @param podOf the pod of a server, by its number */
export const zookeeperStore = (options: MemberStoreOptions, podOf: (id: number) => Server): Store => {
  const greet: Greet<zookeeper.Client> = async (entrance) => {
    const client = zookeeper.createClient(`127.0.0.1:${String(entrance.port)}`, {
      sessionTimeout,
      retries: 0,
    })
    const close = (): void => {
      client.close()
    }
    try {
      await answer<undefined>(requestTimeout, (answered) => {
        client.once('connected', () => {
          answered(null, undefined)
        })
        client.connect()
      })
      // The next query opens a new connection: this client would queue queries until it reconnects.
      client.once('disconnected', close)
      // The number of a session begins with the number of its server.
      return { client, server: podOf(client.getSessionId()[0] ?? 0), close }
    } catch (error) {
      close()
      throw error
    }
  }
  const folder = `/${options.run}`
  const { NO_NODE, NODE_EXISTS } = zookeeper.Exception
  const unless = (code: number) => (error: unknown) => {
    if ((error as { code?: number }).code !== code) throw error
  }
  const childrenOf = (client: zookeeper.Client): Promise<string[]> =>
    answer<string[]>(longTimeout, (answered) => {
      client.getChildren(folder, answered)
    })
  return memberStore(options, greet, {
    source:
      'read from a member that had caught up, and was not ended before: a member always answers from its memory',
    create: (client) =>
      answer<string>(requestTimeout, (answered) => {
        client.create(folder, answered)
      }).catch(unless(NODE_EXISTS)),
    write: (client, seq, content) =>
      answer<string>(requestTimeout, (answered) => {
        client.create(`${folder}/${String(seq)}`, Buffer.from(content), answered)
      }),
    read: (client) =>
      answer(requestTimeout, (answered) => {
        client.getData(folder, answered)
      }),
    all: async (client) => {
      // A server that lags behind applies its own client's writes before it answers.
      await answer(longTimeout, (answered) => {
        client.setData(folder, Buffer.from('read back'), -1, answered)
      })
      const names = await childrenOf(client)
      return Promise.all(
        names.map(async (name) => ({
          seq: Number(name),
          content: String(
            await answer<Buffer>(longTimeout, (answered) => {
              client.getData(`${folder}/${name}`, answered)
            }),
          ),
        })),
      )
    },
    remove: async (client) => {
      const remove = (path: string): Promise<unknown> =>
        answer<undefined>(longTimeout, (answered) => {
          client.remove(path, -1, (error) => {
            answered(error, undefined)
          })
        }).catch(unless(NO_NODE))
      await Promise.all((await childrenOf(client)).map((name) => remove(`${folder}/${name}`)))
      await remove(folder)
    },
  })
}
