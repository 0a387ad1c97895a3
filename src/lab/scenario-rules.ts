import { items, lacks, pathText, Taken, type Draft, type DraftFile, type Found, type Path } from './draft.js'
import { roles, type BudgetName } from './lab.js'
import { defaults } from './fields.js'
import type { LabFile } from './schema.js'
import { durationOf } from './units.js'
import type { DraftFault, FaultForm, Vocabulary } from './vocabulary.js'
import { rolesAt } from './fault-machines.js'

/** The rules of scenarios: which machines a fault can hit, and which limits can be measured. */

type Scenario = Draft<NonNullable<LabFile['scenarios']>[number]>

/** The form of a fault; undefined for an unknown name. */
type FormOf = (fault: DraftFault) => FaultForm | undefined

/** Why nothing in this lab could measure a limit. */
const unmeasurable = (
  file: DraftFile,
  scenario: Scenario,
  budget: BudgetName,
  formOf: FormOf,
): string | undefined => {
  const faults = items(scenario.inject).map(([, fault]) => fault)
  if (faults.length < (scenario.inject?.length ?? 1)) return undefined
  const hitsWorker = (among: readonly DraftFault[]): boolean =>
    among
      .flatMap((fault) => formOf(fault)?.touches(fault) ?? [undefined])
      .some((where) => where === undefined || rolesAt(file, where).includes('worker'))
  if (budget === 'notReady') {
    if (lacks(file, 'kubernetes')) return 'the lab has no Kubernetes nodes'
    const mute = faults.filter((fault) => formOf(fault)?.silences(fault, file) ?? true)
    return hitsWorker(mute) ? undefined : 'no fault of this scenario makes a worker unreachable'
  }
  if (lacks(file, 'database')) return 'the lab has no database to write to'
  if (budget === 'apiGap') {
    const controlPlanes = items(file.machines).filter(([, { role }]) => role === 'control-plane').length
    return controlPlanes > 1 || !lacks(file.kubernetes ?? {}, 'endpoint')
      ? undefined
      : 'the API server has no address of its own; add kubernetes.endpoint, or more control planes'
  }
  if (budget !== 'takeover') return undefined
  // A machine with an invalid role may be meant as the second worker.
  const workers = (file.machines ?? []).filter((machine) => machine?.role === 'worker' || !machine?.role)
  if (workers.length < 2) return 'the lab has no second worker to take over'
  return hitsWorker(faults) ? undefined : 'no fault of this scenario hits a worker, so nothing is taken over'
}

function* expectRules(file: DraftFile, scenario: Scenario, path: Path, formOf: FormOf): Found {
  const deadlineText = lacks(scenario, 'deadline') ? defaults.deadline : scenario.deadline
  const deadline = deadlineText === undefined ? undefined : durationOf(deadlineText)
  for (const [budget, wanted] of Object.entries(scenario.expect ?? {}) as [
    BudgetName,
    string | undefined,
  ][]) {
    if (wanted === undefined) continue
    const at = [...path, 'expect', budget]
    const why = unmeasurable(file, scenario, budget, formOf)
    const ms = durationOf(wanted)
    if (why) {
      yield { path: at, message: `cannot be measured here: ${why}; remove it`, atKey: true }
    } else if (ms !== undefined && deadline !== undefined && ms > deadline) {
      yield {
        path: at,
        message: `${wanted} cannot be measured: the scenario ends after ${String(deadlineText)}; choose a smaller limit or a later deadline`,
      }
    }
  }
}

/** Machine names that mean something else in a fault. */
function* ambiguousNames(file: DraftFile): Found {
  for (const [index, { name, role }] of items(file.machines)) {
    if (name === 'database' || name === 'standby') {
      yield {
        path: ['machines', index, 'name'],
        message: `in scenarios, ${name} is a worker that does or does not run the database; choose another name`,
      }
    } else if (
      name !== undefined &&
      role !== undefined &&
      name !== role &&
      roles.some((word) => word === name)
    ) {
      yield {
        path: ['machines', index, 'name'],
        message: `in scenarios, ${name} is a role, which this machine does not have; choose another name`,
      }
    }
  }
}

function* takeoverRules(file: DraftFile): Found {
  const without = lacks(file, 'kubernetes')
  if (without && file.failover === 'fast') {
    yield {
      path: ['failover'],
      message: 'fast is about Kubernetes nodes; add kubernetes, or remove this field',
    }
  }
  if (without && (file.fencing === 'storage' || file.fencing === 'power')) {
    yield {
      path: ['fencing'],
      message: `${file.fencing} is about Kubernetes nodes; add kubernetes, or remove this field`,
    }
  } else if (file.fencing === 'storage' && lacks(file, 'iscsi')) {
    yield {
      path: ['fencing'],
      message: 'storage means that the target fences a node; add iscsi.targets, or write power',
    }
  }
}

export function* scenarioRules(file: DraftFile, { faults }: Vocabulary): Found {
  const formOf: FormOf = ({ fault }) => faults.find(({ name }) => name === fault)
  yield* takeoverRules(file)
  const scenarios = items(file.scenarios)
  if (scenarios.length > 0) yield* ambiguousNames(file)
  const names = new Taken<string>()
  for (const [index, scenario] of scenarios) {
    const path = ['scenarios', index]
    const same = scenario.name === undefined ? undefined : names.by(scenario.name, [...path, 'name'])
    if (same) {
      yield {
        path: [...path, 'name'],
        message: `${String(scenario.name)} is taken by ${pathText(same)}; choose another name`,
      }
    }
    for (const [place, fault] of items(scenario.inject)) {
      yield* formOf(fault)?.rules(file, fault, [...path, 'inject', place]) ?? []
    }
    yield* expectRules(file, scenario, path, formOf)
  }
}
