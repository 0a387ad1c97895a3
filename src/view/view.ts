import type { PartProgress } from '../parts/preparation.js'
import type { RunEvent } from '../plan/step.js'
import type { TrialEvent } from '../trial/trial-event.js'
import { jsonLines, partRecordOf, recordOf, trialRecordOf, type EventRecord, type Sink } from './events.js'
import { lines } from './lines.js'
import { listr } from './listr.js'
import { createMask, type Mask } from './secrets.js'

/** Shows events as they happen. It makes no decisions and handles no signals. */
export interface View {
  event(event: RunEvent): void
  part(progress: PartProgress): void
  /** A moment of a trial: kept, and printed for programs. People have notices. */
  trial(event: TrialEvent): void
  /** Prints one or several lines for people. */
  notice(text: string): void
  /**
   * Ends the current drawing, finished or not, and returns within moments. Call it before anything else is written to
   * the same stream, and before `process.exit`.
   */
  close(): Promise<void>
}

export interface ViewOptions {
  /** The stream for people. */
  readonly stream: NodeJS.WriteStream
  /** Whether to colour; see `wantsColor`. */
  readonly color: boolean
  /** Whether to redraw in place, where `stream` is a terminal that can. */
  readonly interactive: boolean
  /**
   * Events for programs, one JSON object per line, to `eventsStream`. The view for people stays, unless both would go
   * to the same place: the same stream, or both to a terminal.
   */
  readonly events: boolean
  readonly eventsStream: NodeJS.WriteStream
  /** Where the same records are stored; absent: nowhere. */
  readonly keep?: Sink | undefined
  /** Masked in everything that is printed; see `secrets.ts` for how. */
  readonly secrets?: readonly string[]
  /** The mask, if the secrets are not known yet. */
  readonly mask?: Mask
  readonly env?: NodeJS.ProcessEnv
}

/** FORCE_COLOR before NO_COLOR, as in Node; then terminals that are not dumb. */
export const wantsColor = (
  stream: { readonly isTTY?: boolean },
  env: NodeJS.ProcessEnv = process.env,
): boolean => {
  const { FORCE_COLOR: forced, NO_COLOR: none, TERM: term } = env
  if (forced !== undefined) return forced !== '0' && forced !== 'false'
  if (none !== undefined && none !== '') return false
  return stream.isTTY === true && term !== 'dumb'
}

const canRedraw = (stream: NodeJS.WriteStream, env: NodeJS.ProcessEnv): boolean =>
  stream.isTTY && env.TERM !== 'dumb' && ['', 'false', '0'].includes(env.CI ?? '')

/** The reader is gone (`lab up | head`) or the disk is full: the work still continues to its end. */
const outliveReaders = (stream: NodeJS.WriteStream): void => {
  stream.on('error', () => undefined)
}

export const createView = (options: ViewOptions): View => {
  const { stream, eventsStream, color, env = process.env } = options
  const sinks: Sink[] = []
  const samePlace = stream === eventsStream || (stream.isTTY && eventsStream.isTTY)
  if (options.events) sinks.push(jsonLines(eventsStream))
  if (options.keep) sinks.push(options.keep)
  if (!options.events || !samePlace)
    sinks.push(options.interactive && canRedraw(stream, env) ? listr(stream, color) : lines(stream, color))
  for (const used of new Set(options.events ? [stream, eventsStream] : [stream])) outliveReaders(used)

  const mask = options.mask ?? createMask(options.secrets ?? [])
  const give = (record: EventRecord): void => {
    for (const sink of sinks) sink.take(record)
  }
  return {
    event(event) {
      give(recordOf(event, mask))
    },
    part(progress) {
      give(partRecordOf(progress, mask))
    },
    trial(event) {
      give(trialRecordOf(event, mask))
    },
    notice(text) {
      give({ type: 'notice', text: mask(text) })
    },
    async close() {
      await Promise.all(sinks.map((sink) => sink.close()))
    },
  }
}
