import {
  DefaultRenderer,
  Listr,
  ListrDefaultRendererLogLevels as Level,
  ListrLogger,
  ProcessOutput,
  Spinner,
  type ListrTask,
  type ListrTaskWrapper,
} from 'listr2'
import { Canvas, clip, fit, icons } from './canvas.js'
import type {
  EventRecord,
  PartRecord,
  RunFinishedRecord,
  RunStartedRecord,
  Sink,
  StepFields,
  StepFinishedRecord,
} from './events.js'
import {
  counted,
  duration,
  elapsed,
  oneLine,
  painter,
  partEnd,
  partLabel,
  partProgress,
  runSummary,
  severalLines,
  type Paint,
} from './wording.js'

/** Milliseconds between two frames. */
const frameTime = 120

/** Checks of one step are waited for together; one is shown this long after its last sight, or they would flicker. */
const staysShown = 5_000

type Renderer = typeof DefaultRenderer
type RowTask = ListrTaskWrapper<unknown, Renderer, Renderer>

class Deferred<T> {
  resolve!: (value: T) => void
  readonly promise = new Promise<T>((resolve) => {
    this.resolve = resolve
  })
}

interface Ending {
  readonly as: 'done' | 'failed' | 'skipped'
  readonly text: string
}

/**
 * One row of the drawing. The row's listr task does nothing but wait until the row has ended; what is drawn
 * meanwhile is asked for anew for each frame.
 */
class Row {
  heading: () => string = () => ''
  detail: () => string = () => ''
  ending: Ending | undefined
  onEnd: () => void = () => undefined
  readonly #begun = new Deferred<boolean>()
  readonly #ended = new Deferred<Ending>()
  #announced = false
  #task: RowTask | undefined

  begin(): void {
    this.#begun.resolve(true)
  }

  end(ending: Ending): void {
    if (this.ending) return
    this.ending = ending
    this.begin()
    this.#ended.resolve(ending)
  }

  /** Nothing more will come. A row that never began is not shown any longer. */
  abandon(text: string): void {
    this.#begun.resolve(false)
    this.end({ as: 'skipped', text })
  }

  /** Brings the row up to now. */
  refresh(): void {
    if (!this.#task || this.ending) return
    this.#task.title = this.heading()
    this.#task.output = this.detail()
  }

  asTask(): ListrTask<unknown, Renderer, Renderer> {
    return {
      title: this.heading(),
      // listr asks twice: first of all whether to show the row, and when it is to run, whether to run it.
      // The second answer waits, and until it comes listr draws the row as one that waits.
      enabled: () => {
        if (this.#announced) return this.#begun.promise
        return (this.#announced = true)
      },
      task: async (_, task) => {
        this.#task = task
        const { as, text } = await this.#ended.promise
        this.onEnd()
        if (as === 'failed') throw new Error(text)
        if (as === 'skipped') task.skip(text)
        else task.title = text
      },
    }
  }
}

const listOptions = { concurrent: true, exitOnError: false } as const

/** A phase with its steps: a row that has rows once its first step has begun. */
class Phase {
  readonly #name: string
  readonly #rows: readonly Row[]
  readonly #begun = new Deferred<boolean>()
  readonly #outcomes: StepFinishedRecord['outcome'][] = []
  #announced = false
  #since = 0
  #task: RowTask | undefined

  constructor(name: string, rows: readonly Row[]) {
    this.#name = name
    this.#rows = rows
    for (const row of rows)
      row.onEnd = () => {
        this.#settle()
      }
  }

  begin(): void {
    if (this.#since === 0) this.#since = performance.now()
    this.#begun.resolve(true)
  }

  stepEnded(outcome: StepFinishedRecord['outcome']): void {
    this.#outcomes.push(outcome)
  }

  /** Called after its rows were abandoned. */
  abandon(): void {
    this.#begun.resolve(false)
    if (this.#outcomes.length < this.#rows.length) this.#settle()
  }

  refresh(): void {
    if (this.#task && this.#outcomes.length < this.#rows.length) this.#task.title = this.#heading()
  }

  asTask(): ListrTask<unknown, Renderer, Renderer> {
    return {
      title: this.#heading(),
      // As for a row.
      enabled: () => {
        if (this.#announced) return this.#begun.promise
        return (this.#announced = true)
      },
      task: (_, task) => {
        this.#task = task
        return task.newListr(
          this.#rows.map((row) => row.asTask()),
          listOptions,
        )
      },
    }
  }

  #count(outcome: StepFinishedRecord['outcome']): number {
    return this.#outcomes.filter((other) => other === outcome).length
  }

  #heading(): string {
    const all = this.#rows.length
    const over = this.#outcomes.length
    const name = oneLine(this.#name)
    const time = (performance.now() - this.#since) / 1000
    if (this.#since === 0) return `${name}  ${counted(all, 'step')}`
    if (over < all)
      return `${name}  ${String(over)} of ${counted(all, 'step')}${time < 1 ? '' : `, ${elapsed(time)}`}`
    const [failed, missed] = [this.#count('failed'), this.#count('not-reached')]
    if (missed === all) return `${name}  ${counted(all, 'step')} not reached`
    const bad = [
      ...(failed > 0 ? [`${String(failed)} failed`] : []),
      ...(missed > 0 ? [`${String(missed)} not reached`] : []),
    ]
    const already = this.#count('ok') === all ? ' already so' : ''
    return [`${name}  ${counted(all, 'step')}${already}`, ...bad, duration(time)].join(', ')
  }

  /** Called before the listr task of a row ends, so that the phase has its last title before it is closed. */
  #settle(): void {
    if (!this.#task || this.#rows.some((row) => !row.ending)) return
    if (this.#outcomes.length < this.#rows.length) this.#task.skip(`${this.#heading()}, stopped`)
    else if (this.#count('not-reached') > 0 && this.#count('failed') === 0) this.#task.skip(this.#heading())
    else this.#task.title = this.#heading()
  }
}

interface Drawing {
  readonly tasks: ListrTask<unknown, Renderer, Renderer>[]
  /** The titles of the tasks, which may become known only while they wait. */
  named?(tasks: readonly { title$: string }[]): void
  /** Whether this part has a row here. */
  shows(part: PartRecord): boolean
  take(record: EventRecord): void
  /** Brings the rows up to now. */
  refresh(): void
  isOver(): boolean
  /** Whatever has not ended ends now. */
  abandon(): void
}

interface Surroundings {
  readonly paint: Paint
  readonly columns: () => number
}

/** Room for the icon and the indentation. */
const margin = 8

const drawRun = (run: RunStartedRecord, { paint, columns }: Surroundings): Drawing => {
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
    // Of several checks that are waited for, the one that is shown stays until it is heard of no more.
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

const drawParts = (first: PartRecord, { paint, columns }: Surroundings): Drawing => {
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

/** listr would redirect standard output and error while it draws; here nothing of others is touched. */
class Untouched extends ProcessOutput {
  override hijack(): void {
    // Nothing to take.
  }
  override release(): void {
    // Nothing to give back.
  }
}

/** A spinner whose clock keeps no process alive. */
class Ticker extends Spinner {
  #timer: NodeJS.Timeout | undefined

  override start(draw?: () => void): void {
    this.#timer = setInterval(() => {
      this.spin()
      draw?.()
    }, frameTime).unref()
  }

  override stop(): void {
    clearInterval(this.#timer)
  }

  override isRunning(): boolean {
    return this.#timer !== undefined
  }

  get faces(): readonly string[] {
    return this.spinner
  }
}

/** listr's own renderer, but its frames fit the terminal, come at a steady pace, and are drawn by the canvas. */
const rendererOn = (
  canvas: Canvas,
  ticker: Ticker,
  refresh: () => void,
  defect: (error: unknown) => void,
): Renderer =>
  class extends DefaultRenderer {
    static override nonTTY = true
    #last = -Infinity

    /** listr asks for a frame at each of its events, of which there are hundreds at the start. */
    override update(): void {
      const now = performance.now()
      if (now - this.#last < frameTime / 2) return
      this.#last = now
      try {
        refresh()
        canvas.draw(fit(this.create().split('\n'), canvas.height, ticker.faces))
      } catch (error) {
        // A drawing that breaks must not break the run; `close` tells.
        this.#last = Infinity
        defect(error)
      }
    }

    override end(): void {
      ticker.stop()
      canvas.finish(this.create({ prompt: false }).split('\n').filter(Boolean))
    }
  }

const listOf = (
  drawing: Drawing,
  canvas: Canvas,
  paint: Paint,
  defect: (error: unknown) => void,
): Listr<unknown, Renderer, Renderer> => {
  const ticker = new Ticker()
  const plain = (text = ''): string => text
  const styled =
    (style: Parameters<Paint>[0]) =>
    (text = '') =>
      paint(style, text)
  return new Listr<unknown, Renderer, Renderer>(drawing.tasks, {
    ...listOptions,
    // The caller decides what Ctrl-C does.
    registerSignalListeners: false,
    renderer: rendererOn(
      canvas,
      ticker,
      () => {
        drawing.refresh()
      },
      defect,
    ),
    rendererOptions: {
      spinner: ticker,
      logger: new ListrLogger({ useIcons: true, processOutput: new Untouched() }),
      icon: {
        [Level.WAITING]: icons.waiting,
        [Level.COMPLETED]: icons.done,
        [Level.FAILED]: icons.failed,
        [Level.SKIPPED_WITH_COLLAPSE]: icons.skipped,
        [Level.OUTPUT]: icons.output,
        [Level.PENDING]: () => ticker.fetch(),
        [Level.COMPLETED_WITH_FAILED_SUBTASKS]: icons.failed,
      },
      color: {
        // Every level that occurs: listr's own colours look at standard output, which may be another stream.
        [Level.WAITING]: styled('dim'),
        [Level.COMPLETED]: styled('green'),
        [Level.FAILED]: styled('red'),
        [Level.SKIPPED_WITH_COLLAPSE]: styled('yellow'),
        [Level.OUTPUT]: plain,
        [Level.PENDING]: styled('cyan'),
        [Level.COMPLETED_WITH_FAILED_SUBTASKS]: styled('red'),
      },
    },
  })
}

/** For terminals: phases and their steps, or the parts of a preparation, redrawn in place while they go on. */
export const listr = (stream: NodeJS.WriteStream, color: boolean): Sink => {
  const paint = painter(color)
  const canvas = new Canvas(stream)
  const surroundings: Surroundings = { paint, columns: () => canvas.columns }
  let drawing: Drawing | undefined
  let running = Promise.resolve()
  /** A drawing ends a moment after its last event; what comes after it waits for that, in order. */
  let tail = Promise.resolve()
  let ending = 0
  const defects: unknown[] = []
  const defect = (error: unknown): void => {
    defects.push(error)
  }

  const say = (text: string): void => {
    if (ending === 0) canvas.above(text)
    else
      tail = tail.then(() => {
        canvas.above(text)
      })
  }

  const end = (): void => {
    if (!drawing) return
    drawing.abandon()
    drawing = undefined
    ending += 1
    tail = running.then(() => {
      ending -= 1
    })
  }

  const begin = (next: Drawing): Drawing => {
    end()
    drawing = next
    const list = listOf(next, canvas, paint, defect)
    next.named?.(list.tasks)
    running = tail.then(() => list.run()).then(() => undefined, defect)
    return next
  }

  const takePart = (record: PartRecord): void => {
    if (drawing && !drawing.shows(record)) {
      // Something is prepared in the middle of a run: its rows keep their place, the part has a line above.
      if (record.state === 'building' || record.state === 'waiting') return
      const icon = record.state === 'failed' ? paint('red', icons.failed) : paint('green', icons.done)
      say(`${icon} ${partLabel(record)} ${oneLine(record.title)}  ${partEnd(record)}`)
      return
    }
    const parts = drawing ?? begin(drawParts(record, surroundings))
    parts.take(record)
    if (parts.isOver()) end()
  }

  return {
    take(record) {
      switch (record.type) {
        case 'run-started':
          end()
          say(paint('bold', oneLine(record.title)))
          begin(drawRun(record, surroundings))
          break
        case 'run-finished':
          end()
          say(
            `${isGood(record) ? paint('green', icons.done) : paint('red', icons.failed)} ${oneLine(runSummary(record))}`,
          )
          break
        case 'part':
          takePart(record)
          break
        case 'notice':
          say(severalLines(record.text).join('\n'))
          break
        default:
          drawing?.take(record)
      }
    },
    async close() {
      end()
      await tail
      if (defects.length > 0) throw defects[0]
    },
  }
}

const isGood = ({ interrupted, outcomes }: RunFinishedRecord): boolean =>
  !interrupted && outcomes.failed + outcomes['not-reached'] === 0
