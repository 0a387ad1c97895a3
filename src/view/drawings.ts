/** The rows of a run and of a preparation, and what each record changes in them. */
import { type ListrTask } from 'listr2'
import { clip } from './canvas.js'
import type { EventRecord, PartRecord, RunStartedRecord, StepFields, StepFinishedRecord } from './events.js'
import { duration, elapsed, oneLine, partEnd, partLabel, partProgress, type Paint } from './wording.js'
import { Phase, type Renderer, Row } from './rows.js'

/**
 * The checks of a step are awaited together; a check stays visible for this long after its last event, since it would
 * flicker otherwise.
 */
const staysShown = 5_000

export interface Drawing {
  readonly tasks: ListrTask<unknown, Renderer, Renderer>[]
  /** The titles of the tasks, which may become known only while they wait. */
  named?(tasks: readonly { title$: string }[]): void
  /** Whether this part has a row here. */
  shows(part: PartRecord): boolean
  take(record: EventRecord): void
  /** Updates the rows to the present. */
  refresh(): void
  isOver(): boolean
  /** Ends everything that has not ended. */
  abandon(): void
}

export interface Surroundings {
  readonly paint: Paint
  readonly columns: () => number
}

/** Space for the icon and the indentation. */
const margin = 8

export const drawRun = (run: RunStartedRecord, { paint, columns }: Surroundings): Drawing => {
  const rows = new Map<string, Row>()
  const details = new Map<string, { text: string; subject: string; seen: number }>()
  const waited = new Set<string>()
  const groups = new Map<string, StepFields[]>()
  for (const step of run.steps) groups.set(step.phase, [...(groups.get(step.phase) ?? []), step])

  const phases = new Map<string, Phase>()
  const labels = new Map<string, string>()
  for (const [name, steps] of groups) {
    const width = Math.max(...steps.map(({ machine }) => machine?.length ?? 0))
    for (const step of steps) {
      const machine = width === 0 ? '' : `${(step.machine ?? '').padEnd(width)}  `
      const row = new Row()
      labels.set(step.step, `${machine}${oneLine(step.title)}`)
      row.heading = () => clip(labels.get(step.step) ?? '', columns() - margin)
      rows.set(step.step, row)
    }
    phases.set(
      name,
      new Phase(
        name,
        steps.flatMap((step) => rows.get(step.step) ?? []),
      ),
    )
  }

  const started = (step: StepFields): void => {
    const row = rows.get(step.step)
    const label = labels.get(step.step) ?? ''
    const since = performance.now()
    if (!row) return
    row.heading = () => {
      const seconds = (performance.now() - since) / 1000
      const time = seconds < 1 ? '' : `  ${elapsed(seconds)}`
      return `${clip(label, columns() - margin - time.length)}${paint('dim', time)}`
    }
    row.detail = () => clip(details.get(step.step)?.text ?? '', columns() - margin)
    row.begin()
    phases.get(step.phase)?.begin()
  }

  const finished = (record: StepFinishedRecord): void => {
    const label = labels.get(record.step) ?? ''
    const after = (text: string): string => {
      const room = columns() - margin - Array.from(label).length - 2
      return room < 8 ? clip(label, columns() - margin) : `${label}  ${paint('dim', clip(text, room))}`
    }
    const time = duration(record.seconds)
    const reason = oneLine(record.reason ?? '')
    const phase = phases.get(record.phase)
    const row = rows.get(record.step)
    phase?.begin()
    phase?.stepEnded(record.outcome)
    switch (record.outcome) {
      case 'ok': {
        const saw = oneLine(record.checks.map((check) => check.saw).join('; '))
        row?.end({
          as: 'done',
          text: after(waited.has(record.step) ? `${time}: ${saw}` : `already so: ${saw}`),
        })
        break
      }
      case 'changed':
        row?.end({ as: 'done', text: after(time) })
        break
      case 'failed':
        row?.end({
          as: 'failed',
          text: [
            `${label}  ${paint('dim', time)}`,
            ...(reason ? [paint('red', reason)] : []),
            ...(record.hint === null ? [] : [`Hint: ${oneLine(record.hint)}`]),
          ].join('\n'),
        })
        break
      case 'not-reached':
        row?.end({ as: 'skipped', text: after(`not reached: ${reason}`) })
    }
  }

  const does = (step: string, subject: string, text: string, patient = false): void => {
    const now = performance.now()
    const shown = details.get(step)
    // Of several awaited checks, the visible one stays until it has no more events.
    if (patient && shown && shown.subject !== subject && shown.subject.startsWith('waiting '))
      if (now - shown.seen < staysShown) return
    details.set(step, { text: oneLine(text), subject, seen: now })
  }

  return {
    tasks: [...phases.values()].map((phase) => phase.asTask()),
    shows: () => false,
    // The end of the run is an event of its own.
    isOver: () => false,
    take(record) {
      switch (record.type) {
        case 'step-started':
          started(record)
          break
        case 'step-applying':
          does(record.step, 'applying', `applying, because ${record.why}`)
          break
        case 'step-progress':
          does(record.step, 'note', record.note)
          break
        case 'step-waiting':
          waited.add(record.step)
          does(
            record.step,
            `waiting ${record.waitingFor}`,
            `waiting until ${record.waitingFor}; last seen: ${record.saw}`,
            true,
          )
          break
        case 'step-finished':
          finished(record)
          break
        default:
      }
    },
    refresh() {
      for (const phase of phases.values()) phase.refresh()
      for (const row of rows.values()) row.refresh()
    },
    abandon() {
      for (const [id, row] of rows) row.abandon(`${labels.get(id) ?? ''}  stopped`)
      for (const phase of phases.values()) phase.abandon()
    },
  }
}

export const drawParts = (first: PartRecord, { paint, columns }: Surroundings): Drawing => {
  const latest = new Map<number, { record: PartRecord; heard: number }>()
  const waiting: { title$: string }[] = []
  const rows = Array.from({ length: first.total }, (_, place) => {
    const row = new Row()
    const label = (): string => {
      const part = latest.get(place + 1)?.record
      return part
        ? `${partLabel(part)} ${oneLine(part.title)}`
        : `[${String(place + 1)}/${String(first.total)}]`
    }
    row.heading = () => {
      const part = latest.get(place + 1)
      if (!part) return label()
      const progress = `  ${partProgress(part.record, (performance.now() - part.heard) / 1000)}`.trimEnd()
      return `${clip(label(), columns() - margin - progress.length)}${progress}`
    }
    row.detail = () => {
      const part = latest.get(place + 1)?.record
      const lines = [oneLine(part?.note ?? ''), part?.log ? `log: ${oneLine(part.log)}` : '']
      return lines
        .filter(Boolean)
        .map((line) => clip(line, columns() - margin))
        .join('\n')
    }
    return row
  })

  return {
    tasks: rows.map((row) => row.asTask()),
    named(tasks) {
      for (const [place, task] of tasks.entries()) waiting[place] = task
    },
    shows: ({ index }) => index <= rows.length,
    isOver: () => rows.every(({ ending }) => ending),
    take(record) {
      const row = rows[record.type === 'part' ? record.index - 1 : -1]
      if (record.type !== 'part' || !row) return
      const task = waiting[record.index - 1]
      latest.set(record.index, { record, heard: performance.now() })
      const label = `${partLabel(record)} ${oneLine(record.title)}`
      switch (record.state) {
        case 'waiting':
          if (task) task.title$ = row.heading()
          break
        case 'building':
          row.begin()
          break
        case 'built':
        case 'fetched':
        case 'cached':
        case 'spared':
          row.end({ as: 'done', text: `${label}  ${paint('dim', partEnd(record))}` })
          break
        case 'failed':
          row.end({
            as: 'failed',
            text: [
              `${label}  ${paint('dim', partEnd(record))}`,
              ...(record.note === null ? [] : [paint('red', oneLine(record.note))]),
              ...(record.log === null ? [] : [`Log: ${oneLine(record.log)}`]),
            ].join('\n'),
          })
      }
    },
    refresh() {
      for (const row of rows) row.refresh()
    },
    abandon() {
      for (const [place, row] of rows.entries()) {
        const part = latest.get(place + 1)?.record
        row.abandon(part ? `${partLabel(part)} ${oneLine(part.title)}  stopped` : '')
      }
    },
  }
}
