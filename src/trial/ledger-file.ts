/** The ledger on the operator's disk: its acknowledged records survive a power cut of the operator's host. */
import { open, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { LabError } from '../error.js'
import { syncFolder } from '../state.js'
import { recordSchema, type LedgerRecord } from './ledger.js'

export interface LedgerFile {
  /** Resolves once the record is on disk. Records keep the order of the calls. */
  append(record: LedgerRecord): Promise<void>
  /** Waits for pending records. */
  close(): Promise<void>
}

/**
 * Creates a ledger.
 * @throws if the file exists: a run never appends to the ledger of another
 */
export const createLedger = async (path: string): Promise<LedgerFile> => {
  const handle = await open(path, 'ax', 0o600)
  await syncFolder(dirname(path))
  let waiting: string[] = []
  let written: Promise<void> = Promise.resolve()
  let next: Promise<void> | undefined

  const flush = async (): Promise<void> => {
    const lines = waiting.join('')
    waiting = []
    next = undefined
    await handle.appendFile(lines)
    await handle.datasync()
  }

  return {
    append: (record) => {
      waiting.push(`${JSON.stringify(record)}\n`)
      // Records that arrive while the disk is busy share the next fsync. After a failed one nothing more is
      // acknowledged.
      next ??= written = written.then(flush)
      return next
    },
    close: async () => {
      try {
        await written
      } finally {
        await handle.close()
      }
    },
  }
}

export interface LedgerContent {
  readonly records: readonly LedgerRecord[]
  /** The beginning of a last line that was cut short when the writer ended. */
  readonly torn?: string | undefined
}

const recordOf = (line: string): LedgerRecord | undefined => {
  try {
    return recordSchema.safeParse(JSON.parse(line)).data
  } catch {
    return undefined
  }
}

/** @throws LabError if a line other than the last is invalid: then the rest of the file is in doubt as well */
export const readLedger = async (path: string): Promise<LedgerContent> => {
  const lines = (await readFile(path, 'utf8')).split('\n')
  const last = lines.pop() ?? ''
  const records = lines.map((line, index) => {
    const record = recordOf(line)
    if (!record)
      throw new LabError('bad-ledger', `${path}:${String(index + 1)}: not a record of a ledger`, {
        hint: 'what the writers were promised is in doubt, so run the scenario again: lab run LAB SCENARIO',
        log: path,
      })
    return record
  })
  return last === '' ? { records } : { records, torn: last.slice(0, 200) }
}
