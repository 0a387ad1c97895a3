/** Reports of runs as documents: JSON for programs, JUnit for CI, Markdown to keep, and a page to read. */
import { durationText } from '../lab/units.js'
import { cell } from '../plan/report.js'
import { render } from '../render.js'
import { chartOf } from './chart.js'
import { budgetTitles, spanText } from './checks.js'
import type { RunCheck, RunReport } from './schema.js'
import { mapTexts, printable } from './text.js'

const groups = {
  before: 'Steady state before',
  faults: 'Faults',
  claims: 'Claims',
  data: 'Data',
  budgets: 'Budgets',
  after: 'Steady state after',
} as const satisfies Readonly<Record<RunCheck['group'], string>>

const signs = { passed: '✔', failed: '✖', unknown: '?' } as const

const tallied = { row: 'rows of the database', file: 'lines of the plain file' } as const

/** `fast, fencing: power` */
const settings = ({ failover, fencing }: RunReport): string => `failover: ${failover}, fencing: ${fencing}`

/** How an unsafe setting relates to the findings; undefined if it does not. */
export const unsafeSetting = ({ fencing, data }: RunReport): string | undefined =>
  fencing === 'none' && data?.findings.some(({ kind }) => kind === 'DOUBLE WRITER')
    ? 'This is what fencing: none does: nothing stopped the old server from writing when the new one began.'
    : undefined

const clockText = ({ skews }: RunReport): string =>
  Object.entries(skews)
    .map(
      ([source, { ms, uncertainty }]) =>
        `${source} ${ms < 0 ? '' : '+'}${ms.toFixed(1)} ms ± ${uncertainty.toFixed(1)} ms`,
    )
    .join(', ')

/** How the lab recovered from the faults. */
export const recoveryText = ({ recovery }: RunReport): string | undefined => {
  if (!recovery) return undefined
  if (recovery.by === 'itself') return `by itself, ${spanText(recovery.ms)} after the fault`
  return recovery.by === 'heal' ? 'after lab had healed it' : 'no'
}

/** Checks of the steady state that were not the final ones. */
export const looksText = ({ looks }: RunReport): readonly string[] =>
  looks
    .filter(({ when, no }, place) => no.length > 0 && looks[place + 1]?.when === when)
    .map(
      ({ when, ms, no }) =>
        `${when}, at ${spanText(ms)}: no: ${no.map(({ title, saw }) => `${title}: ${saw}`).join('; ')}`,
    )

/**
 * `2 processors; an empty Node.js program takes 61 ms`: the speed of the host on which the seconds of a report were
 * measured.
 */
const hostText = ({ processors, nodeStart }: NonNullable<RunReport['host']>): string =>
  `${String(processors)} ${processors === 1 ? 'processor' : 'processors'}; an empty Node.js program takes ${String(nodeStart)} ms`

/** `LOST: 3`, `2 checks failed`; a dash if there are no findings. */
const findingsText = ({ data, checks }: RunReport): string => {
  const findings = (data?.findings ?? []).map(({ kind, seqs }) => `${kind}: ${String(seqs.length)}`)
  const others = (['failed', 'unknown'] as const).flatMap((outcome) => {
    const count = checks.filter((check) => check.outcome === outcome).length
    return count === 0 ? [] : [`${String(count)} ${count === 1 ? 'check' : 'checks'} ${outcome}`]
  })
  return [...findings, ...others].join(', ') || '–'
}

/** A row of the table at the beginning of a report about several runs. */
const summaryOf = (report: RunReport) => {
  const { data, budgets, seed, figures } = report
  const writes = (data?.gaps ?? []).filter(({ operation }) => operation === 'write')
  const longest = writes.reduce<(typeof writes)[number] | undefined>(
    (most, gap) => (most && most.length >= gap.length ? most : gap),
    undefined,
  )
  return {
    verdict: report.verdict,
    writeGap: longest ? `${spanText(longest.length)}${longest.open ? ', not ended' : ''}` : '–',
    takeover: spanText(budgets.find(({ name }) => name === 'takeover')?.measured ?? null),
    walkthrough: seed
      ? [spanText(seed.ms)]
      : figures.flatMap(({ ms, seed: text }) =>
          text ? [`${spanText(text.ms)} (here ${spanText(ms)})`] : [],
        ),
    findings: findingsText(report),
  }
}

const summaryHead = ['Longest write gap', 'Takeover', 'In the walkthrough', 'Findings'] as const

/** One run as itself, several as a list. */
export const runJson = (reports: readonly RunReport[]): string =>
  `${JSON.stringify(reports.length === 1 ? reports[0] : { schema: 'lab.runs/v1', runs: reports }, null, 2)}\n`

/** `replicaset on statefulset`: the lab of the experiment, and the one whose machines it used. */
const labOf = ({ lab, of }: RunReport): string => (of === null ? lab : `${of} on ${lab}`)

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

/** The texts that Markdown and the page share. */
const wordsOf = (report: RunReport) => ({
  heading: `${labOf(report)}: ${report.scenario.name}`,
  description: report.scenario.description,
  verdict: report.verdict,
  interrupted: report.interrupted,
  host: report.host && hostText(report.host),
  summary: summaryOf(report),
  unsafe: unsafeSetting(report) ?? null,
  not: report.checks.filter(({ outcome }) => outcome !== 'passed'),
  facts: [
    ['Started', report.started],
    ['Took', `${report.seconds.toFixed(1)} s`],
    ...(report.host ? [['Host', hostText(report.host)]] : []),
    ['Provider', report.provider],
    ['Settings', settings(report)],
    ...Object.entries(report.versions),
    ...(clockText(report) === '' ? [] : [['Clocks, ahead of this host', clockText(report)]]),
    ...(recoveryText(report) === undefined ? [] : [['Recovered', recoveryText(report)]]),
    ...(report.data?.readBack
      ? [['Read back', `${report.data.readBack.how} (${report.data.readBack.seconds.toFixed(1)} s)`]]
      : []),
    ...looksText(report).map((text) => ['Steady state', text]),
  ].map(([name = '', value = '']) => ({ name, value })),
  faults: report.faults.map(({ fault, on, detail, injected, healed, error }) => ({
    fault,
    on: on.join(', '),
    detail,
    injected: injected ?? '–',
    healed: healed ?? '–',
    error: error ?? '',
  })),
  budgets: report.budgets.map(({ name, wanted, measured }) => ({
    title: budgetTitles[name],
    wanted: wanted === null ? '–' : durationText(wanted),
    measured: spanText(measured),
    walkthrough: report.seed && (name === 'writeGap' || name === 'takeover') ? spanText(report.seed.ms) : '–',
  })),
  walkthroughHow: report.seed?.how ?? null,
  figures: report.figures.map(({ title, ms, seed }) => ({
    title,
    measured: spanText(ms),
    walkthrough: seed ? spanText(seed.ms) : '–',
    how: seed?.how ?? '',
  })),
  // What a watch of the database saw is in the moments.
  events: report.events
    .filter(({ type }) => ['act', 'claim', 'pod'].includes(type))
    .map(({ ms, type, detail }) => ({ after: spanText(ms), type, detail })),
  moments: report.moments.map(({ name, title, ms, uncertainty, source, detail }) => ({
    name,
    title,
    after:
      ms === null ? 'not seen' : `${spanText(ms)}${uncertainty ? ` ± ${uncertainty.toFixed(0)} ms` : ''}`,
    source: source ?? '',
    detail: detail ?? '',
  })),
  gaps: (report.data?.gaps ?? []).map(({ client, operation, length, begin, end, open }) => ({
    client,
    operation,
    length: spanText(length),
    begin,
    end: open ? 'not ended' : end,
  })),
  tallies: Object.entries(report.data?.tally ?? {})
    .filter(([, { sent }]) => sent > 0)
    .map(([medium, { sent, acknowledged, unanswered, unansweredButThere }]) => ({
      what: tallied[medium as keyof typeof tallied],
      sent: String(sent),
      acknowledged: String(acknowledged),
      unanswered: String(unanswered),
      there: String(unansweredButThere),
    })),
  torn: report.data?.torn ?? null,
  groups: Object.entries(groups).flatMap(([group, title]) => {
    const checks = report.checks.filter((check) => check.group === group)
    return checks.length === 0
      ? []
      : [{ title, checks: checks.map((check) => ({ ...check, sign: signs[check.outcome] })) }]
  }),
})

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string[] =>
  rows.length === 0
    ? []
    : [
        `| ${head.join(' | ')} |`,
        `|${head.map(() => '---|').join('')}`,
        ...rows.map((row) => `| ${row.map(cell).join(' | ')} |`),
        '',
      ]

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
        ['', 'Budget', 'Measured', 'In the walkthrough'],
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

const difference = (one: number | null, other: number | null): string => {
  if (one === null || other === null) return '–'
  const ms = other - one
  return `${ms < 0 ? '−' : '+'}${spanText(Math.abs(ms))}`
}

/** Compares two runs in a Markdown table. The difference is the second minus the first. */
export const compareRuns = (one: RunReport, other: RunReport): string => {
  const time = (title: string, a: number | null, b: number | null): string[] => [
    title,
    spanText(a),
    spanText(b),
    difference(a, b),
  ]
  const fact = (title: string, a: string, b: string): string[] => [title, a, b, a === b ? '' : 'differs']
  const count = (kind: string, { data }: RunReport): string =>
    data
      ? String(data.findings.filter((finding) => finding.kind === kind).flatMap(({ seqs }) => seqs).length)
      : '–'
  const components = [...new Set([...Object.keys(one.versions), ...Object.keys(other.versions)])]
  const gap = (report: RunReport, client: string): number | null =>
    report.data?.gaps.find((candidate) => candidate.client === client)?.length ?? null
  const clients = [
    ...new Set([one, other].flatMap(({ data }) => data?.gaps.map(({ client }) => client) ?? [])),
  ]
  return table(
    [
      '',
      cell(`${labOf(one)} ${one.scenario.name}`),
      cell(`${labOf(other)} ${other.scenario.name}`),
      'Difference',
    ],
    [
      fact('started', one.started, other.started),
      fact('verdict', one.verdict, other.verdict),
      fact('interrupted', one.interrupted ? 'yes' : 'no', other.interrupted ? 'yes' : 'no'),
      fact('provider', one.provider, other.provider),
      fact('settings', settings(one), settings(other)),
      ...one.budgets.map(({ name, measured }) =>
        time(
          budgetTitles[name],
          measured,
          other.budgets.find((budget) => budget.name === name)?.measured ?? null,
        ),
      ),
      ...clients.map((client) => time(`longest gap of ${client}`, gap(one, client), gap(other, client))),
      ...one.moments
        .slice(1)
        .map(({ name, title, ms }) =>
          time(`${name} ${title}`, ms, other.moments.find((moment) => moment.name === name)?.ms ?? null),
        ),
      ...(['LOST', 'CORRUPT', 'DOUBLE WRITER'] as const).map((kind) =>
        fact(kind, count(kind, one), count(kind, other)),
      ),
      ...(['row', 'file'] as const).map((medium) =>
        fact(
          `${tallied[medium]} acknowledged`,
          one.data ? String(one.data.tally[medium].acknowledged) : '–',
          other.data ? String(other.data.tally[medium].acknowledged) : '–',
        ),
      ),
      ...components.map((name) => fact(name, one.versions[name] ?? '–', other.versions[name] ?? '–')),
    ],
  ).join('\n')
}
