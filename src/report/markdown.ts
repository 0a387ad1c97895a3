/** Reports of runs in Markdown: to keep, and to read in a terminal. Loads no template engine, so that it is quick. */
import { cell } from '../plan/report.js'
import type { RunReport } from './schema.js'
import { signs, summaryHead, table, wordsOf } from './words.js'

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

/** `3 PASS, 1 FAIL`. */
export const counted = (reports: readonly RunReport[]): string =>
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
