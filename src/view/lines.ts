import type {
  EventRecord,
  PartRecord,
  RunFinishedRecord,
  Sink,
  StepFields,
  StepFinishedRecord,
} from './events.js'
import {
  counted,
  duration,
  oneLine,
  painter,
  partEnd,
  partLabel,
  partProgress,
  runSummary,
  severalLines,
  type Paint,
} from './wording.js'

/** Milliseconds. A step that ends sooner gets only the line with its outcome. */
const worthMentioning = 2_000
const betweenNotes = 5_000
const betweenPartLines = 15_000
const betweenLooks = 1_000

interface Doing {
  readonly word: string
  readonly detail: string
  /** The subject: each of several checks has its own last result. */
  readonly subject: string
}

interface RunningStep {
  readonly fields: StepFields
  readonly begun: number
  /** Whether it has had its first line. */
  mentioned: boolean
  /** When its last line was printed. */
  lastLine: number
  /** The latest activity that has no line yet. */
  doing?: Doing | undefined
  readonly printed: Map<string, string>
  waited: boolean
}

interface RunningPart {
  latest: PartRecord
  heard: number
  lastLine: number
}

const colors: Readonly<Record<string, Parameters<Paint>[0]>> = {
  ok: 'green',
  changed: 'green',
  finished: 'green',
  failed: 'red',
  interrupted: 'red',
  'not-reached': 'yellow',
  waiting: 'cyan',
}

/** Writes lines, each with the seconds since the command began. */
class LineWriter {
  readonly paint: Paint
  /** The widest name of a machine. */
  machineWidth = 0
  readonly #stream: NodeJS.WritableStream
  readonly #began = performance.now()

  constructor(stream: NodeJS.WritableStream, color: boolean) {
    this.#stream = stream
    this.paint = painter(color)
  }

  write(text: string): void {
    const stamp = `+${((performance.now() - this.#began) / 1000).toFixed(1)}s`
    const [first = '', ...more] = text.split('\n')
    this.#stream.write(
      `${[`${this.paint('dim', stamp.padEnd(9))} ${first}`, ...more.map((line) => ' '.repeat(10) + line)].join('\n')}\n`,
    )
  }

  writeStep(word: string, fields: StepFields, detail = ''): void {
    const machine = this.machineWidth === 0 ? '' : `${(fields.machine ?? '').padEnd(this.machineWidth)}  `
    const shown = word.padEnd(12)
    this.write(
      `${colors[word] ? this.paint(colors[word], shown) : shown}${machine}${oneLine(fields.title)}${detail}`,
    )
  }
}

/** The steps that run. */
class StepLines {
  readonly #out: LineWriter
  readonly #steps = new Map<string, RunningStep>()

  constructor(out: LineWriter) {
    this.#out = out
  }

  get size(): number {
    return this.#steps.size
  }

  started(id: string, fields: StepFields): void {
    this.#steps.set(id, {
      fields,
      begun: performance.now(),
      mentioned: false,
      lastLine: -Infinity,
      printed: new Map(),
      waited: false,
    })
  }

  does(id: string, doing: Doing): void {
    const step = this.#steps.get(id)
    if (step && step.printed.get(doing.subject) !== doing.detail) step.doing = doing
  }

  waits(id: string, what: string, saw: string): void {
    const step = this.#steps.get(id)
    if (step) step.waited = true
    this.does(id, { word: 'waiting', detail: `${what}: no: ${saw}`, subject: what })
  }

  finished(record: StepFinishedRecord): void {
    const waited = this.#steps.get(record.step)?.waited === true
    this.#steps.delete(record.step)
    const reason = record.reason === null ? '' : `: ${oneLine(record.reason)}`
    const took = ` (${duration(record.seconds)})`
    switch (record.outcome) {
      case 'ok': {
        const saw = oneLine(record.checks.map((check) => check.saw).join('; '))
        this.#out.writeStep('ok', record, waited ? `: ${saw}${took}` : `: already so: ${saw}`)
        break
      }
      case 'changed':
        this.#out.writeStep('changed', record, took)
        break
      case 'failed': {
        const hint = record.hint === null ? '' : `\n${' '.repeat(12)}Hint: ${oneLine(record.hint)}`
        this.#out.writeStep('failed', record, `${reason}${took}${hint}`)
        break
      }
      case 'not-reached':
        this.#out.writeStep('not-reached', record, reason)
    }
  }

  clear(): void {
    this.#steps.clear()
  }

  /** Writes what is due. */
  look(now: number): void {
    for (const step of this.#steps.values()) this.#lookAt(step, now)
  }

  #lookAt(step: RunningStep, now: number): void {
    const { doing } = step
    if (!step.mentioned) {
      if (now - step.begun < worthMentioning) return
      if (doing) {
        this.#writeDoing(step, doing, now)
        return
      }
      this.#out.writeStep('started', step.fields)
      step.mentioned = true
    } else if (doing && (doing.subject === 'applying' || now - step.lastLine >= betweenNotes))
      this.#writeDoing(step, doing, now)
  }

  #writeDoing(step: RunningStep, doing: Doing, now: number): void {
    this.#out.writeStep(doing.word, step.fields, `: ${doing.detail}`)
    step.printed.set(doing.subject, doing.detail)
    step.doing = undefined
    step.mentioned = true
    step.lastLine = now
  }
}

/** The parts that are being made. */
class PartLines {
  readonly #out: LineWriter
  readonly #parts = new Map<number, RunningPart>()

  constructor(out: LineWriter) {
    this.#out = out
  }

  get size(): number {
    return this.#parts.size
  }

  take(record: PartRecord): void {
    if (record.state === 'waiting') return
    if (record.state === 'building') this.#goesOn(record)
    else this.#ended(record)
  }

  /** Writes what is due. */
  look(now: number): void {
    for (const part of this.#parts.values()) this.#lookAt(part, now)
  }

  #goesOn(record: PartRecord): void {
    const now = performance.now()
    const running = this.#parts.get(record.index)
    if (running) {
      Object.assign(running, { latest: record, heard: now })
      return
    }
    this.#parts.set(record.index, { latest: record, heard: now, lastLine: now })
    const details = [
      `${partLabel(record)} ${oneLine(record.title)}`,
      'started',
      partProgress({ ...record, elapsed: null, fraction: null }),
      record.log === null ? '' : `log: ${oneLine(record.log)}`,
    ]
    this.#out.write(details.filter(Boolean).join('  '))
  }

  #ended(record: PartRecord): void {
    this.#parts.delete(record.index)
    const failed = record.state === 'failed'
    const end = partEnd(record)
    this.#out.write(
      [
        `${partLabel(record)} ${oneLine(record.title)}  ${this.#out.paint(failed ? 'red' : 'green', end)}`,
        ...(failed && record.note !== null ? [`  ${oneLine(record.note)}`] : []),
        ...(failed && record.log !== null ? [`  Log: ${oneLine(record.log)}`] : []),
      ].join('\n'),
    )
  }

  #lookAt(part: RunningPart, now: number): void {
    if (now - part.lastLine < betweenPartLines) return
    part.lastLine = now
    const { latest } = part
    const progress = partProgress(latest, (now - part.heard) / 1000)
    this.#out.write(
      [`${partLabel(latest)} ${oneLine(latest.title)}`, progress, oneLine(latest.note ?? '')]
        .filter(Boolean)
        .join('  '),
    )
  }
}

/** The last line of a run. */
const writeEnd = (out: LineWriter, record: RunFinishedRecord): void => {
  const word = record.interrupted ? 'interrupted' : record.outcomes.failed > 0 ? 'failed' : 'finished'
  out.write(`${out.paint(colors[word] ?? [], word.padEnd(12))}${oneLine(runSummary(record))}`)
}

/**
 * For logs and pipes: a line per meaningful change, each with the seconds since the command began.
 *
 * ```
 * +12.3s    changed     worker1   Join worker1 to the cluster (10.1 s)
 * ```
 */
export const lines = (stream: NodeJS.WritableStream, color: boolean): Sink => {
  const out = new LineWriter(stream, color)
  const steps = new StepLines(out)
  const parts = new PartLines(out)
  let looking: NodeJS.Timeout | undefined

  /** Also called by a timer: people wonder about steps that take long without output. */
  const look = (): void => {
    const now = performance.now()
    steps.look(now)
    parts.look(now)
    if (steps.size + parts.size > 0) looking ??= setInterval(look, betweenLooks).unref()
    else {
      clearInterval(looking)
      looking = undefined
    }
  }

  const take = (record: EventRecord): void => {
    switch (record.type) {
      case 'run-started':
        out.machineWidth = Math.max(0, ...record.steps.map(({ machine }) => machine?.length ?? 0))
        out.write(`${oneLine(record.title)}: ${counted(record.steps.length, 'step')}`)
        break
      case 'step-started':
        steps.started(record.step, record)
        break
      case 'step-applying':
        steps.does(record.step, { word: 'applying', detail: oneLine(record.why), subject: 'applying' })
        break
      case 'step-progress':
        steps.does(record.step, { word: 'applying', detail: oneLine(record.note), subject: 'note' })
        break
      case 'step-waiting':
        steps.waits(record.step, oneLine(record.waitingFor), oneLine(record.saw))
        break
      case 'step-finished':
        steps.finished(record)
        break
      case 'run-finished':
        steps.clear()
        writeEnd(out, record)
        break
      case 'part':
        parts.take(record)
        break
      case 'notice':
        out.write(severalLines(record.text).join('\n'))
        break
      // For programs: people have notices.
      case 'trial':
    }
    look()
  }

  return {
    take,
    close() {
      clearInterval(looking)
      return Promise.resolve()
    },
  }
}
