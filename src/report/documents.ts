/** Reports of runs as documents: JSON for programs, JUnit for CI, and a page to read. */
import { render } from '../render.js'
import { chartOf } from './chart.js'
import { counted } from './markdown.js'
import type { RunReport } from './schema.js'
import { mapTexts, printable } from './text.js'
import { hostText, labOf, summaryHead, wordsOf } from './words.js'

/** One run as itself, several as a list. */
export const runJson = (reports: readonly RunReport[]): string =>
  `${JSON.stringify(reports.length === 1 ? reports[0] : { schema: 'lab.runs/v1', runs: reports }, null, 2)}\n`

/** A suite per run. UNKNOWN counts as an error, so that no CI takes it for a success. */
export const runJunit = (reports: readonly RunReport[]): string => {
  const suites = mapTexts(reports, printable).map((report) => ({
    name: `${labOf(report)} ${report.scenario.name}`,
    timestamp: report.started.replace(/\.\d+Z$/, ''),
    seconds: report.seconds.toFixed(3),
    tests: report.checks.length,
    failures: report.checks.filter(({ outcome }) => outcome === 'failed').length,
    errors: report.checks.filter(({ outcome }) => outcome === 'unknown').length,
    properties: Object.entries({
      verdict: report.verdict,
      provider: report.provider,
      failover: report.failover,
      fencing: report.fencing,
      interrupted: String(report.interrupted),
      ...report.versions,
      ...Object.fromEntries(
        report.budgets.flatMap(({ name, measured }) =>
          measured === null ? [] : [[`${name} in ms`, measured]],
        ),
      ),
    }).map(([name, value]) => ({ name, value })),
    cases: report.checks.map(({ group, title, outcome, saw }) => ({
      classname: `${report.of ?? report.lab}.${report.scenario.name}.${group}`,
      title,
      saw,
      failed: outcome === 'failed',
      unknown: outcome === 'unknown',
    })),
  }))
  const sum = (count: (suite: (typeof suites)[number]) => number): number =>
    suites.reduce((total, suite) => total + count(suite), 0)
  return render('report/junit.xml', {
    suites,
    tests: sum(({ tests }) => tests),
    failures: sum(({ failures }) => failures),
    errors: sum(({ errors }) => errors),
    seconds: reports.reduce((total, { seconds }) => total + seconds, 0).toFixed(3),
  })
}

/** A single file that needs no other file and no network. */
export const runPage = (reports: readonly RunReport[]): string => {
  const runs = mapTexts(reports, printable).map((report, index) => ({
    ...wordsOf(report),
    anchor: `run-${String(index + 1)}`,
    chart: chartOf(report) ?? null,
    // Below the title of the page if there are several runs.
    level: reports.length > 1 ? { run: 2, part: 3, group: 4 } : { run: 1, part: 2, group: 3 },
  }))
  return render('report/page.html', {
    title: runs.length === 1 ? `${runs[0]?.heading ?? ''}: ${runs[0]?.verdict ?? ''}` : counted(reports),
    runs,
    several: runs.length > 1,
    host: reports[0]?.host ? hostText(reports[0].host) : null,
    summaryHead,
  })
}
