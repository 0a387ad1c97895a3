/** A report of a run in words, as every document for people shows them. */
import { allMedia } from '../trial/ledger.js'
import { durationText } from '../lab/units.js'
import { cell } from '../plan/report.js'
import { budgetTitles, spanText } from './checks.js'
import type { RunCheck, RunReport } from './schema.js'

const groups = {
  before: 'Steady state before',
  faults: 'Faults',
  claims: 'Claims',
  data: 'Data',
  budgets: 'Limits',
  after: 'Steady state after',
} as const satisfies Readonly<Record<RunCheck['group'], string>>

export const signs = { passed: '✔', failed: '✖', unknown: '?' } as const

export const tallied = {
  row: 'rows of the database',
  file: 'lines of the plain file',
  config: 'ConfigMaps',
} as const

/** `fast, fencing: power` */
export const settings = ({ failover, fencing }: RunReport): string =>
  `failover: ${failover}, fencing: ${fencing}`

/** How an unsafe setting relates to the findings; undefined if it does not. */
export const unsafeSetting = ({ fencing, data }: RunReport): string | undefined =>
  fencing === 'none' && data?.findings.some(({ kind }) => kind === 'DOUBLE WRITER')
    ? 'This is what no fencing means: nothing stopped the old server from writing when the new one began.'
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
export const hostText = ({ processors, nodeStart }: NonNullable<RunReport['host']>): string =>
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
    writeGap: longest ? `${spanText(longest.length)}${longest.open ? ', and it did not end' : ''}` : '–',
    takeover: spanText(budgets.find(({ name }) => name === 'takeover')?.measured ?? null),
    walkthrough: seed
      ? [spanText(seed.ms)]
      : figures.flatMap(({ ms, seed: text }) =>
          text ? [`${spanText(text.ms)} (here ${spanText(ms)})`] : [],
        ),
    findings: findingsText(report),
  }
}

export const summaryHead = ['Longest write gap', 'Takeover', 'In the walkthrough', 'Findings'] as const

/** `replicaset on statefulset`: the lab of the experiment, and the one whose machines it used. */
export const labOf = ({ lab, of }: RunReport): string => (of === null ? lab : `${of} on ${lab}`)

/** The texts that Markdown and the page share. */
export const wordsOf = (report: RunReport) => ({
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
  tallies: allMedia.flatMap((medium) => {
    const tally = report.data?.tally[medium]
    return tally && tally.sent > 0
      ? [
          {
            what: tallied[medium],
            sent: String(tally.sent),
            acknowledged: String(tally.acknowledged),
            unanswered: String(tally.unanswered),
            there: String(tally.unansweredButThere),
          },
        ]
      : []
  }),
  torn: report.data?.torn ?? null,
  groups: Object.entries(groups).flatMap(([group, title]) => {
    const checks = report.checks.filter((check) => check.group === group)
    return checks.length === 0
      ? []
      : [{ title, checks: checks.map((check) => ({ ...check, sign: signs[check.outcome] })) }]
  }),
})

/** A table in Markdown; no lines if there are no rows. */
export const table = (head: readonly string[], rows: readonly (readonly string[])[]): string[] =>
  rows.length === 0
    ? []
    : [
        `| ${head.join(' | ')} |`,
        `|${head.map(() => '---|').join('')}`,
        ...rows.map((row) => `| ${row.map(cell).join(' | ')} |`),
        '',
      ]
