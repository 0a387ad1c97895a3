/** Converts sizes, durations, clock skews and percentages between lab files and numbers. */
import { shown } from './suggest.js'

const binary = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4 } as const

export const sizePattern = /^([1-9]\d{0,8})(KiB|MiB|GiB|TiB)$/

/** Bytes of `512MiB`; undefined for any other text. */
export const bytesOf = (size: string): number | undefined => {
  const [, count, unit] = sizePattern.exec(size) ?? []
  return count && unit ? Number(count) * binary[unit as keyof typeof binary] : undefined
}

/** 1610612736 to `1536MiB`: the largest unit that leaves a whole number. */
export const sizeText = (bytes: number): string => {
  const unit = (['TiB', 'GiB', 'MiB'] as const).find((candidate) => bytes % binary[candidate] === 0) ?? 'KiB'
  return `${String(Math.ceil(bytes / binary[unit]))}${unit}`
}

/** What is wrong with the text of a size; undefined if nothing is. */
export const sizeProblem = (value: string): string | undefined => {
  if (bytesOf(value) !== undefined) return undefined
  const [, count = '', letter = ''] = /^\s*(\d{1,6}(?:\.\d{1,3})?)\s*([kmgt]?)i?b?\s*$/i.exec(value) ?? []
  const unit = `${(letter || 'm').toUpperCase()}iB` as keyof typeof binary
  // A fraction is normalized to the next smaller unit: 1.5GiB is 1536MiB.
  const bytes = Math.round(Number(count) * binary[unit])
  return bytes > 0
    ? `${shown(value)}: write ${sizeText(bytes)} (units are KiB, MiB, GiB and TiB)`
    : `${shown(value)}: expected a size in KiB, MiB, GiB or TiB, such as 512MiB`
}

const milliseconds = { ms: 1, s: 1000, min: 60_000, h: 3_600_000 } as const

export const durationPattern = /^([1-9]\d{0,6})(ms|s|min|h)$/

/** Milliseconds of `10s`; undefined for any other text. */
export const durationOf = (duration: string): number | undefined => {
  const [, count, unit] = durationPattern.exec(duration) ?? []
  return count && unit ? Number(count) * milliseconds[unit as keyof typeof milliseconds] : undefined
}

/** 90000 to `90s`: the largest unit that leaves a whole number. */
export const durationText = (ms: number): string => {
  const unit = (['h', 'min', 's'] as const).find((candidate) => ms % milliseconds[candidate] === 0) ?? 'ms'
  return `${String(Math.ceil(ms / milliseconds[unit]))}${unit}`
}

/** What is wrong with the text of a duration; undefined if nothing is. */
export const durationProblem = (value: string): string | undefined =>
  durationOf(value) === undefined
    ? `${shown(value)}: expected a whole number of ms, s, min or h, such as 10s`
    : undefined

export const skewPattern = /^([+-])([1-9]\d{0,6}(?:ms|s|min|h))$/

/** Milliseconds of `-5min`, positive for a clock that is ahead; undefined for any other text. */
export const skewOf = (skew: string): number | undefined => {
  const [, sign, size = ''] = skewPattern.exec(skew) ?? []
  const ms = durationOf(size)
  return ms === undefined ? undefined : sign === '-' ? -ms : ms
}

export const percentPattern = /^([1-9]\d?|100)%$/

/** 30 of `30%`; undefined for any other text. */
export const percentOf = (percent: string): number | undefined => {
  const [, number] = percentPattern.exec(percent) ?? []
  return number === undefined ? undefined : Number(number)
}
