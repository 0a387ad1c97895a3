/** Progress on a terminal, redrawn in place. */
import {
  DefaultRenderer,
  Listr,
  ListrDefaultRendererLogLevels as Level,
  ListrLogger,
  ProcessOutput,
  Spinner,
} from 'listr2'
import { Canvas, fit, icons } from './canvas.js'
import type { PartRecord, RunFinishedRecord, Sink } from './events.js'
import { oneLine, painter, partEnd, partLabel, runSummary, severalLines, type Paint } from './wording.js'
import { type Drawing, drawParts, drawRun, type Surroundings } from './drawings.js'
import { listOptions, type Renderer } from './rows.js'

/** Milliseconds between two frames. */
const frameTime = 120

/** listr would redirect standard output and error while it draws; this leaves them alone. */
class Untouched extends ProcessOutput {
  override hijack(): void {
    // Nothing to redirect.
  }
  override release(): void {
    // Nothing to restore.
  }
}

/** A spinner whose timer does not keep the process alive. */
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

/** listr's own renderer, with frames that fit the terminal, come at a steady rate, and are drawn by the canvas. */
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
        // A failure of the drawing must not fail the run; `close` reports it.
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
        // Every level that occurs: listr's own colours depend on standard output, which may be another stream.
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

/** For terminals: phases and their steps, or the parts of a preparation, redrawn in place. */
export const listr = (stream: NodeJS.WriteStream, color: boolean): Sink => {
  const paint = painter(color)
  const canvas = new Canvas(stream)
  const surroundings: Surroundings = { paint, columns: () => canvas.columns }
  let drawing: Drawing | undefined
  let running = Promise.resolve()
  /** A drawing ends a moment after its last event; later output waits for it, in order. */
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
      // A preparation in the middle of a run: the rows keep their place, and the part gets a line above.
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
