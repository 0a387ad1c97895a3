/** Computes the drawing of a run: who was answered when, with the moments of the takeover above it. Numbers only. */
import { spanText } from './checks.js'
import type { RunReport } from './schema.js'

/** Width in the drawing's own units; the page scales it. */
const width = 960
const left = 150
const right = 20
const markerHeight = 18
const laneHeight = 26
const axisHeight = 24

interface Rectangle {
  readonly x: string
  readonly width: string
}

export interface Chart {
  readonly width: number
  readonly height: number
  readonly left: number
  readonly plotWidth: number
  /** Top and bottom of the lanes. */
  readonly top: number
  readonly bottom: number
  readonly markers: readonly {
    readonly x: string
    readonly y: number
    readonly textX: string
    readonly textY: number
    readonly anchor: 'start' | 'end'
    readonly label: string
  }[]
  readonly lanes: readonly {
    readonly label: string
    readonly y: number
    readonly textY: number
    readonly kind: 'write' | 'read'
    readonly spans: readonly Rectangle[]
    readonly gap: (Rectangle & { readonly textX: string; readonly label: string }) | null
  }[]
  readonly ticks: readonly { readonly x: string; readonly label: string }[]
  readonly tickY: number
}

/** The smallest round step that makes at most `most` intervals: 1, 2 or 5 times a power of ten. */
const roundStep = (span: number, most: number): number => {
  const least = Math.max(span / most, 1)
  const power = 10 ** Math.floor(Math.log10(least))
  return ([1, 2, 5, 10].find((factor) => factor * power >= least) ?? 10) * power
}

/** Undefined if there is nothing to draw: no ledger, or no time passed. */
export const chartOf = (report: RunReport): Chart | undefined => {
  const { data } = report
  if (!data) return undefined
  const seen = report.moments.flatMap(({ name, title, ms }) => (ms === null ? [] : [{ name, title, ms }]))
  const starts = [
    ...data.answers.flatMap(({ spans }) => spans.map(([from]) => from)),
    ...data.gaps.map(({ from }) => from),
  ]
  const begin = Math.min(0, ...starts)
  const end = Math.max(data.ended, ...seen.map(({ ms }) => ms))
  if (end <= begin) return undefined

  const plotWidth = width - left - right
  const x = (ms: number): number => left + ((ms - begin) / (end - begin)) * plotWidth
  const rectangle = (from: number, to: number): Rectangle => ({
    x: x(from).toFixed(1),
    // A single answer has no length, and should still be visible.
    width: Math.max(x(to) - x(from), 1.5).toFixed(1),
  })
  const top = seen.length * markerHeight + 10
  const bottom = top + data.answers.length * laneHeight
  const step = roundStep(end - begin, 10)
  const firstTick = Math.ceil(begin / step)
  const ticks = Array.from({ length: Math.floor(end / step) - firstTick + 1 }, (_, index) => {
    const ms = (firstTick + index) * step
    return { x: x(ms).toFixed(1), label: `${String(ms / 1000)} s` }
  })
  return {
    width,
    height: bottom + axisHeight,
    left,
    plotWidth,
    top,
    bottom,
    markers: seen.map(({ name, title, ms }, index) => {
      const toTheLeft = x(ms) > left + plotWidth * 0.6
      return {
        x: x(ms).toFixed(1),
        y: index * markerHeight + 4,
        textX: (x(ms) + (toTheLeft ? -6 : 6)).toFixed(1),
        textY: index * markerHeight + 14,
        anchor: toTheLeft ? 'end' : 'start',
        label: `${name} ${title}${name === 't0' ? '' : ` +${spanText(ms)}`}`,
      }
    }),
    lanes: data.answers.map(({ client, operation, spans }, index) => {
      const gap = data.gaps.find((one) => one.client === client && one.operation === operation)
      const y = top + index * laneHeight + 4
      return {
        label: client,
        y,
        textY: y + 13,
        kind: operation,
        spans: spans.map(([from, to]) => rectangle(from, to)),
        // A gap that is narrower than the mark of an answer would look like a flaw of the drawing.
        gap:
          gap && gap.length > 1000
            ? {
                ...rectangle(gap.from, gap.from + gap.length),
                // The label of a narrow gap at an edge has to be moved inwards.
                textX: Math.min(Math.max(x(gap.from + gap.length / 2), left + 50), width - 50).toFixed(1),
                label: `${spanText(gap.length)}${gap.open ? ', and it did not end' : ''}`,
              }
            : null,
      }
    }),
    ticks,
    tickY: bottom + 16,
  }
}
