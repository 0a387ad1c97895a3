/** Renders a Report: as JSON for programs, as Markdown to keep, and as the table that `lab verify` prints. */
import { stripVTControlCharacters, styleText } from 'node:util'
import type { FailedBy, Outcome, Report, StepResult } from './step.js'

/** The result of a check. */
export interface CheckLine {
  readonly id: string
  readonly title: string
  readonly machine: string | null
  readonly ok: boolean
  readonly saw: string
  readonly hint: string | null
}

export interface StepLine {
  readonly step: string
  readonly title: string
  readonly phase: string
  readonly machine: string | null
  readonly outcome: Outcome
  readonly seconds: number
  readonly reason: string | null
  /** Whether the reason of a failure is its first failing check, or an error. */
  readonly failedBy: FailedBy | null
  readonly hint: string | null
  readonly checks: readonly CheckLine[]
  /** Checks of this step that were not asked, because it failed earlier or was not reached. */
  readonly notAsked: readonly { readonly id: string; readonly title: string }[]
}

/** The JSON form. A field that does not apply is null, never absent. Fields may be added within v1. */
export interface ReportJson {
  readonly schema: 'lab.report/v1'
  readonly title: string
  /** ISO 8601. */
  readonly started: string
  readonly seconds: number
  readonly interrupted: boolean
  readonly summary: {
    /** Number of checks that hold. */
    readonly passed: number
    /** Number of checks that do not hold, and of steps that failed for another reason. */
    readonly failed: number
    readonly notAsked: number
    readonly steps: Readonly<Record<Outcome, number>>
  }
  /** In plan order. */
  readonly results: readonly StepLine[]
}

type Mask = (text: string) => string

const asIs: Mask = (text) => text

export const oneLine = (text: string): string =>
  stripVTControlCharacters(text)
    .replace(/[\s\p{Cc}]+/gu, ' ')
    .trim()

const milliseconds = (seconds: number): number => Math.round(seconds * 1000) / 1000

const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0)

/** A step can fail while none of its checks fails: its command failed, and nothing was asked afterwards. */
const failedByItself = (result: Pick<StepLine, 'outcome' | 'checks'>): boolean =>
  result.outcome === 'failed' && result.checks.every(({ ok }) => ok)

const stepLine = (result: StepResult, mask: Mask): StepLine => {
  const asked = new Set(result.checks.map(({ check }) => check.id))
  const optional = (text: string | undefined): string | null => (text === undefined ? null : mask(text))
  return {
    step: result.step.id,
    title: mask(result.step.title),
    phase: result.step.phase,
    machine: result.step.machine ?? null,
    outcome: result.outcome,
    seconds: milliseconds(result.seconds),
    reason: optional(result.reason),
    failedBy: result.failedBy ?? null,
    hint: optional(result.hint),
    checks: result.checks.map(({ check, ok, saw }) => ({
      id: check.id,
      title: mask(check.title),
      machine: check.machine ?? result.step.machine ?? null,
      ok,
      saw: mask(saw),
      hint: optional(check.hint),
    })),
    notAsked: result.step.checks
      .filter(({ id }) => !asked.has(id))
      .map(({ id, title }) => ({ id, title: mask(title) })),
  }
}

/** The report as plain data. `mask` is applied to every text that a machine may have produced. */
export const reportJson = (report: Report, mask: Mask = asIs): ReportJson => {
  const results = report.results.map((result) => stepLine(result, mask))
  const steps = (outcome: Outcome): number => results.filter((result) => result.outcome === outcome).length
  const checks = results.flatMap((result) => result.checks)
  return {
    schema: 'lab.report/v1',
    title: mask(report.title),
    started: report.started.toISOString(),
    seconds: milliseconds(report.seconds),
    interrupted: report.interrupted,
    summary: {
      passed: checks.filter(({ ok }) => ok).length,
      failed: checks.filter(({ ok }) => !ok).length + results.filter(failedByItself).length,
      notAsked: sum(results.map(({ notAsked }) => notAsked.length)),
      steps: {
        ok: steps('ok'),
        changed: steps('changed'),
        failed: steps('failed'),
        'not-reached': steps('not-reached'),
      },
    },
    results,
  }
}

/** `58 passed, 2 failed`; programs and people search for exactly this text. */
const counts = ({ summary }: ReportJson): string =>
  `${String(summary.passed)} passed, ${String(summary.failed)} failed`

/** Remarks about what the counts do not include. */
const remarks = ({ summary, interrupted }: ReportJson): string[] => [
  ...(interrupted ? ['interrupted'] : []),
  ...(summary.notAsked > 0 ? [`${String(summary.notAsked)} not asked`] : []),
]

interface Row {
  readonly verdict: 'passed' | 'failed' | 'not asked'
  readonly title: string
  readonly evidence: string
  /** Why its step failed, if the evidence does not say so. */
  readonly because: string | null
  readonly hint: string | null
}

/** The reason of a failed command; the results of the checks are from before it. */
const ownReason = ({ reason, failedBy }: StepLine): string | null =>
  reason === null || failedBy === 'check' ? null : oneLine(reason)

const rowsOf = (result: StepLine): Row[] => {
  const firstBad = result.checks.find(({ ok }) => !ok)
  const checks = result.checks.map((check): Row => {
    const isFirst = check === firstBad
    return {
      verdict: check.ok ? 'passed' : 'failed',
      title: oneLine(check.title),
      evidence: oneLine(check.saw),
      because: isFirst ? ownReason(result) : null,
      // The step's hint is more specific than the check's, but only applies to the first failure.
      hint: check.ok ? null : ((isFirst ? result.hint : null) ?? check.hint),
    }
  })
  const step: Row = {
    verdict: 'failed',
    title: oneLine(result.title),
    evidence: oneLine(result.reason ?? 'failed'),
    because: null,
    hint: result.hint,
  }
  const notAsked = result.notAsked.map(({ title }): Row => ({
    verdict: 'not asked',
    title: oneLine(title),
    evidence: `not asked: ${oneLine(result.reason ?? result.outcome)}`,
    because: null,
    hint: null,
  }))
  return [...checks, ...(failedByItself(result) ? [step] : []), ...notAsked]
}

/** What did not hold, with what was seen, in plan order: each failed check, and each step that failed by itself. */
export const failuresIn = ({ results }: Pick<ReportJson, 'results'>): readonly string[] =>
  results
    .flatMap(rowsOf)
    .flatMap(({ verdict, title, evidence }) => (verdict === 'failed' ? [`${title}: ${evidence}`] : []))

const byPhase = (json: ReportJson): Map<string, Row[]> => {
  const phases = new Map<string, Row[]>()
  for (const result of json.results)
    phases.set(result.phase, [...(phases.get(result.phase) ?? []), ...rowsOf(result)])
  return phases
}

const signs = { passed: '✔', failed: '✖', 'not asked': '-' } as const
const signColors = { passed: 'green', failed: 'red', 'not asked': 'yellow' } as const

/** Column at which evidence starts; a longer title moves its own evidence to the right. */
const widestTitle = 56

/** The table of `lab verify`. Its last line is the counts, and nothing else. */
export const reportTable = (report: Report, color: boolean, mask: Mask = asIs): string => {
  const json = reportJson(report, mask)
  const phases = byPhase(json)
  const paint = (style: Parameters<typeof styleText>[0], text: string): string =>
    color ? styleText(style, text, { validateStream: false }) : text
  const titles = [...phases.values()].flat().map(({ title }) => title.length)
  const width = Math.min(widestTitle, Math.max(0, ...titles))
  const lines = [...phases].flatMap(([phase, rows]) => [
    paint('bold', oneLine(phase)),
    ...rows.flatMap(({ verdict, title, evidence, because, hint }) => [
      `  ${paint(signColors[verdict], signs[verdict])} ${title.padEnd(width)}  ${verdict === 'failed' ? evidence : paint('dim', evidence)}`.trimEnd(),
      ...(because === null ? [] : [`    Because: ${because}`]),
      ...(hint === null ? [] : [`    Hint: ${oneLine(hint)}`]),
    ]),
    '',
  ])
  return [...lines, ...remarks(json), counts(json)].join('\n')
}

/** In a table cell, a bar would end the cell, and output of a machine must not become markup. */
export const cell = (text: string): string =>
  oneLine(text)
    .replace(/[\\`*_[\]<>|]/g, '\\$&')
    .replace(/^$/, ' ')
