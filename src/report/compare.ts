/** Two runs next to each other. */
import { allMedia } from '../trial/ledger.js'
import { cell } from '../plan/report.js'
import { budgetTitles, spanText } from './checks.js'
import type { RunReport } from './schema.js'

import { labOf, settings, table, tallied } from './words.js'

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
      ...allMedia
        .filter(
          (medium) =>
            medium !== 'config' || (one.data?.tally.config ?? other.data?.tally.config) !== undefined,
        )
        .map((medium) =>
          fact(
            `${tallied[medium]} acknowledged`,
            one.data?.tally[medium] ? String(one.data.tally[medium].acknowledged) : '–',
            other.data?.tally[medium] ? String(other.data.tally[medium].acknowledged) : '–',
          ),
        ),
      ...components.map((name) => fact(name, one.versions[name] ?? '–', other.versions[name] ?? '–')),
    ],
  ).join('\n')
}
