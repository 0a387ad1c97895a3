/** The client outside the cluster: it writes to every medium, reads, and records the answers. */
import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { messageOf } from '../error.js'
import type { LedgerFile } from './ledger-file.js'
import type { LedgerRecord, Mark, Medium, Operation } from './ledger.js'
import type { Session, Store } from './store.js'

interface Worker {
  readonly client: string
  readonly operation: Operation
  /** Milliseconds between the starts of two requests. */
  readonly pace: number
  /** The number of its first request: each write of a medium has a unique number. */
  readonly first: number
  /** It opens a new connection for each request, to the next node's address in turn. */
  readonly roams: boolean
}

/** The clients of each medium. One that keeps its connection never sees a second server; one that roams does. */
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
  config: [
    { client: 'api-writer', operation: 'write', pace: 250, first: 1, roams: false },
    { client: 'api-reader', operation: 'read', pace: 500, first: 1, roams: false },
  ],
}

/** The first word of a write's content. */
const words = { row: 'row', file: 'line', config: 'ConfigMap' } as const

/** The present time for a record, on the wall clock and on a monotonic clock. */
export const now = (): { readonly at: string; readonly ms: number } => ({
  at: new Date().toISOString(),
  ms: performance.now(),
})

/**
 * Milliseconds of silence after which a client opens another connection, beside the one on which it still waits. A
 * node that lost its power does not answer, and connecting through another one only after the request has timed out
 * would lengthen every gap by the client's own search.
 */
const patience = 500

export interface ClientOptions {
  readonly stores: readonly Store[]
  readonly ledger: LedgerFile
  /** Called with every record once it is on disk. */
  readonly seen: (record: LedgerRecord) => void
}

export interface Client {
  /** Starts writing and reading. */
  start(): void
  mark(mark: Mark): Promise<void>
  /**
   * Waits for outstanding answers and until all records are on disk, and ends.
   * @throws an error of the ledger itself
   */
  stop(): Promise<void>
}

export const ledgerClient = ({ stores, ledger, seen }: ClientOptions): Client => {
  const ending = new AbortController()

  let last: Promise<void> = Promise.resolve()
  let broken: { readonly error: unknown } | undefined

  /** In the order of the calls. */
  const append = (entry: LedgerRecord): Promise<void> => {
    last = ledger.append(entry).then(() => seen(entry))
    last.catch((error: unknown) => (broken ??= { error }))
    return last
  }
  /**
   * The clients do not wait for the disk: while it is busy, which takes seconds on a host with several machines, they
   * would ask nothing, and the gap would not be the lab's. An error is thrown by `stop`.
   */
  const record = (entry: LedgerRecord): void => {
    append(entry).catch(() => undefined)
  }

  const run = async (store: Store, { client, operation, pace, first, roams }: Worker): Promise<void> => {
    const { medium } = store
    let session: Session | undefined
    let spare: Promise<Session> | undefined
    const dropSpare = (): void => {
      spare?.then((unused) => unused.close()).catch(() => undefined)
      spare = undefined
    }
    try {
      for (let seq = first; !ending.signal.aborted; seq++) {
        // A loop that has lost its connection sends nothing until it has a new one.
        session ??= await (spare ?? store.connect(ending.signal, roams ? seq - first : 0))
        spare = undefined
        const begun = performance.now()
        const content =
          operation === 'write'
            ? `${words[medium]} ${String(seq)} ${randomBytes(16).toString('hex')}`
            : undefined
        const request = { client, operation, medium, seq, address: session.address } as const
        record({
          type: 'sent',
          ...now(),
          ...request,
          ...(content === undefined ? {} : { content }),
        })
        const silent = setTimeout(() => {
          spare = store.connect(ending.signal)
          // Whoever needs it handles the error.
          spare.catch(() => undefined)
        }, patience)
        try {
          const server = await (content === undefined ? session.read() : session.write(seq, content))
          dropSpare()
          // The time of the answer, not of its record.
          const moment = now()
          record({ type: 'acknowledged', ...moment, ...request, server })
          if (roams) {
            session.close()
            session = undefined
          }
        } catch (error) {
          session?.close()
          session = undefined
          record({ type: 'failed', ...now(), ...request, error: messageOf(error) })
        } finally {
          clearTimeout(silent)
        }
        const rest = pace - (performance.now() - begun)
        if (rest > 0) await delay(rest, undefined, { signal: ending.signal })
      }
    } catch (error) {
      if (!ending.signal.aborted) throw error
    } finally {
      session?.close()
      dropSpare()
    }
  }

  let running: Promise<unknown> = Promise.resolve()
  return {
    start: () => {
      running = Promise.all(
        stores.flatMap((store) => crews[store.medium].map((worker) => run(store, worker))),
      )
      // The error is handled when the run stops; until then nobody listens.
      running.catch(() => undefined)
    },
    mark: (mark) => append({ type: 'mark', ...now(), mark }),
    stop: async () => {
      ending.abort()
      await running
      await last.catch(() => undefined)
      if (broken) throw broken.error
    },
  }
}

/** Name of the table, file, keyspace or znode of a run: letters, digits and `_`. */
export const runName = (started: Date): string => `lab_run_${started.toISOString().replace(/\D/g, '')}`
