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

/** A step's row: its label, and what it does now. */
interface StepRow {
  readonly row: Row
  readonly label: string
  detail: { readonly text: string; readonly subject: string; readonly seen: number } | undefined
  waited: boolean
}

/** The rows of a run's steps, by the step's id, in groups. */
const rowsOf = (
  { steps }: RunStartedRecord,
  room: () => number,
): { readonly rows: Map<string, StepRow>; readonly phases: Map<string, Phase> } => {
  const groups = new Map<string, StepFields[]>()
  for (const step of steps) groups.set(step.phase, [...(groups.get(step.phase) ?? []), step])
  const rows = new Map<string, StepRow>()
  const phases = new Map<string, Phase>()
  for (const [name, members] of groups) {
    const width = Math.max(...members.map(({ machine }) => machine?.length ?? 0))
    const own = members.map((step) => {
      const machine = width === 0 ? '' : `${(step.machine ?? '').padEnd(width)}  `
      const label = `${machine}${oneLine(step.title)}`
      const row = new Row()
      row.heading = () => clip(label, room())
      rows.set(step.step, { row, label, detail: undefined, waited: false })
      return row
    })
    phases.set(name, new Phase(name, own))
  }
  return { rows, phases }
}

/** What a step does, unless another of its awaited checks is visible. */
const showDoing = (step: StepRow | undefined, subject: string, text: string, patient = false): void => {
  if (!step) return
  const now = performance.now()
  const { detail } = step
  // Of several awaited checks, the visible one stays until it has no more events.
  if (patient && detail && detail.subject !== subject && detail.subject.startsWith('waiting '))
    if (now - detail.seen < staysShown) return
  step.detail = { text: oneLine(text), subject, seen: now }
}

/** From now on, the row shows how long the step has taken. */
const showStarted = (step: StepRow, { paint }: Surroundings, room: () => number): void => {
  const since = performance.now()
  step.row.heading = () => {
    const seconds = (performance.now() - since) / 1000
    const time = seconds < 1 ? '' : `  ${elapsed(seconds)}`
    return `${clip(step.label, room() - time.length)}${paint('dim', time)}`
  }
  step.row.detail = () => clip(step.detail?.text ?? '', room())
  step.row.begin()
}

const showFinished = (
  { row, label, waited }: StepRow,
  record: StepFinishedRecord,
  { paint }: Surroundings,
  room: () => number,
): void => {
  const after = (text: string): string => {
    const left = room() - Array.from(label).length - 2
    return left < 8 ? clip(label, room()) : `${label}  ${paint('dim', clip(text, left))}`
  }
  const time = duration(record.seconds)
  const reason = oneLine(record.reason ?? '')
  switch (record.outcome) {
    case 'ok': {
      const saw = oneLine(record.checks.map((check) => check.saw).join('; '))
      row.end({ as: 'done', text: after(waited ? `${time}: ${saw}` : `already so: ${saw}`) })
      break
    }
    case 'changed':
      row.end({ as: 'done', text: after(time) })
      break
    case 'failed':
      row.end({
        as: 'failed',
        text: [
          `${label}  ${paint('dim', time)}`,
          ...(reason ? [paint('red', reason)] : []),
          ...(record.hint === null ? [] : [`Hint: ${oneLine(record.hint)}`]),
        ].join('\n'),
      })
      break
    case 'not-reached':
      row.end({ as: 'skipped', text: after(`not reached: ${reason}`) })
  }
}

export const drawRun = (run: RunStartedRecord, around: Surroundings): Drawing => {
  const room = (): number => around.columns() - margin
  const { rows, phases } = rowsOf(run, room)

  const finished = (record: StepFinishedRecord): void => {
    const phase = phases.get(record.phase)
    phase?.begin()
    phase?.stepEnded(record.outcome)
    const step = rows.get(record.step)
    if (step) showFinished(step, record, around, room)
  }

  const waits = (step: StepRow | undefined, waitingFor: string, saw: string): void => {
    if (step) step.waited = true
    showDoing(step, `waiting ${waitingFor}`, `waiting until ${waitingFor}; last seen: ${saw}`, true)
  }

  return {
    tasks: [...phases.values()].map((phase) => phase.asTask()),
    shows: () => false,
    // The end of the run is an event of its own.
    isOver: () => false,
    take(record) {
      const step = 'step' in record ? rows.get(record.step) : undefined
      switch (record.type) {
        case 'step-started':
          if (step) showStarted(step, around, room)
          phases.get(record.phase)?.begin()
          break
        case 'step-applying':
          showDoing(step, 'applying', `applying, because ${record.why}`)
          break
        case 'step-progress':
          showDoing(step, 'note', record.note)
          break
        case 'step-waiting':
          waits(step, record.waitingFor, record.saw)
          break
        case 'step-finished':
          finished(record)
          break
        default:
      }
    },
    refresh() {
      for (const phase of phases.values()) phase.refresh()
      for (const { row } of rows.values()) row.refresh()
    },
    abandon() {
      for (const { row, label } of rows.values()) row.abandon(`${label}  stopped`)
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
