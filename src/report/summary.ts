/** A report of a run in a few lines: for people at a terminal, and as the last event of a trial. */
import { allMedia } from '../trial/ledger.js'
import type { TrialEvent } from '../trial/trial-event.js'
import { spanText } from './checks.js'
import type { RunReport } from './schema.js'
import { looksText, recoveryText } from './words.js'

const seconds = (milliseconds: number | null): string =>
  milliseconds === null ? 'not seen' : spanText(milliseconds)

/** Shortens evidence, which the report has in full. */
const shortly = (saw: string): string => (saw.length > 200 ? `${saw.slice(0, 200)}…` : saw)

/** The summary for people at a terminal; the rest is in the report. */
export const shortReport = (report: RunReport): string =>
  [
    `${report.verdict}  ${report.scenario.name}  (${report.seconds.toFixed(1)} s, failover ${report.failover}, fencing ${report.fencing})`,
    ...report.checks
      .filter(({ group, outcome }) => group === 'claims' && outcome === 'passed')
      .map(({ title, saw }) => `  ✔ ${title}: ${saw}`),
    ...report.figures.map(
      ({ title, ms, seed }) =>
        `  ${seconds(ms).padStart(9)}  ${title}${seed ? `; in the walkthrough ${seconds(seed.ms)} (${seed.how})` : ''}`,
    ),
    ...report.moments
      .filter(({ ms }) => ms !== null)
      .map(
        ({ name, title, ms, detail }) => `  ${name}  ${seconds(ms).padStart(8)}  ${title}: ${detail ?? ''}`,
      ),
    ...report.budgets
      .filter(({ measured, wanted }) => measured !== null || wanted !== null)
      .map(
        ({ name, measured, wanted }) =>
          `  ${name}: ${seconds(measured)}${wanted === null ? '' : `, limit ${seconds(wanted)}`}`,
      ),
    ...(recoveryText(report) === undefined ? [] : [`  recovered: ${recoveryText(report) ?? ''}`]),
    ...looksText(report).map((text) => `  steady state ${shortly(text)}`),
    ...report.checks
      .filter(({ outcome }) => outcome !== 'passed')
      .map(({ outcome, title, saw }) => `  ${outcome === 'failed' ? '✖' : '?'} ${title}: ${shortly(saw)}`),
    ...(report.data
      ? allMedia.flatMap((medium) => {
          if (medium === 'config' && !report.data?.tally.config) return []
          const { acknowledged, sent } = report.data?.tally[medium] ?? { acknowledged: 0, sent: 0 }
          // The ledger of an experiment contains only rows.
          if (sent === 0 && report.figures.length > 0) return []
          return `  ${{ row: 'rows', file: 'lines of the file', config: 'ConfigMaps' }[medium]}: ${String(acknowledged)} of ${String(sent)} acknowledged`
        })
      : []),
    ...(report.data?.readBack?.fromDisk
      ? [`  read back from the disk, in ${report.data.readBack.seconds.toFixed(1)} s`]
      : []),
    ...(report.data ? [`  findings: ${String(report.data.findings.length)}`] : []),
    ...(report.checks.some(({ group, outcome }) => group === 'before' && outcome !== 'passed')
      ? [`  The lab was unhealthy before the run, and was left as it was: lab heal ${report.lab}`]
      : []),
    '',
  ].join('\n')

/** The event that ends a trial: its verdict, and every check that did not pass. */
export const judged = ({ scenario, seconds, verdict, checks }: RunReport): TrialEvent => ({
  trial: scenario.name,
  what: 'judged',
  ms: Math.round(seconds * 1000),
  fault: null,
  machines: [],
  ok: verdict === 'UNKNOWN' ? null : verdict === 'PASS',
  detail: [
    verdict,
    ...checks
      .filter(({ outcome }) => outcome !== 'passed')
      .map(({ title, saw }) => `${title}: ${shortly(saw)}`),
  ].join('; '),
})
