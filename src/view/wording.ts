/** The wording that all views share: durations, outcomes, parts, and text that fits on one line. */
import { stripVTControlCharacters, styleText } from 'node:util'
import type { Outcome } from '../plan/step.js'
import type { PartRecord, RunFinishedRecord } from './events.js'

export type Paint = (style: Parameters<typeof styleText>[0], text: string) => string

/** Whether to colour is decided once, by `wantsColor`; without `validateStream` newer Nodes would decide again. */
export const painter = (color: boolean): Paint =>
  color ? (style, text) => styleText(style, text, { validateStream: false }) : (_style, text) => text

/** Removes escape sequences and carriage returns: text of machines must not control the terminal. */
export const oneLine = (text: string): string =>
  stripVTControlCharacters(text)
    .replace(/[\s\p{Cc}]+/gu, ' ')
    .trim()

/** Like `oneLine`, but keeps line breaks and indentation. */
export const severalLines = (text: string): string[] =>
  stripVTControlCharacters(text)
    .trimEnd()
    .split(/\r?\n/)
    .map((line) =>
      line
        .replace(/\t/g, '  ')
        .replace(/\p{Cc}+/gu, ' ')
        .trimEnd(),
    )

const minutesAndMore = (whole: number): string =>
  whole < 3600
    ? `${String(Math.floor(whole / 60))} min ${String(whole % 60)} s`
    : `${String(Math.floor(whole / 3600))} h ${String(Math.floor((whole % 3600) / 60))} min`

/** For something finished: `6.1 s`, `2 min 20 s`, `1 h 5 min`. */
export const duration = (seconds: number): string =>
  Number(seconds.toFixed(1)) < 60 ? `${seconds.toFixed(1)} s` : minutesAndMore(Math.round(seconds))

/** For something in progress: whole seconds, since the last digit would flicker. */
export const elapsed = (seconds: number): string => {
  const whole = Math.floor(seconds)
  return whole < 60 ? `${String(whole)} s` : minutesAndMore(whole)
}

/** An estimate, rounded to its precision. */
export const remaining = (seconds: number): string => {
  if (seconds < 10) return 'a few seconds left'
  if (seconds < 90) return `about ${String(Math.round(seconds / 10) * 10)} s left`
  const minutes = Math.round(seconds / 60)
  return minutes < 60
    ? `about ${String(minutes)} min left`
    : `about ${String(Math.floor(minutes / 60))} h ${String(minutes % 60)} min left`
}

export const counted = (count: number, noun: string): string =>
  `${String(count)} ${noun}${count === 1 ? '' : 's'}`

const outcomeWords: Readonly<Record<Outcome, string>> = {
  ok: 'already so',
  changed: 'changed',
  failed: 'failed',
  'not-reached': 'not reached',
}

/** `3 already so, 1 failed`; outcomes that did not occur are left out. */
export const outcomes = (counts: Readonly<Record<Outcome, number>>): string =>
  (['ok', 'changed', 'failed', 'not-reached'] as const)
    .filter((outcome) => counts[outcome] > 0)
    .map((outcome) => `${String(counts[outcome])} ${outcomeWords[outcome]}`)
    .join(', ')

/** `Bring up iscsi-ha: 3 already so, 9 changed, 1 min 20 s` */
export const runSummary = (record: RunFinishedRecord): string =>
  [
    `${record.title}: ${outcomes(record.outcomes) || 'nothing to do'}`,
    ...(record.interrupted ? ['interrupted'] : []),
    duration(record.seconds),
  ].join(', ')

export const partLabel = (part: Pick<PartRecord, 'index' | 'total' | 'part'>): string =>
  `[${String(part.index)}/${String(part.total)}] ${part.part}:`

/** `41 %  2 min 20 s, about 3 min left`, `since` seconds after the part said so. */
export const partProgress = (part: PartRecord, since = 0): string => {
  const times = [
    ...(part.elapsed === null ? [] : [elapsed(part.elapsed + since)]),
    ...(part.remaining === null ? [] : [remaining(Math.max(0, part.remaining - since))]),
  ]
  return [
    ...(part.fraction === null ? [] : [`${String(Math.floor(part.fraction * 100))} %`]),
    times.join(', '),
  ]
    .filter(Boolean)
    .join('  ')
}

/** How a part ended: `built in 2 min 20 s`. */
export const partEnd = (part: PartRecord): string => {
  const time = part.elapsed === null ? '' : duration(part.elapsed)
  if (part.state === 'cached') return 'already there'
  if (part.state === 'spared') return 'not needed'
  if (part.state === 'built' || part.state === 'fetched')
    return time ? `${part.state} in ${time}` : part.state
  return ['failed', ...(time ? [`after ${time}`] : [])].join(' ')
}
