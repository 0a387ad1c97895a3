/** The ledger on the operator's disk: what it says was acknowledged survives a power cut of the operator, too. */
import { open, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { LabError } from '../error.js'
import { syncFolder } from '../state.js'
import { recordSchema, type LedgerRecord } from './ledger.js'

export interface LedgerFile {
  /** Resolves once the record is on the disk. Records are kept in the order of the calls. */
  append(record: LedgerRecord): Promise<void>
  /** Waits for what was appended before. */
  close(): Promise<void>
}

/** Begins a ledger. @throws when there is one already: a run never adds to the ledger of another. */
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
      // What comes while the disk is busy shares the next fsync. After a failed one nothing is promised any more.
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
  /** The beginning of a last line that was cut short, as the end of the writer's life leaves it. */
  readonly torn?: string | undefined
}

const recordOf = (line: string): LedgerRecord | undefined => {
  try {
    return recordSchema.safeParse(JSON.parse(line)).data
  } catch {
    return undefined
  }
}

/** @throws LabError when a line other than the last is no record: then nobody knows what else is wrong with it. */
export const readLedger = async (path: string): Promise<LedgerContent> => {
  const lines = (await readFile(path, 'utf8')).split('\n')
  const last = lines.pop() ?? ''
  const records = lines.map((line, index) => {
    const record = recordOf(line)
    if (!record)
      throw new LabError('bad-ledger', `${path}:${String(index + 1)}: not a record of a ledger`, {
        log: path,
      })
    return record
  })
  return last === '' ? { records } : { records, torn: last.slice(0, 200) }
}
