/** What became of a scenario, as it is kept: the plan, what was seen, and what that comes to. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import type { BudgetName, DatabaseVolume, ScenarioSpec } from '../lab/lab.js'
import { durationText } from '../lab/schema.js'
import { projectRoot } from '../render.js'
import { answersIn, type Gap, type Judgement, type LedgerRecord, type Recovery } from '../trial/ledger.js'
import type { DiskProof } from '../trial/read-back.js'
import type { Seen } from '../fault/signs.js'
import type { CheckFact, Look } from '../trial/steady.js'
import { moments, type MomentName, type Timeline } from '../trial/timeline.js'
import type { HostSpeed } from './host.js'
import { seedFigure } from './seed.js'

const iso = z.iso.datetime()
const ms = z.number()
const verdict = z.enum(['PASS', 'FAIL', 'UNKNOWN'])
const operation = z.enum(['write', 'read'])
const medium = z.enum(['row', 'file'])

const tally = z.object({
  sent: z.int(),
  acknowledged: z.int(),
  unanswered: z.int(),
  unansweredButThere: z.int(),
})

const sign = z
  .object({
    title: z.string().meta({ description: 'What was looked for.' }),
    ok: z.boolean(),
    saw: z.string(),
    at: iso,
    ms: ms.meta({ description: 'Milliseconds since it was injected.' }),
  })
  .nullable()
  .default(null)

/** A field that does not apply is null, never absent. Fields may be added within v1. */
export const runSchema = z
  .object({
    schema: z.literal('lab.run/v1'),
    lab: z.string(),
    of: z
      .string()
      .nullable()
      .default(null)
      .meta({ description: 'The lab whose experiment it is; null: that on whose machines it was done.' }),
    scenario: z.object({ name: z.string(), description: z.string() }),
    started: iso,
    seconds: z.number(),
    interrupted: z.boolean().meta({ description: 'The run did not come to its end.' }),
    provider: z.string(),
    failover: z.enum(['default', 'fast']),
    fencing: z.enum(['none', 'storage', 'power']),
    versions: z.record(z.string(), z.string()).meta({ description: 'Of each component.' }),
    host: z
      .object({
        processors: z.int(),
        nodeStart: ms.meta({
          description: 'Milliseconds that an empty Node.js program took before the run: the median of three.',
        }),
      })
      .nullable()
      .default(null)
      .meta({ description: 'How fast the host was; null: nobody measured.' }),
    verdict: verdict.meta({ description: 'The worst outcome of all checks.' }),
    faults: z
      .array(
        z.object({
          fault: z.string(),
          on: z.array(z.string()).meta({ description: 'Names of the machines.' }),
          detail: z.string(),
          injected: iso.nullable(),
          healed: iso.nullable(),
          error: z.string().nullable(),
          acting: sign.meta({ description: 'That it acts, as it was seen; null: nobody looked.' }),
          gone: sign.meta({ description: 'That it is gone after it was undone; null: nobody looked.' }),
        }),
      )
      .meta({ description: 'What was to be injected, in order.' }),
    checks: z
      .array(
        z.object({
          group: z.enum(['before', 'faults', 'claims', 'data', 'budgets', 'after']),
          title: z.string(),
          machine: z.string().nullable(),
          outcome: z.enum(['passed', 'failed', 'unknown']),
          saw: z.string(),
        }),
      )
      .meta({ description: 'Everything that the verdict rests on, with evidence.' }),
    looks: z
      .array(
        z.object({
          when: z.enum(['before', 'after']),
          at: iso,
          ms: ms.meta({ description: 'Milliseconds since the first of its row began.' }),
          no: z
            .array(z.object({ title: z.string(), machine: z.string().nullable(), saw: z.string() }))
            .meta({ description: 'The checks that said no.' }),
        }),
      )
      .default([])
      .meta({ description: 'Each time that all checks were asked, until all said yes at one moment.' }),
    recovery: z
      .object({
        by: z
          .enum(['itself', 'heal'])
          .nullable()
          .meta({ description: 'What made it answer writes again; null: nothing did, or nobody knows.' }),
        ms: ms.nullable().meta({
          description:
            'Milliseconds from the fault until writes were answered for good; null: not by itself.',
        }),
      })
      .nullable()
      .default(null)
      .meta({
        description: 'Whether the lab got over the faults; null: there were none, or it is an experiment.',
      }),
    budgets: z.array(
      z.object({
        name: z.enum(['writeGap', 'readGap', 'notReady', 'takeover']),
        wanted: ms.nullable().meta({ description: 'Milliseconds; null: it is only measured.' }),
        measured: ms.nullable().meta({ description: 'Milliseconds; null: it was not seen.' }),
        atLeast: z.boolean().meta({ description: 'It had not ended when the run did.' }),
      }),
    ),
    moments: z
      .array(
        z.object({
          name: z.enum(['t0', 't1', 't2', 't3', 't4', 't5', 't6']),
          title: z.string(),
          at: iso.nullable(),
          ms: ms.nullable().meta({ description: 'Milliseconds since the fault; null: it was not seen.' }),
          uncertainty: ms.nullable().meta({ description: 'Milliseconds, more or less.' }),
          source: z.string().nullable(),
          detail: z.string().nullable(),
        }),
      )
      .meta({ description: 't0 to t6, all of them; none for an experiment.' }),
    events: z
      .array(z.object({ type: z.string(), at: iso, ms, source: z.string(), detail: z.string() }))
      .meta({ description: 'All that was seen, by the clock of the operator.' }),
    undated: z
      .array(z.object({ type: z.string(), at: z.string(), source: z.string(), detail: z.string() }))
      .meta({ description: 'Seen by a source whose clock nobody measured.' }),
    skews: z
      .record(z.string(), z.object({ ms, uncertainty: ms }))
      .meta({ description: 'How far the clock of each source is ahead, in milliseconds.' }),
    data: z
      .object({
        findings: z.array(
          z.object({
            kind: z.enum(['LOST', 'CORRUPT', 'DOUBLE WRITER']),
            medium,
            message: z.string(),
            seqs: z.array(z.int()),
            evidence: z.array(z.string()),
          }),
        ),
        unknown: z.array(z.string()).meta({ description: 'Why nobody can know.' }),
        tally: z.object({ row: tally, file: tally }),
        readBack: z
          .object({
            how: z.string().meta({ description: 'How it was read, with evidence.' }),
            fromDisk: z.boolean().meta({
              description: 'Nothing of it can have come from the memory of the server that wrote it.',
            }),
            seconds: z.number().meta({ description: 'Seconds that this added to the run.' }),
          })
          .nullable()
          .default(null)
          .meta({ description: 'Where what was read back came from; null: nobody saw to that.' }),
        torn: z.string().nullable().meta({ description: 'A last line of the ledger that was cut short.' }),
        ended: ms.meta({ description: 'Milliseconds from the fault to the last record.' }),
        gaps: z
          .array(
            z.object({
              client: z.string(),
              operation,
              medium,
              begin: iso,
              end: iso,
              from: ms,
              length: ms,
              open: z.boolean(),
            }),
          )
          .meta({
            description: 'The longest of each client; `from` and `length` in ms, `from` since the fault.',
          }),
        answers: z
          .array(z.object({ client: z.string(), operation, medium, spans: z.array(z.tuple([ms, ms])) }))
          .meta({ description: 'When clients were answered: spans in ms since the fault.' }),
      })
      .nullable()
      .meta({ description: 'What the ledger shows; null: there was none.' }),
    figures: z
      .array(
        z.object({
          title: z.string(),
          ms: ms.meta({ description: 'Milliseconds.' }),
          seed: z
            .object({ ms, how: z.string() })
            .nullable()
            .meta({ description: 'What the walkthrough measured; null: it measured nothing of the kind.' }),
        }),
      )
      .default([])
      .meta({ description: 'What an experiment measured.' }),
    seed: z
      .object({ ms, how: z.string() })
      .nullable()
      .meta({ description: 'What the walkthrough of 2018 measured for the same fault, by hand.' }),
  })
  .meta({ title: 'A report of lab run' })

/** The JSON Schema of a report, for programs that read it. */
export const runJsonSchema = (): object => z.toJSONSchema(runSchema, { target: 'draft-7' })

export const runSchemaFile = join(projectRoot, 'schemas', 'run.schema.json')

/** Writes `schemas/run.schema.json`, for `npm run generate`. */
export const writeRunSchema = (): void => {
  writeFileSync(runSchemaFile, `${JSON.stringify(runJsonSchema(), null, 2)}\n`)
}

export type RunReport = z.output<typeof runSchema>
export type RunCheck = RunReport['checks'][number]

/** What a run knows when it ends, or is ended. */
export interface RunFacts {
  readonly lab: string
  /** The lab whose experiment it is, where the machines are another's. */
  readonly of?: string | undefined
  readonly scenario: ScenarioSpec
  readonly started: Date
  readonly seconds: number
  readonly interrupted: boolean
  readonly provider: string
  readonly failover: RunReport['failover']
  readonly fencing: RunReport['fencing']
  /** Where the data of the database is; undefined: the lab has none. */
  readonly volume: DatabaseVolume['kind'] | undefined
  readonly versions: Readonly<Record<string, string>>
  /** How fast the host was before the run. */
  readonly host?: HostSpeed | undefined
  readonly faults: readonly {
    readonly fault: string
    readonly on: readonly string[]
    readonly detail: string
    readonly injected?: Date | undefined
    /** On the monotonic clock of this host. */
    readonly injectedMs?: number | undefined
    readonly acting?: Seen | undefined
    readonly healed?: Date | undefined
    readonly gone?: Seen | undefined
    readonly error?: string | undefined
  }[]
  /** The steady state, asked before the faults and after they were healed: the last look of each. */
  readonly checks: readonly CheckFact[]
  /** All looks at it. */
  readonly looks?: readonly Look[] | undefined
  /** Of a scenario whose fault was injected: `itself` before `lab` healed anything, unless that was not asked for. */
  readonly recovery?: { readonly itself?: Recovery | undefined; readonly healed: Recovery } | undefined
  /** Where what was read back came from; absent: from wherever the server had it. */
  readonly diskProof?: DiskProof | undefined
  readonly timeline?: Timeline | undefined
  /** The ledger and what it comes to; absent: the run did not get so far. */
  readonly ledger?:
    | {
        readonly records: readonly LedgerRecord[]
        readonly torn?: string | undefined
        readonly judgement: Judgement
      }
    | undefined
  /** Of an experiment; a scenario has none. */
  readonly experiment?: ExperimentFacts | undefined
}

/** What an experiment claimed and measured, and all that it did and saw. */
export interface ExperimentFacts {
  readonly claims: readonly {
    readonly title: string
    readonly outcome: 'passed' | 'failed'
    readonly saw: string
  }[]
  readonly figures: readonly {
    readonly title: string
    /** Milliseconds. */
    readonly ms: number
    readonly seed: { readonly ms: number; readonly how: string } | null
  }[]
  readonly events: readonly {
    readonly type: 'act' | 'claim' | 'pod'
    /** ISO 8601, by the operator's clock. */
    readonly at: string
    /** Milliseconds since the experiment began. */
    readonly ms: number
    readonly detail: string
  }[]
}

type Mask = (text: string) => string

/** Answers nearer to each other than so many milliseconds are drawn as one. */
const resolution = 500

export const budgetTitles: Readonly<Record<BudgetName, string>> = {
  writeGap: 'longest time without an acknowledged write',
  readGap: 'longest time without an answered read',
  notReady: 'from the fault until the node is NotReady',
  takeover: 'from the fault until another server acknowledges a write',
}

/** 12340 to `12.3 s`; null to a dash. */
export const spanText = (milliseconds: number | null): string =>
  milliseconds === null ? '–' : `${(milliseconds / 1000).toFixed(1)} s`

/** Milliseconds: between its last answer and the end of a run, a client that is well has no answer either. */
const usualPause = 1000

interface Measured {
  readonly measured: number | null
  readonly atLeast: boolean
}

const longest = (gaps: readonly Gap[], wanted: Gap['operation']): Measured => {
  const [gap] = gaps
    .filter(({ operation, medium }) => operation === wanted && medium === 'row')
    .sort((a, b) => b.length - a.length)
  return gap
    ? { measured: Math.round(gap.length), atLeast: gap.open && gap.length > usualPause }
    : { measured: null, atLeast: false }
}

const momentAt = (timeline: Timeline | undefined, name: MomentName): Measured => {
  const ms = timeline?.moments[name]?.ms
  return { measured: ms === undefined ? null : Math.round(ms), atLeast: false }
}

const budgetsOf = ({ scenario, ledger, timeline }: RunFacts): RunReport['budgets'] => {
  const gaps = ledger?.judgement.gaps ?? []
  const measured: Readonly<Record<BudgetName, Measured>> = {
    writeGap: longest(gaps, 'write'),
    readGap: longest(gaps, 'read'),
    notReady: momentAt(timeline, 't1'),
    takeover: momentAt(timeline?.takenOver ? timeline : undefined, 't6'),
  }
  return (Object.keys(measured) as BudgetName[]).map((name) => ({
    name,
    wanted: scenario.expect[name] ?? null,
    ...measured[name],
  }))
}

const dataTitles = {
  LOST: 'nothing that was acknowledged is missing',
  CORRUPT: 'everything is as it was sent',
  'DOUBLE WRITER': 'one server wrote at a time',
} as const

const dataChecks = (
  ledger: RunFacts['ledger'],
  kinds: readonly (keyof typeof dataTitles)[] = ['LOST', 'CORRUPT', 'DOUBLE WRITER'],
): RunCheck[] =>
  kinds.map((kind) => {
    const judgement = ledger?.judgement
    const findings = judgement?.findings.filter((finding) => finding.kind === kind) ?? []
    const base = { group: 'data', title: dataTitles[kind], machine: null } as const
    if (findings.length > 0) {
      const saw = findings
        .map(({ message, evidence }) => [`${kind}: ${message}`, ...evidence].join('; '))
        .join('; ')
      return { ...base, outcome: 'failed', saw }
    }
    if (!judgement) return { ...base, outcome: 'unknown', saw: 'there is no ledger' }
    if (judgement.unknown.length > 0)
      return { ...base, outcome: 'unknown', saw: judgement.unknown.join('; ') }
    const { row, file } = judgement.tally
    const lines = file.sent > 0 ? `, ${String(file.acknowledged)} of ${String(file.sent)} lines` : ''
    return {
      ...base,
      outcome: 'passed',
      saw: `${String(row.acknowledged)} of ${String(row.sent)} rows${lines} were acknowledged`,
    }
  })

/** Two of each fault: that it acts, and that it is gone. What only was typed is neither. */
const faultChecks = ({ faults, interrupted }: RunFacts): RunCheck[] =>
  faults.flatMap(({ fault, on, injected, acting, healed, gone, error }): RunCheck[] => {
    const name = `${fault} of ${on.join(', ')}`
    const base = { group: 'faults', machine: on.length === 1 ? (on[0] ?? null) : null } as const
    if (!injected) return [{ ...base, title: `${name} acts`, outcome: 'unknown', saw: 'not injected' }]
    const acts = acting?.ok === true
    return [
      {
        ...base,
        title: `${name} acts${acting ? `: ${acting.title}` : ''}`,
        outcome: acts ? 'passed' : acting || error !== undefined ? 'failed' : 'unknown',
        saw: acting?.saw ?? error ?? 'nobody looked',
      },
      {
        ...base,
        title: `${name} is gone${gone ? `: ${gone.title}` : ''}`,
        outcome:
          gone?.ok === true && healed ? 'passed' : healed && !gone && interrupted ? 'unknown' : 'failed',
        saw: gone?.saw ?? (healed ? 'nobody looked' : `not undone${error === undefined ? '' : `: ${error}`}`),
      },
    ]
  })

/** That a lab recovered by the help of `lab` is no recovery, unless that was what the scenario wanted. */
const recoveryChecks = ({ recovery, interrupted }: RunFacts): RunCheck[] => {
  if (!recovery) return []
  const check = (title: string, { outcome, saw }: Recovery): RunCheck => ({
    group: 'faults',
    title,
    machine: null,
    // Whoever ended the run did not wait for it.
    outcome: outcome === 'failed' && interrupted ? 'unknown' : outcome,
    saw,
  })
  return [
    ...(recovery.itself
      ? [check('the lab recovers by itself: writes are answered before lab heals anything', recovery.itself)]
      : []),
    check('after the faults were undone, writes are answered', recovery.healed),
  ]
}

/** Where what was read back came from. */
const readBackChecks = ({ ledger, diskProof }: RunFacts): RunCheck[] => {
  if (!ledger) return []
  const title = 'what is read back was on the disk, and not in the memory of the server that wrote it'
  const base = { group: 'data', machine: null } as const
  if (!diskProof) return [{ ...base, title, outcome: 'unknown', saw: 'the server was not ended before' }]
  const { ok, saw, fileSystem } = diskProof
  return [
    { ...base, title, outcome: ok ? 'passed' : 'unknown', saw },
    ...(fileSystem
      ? [
          {
            ...base,
            title: 'the file system of the disk is clean',
            outcome: fileSystem.ok ? ('passed' as const) : ('failed' as const),
            saw: fileSystem.saw,
          },
        ]
      : []),
  ]
}

const budgetOutcome = (wanted: number, { measured, atLeast }: Measured): RunCheck['outcome'] => {
  if (measured === null) return 'unknown'
  if (measured > wanted) return 'failed'
  return atLeast ? 'unknown' : 'passed'
}

/** `18.5 s`, `not seen`; of a gap that the end of the run cut off, that it did not end. */
const measuredText = ({ measured, atLeast }: Measured): string =>
  measured === null ? 'not seen' : `${spanText(measured)}${atLeast ? ', and it did not end' : ''}`

const budgetChecks = (budgets: RunReport['budgets']): RunCheck[] =>
  budgets.flatMap(({ name, wanted, measured, atLeast }): RunCheck[] =>
    wanted === null
      ? []
      : [
          {
            group: 'budgets',
            title: `${budgetTitles[name]}: ${durationText(wanted)} or less`,
            machine: null,
            outcome: budgetOutcome(wanted, { measured, atLeast }),
            saw: measuredText({ measured, atLeast }),
          },
        ],
  )

/** An experiment that claimed nothing proved nothing. */
const nothingClaimed: RunCheck = {
  group: 'claims',
  title: 'something was claimed and seen',
  machine: null,
  outcome: 'unknown',
  saw: 'the experiment did not come so far',
}

const checksOf = (facts: RunFacts, budgets: RunReport['budgets']): RunCheck[] => {
  const steady = (when: 'before' | 'after'): RunCheck[] =>
    facts.checks
      .filter((check) => check.when === when)
      .map(({ title, machine, ok, saw }) => ({
        group: when,
        title,
        machine: machine ?? null,
        // A lab that was not well to begin with proves nothing about the fault.
        outcome: ok ? 'passed' : when === 'before' ? 'unknown' : 'failed',
        saw,
      }))
  const after = steady('after')
  const { experiment } = facts
  const claims = (experiment?.claims ?? []).map(({ title, outcome, saw }): RunCheck => ({
    group: 'claims',
    title,
    machine: null,
    outcome,
    saw,
  }))
  const notAsked = (saw: string): RunCheck => ({
    group: 'after',
    title: 'the lab is as it was before',
    machine: null,
    outcome: 'unknown',
    saw,
  })
  return [
    ...steady('before'),
    ...faultChecks(facts),
    ...recoveryChecks(facts),
    ...claims,
    ...(experiment ? [] : [...dataChecks(facts.ledger), ...readBackChecks(facts), ...budgetChecks(budgets)]),
    // Of a database whose members all take writes.
    ...(experiment && facts.ledger ? dataChecks(facts.ledger, ['LOST', 'CORRUPT']) : []),
    ...(experiment && claims.length === 0 ? [nothingClaimed] : []),
    ...after,
    ...(facts.interrupted ? [notAsked('the run was interrupted')] : []),
    ...(after.length === 0 && !facts.interrupted ? [notAsked('nobody asked')] : []),
  ]
}

const verdictOf = (checks: readonly RunCheck[]): RunReport['verdict'] => {
  if (checks.some(({ outcome }) => outcome === 'failed')) return 'FAIL'
  return checks.some(({ outcome }) => outcome === 'unknown') ? 'UNKNOWN' : 'PASS'
}

const dataOf = (
  ledger: NonNullable<RunFacts['ledger']>,
  diskProof: RunFacts['diskProof'],
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

const eventsOf = ({ timeline, experiment }: RunFacts) =>
  experiment ? experiment.events.map((event) => ({ ...event, source: 'operator' })) : (timeline?.events ?? [])

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

const recoveryIn = ({ recovery }: RunFacts): RunReport['recovery'] => {
  if (!recovery) return null
  const { itself, healed } = recovery
  if (itself?.outcome === 'passed') return { by: 'itself', ms: Math.round(itself.ms ?? 0) }
  return { by: healed.outcome === 'passed' ? 'heal' : null, ms: null }
}

/** @param mask is put to every text that a machine may have said */
export const runReport = (facts: RunFacts, mask: Mask = (text) => text): RunReport => {
  const { scenario, timeline, ledger } = facts
  const budgets = facts.experiment ? [] : budgetsOf(facts)
  const checks = checksOf(facts, budgets)
  const seed =
    scenario.inject.length === 1 ? seedFigure(facts.volume, scenario.inject[0]?.fault ?? '') : undefined
  return {
    schema: 'lab.run/v1',
    lab: facts.lab,
    of: facts.of ?? null,
    scenario: { name: scenario.name, description: scenario.description },
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
    moments: (facts.experiment ? [] : momentsOf(timeline)).map((moment) => ({
      ...moment,
      detail: moment.detail && mask(moment.detail),
    })),
    figures: (facts.experiment?.figures ?? []).map(({ title, ms, seed }) => ({ title, ms, seed })),
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
    seed: seed ?? null,
  }
}
