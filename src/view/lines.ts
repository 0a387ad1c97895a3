import type { EventRecord, PartRecord, Sink, StepFields, StepFinishedRecord } from './events.js'
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

/**
 * For logs and pipes: a line per meaningful change, each with the seconds since the command began.
 *
 * ```
 * +12.3s    changed     worker1   Join worker1 to the cluster (10.1 s)
 * ```
 */
export const lines = (stream: NodeJS.WritableStream, color: boolean): Sink => {
  const paint = painter(color)
  const began = performance.now()
  const steps = new Map<string, RunningStep>()
  const parts = new Map<number, RunningPart>()
  let machineWidth = 0
  let looking: NodeJS.Timeout | undefined

  const write = (text: string): void => {
    const stamp = `+${((performance.now() - began) / 1000).toFixed(1)}s`
    const [first = '', ...more] = text.split('\n')
    stream.write(
      `${[`${paint('dim', stamp.padEnd(9))} ${first}`, ...more.map((line) => ' '.repeat(10) + line)].join('\n')}\n`,
    )
  }

  const writeStep = (word: string, fields: StepFields, detail = ''): void => {
    const machine = machineWidth === 0 ? '' : `${(fields.machine ?? '').padEnd(machineWidth)}  `
    const shown = word.padEnd(12)
    write(`${colors[word] ? paint(colors[word], shown) : shown}${machine}${oneLine(fields.title)}${detail}`)
  }

  const writeDoing = (step: RunningStep, doing: Doing, now: number): void => {
    writeStep(doing.word, step.fields, `: ${doing.detail}`)
    step.printed.set(doing.subject, doing.detail)
    step.doing = undefined
    step.mentioned = true
    step.lastLine = now
  }

  const lookAtStep = (step: RunningStep, now: number): void => {
    const { doing } = step
    if (!step.mentioned) {
      if (now - step.begun < worthMentioning) return
      if (doing) {
        writeDoing(step, doing, now)
        return
      }
      writeStep('started', step.fields)
      step.mentioned = true
    } else if (doing && (doing.subject === 'applying' || now - step.lastLine >= betweenNotes))
      writeDoing(step, doing, now)
  }

  const lookAtPart = (part: RunningPart, now: number): void => {
    if (now - part.lastLine < betweenPartLines) return
    part.lastLine = now
    const { latest } = part
    const progress = partProgress(latest, (now - part.heard) / 1000)
    write(
      [`${partLabel(latest)} ${oneLine(latest.title)}`, progress, oneLine(latest.note ?? '')]
        .filter(Boolean)
        .join('  '),
    )
  }

  /** Also called by a timer: people wonder about steps that take long without output. */
  const look = (): void => {
    const now = performance.now()
    for (const step of steps.values()) lookAtStep(step, now)
    for (const part of parts.values()) lookAtPart(part, now)
    if (steps.size + parts.size > 0) looking ??= setInterval(look, betweenLooks).unref()
    else {
      clearInterval(looking)
      looking = undefined
    }
  }

  const does = (id: string, doing: Doing): void => {
    const step = steps.get(id)
    if (step && step.printed.get(doing.subject) !== doing.detail) step.doing = doing
  }

  const finished = (record: StepFinishedRecord): void => {
    const waited = steps.get(record.step)?.waited === true
    steps.delete(record.step)
    const reason = record.reason === null ? '' : `: ${oneLine(record.reason)}`
    switch (record.outcome) {
      case 'ok': {
        const saw = oneLine(record.checks.map((check) => check.saw).join('; '))
        writeStep('ok', record, waited ? `: ${saw} (${duration(record.seconds)})` : `: already so: ${saw}`)
        break
      }
      case 'changed':
        writeStep('changed', record, ` (${duration(record.seconds)})`)
        break
      case 'failed': {
        const hint = record.hint === null ? '' : `\n${' '.repeat(12)}Hint: ${oneLine(record.hint)}`
        writeStep('failed', record, `${reason} (${duration(record.seconds)})${hint}`)
        break
      }
      case 'not-reached':
        writeStep('not-reached', record, reason)
    }
  }

  const takePart = (record: PartRecord): void => {
    const now = performance.now()
    const running = parts.get(record.index)
    if (record.state === 'waiting') return
    if (record.state === 'building') {
      if (running) Object.assign(running, { latest: record, heard: now })
      else {
        parts.set(record.index, { latest: record, heard: now, lastLine: now })
        const details = [
          `${partLabel(record)} ${oneLine(record.title)}`,
          'started',
          partProgress({ ...record, elapsed: null, fraction: null }),
          record.log === null ? '' : `log: ${oneLine(record.log)}`,
        ]
        write(details.filter(Boolean).join('  '))
      }
      return
    }
    parts.delete(record.index)
    const failed = record.state === 'failed'
    const end = partEnd(record)
    write(
      [
        `${partLabel(record)} ${oneLine(record.title)}  ${paint(failed ? 'red' : 'green', end)}`,
        ...(failed && record.note !== null ? [`  ${oneLine(record.note)}`] : []),
        ...(failed && record.log !== null ? [`  Log: ${oneLine(record.log)}`] : []),
      ].join('\n'),
    )
  }

  const take = (record: EventRecord): void => {
    switch (record.type) {
      case 'run-started':
        machineWidth = Math.max(0, ...record.steps.map(({ machine }) => machine?.length ?? 0))
        write(`${oneLine(record.title)}: ${counted(record.steps.length, 'step')}`)
        break
      case 'step-started':
        steps.set(record.step, {
          fields: record,
          begun: performance.now(),
          mentioned: false,
          lastLine: -Infinity,
          printed: new Map(),
          waited: false,
        })
        break
      case 'step-applying':
        does(record.step, { word: 'applying', detail: oneLine(record.why), subject: 'applying' })
        break
      case 'step-progress':
        does(record.step, { word: 'applying', detail: oneLine(record.note), subject: 'note' })
        break
      case 'step-waiting': {
        const step = steps.get(record.step)
        if (step) step.waited = true
        const what = oneLine(record.waitingFor)
        does(record.step, { word: 'waiting', detail: `${what}: no: ${oneLine(record.saw)}`, subject: what })
        break
      }
      case 'step-finished':
        finished(record)
        break
      case 'run-finished': {
        steps.clear()
        const word = record.interrupted ? 'interrupted' : record.outcomes.failed > 0 ? 'failed' : 'finished'
        write(`${paint(colors[word] ?? [], word.padEnd(12))}${oneLine(runSummary(record))}`)
        break
      }
      case 'part':
        takePart(record)
        break
      case 'notice':
        write(severalLines(record.text).join('\n'))
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
