/** The ledger of an exercise: a client writes to the database while a person works on the lab. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Context } from '../context.js'
import { LabError, messageOf } from '../error.js'
import type { DatabaseSpec } from '../lab/lab.js'
import { pathsOf } from '../state.js'
import { isRowWritten } from '../trial/answers.js'
import { ledgerClient, runName } from '../trial/client.js'
import { judge } from '../trial/judge.js'
import { createLedger } from '../trial/ledger-file.js'
import type { LedgerRecord, ReadBack, Server } from '../trial/ledger.js'
import { rowStore } from '../trial/store.js'
import { watchLab } from '../trial/watch.js'

export interface WriteGap {
  /** Milliseconds between two acknowledged writes of the step, or since the last one if that is longer. */
  readonly length: number
  /** Whether the longest gap has not ended yet. */
  readonly open: boolean
  /** Milliseconds since the last answer. */
  readonly now: number
}

export interface Ledger {
  /** Since a moment of `performance.now`. Undefined if nothing has been acknowledged yet. */
  longestWriteGap(from: number): WriteGap | undefined
  /** The server that answers now, if it differs from the one at that moment. */
  takenOver(from: number): string | undefined
  /**
   * Reads all rows back. A row that was changed counts as lost.
   * @throws if no server answers in time
   */
  readBack(): Promise<{ readonly lost: number; readonly turns: boolean; readonly acknowledged: number }>
  close(): Promise<void>
}

/** Seconds for creating the table, and for reading all rows back. */
const usualDeadline = 20

/** A deadline that has passed looks like an interruption. */
const whyNot = (error: unknown, deadline: number): string =>
  (error instanceof LabError && error.code === 'interrupted') ||
  (error instanceof DOMException && error.name === 'TimeoutError')
    ? `no answer within ${String(deadline)} s`
    : messageOf(error)

/** @param there every row, also those that were sent later */
export const tallied = (
  records: readonly LedgerRecord[],
  there: readonly ReadBack[],
): Awaited<ReturnType<Ledger['readBack']>> => {
  const sent = new Set(
    records.flatMap((record) => (record.type === 'sent' && record.operation === 'write' ? [record.seq] : [])),
  )
  const { findings, tally } = judge(
    records,
    there.filter(({ seq }) => sent.has(seq)),
    undefined,
  )
  const wrong = findings.filter(({ kind }) => kind === 'LOST' || kind === 'CORRUPT')
  return {
    lost: new Set(wrong.flatMap(({ seqs }) => seqs)).size,
    turns: findings.some(({ kind }) => kind === 'DOUBLE WRITER'),
    acknowledged: tally.row.acknowledged,
  }
}

/** @throws LabError `no-ledger` if the database does not answer in time */
export const openLedger = async (
  context: Context,
  database: DatabaseSpec,
  deadline = usualDeadline,
): Promise<Ledger> => {
  const { lab } = context
  const ending = new AbortController()
  const records: LedgerRecord[] = []
  const watch = watchLab(context, database, ending.signal, () => undefined)
  const started = new Date()
  const run = runName(started)
  const { learn } = pathsOf(lab)
  await mkdir(learn, { recursive: true, mode: 0o700 })
  const file = await createLedger(join(learn, `${run}.ledger.ndjson`))
  const store = rowStore({ dialer: context, database, run, nodeOf: (pod) => watch.nodeOf(pod) })
  const soon = (): AbortSignal => AbortSignal.any([context.signal, AbortSignal.timeout(deadline * 1000)])
  try {
    await store.create(soon())
  } catch (error) {
    ending.abort()
    await file.close()
    context.signal.throwIfAborted()
    throw new LabError(
      'no-ledger',
      `the database of ${lab.name} cannot be written to: ${whyNot(error, deadline)}`,
      {
        hint: `lab up ${lab.name}, or lab restore ${lab.name} clean`,
        cause: error,
      },
    )
  }
  const client = ledgerClient({ stores: [store], ledger: file, seen: (record) => records.push(record) })
  await client.mark('begin')
  client.start()
  const writes = (): readonly Extract<LedgerRecord, { type: 'acknowledged' }>[] =>
    records.filter(isRowWritten)
  const servers = (since: number, until = Infinity): readonly Server[] =>
    writes()
      .filter(({ ms }) => ms >= since && ms < until)
      .map(({ server }) => server)
  return {
    longestWriteGap: (from) => {
      const all = writes()
      const before = all.findLast(({ ms }) => ms < from)
      const answered = all.filter(({ ms }) => ms >= from)
      if (!before && answered.length === 0) return undefined
      const edges = [before?.ms ?? answered[0]?.ms ?? from, ...answered.map(({ ms }) => ms)]
      const closed = edges.slice(1).map((edge, index) => edge - (edges[index] ?? edge))
      const longest = Math.max(0, ...closed)
      const now = performance.now() - (edges.at(-1) ?? 0)
      return { length: Math.max(longest, now), open: now >= longest, now }
    },
    takenOver: (from) => {
      const before = servers(0, from).at(-1)
      const now = servers(from).at(-1)
      return before && now && now.pod !== before.pod ? `${now.pod} on ${now.node}` : undefined
    },
    readBack: async () => {
      // Writes during the reading are ignored; unacknowledged rows may be present.
      const until = records.length
      return tallied(records.slice(0, until), await store.readBack(soon()))
    },
    close: async () => {
      await client.stop().catch(() => undefined)
      await store.remove(AbortSignal.timeout(deadline * 1000)).catch(() => undefined)
      ending.abort()
      await file.close()
    },
  }
}
