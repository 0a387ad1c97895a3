import { items, lacks, pathText, Taken, type Draft, type DraftFile, type Found, type Path } from './draft.js'
import { roles, type BudgetName, type FaultName, type Protocol, type Role, type Service } from './lab.js'
import { defaults, durationOf, shown, type LabFile } from './schema.js'
import { didYouMean } from './suggest.js'

/** The rules of scenarios: whom a fault can hit, and what a budget could be measured by. */

type Scenario = Draft<NonNullable<LabFile['scenarios']>[number]>

/** Of a fault, whichever it is, the fields that rules look at. */
interface Fault {
  readonly fault?: FaultName | undefined
  readonly machine?: string | undefined
  readonly between?: readonly (readonly (string | undefined)[] | undefined)[] | undefined
  readonly protocol?: Protocol | undefined
  readonly service?: Service | undefined
  readonly disk?: 'root' | 'data' | undefined
  readonly loss?: string | undefined
}

const nodes: readonly Role[] = ['control-plane', 'worker']
const anything: readonly Role[] = roles

/** The roles of machines that a fault makes sense for, and why no others. */
const sensible: Readonly<
  Record<Exclude<FaultName, 'partition' | 'stop-service'>, readonly [readonly Role[], string]>
> = {
  drain: [nodes, 'only Kubernetes nodes have pods to move'],
  'power-cut': [anything, ''],
  hang: [anything, ''],
  reboot: [anything, ''],
  'packet-loss': [anything, ''],
  delay: [anything, ''],
  'target-loss': [['target'], 'only machines with the role target serve targets'],
  'disk-full': [anything, ''],
  'clock-skew': [anything, ''],
}

const runsOn: Readonly<Record<Service, readonly Role[]>> = {
  kubelet: nodes,
  containerd: nodes,
  iscsid: ['worker', 'initiator'],
  target: ['target'],
}

/** The roles that a word of a fault stands for; none for a word that means nothing, or nobody knows yet. */
const rolesAt = (file: DraftFile, where: string): readonly Role[] => {
  if (where === 'database' || where === 'standby') return ['worker']
  const machine = items(file.machines).find(([, { name }]) => name === where)?.[1]
  if (machine) return machine.role ? [machine.role] : []
  return roles.filter((role) => role === where)
}

/** Why a word of a fault does not stand for any machine. */
const whereProblem = (file: DraftFile, where: string): string | undefined => {
  const machines = items(file.machines).map(([, machine]) => machine)
  // A machine whose name or role is bad may be the one that is meant.
  if (machines.length < (file.machines?.length ?? 1)) return undefined
  if (machines.some(({ name, role }) => name === undefined || role === undefined)) return undefined
  if (where === 'database' || where === 'standby') {
    if (lacks(file, 'database')) return `${where} is about the database; add a database, or name a machine`
    const workers = machines.filter(({ role }) => role === 'worker').length
    return where === 'standby' && workers < 2
      ? 'standby is a worker without the database; wanted two machines with the role worker'
      : undefined
  }
  const names = machines.map(({ name }) => String(name))
  if (names.includes(where)) return undefined
  if ((roles as readonly string[]).includes(where)) {
    return machines.some(({ role }) => role === where) ? undefined : `no machine has the role ${where}`
  }
  const words = [...names, ...roles, ...(lacks(file, 'database') ? [] : ['database', 'standby'])]
  return `no machine is named ${shown(where)}${didYouMean(where, words) || `; wanted ${names.join(', ')}, a role, database or standby`}`
}

/** Whether two words of a fault stand for a common machine, wherever the database runs. */
const shares = (file: DraftFile, one: string, other: string): boolean => {
  const isRole = (word: string): boolean =>
    roles.some((role) => role === word) && items(file.machines).every(([, { name }]) => name !== word)
  const has = (role: string, word: string): boolean =>
    isRole(role) && !isRole(word) && rolesAt(file, word).some((found) => found === role)
  return one === other || has(one, other) || has(other, one)
}

function* partitionRules(file: DraftFile, fault: Fault, path: Path): Found {
  const sides = (fault.between ?? []).map((side) => items(side))
  for (const [side, words] of sides.entries()) {
    for (const [index, where] of words) {
      const message = whereProblem(file, where)
      if (message) yield { path: [...path, 'between', side, index], message }
    }
  }
  const [one = [], other = []] = sides
  const same = other.find(([, where]) => one.some(([, first]) => shares(file, first, where)))
  if (same) {
    yield {
      path: [...path, 'between', 1, same[0]],
      message: `${shown(same[1])} is on the other side already; wanted every machine on one side`,
    }
  }
  const faces = (first: Role, second: readonly Role[]): boolean => {
    const has = (words: typeof one, wanted: readonly Role[]): boolean =>
      words.some(([, where]) => rolesAt(file, where).some((role) => wanted.includes(role)))
    return (has(one, [first]) && has(other, second)) || (has(other, [first]) && has(one, second))
  }
  const known = sides.length === 2 && [...one, ...other].every(([, where]) => rolesAt(file, where).length > 0)
  if (!known) return
  if (fault.protocol === 'api' && !faces('control-plane', nodes)) {
    yield {
      path: [...path, 'protocol'],
      message:
        'api is between nodes and the control plane; wanted the control plane on one side, nodes on the other',
    }
  } else if (fault.protocol === 'storage' && !faces('target', ['worker', 'initiator'])) {
    yield {
      path: [...path, 'protocol'],
      message:
        'storage is between initiators and targets; wanted a target on one side, workers or initiators on the other',
    }
  }
}

function* faultRules(file: DraftFile, fault: Fault, path: Path): Found {
  if (fault.fault === undefined) return
  if (fault.fault === 'partition') {
    yield* partitionRules(file, fault, path)
    return
  }
  const where = fault.machine
  if (where === undefined) return
  const message = whereProblem(file, where)
  if (message) {
    yield { path: [...path, 'machine'], message }
    return
  }
  const odd = (wanted: readonly Role[]): Role | undefined =>
    rolesAt(file, where).find((role) => !wanted.includes(role))
  if (fault.fault === 'stop-service') {
    const role = fault.service && odd(runsOn[fault.service])
    if (fault.service && role) {
      yield {
        path: [...path, 'service'],
        message: `${fault.service} does not run on ${where}, whose role is ${role}; wanted a machine with the role ${runsOn[fault.service].join(' or ')}`,
      }
    }
    return
  }
  const [wanted, why] = sensible[fault.fault]
  const role = odd(wanted)
  if (role) {
    yield {
      path: [...path, 'machine'],
      message: `${fault.fault} makes no sense for ${where}, whose role is ${role}: ${why}`,
    }
  } else if (fault.fault === 'disk-full' && fault.disk === 'data' && where !== 'database') {
    yield {
      path: [...path, 'disk'],
      message: 'only the machine that runs the database has the data disk; wanted machine: database',
    }
  } else if (fault.fault === 'disk-full' && fault.disk === 'data' && file.database?.storage !== undefined) {
    yield {
      path: [...path, 'disk'],
      message: 'the data is on the NFS machine, and on no disk of the node; wanted disk: root',
    }
  }
}

/** Everyone whom a fault touches. */
const touched = (fault: Fault): readonly (string | undefined)[] =>
  fault.fault === 'partition'
    ? (fault.between ?? [undefined]).flatMap((side) => side ?? [undefined])
    : [fault.machine]

/** Whether a fault of one machine leaves its kubelet unheard. */
const silences = (fault: Fault): boolean =>
  fault.fault === 'power-cut' ||
  fault.fault === 'hang' ||
  fault.fault === 'reboot' ||
  (fault.fault === 'stop-service' && (fault.service === 'kubelet' || fault.service === 'containerd')) ||
  (fault.fault === 'packet-loss' && fault.loss === '100%')

/** Why nothing in this lab could measure a budget. */
const unmeasurable = (file: DraftFile, scenario: Scenario, budget: BudgetName): string | undefined => {
  const faults = items(scenario.inject).map(([, fault]) => fault)
  if (faults.length < (scenario.inject?.length ?? 1)) return undefined
  const hits = (wanted: Role, among: readonly Fault[]): boolean =>
    among.flatMap(touched).some((where) => where === undefined || rolesAt(file, where).includes(wanted))
  if (budget === 'notReady') {
    if (lacks(file, 'kubernetes')) return 'the lab has no Kubernetes nodes'
    const mute = faults.filter((fault) =>
      fault.fault === 'partition'
        ? fault.protocol !== 'storage' && hits('control-plane', [fault])
        : fault.fault === undefined || silences(fault),
    )
    return hits('worker', mute) ? undefined : 'no fault of this scenario silences a worker'
  }
  if (lacks(file, 'database')) return 'the lab has no database to write to'
  if (budget !== 'takeover') return undefined
  // A machine whose role is bad may be meant to be the second worker.
  const workers = (file.machines ?? []).filter((machine) => machine?.role === 'worker' || !machine?.role)
  if (workers.length < 2) return 'the lab has no second worker to take over'
  return hits('worker', faults)
    ? undefined
    : 'no fault of this scenario hits a worker, so nothing is taken over'
}

function* expectRules(file: DraftFile, scenario: Scenario, path: Path): Found {
  const deadlineText = lacks(scenario, 'deadline') ? defaults.deadline : scenario.deadline
  const deadline = deadlineText === undefined ? undefined : durationOf(deadlineText)
  for (const [budget, wanted] of Object.entries(scenario.expect ?? {}) as [
    BudgetName,
    string | undefined,
  ][]) {
    if (wanted === undefined) continue
    const at = [...path, 'expect', budget]
    const why = unmeasurable(file, scenario, budget)
    const ms = durationOf(wanted)
    if (why) {
      yield { path: at, message: `cannot be measured here: ${why}; remove it`, atKey: true }
    } else if (ms !== undefined && deadline !== undefined && ms > deadline) {
      yield {
        path: at,
        message: `${wanted} cannot be measured: the scenario ends after ${String(deadlineText)}; wanted less, or a later deadline`,
      }
    }
  }
}

/** Words that mean something else in a fault than the machine of that name. */
function* ambiguousNames(file: DraftFile): Found {
  for (const [index, { name, role }] of items(file.machines)) {
    if (name === 'database' || name === 'standby') {
      yield {
        path: ['machines', index, 'name'],
        message: `in scenarios, ${name} is a worker that does or does not run the database; wanted another name`,
      }
    } else if (
      name !== undefined &&
      role !== undefined &&
      name !== role &&
      roles.some((word) => word === name)
    ) {
      yield {
        path: ['machines', index, 'name'],
        message: `in scenarios, ${name} is a role, which this machine does not have; wanted another name`,
      }
    }
  }
}

function* takeoverRules(file: DraftFile): Found {
  const without = lacks(file, 'kubernetes')
  if (without && file.failover === 'fast') {
    yield { path: ['failover'], message: 'fast is about Kubernetes nodes; add kubernetes, or remove it' }
  }
  if (without && (file.fencing === 'storage' || file.fencing === 'power')) {
    yield {
      path: ['fencing'],
      message: `${file.fencing} is about Kubernetes nodes; add kubernetes, or remove it`,
    }
  } else if (file.fencing === 'storage' && lacks(file, 'iscsi')) {
    yield { path: ['fencing'], message: 'storage is fenced at a target; add iscsi.targets, or write power' }
  }
}

export function* scenarioRules(file: DraftFile): Found {
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
        message: `${String(scenario.name)} is taken by ${pathText(same)}; wanted another name`,
      }
    }
    for (const [place, fault] of items(scenario.inject)) {
      yield* faultRules(file, fault, [...path, 'inject', place])
    }
    yield* expectRules(file, scenario, path)
  }
}
