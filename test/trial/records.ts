import type { LedgerRecord, Mark, Medium, Operation, Server } from '../../src/trial/ledger.js'

export const a: Server = { pod: 'mysql-a', node: 'worker1' }

export const b: Server = { pod: 'mysql-b', node: 'worker2' }

export const begin = Date.parse('2026-11-21T15:04:05.000Z')

export const moment = (ms: number) => ({ ms, at: new Date(begin + ms).toISOString() })

export const address = '192.168.56.21:32306'

export const mark = (name: Mark, ms: number): LedgerRecord => ({
  type: 'mark',
  mark: name,
  ...moment(ms),
})

export interface Options {
  readonly client?: string
  readonly medium?: Medium
  readonly operation?: Operation
}

export const requestOf = (
  seq: number,
  { client = 'writer-1', medium = 'row', operation = 'write' }: Options,
) => ({
  client,
  medium,
  operation,
  seq,
  address,
})

export const contentOf = (seq: number): string => `content ${String(seq)}`

export const sent = (seq: number, ms: number, options: Options = {}): LedgerRecord => ({
  type: 'sent',
  ...requestOf(seq, options),
  ...moment(ms),
  content: contentOf(seq),
})

export const answered = (seq: number, ms: number, server: Server, options: Options = {}): LedgerRecord => ({
  type: 'acknowledged',
  ...requestOf(seq, options),
  ...moment(ms),
  server,
})

export const failed = (seq: number, ms: number, options: Options = {}): LedgerRecord => ({
  type: 'failed',
  ...requestOf(seq, options),
  ...moment(ms),
  error: 'ETIMEDOUT',
})

/** A write that took 5 ms. */
export const acked = (seq: number, ms: number, server = a, options: Options = {}): LedgerRecord[] => [
  sent(seq, ms, options),
  answered(seq, ms + 5, server, options),
]
