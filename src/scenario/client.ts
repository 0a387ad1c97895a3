/** The client outside the cluster: it writes to every medium and reads, and writes down what it was answered. */
import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { messageOf } from '../error.js'
import type { LedgerFile } from './ledger-file.js'
import type { LedgerRecord, Medium, Operation } from './ledger.js'
import type { Session, Store } from './medium.js'

/** Milliseconds between two writes, and between two reads. */
const pace = { write: 100, read: 200 } as const

/** Who is at work on each medium. */
const crews: Readonly<Record<Medium, readonly (readonly [client: string, operation: Operation])[]>> = {
  row: [
    ['writer-1', 'write'],
    ['reader-1', 'read'],
  ],
  file: [['file-writer', 'write']],
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
  mark(mark: 'begin' | 'fault' | 'healed' | 'end'): Promise<void>
  /** Lets what is on its way be answered, and ends. @throws what went wrong with the ledger itself */
  stop(): Promise<void>
}

export const ledgerClient = ({ stores, ledger, seen }: ClientOptions): Client => {
  const ending = new AbortController()

  const record = async (entry: LedgerRecord): Promise<void> => {
    await ledger.append(entry)
    seen(entry)
  }

  const run = async (store: Store, client: string, operation: Operation): Promise<void> => {
    const { medium } = store
    let session: Session | undefined
    try {
      for (let seq = 1; !ending.signal.aborted; seq++) {
        // A loop that lost its connection has its say when it has another one: nothing is sent meanwhile.
        session ??= await store.connect(ending.signal)
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
          const answer = content === undefined ? session.read?.() : session.write(seq, content)
          const server = await answer
          if (!server) throw new Error(`nobody reads a ${medium}`)
          // When it came, not when it was written down.
          const moment = now()
          await record({ type: 'acknowledged', ...moment, ...request, server })
        } catch (error) {
          session.close()
          session = undefined
          await record({ type: 'failed', ...now(), ...request, error: messageOf(error) })
        }
        const rest = pace[operation] - (performance.now() - begun)
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
        stores.flatMap((store) =>
          crews[store.medium].map(([client, operation]) => run(store, client, operation)),
        ),
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
