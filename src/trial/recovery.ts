/** Whether writes were answered again after the faults, and whether that took a heal. */
import {
  acknowledgedIn,
  allMedia,
  calm,
  type LedgerRecord,
  markIn,
  media,
  usualPause,
  writesTo,
} from './ledger.js'

/** Whether and since when writes were answered again. */
export interface Recovery {
  readonly outcome: 'passed' | 'failed' | 'unknown'
  /** Milliseconds from the fault until every medium accepted writes for good; undefined if that never happened. */
  readonly ms?: number | undefined
  readonly saw: string
}

/**
 * Whether the lab recovered: writes to every medium are answered at the end, and have been for a while. Only writes
 * sent after the faults were observed count; and if the lab is to recover by itself, only those answered before `lab`
 * began to heal it.
 * @param by `itself`, or `heal` if the scenario keeps its faults until a deadline
 */
export const recoveryOf = (records: readonly LedgerRecord[], by: 'itself' | 'heal'): Recovery => {
  const fault = markIn(records, 'fault')
  const acting = markIn(records, 'acting')
  const end = markIn(records, by === 'itself' ? 'healing' : 'end')
  const used = allMedia.filter((medium) => writesTo(records, medium).length > 0)
  if (!fault || used.length === 0)
    return { outcome: 'unknown', saw: 'nothing was written when the fault came' }
  if (!acting) return { outcome: 'unknown', saw: 'the faults were not seen to act' }
  if (!end) return { outcome: 'unknown', saw: 'the run ended before that could be seen' }
  const found = used.map((medium) => {
    const answers = acknowledgedIn(writesTo(records, medium))
      .filter(({ sent, answered }) => sent >= acting.ms && answered <= end.ms)
      .map(({ answered }) => answered)
      .sort((a, b) => a - b)
    const last = answers.at(-1)
    // The first of those that followed each other without a pause until the end.
    const since = answers.findLast((ms, place) => ms - (answers[place - 1] ?? -Infinity) > usualPause)
    const seconds = (ms: number): string => `${((ms - fault.ms) / 1000).toFixed(1)} s`
    if (last === undefined || since === undefined)
      return { medium, ok: false, ms: undefined, saw: `${media[medium]} acknowledged nothing` }
    const steady = last - since >= calm && end.ms - last <= 2 * usualPause
    return {
      medium,
      ok: steady,
      ms: since - fault.ms,
      saw: steady
        ? `${media[medium]}: from ${seconds(since)} on`
        : `${media[medium]}: the last answer at ${seconds(last)}, ${((end.ms - last) / 1000).toFixed(1)} s before the end`,
    }
  })
  const ok = found.every((one) => one.ok)
  return {
    outcome: ok ? 'passed' : 'failed',
    ms: ok ? Math.max(...found.map(({ ms }) => ms ?? 0)) : undefined,
    saw: found.map(({ saw }) => saw).join('; '),
  }
}
