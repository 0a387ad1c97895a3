/** The report of a trial: its plan, its observations, and the conclusion. */
import type { Seen } from '../fault/sign.js'
import type { CommonFacts, Facts } from '../trial/facts.js'
import { answersIn } from '../trial/ledger.js'
import { moments, type MomentName, type Timeline } from '../trial/timeline.js'
import { budgetsOf, checksOf, verdictOf } from './checks.js'
import type { RunReport } from './schema.js'
import { walkthroughFigure } from './walkthrough.js'

type Mask = (text: string) => string

/** Answers that are closer together than this many milliseconds are drawn as one. */
const resolution = 500

const dataOf = (
  ledger: NonNullable<CommonFacts['ledger']>,
  diskProof: CommonFacts['diskProof'],
  mask: Mask,
): NonNullable<RunReport['data']> => {
  const { records, judgement, torn } = ledger
  const fault = records.find((record) => record.type === 'mark' && record.mark === 'fault')
  const zero = fault?.ms ?? records[0]?.ms ?? 0
  return {
    findings: judgement.findings.map((finding) => ({
      ...finding,
      seqs: [...finding.seqs],
      evidence: finding.evidence.map(mask),
    })),
    unknown: [...judgement.unknown],
    tally: judgement.tally,
    readBack: diskProof
      ? { how: mask(diskProof.saw), fromDisk: diskProof.ok, seconds: diskProof.seconds }
      : null,
    torn: torn === undefined ? null : mask(torn),
    ended: records.reduce((last, record) => Math.max(last, Math.round(record.ms - zero)), 0),
    gaps: judgement.gaps.map(({ client, operation, medium, begin, end, beginMs, length, open }) => ({
      client,
      operation,
      medium,
      begin,
      end,
      from: Math.round(beginMs - zero),
      length: Math.round(length),
      open,
    })),
    answers: answersIn(records, resolution).map(({ spans, ...client }) => ({
      ...client,
      spans: spans.map(([from, to]) => [Math.round(from - zero), Math.round(to - zero)]),
    })),
  }
}

const momentsOf = (timeline: Timeline | undefined): RunReport['moments'] =>
  (Object.keys(moments) as MomentName[]).map((name) => {
    const moment = timeline?.moments[name]
    return {
      name,
      title: moments[name],
      at: moment?.at ?? null,
      ms: moment ? Math.round(moment.ms) : null,
      uncertainty: moment?.uncertainty ?? null,
      source: moment?.source ?? null,
      detail: moment?.detail ?? null,
    }
  })

/** What was seen; of an exercise that was recorded, counted from the person's first act, as its timeline is. */
const eventsOf = (facts: Facts) => {
  if (facts.kind === 'scenario') return facts.timeline?.events ?? []
  const timeline = facts.kind === 'exercise' ? facts.timeline : undefined
  const zero = (timeline && facts.events.find(({ type }) => type === 'act')?.ms) ?? 0
  return [
    ...facts.events.map((event) => ({ ...event, ms: event.ms - zero, source: 'operator' })),
    ...(timeline?.events ?? []),
  ].sort((a, b) => a.ms - b.ms)
}

const signOf = (
  seen: Seen | undefined,
  injectedMs: number | undefined,
  mask: Mask,
): RunReport['faults'][number]['acting'] =>
  seen
    ? {
        title: mask(seen.title),
        ok: seen.ok,
        saw: mask(seen.saw),
        at: seen.at.toISOString(),
        ms: Math.round(seen.ms - (injectedMs ?? seen.ms)),
      }
    : null

const recoveryIn = (facts: Facts): RunReport['recovery'] => {
  if (facts.kind !== 'scenario' || !facts.recovery) return null
  const { itself, healed } = facts.recovery
  if (itself?.outcome === 'passed') return { by: 'itself', ms: Math.round(itself.ms ?? 0) }
  return { by: healed.outcome === 'passed' ? 'heal' : null, ms: null }
}

/** @param mask applied to every text that a machine may have produced */
export const runReport = (facts: Facts, mask: Mask = (text) => text): RunReport => {
  const { ledger } = facts
  const budgets = budgetsOf(facts)
  const timeline = facts.kind === 'experiment' ? undefined : facts.timeline
  const checks = checksOf(facts, budgets)
  const inject = facts.kind === 'scenario' ? facts.scenario.inject : []
  const walkthrough =
    inject.length === 1 ? walkthroughFigure(facts.volume, inject[0]?.fault ?? '') : undefined
  return {
    schema: 'lab.run/v1',
    lab: facts.lab,
    of: facts.of ?? null,
    scenario: { name: facts.name, description: facts.description },
    started: facts.started.toISOString(),
    seconds: Math.round(facts.seconds * 1000) / 1000,
    interrupted: facts.interrupted,
    provider: facts.provider,
    failover: facts.failover,
    fencing: facts.fencing,
    versions: { ...facts.versions },
    host: facts.host ?? null,
    verdict: verdictOf(checks),
    faults: facts.faults.map(({ fault, on, injected, injectedMs, acting, healed, gone, error, detail }) => ({
      fault,
      on: [...on],
      detail: mask(detail),
      injected: injected?.toISOString() ?? null,
      healed: healed?.toISOString() ?? null,
      error: error === undefined ? null : mask(error),
      acting: signOf(acting, injectedMs, mask),
      gone: signOf(gone, injectedMs, mask),
    })),
    checks: checks.map((check) => ({ ...check, title: mask(check.title), saw: mask(check.saw) })),
    looks: (facts.looks ?? []).map(({ when, at, ms, no }) => ({
      when,
      at,
      ms,
      no: no.map(({ title, machine, saw }) => ({
        title: mask(title),
        machine: machine ?? null,
        saw: mask(saw),
      })),
    })),
    recovery: recoveryIn(facts),
    budgets,
    moments: (facts.kind === 'scenario' || timeline ? momentsOf(timeline) : []).map((moment) => ({
      ...moment,
      detail: moment.detail && mask(moment.detail),
    })),
    figures: (facts.kind === 'scenario' ? [] : facts.figures).map(({ title, ms, text }) => ({
      title,
      ms,
      seed: text,
    })),
    events: eventsOf(facts).map(({ type, at, ms, source, detail }) => ({
      type,
      at,
      ms: Math.round(ms),
      source,
      detail: mask(detail),
    })),
    undated: (timeline?.undated ?? []).map(({ type, at, source, detail }) => ({
      type,
      at,
      source,
      detail: mask(detail),
    })),
    skews: { ...timeline?.skews },
    data: ledger ? dataOf(ledger, facts.diskProof, mask) : null,
    seed: walkthrough ?? null,
  }
}
