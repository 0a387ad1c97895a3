/** Reports of runs as documents: JSON for programs, JUnit for CI, Markdown to keep, and a page to read. */
import { cell } from '../plan/report.js'
import { render } from '../render.js'
import { chartOf } from './chart.js'
import type { RunReport } from './schema.js'
import { mapTexts, printable } from './text.js'

import { hostText, labOf, signs, summaryHead, table, wordsOf } from './words.js'

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

const section = (title: string, lines: readonly string[]): string[] =>
  lines.length === 0 ? [] : [`## ${title}`, '', ...lines]

const markdownOf = (report: RunReport): string[] => {
  const words = wordsOf(report)
  return [
    `# ${cell(words.heading)}`,
    '',
    `**${words.verdict}**${words.interrupted ? ', interrupted' : ''}. ${cell(words.description)}`.trimEnd(),
    '',
    ...(words.unsafe === null ? [] : [words.unsafe, '']),
    ...words.not.map(({ outcome, title, saw }) => `- ${signs[outcome]} **${cell(title)}**: ${cell(saw)}`),
    '',
    ...section('Measured', [
      ...table(
        ['', 'Limit', 'Measured', 'In the walkthrough'],
        words.budgets.map(({ title, wanted, measured, walkthrough }) => [
          title,
          wanted,
          measured,
          walkthrough,
        ]),
      ),
      ...(words.walkthroughHow === null ? [] : [`In the walkthrough: ${cell(words.walkthroughHow)}.`, '']),
      ...table(
        ['', 'Measured', 'In the walkthrough', 'How'],
        words.figures.map(({ title, measured, walkthrough, how }) => [title, measured, walkthrough, how]),
      ),
    ]),
    ...section(
      'Timeline',
      table(
        ['', 'Moment', 'After the fault', 'Seen by', 'Evidence'],
        words.moments.map(({ name, title, after, source, detail }) => [name, title, after, source, detail]),
      ),
    ),
    ...section(
      'What happened',
      table(
        ['After', 'What', 'Detail'],
        words.events.map(({ after, type, detail }) => [after, type, detail]),
      ),
    ),
    ...section(
      'Longest gaps',
      table(
        ['Client', 'Gap', 'From', 'To'],
        words.gaps.map(({ client, length, begin, end }) => [client, length, begin, end]),
      ),
    ),
    ...section(
      'Writes',
      table(
        ['', 'Sent', 'Acknowledged', 'Unanswered', 'Unanswered but written'],
        words.tallies.map(({ what, sent, acknowledged, unanswered, there }) => [
          what,
          sent,
          acknowledged,
          unanswered,
          there,
        ]),
      ),
    ),
    ...section(
      'Faults',
      table(
        ['Fault', 'Machines', 'Plan', 'Injected', 'Healed', 'Error'],
        words.faults.map(({ fault, on, detail, injected, healed, error }) => [
          fault,
          on,
          detail,
          injected,
          healed,
          error,
        ]),
      ),
    ),
    ...section('Checks', [
      ...words.groups.flatMap(({ title, checks }) => [
        `### ${title}`,
        '',
        ...table(
          ['', 'Check', 'Evidence'],
          checks.map(({ sign, title: fact, saw }) => [sign, fact, saw]),
        ),
      ]),
      ...(words.torn === null ? [] : [`The ledger's last line was cut short: ${cell(words.torn)}`, '']),
    ]),
    ...section(
      'Run',
      table(
        ['', ''],
        words.facts.map(({ name, value }) => [name, value]),
      ),
    ),
  ]
}

const counted = (reports: readonly RunReport[]): string =>
  (['PASS', 'FAIL', 'UNKNOWN'] as const)
    .map((verdict) => [reports.filter((report) => report.verdict === verdict).length, verdict] as const)
    .filter(([count]) => count > 0)
    .map(([count, verdict]) => `${String(count)} ${verdict}`)
    .join(', ')

const summaryLines = (reports: readonly RunReport[]): string[] => [
  `**${counted(reports)}**`,
  '',
  ...table(
    ['Run', 'Verdict', ...summaryHead],
    reports.map((report) => {
      const { heading, summary } = wordsOf(report)
      return [
        heading,
        summary.verdict,
        summary.writeGap,
        summary.takeover,
        summary.walkthrough.join(', ') || '–',
        summary.findings,
      ]
    }),
  ),
]

export const runMarkdown = (reports: readonly RunReport[]): string =>
  [...(reports.length > 1 ? summaryLines(reports) : []), ...reports.flatMap(markdownOf)]
    .join('\n')
    .replace(/\n{3,}/g, '\n\n')
    .trimEnd()
    .concat('\n')

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
