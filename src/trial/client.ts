/** The client outside the cluster: it writes to every medium and reads, and writes down what it was answered. */
import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { messageOf } from '../error.js'
import type { LedgerFile } from './ledger-file.js'
import type { LedgerRecord, Mark, Medium, Operation } from './ledger.js'
import type { Session, Store } from './medium.js'

interface Worker {
  readonly client: string
  readonly operation: Operation
  /** Milliseconds between the beginnings of two requests. */
  readonly pace: number
  /** The number of its first request: a medium has every number of a write only once. */
  readonly first: number
  /** It connects anew for each request, at the next node's address in turn. */
  readonly roams: boolean
}

/** Who is at work on each medium. One that keeps its connection never sees a second server; one that roams does. */
const crews: Readonly<Record<Medium, readonly Worker[]>> = {
  row: [
    { client: 'writer-1', operation: 'write', pace: 100, first: 1, roams: false },
    { client: 'writer-2', operation: 'write', pace: 500, first: 1_000_001, roams: true },
    { client: 'reader-1', operation: 'read', pace: 200, first: 1, roams: false },
  ],
  file: [
    { client: 'file-writer', operation: 'write', pace: 100, first: 1, roams: false },
    { client: 'file-reader', operation: 'read', pace: 200, first: 1, roams: false },
  ],
}

/** With what a write's content begins. */
const words = { row: 'row', file: 'line' } as const

/** Now, for a record: by the operator's clock, and by one that never jumps. */
export const now = (): { readonly at: string; readonly ms: number } => ({
  at: new Date().toISOString(),
  ms: performance.now(),
})

export interface ClientOptions {
  readonly stores: readonly Store[]
  readonly ledger: LedgerFile
  /** Told of every record once it is on the disk. */
  readonly seen: (record: LedgerRecord) => void
}

export interface Client {
  /** Begins to write and read. */
  start(): void
  mark(mark: Mark): Promise<void>
  /** Lets what is on its way be answered, and ends. @throws what went wrong with the ledger itself */
  stop(): Promise<void>
}

export const ledgerClient = ({ stores, ledger, seen }: ClientOptions): Client => {
  const ending = new AbortController()

  const record = async (entry: LedgerRecord): Promise<void> => {
    await ledger.append(entry)
    seen(entry)
  }

  const run = async (store: Store, { client, operation, pace, first, roams }: Worker): Promise<void> => {
    const { medium } = store
    let session: Session | undefined
    try {
      for (let seq = first; !ending.signal.aborted; seq++) {
        // A loop that lost its connection has its say when it has another one: nothing is sent meanwhile.
        session ??= await store.connect(ending.signal, roams ? seq - first : 0)
        const begun = performance.now()
        const content =
          operation === 'write'
            ? `${words[medium]} ${String(seq)} ${randomBytes(16).toString('hex')}`
            : undefined
        const request = { client, operation, medium, seq, address: session.address } as const
        await record({
          type: 'sent',
          ...now(),
          ...request,
          ...(content === undefined ? {} : { content }),
        })
        try {
          const server = await (content === undefined ? session.read() : session.write(seq, content))
          // When it came, not when it was written down.
          const moment = now()
          await record({ type: 'acknowledged', ...moment, ...request, server })
          if (roams) {
            session.close()
            session = undefined
          }
        } catch (error) {
          session?.close()
          session = undefined
          await record({ type: 'failed', ...now(), ...request, error: messageOf(error) })
        }
        const rest = pace - (performance.now() - begun)
        if (rest > 0) await delay(rest, undefined, { signal: ending.signal })
      }
    } catch (error) {
      if (!ending.signal.aborted) throw error
    } finally {
      session?.close()
    }
  }

  let running: Promise<unknown> = Promise.resolve()
  return {
    start: () => {
      running = Promise.all(
        stores.flatMap((store) => crews[store.medium].map((worker) => run(store, worker))),
      )
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

/** Name of the table, file, keyspace or znode that a run writes to: letters, digits and `_`. */
export const runName = (started: Date): string => `lab_run_${started.toISOString().replace(/\D/g, '')}`
