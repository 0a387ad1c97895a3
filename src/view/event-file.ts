/** The events of a lab in its folder: `events.ndjson`, and one older file after a rotation. */
import { randomUUID } from 'node:crypto'
import {
  appendFileSync,
  closeSync,
  existsSync,
  fstatSync,
  linkSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { systemError } from '../error.js'
import { type EventRecord, type Sink, textOfRecord } from './events.js'

/** Size in bytes at which the file is rotated; the previous older file is deleted. */
export const longestEvents = 4 * 1024 ** 2

/** The most records that wait for the lab's folder, which `up` makes after it has prepared the lab's parts. */
const mostWaiting = 1000

const olderOf = (path: string): string => path.replace(/\.ndjson$/, '.1.ndjson')

const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0

/** Whether the last line is complete: a power cut may have shortened it. */
const endsInLine = (path: string): boolean => {
  const size = sizeOf(path)
  if (size === 0) return true
  const file = openSync(path, 'r')
  try {
    const last = Buffer.alloc(1)
    readSync(file, last, 0, 1, size - 1)
    return last.toString() === '\n'
  } finally {
    closeSync(file)
  }
}

/**
 * Renames the file if it is full. Another process may do the same at the same instant: then this one has renamed the
 * new, short file, which must not replace the full one, so it gives the short file back.
 */
const rotate = (path: string, longest: number): void => {
  if (sizeOf(path) <= longest) return
  const taken = `${path}.${randomUUID()}`
  try {
    renameSync(path, taken)
  } catch (error) {
    // The other process was faster, and has not begun the next file yet.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  if (sizeOf(taken) > longest) {
    renameSync(taken, olderOf(path))
    return
  }
  try {
    linkSync(taken, path)
  } catch (error) {
    // A third process has begun another file meanwhile.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    appendFileSync(path, readFileSync(taken))
  }
  rmSync(taken)
}

/**
 * Appends records to a file of events. Several processes may do so at once, since each record is a single append.
 * While the folder does not exist, records wait for it; if writing fails, they are lost, since the command matters
 * more than its record.
 */
export const eventFile = (path: string, longest = longestEvents): Sink => {
  let waiting: string[] = []
  let begun = false
  return {
    take(record) {
      waiting.push(`${textOfRecord(record)}\n`)
      if (waiting.length > mostWaiting) waiting.shift()
      try {
        if (!begun) waiting.unshift(...(endsInLine(path) ? [] : ['\n']))
        begun = true
        rotate(path, longest)
        appendFileSync(path, waiting.join(''), { mode: 0o600 })
        waiting = []
      } catch (error) {
        // Only a missing folder is worth waiting for.
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') waiting = []
      }
    },
    close: () => Promise.resolve(),
  }
}

/** A record from the file; it may have fields that this version does not know. */
export type KeptRecord = EventRecord & { readonly time: string }

const recordIn = (line: string): KeptRecord | undefined => {
  try {
    const record = JSON.parse(line) as KeptRecord | null
    return typeof record?.time === 'string' && typeof record.type === 'string' ? record : undefined
  } catch {
    // A line that a power cut shortened.
    return undefined
  }
}

/** Milliseconds between two reads of a file that is followed. */
const lookEvery = 200

/**
 * The kept records, oldest first. With `follow`, it continues with new ones, even when the file is rotated: until the
 * signal, or until the lab's folder is gone.
 */
export async function* readEvents(
  path: string,
  follow: boolean,
  signal: AbortSignal,
): AsyncGenerator<KeptRecord> {
  const read = (from: number | undefined, at: number): Buffer => {
    if (from === undefined) return Buffer.alloc(0)
    const buffer = Buffer.alloc(Math.max(0, fstatSync(from).size - at))
    try {
      return buffer.subarray(0, readSync(from, buffer, 0, buffer.length, at))
    } catch (error) {
      // The error of a folder in its place does not name it.
      throw systemError(error, path) ?? error
    }
  }
  const openIfThere = (which: string): number | undefined => {
    try {
      return openSync(which, 'r')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
  }
  const recordsOf = (text: string): readonly KeptRecord[] =>
    text.split('\n').flatMap((line) => recordIn(line) ?? [])

  // The current file is opened first, so that a rotation does not make it be read twice.
  let file = openIfThere(path)
  try {
    const older = openIfThere(olderOf(path))
    if (older !== undefined) {
      const same = file !== undefined && fstatSync(older).ino === fstatSync(file).ino
      const text = same ? '' : read(older, 0).toString()
      closeSync(older)
      yield* recordsOf(text)
    }
    let at = 0
    for (;;) {
      // Before the read, so that nothing written until the removal is missed.
      const gone = !existsSync(dirname(path))
      const fresh = read(file, at)
      const whole = fresh.lastIndexOf('\n') + 1
      at += whole
      yield* recordsOf(fresh.subarray(0, whole).toString())
      const now = statSync(path, { throwIfNoEntry: false })
      if (now && (file === undefined || now.ino !== fstatSync(file).ino)) {
        // The rest of the rotated file is read before it is left.
        if (file !== undefined) {
          yield* recordsOf(read(file, at).toString())
          closeSync(file)
        }
        file = openIfThere(path)
        at = 0
        continue
      }
      if (!follow || gone || signal.aborted) return
      await delay(lookEvery, undefined, { signal }).catch(() => undefined)
    }
  } finally {
    if (file !== undefined) closeSync(file)
  }
}
