/** The basis of a verdict: the checks of a trial, each with evidence, and its limits. */
import type { BudgetName } from '../lab/lab.js'
import { durationText } from '../lab/units.js'
import type { CommonFacts, ExerciseFacts, ExperimentFacts, Facts, ScenarioFacts } from '../trial/facts.js'
import type { Gap } from '../trial/ledger.js'
import type { Recovery } from '../trial/recovery.js'
import type { MomentName, Timeline } from '../trial/timeline.js'
import type { RunCheck, RunReport } from './schema.js'

export const budgetTitles: Readonly<Record<BudgetName, string>> = {
  writeGap: 'longest time without an acknowledged write',
  readGap: 'longest time without an answered read',
  notReady: 'from the fault until the node is NotReady',
  takeover: 'from the fault until another server acknowledges a write',
  apiGap: 'longest time without an acknowledged write of a ConfigMap',
}

/** 12340 to `12.3 s`; null to a dash. */
export const spanText = (milliseconds: number | null): string =>
  milliseconds === null ? '–' : `${(milliseconds / 1000).toFixed(1)} s`

/** Milliseconds between the last answer and the end of a run that are normal even for a healthy client. */
const usualPause = 1000

interface Measured {
  readonly measured: number | null
  readonly atLeast: boolean
}

const longest = (gaps: readonly Gap[], wanted: Gap['operation'], of: Gap['medium'] = 'row'): Measured => {
  const [gap] = gaps
    .filter(({ operation, medium }) => operation === wanted && medium === of)
    .sort((a, b) => b.length - a.length)
  return gap
    ? { measured: Math.round(gap.length), atLeast: gap.open && gap.length > usualPause }
    : { measured: null, atLeast: false }
}

const momentAt = (timeline: Timeline | undefined, name: MomentName): Measured => {
  const ms = timeline?.moments[name]?.ms
  return { measured: ms === undefined ? null : Math.round(ms), atLeast: false }
}

/** How a trial is measured: its limits, if it has any, and its measurements. */
export const budgetsOf = (facts: Facts): RunReport['budgets'] => {
  if (facts.kind === 'experiment' || (facts.kind === 'exercise' && !facts.ledger)) return []
  const { ledger, timeline } = facts
  const expect = facts.kind === 'scenario' ? facts.scenario.expect : {}
  const gaps = ledger?.judgement.gaps ?? []
  const measured: Readonly<Record<BudgetName, Measured>> = {
    writeGap: longest(gaps, 'write'),
    readGap: longest(gaps, 'read'),
    notReady: momentAt(timeline, 't1'),
    takeover: momentAt(timeline?.takenOver ? timeline : undefined, 't6'),
    apiGap: longest(gaps, 'write', 'config'),
  }
  const applies = (name: BudgetName): boolean =>
    name !== 'apiGap' || expect.apiGap !== undefined || measured.apiGap.measured !== null
  return (Object.keys(measured) as BudgetName[]).filter(applies).map((name) => ({
    name,
    wanted: expect[name] ?? null,
    ...measured[name],
  }))
}

const dataTitles = {
  LOST: 'nothing that was acknowledged is missing',
  CORRUPT: 'everything is as it was sent',
  'DOUBLE WRITER': 'one server wrote at a time',
} as const

const dataChecks = (
  ledger: CommonFacts['ledger'],
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
    const { row, file, config } = judgement.tally
    const lines = [
      ...(file.sent > 0 ? [`, ${String(file.acknowledged)} of ${String(file.sent)} lines`] : []),
      ...(config ? [`, ${String(config.acknowledged)} of ${String(config.sent)} ConfigMaps`] : []),
    ].join('')
    return {
      ...base,
      outcome: 'passed',
      saw: `${String(row.acknowledged)} of ${String(row.sent)} rows${lines} were acknowledged`,
    }
  })

/** Two checks for each fault: that it acts, and that it is gone. The issued command proves neither. */
const faultChecks = ({ faults, interrupted }: CommonFacts): RunCheck[] =>
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
        saw: acting?.saw ?? error ?? 'not checked',
      },
      {
        ...base,
        title: `${name} is gone${gone ? `: ${gone.title}` : ''}`,
        outcome:
          gone?.ok === true && healed ? 'passed' : healed && !gone && interrupted ? 'unknown' : 'failed',
        saw: gone?.saw ?? (healed ? 'not checked' : `not undone${error === undefined ? '' : `: ${error}`}`),
      },
    ]
  })

/** A recovery with the help of `lab` does not count, unless the scenario asked for it. */
const recoveryChecks = ({ recovery, interrupted }: ScenarioFacts): RunCheck[] => {
  if (!recovery) return []
  const check = (title: string, { outcome, saw }: Recovery): RunCheck => ({
    group: 'faults',
    title,
    machine: null,
    // An interrupted run did not wait for the recovery.
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

/** The source of the data that was read back. */
const readBackChecks = ({ ledger, diskProof }: CommonFacts): RunCheck[] => {
  if (!ledger) return []
  const title = 'what is read back was on the disk, and not only in the memory of the server that wrote it'
  const base = { group: 'data', machine: null } as const
  if (!diskProof) return [{ ...base, title, outcome: 'unknown', saw: 'the server was not stopped first' }]
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

/** `18.5 s`, `not seen`, or for a gap at the end of the run that it did not end. */
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

const claimChecks = ({ claims }: ExperimentFacts | ExerciseFacts): RunCheck[] =>
  claims.map(({ title, outcome, saw }) => ({ group: 'claims', title, machine: null, outcome, saw }))

/** A trial that claimed nothing proved nothing. */
const nothingClaimed = (saw: string): RunCheck => ({
  group: 'claims',
  title: 'at least one claim was made and checked',
  machine: null,
  outcome: 'unknown',
  saw,
})

/** The checks of one kind of trial. */
const ownChecks = (facts: Facts, budgets: RunReport['budgets']): RunCheck[] => {
  switch (facts.kind) {
    case 'scenario':
      return [
        ...recoveryChecks(facts),
        ...dataChecks(facts.ledger),
        ...readBackChecks(facts),
        ...budgetChecks(budgets),
      ]
    case 'experiment': {
      const claims = claimChecks(facts)
      return [
        ...claims,
        // For a database whose members all accept writes.
        ...(facts.ledger ? dataChecks(facts.ledger, ['LOST', 'CORRUPT']) : []),
        ...(claims.length === 0 ? [nothingClaimed('the experiment did not get that far')] : []),
      ]
    }
    case 'exercise': {
      const claims = claimChecks(facts)
      return [
        ...claims,
        ...(facts.ledger ? [...dataChecks(facts.ledger), ...readBackChecks(facts)] : []),
        ...(claims.length === 0 && !facts.ledger
          ? [nothingClaimed('the exercise did not get that far')]
          : []),
      ]
    }
  }
}

export const checksOf = (facts: Facts, budgets: RunReport['budgets']): RunCheck[] => {
  const steady = (when: 'before' | 'after'): RunCheck[] =>
    facts.checks
      .filter((check) => check.when === when)
      .map(({ title, machine, ok, saw }) => ({
        group: when,
        title,
        machine: machine ?? null,
        // A lab that was unhealthy to begin with proves nothing about the fault.
        outcome: ok ? 'passed' : when === 'before' ? 'unknown' : 'failed',
        saw,
      }))
  const after = steady('after')
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
    ...ownChecks(facts, budgets),
    ...after,
    ...(facts.interrupted ? [notAsked('the run was interrupted')] : []),
    ...(after.length === 0 && !facts.interrupted ? [notAsked('not checked')] : []),
  ]
}

export const verdictOf = (checks: readonly RunCheck[]): RunReport['verdict'] => {
  if (checks.some(({ outcome }) => outcome === 'failed')) return 'FAIL'
  return checks.some(({ outcome }) => outcome === 'unknown') ? 'UNKNOWN' : 'PASS'
}
