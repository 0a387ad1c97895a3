/** Why an experiment or a scenario cannot run with this lab, known before anything is touched. */
import type { Context } from '../context.js'
import { exitCodes, LabError } from '../error.js'
import { refusalOf } from '../fault/fault.js'
import { staysOff, switchHint } from '../fault/power-cut.js'
import { imageReference } from '../lab/images.js'
import { type Lab, machinesWith, type ScenarioSpec } from '../lab/lab.js'
import type { Provider } from '../provider/provider.js'
import type { Experiment } from './experiment-context.js'
import { faultNamed } from './injection.js'
import { namespaceOf } from './namespace.js'
import { namespaceState } from './own-namespace.js'
import type { Registry } from './registry.js'
import { missingRights, namespaceMaking, namespaceRights } from './rights.js'

/** A reason, and how to remove it if that is possible. */
export interface Hindrance {
  readonly why: string
  /** A command to type, or something to do. */
  readonly fix?: string
}

const faultsRefused = (
  registry: Registry,
  names: readonly string[],
  provider: Provider,
): readonly Hindrance[] =>
  [...new Set(names)].flatMap((name) => {
    const why = refusalOf(faultNamed(registry, name), provider)
    return why === undefined ? [] : [{ why: `${name}: ${why}` }]
  })

/** Machines that would have to stay off, but can only be forced to reboot. */
const doNotStayOff = (lab: Lab, provider: Provider): readonly Hindrance[] => {
  const forced = machinesWith(lab, 'worker')
    .map(({ name }) => name)
    .filter((name) => provider.power?.onlyReboots?.(name) === true)
  return forced.length === 0 ? [] : [{ why: `power-cut: ${staysOff(forced)}`, fix: switchHint }]
}

/** What the provider, the machines and the lab file prevent; nothing is queried. */
const known = (
  lab: Lab,
  provider: Provider,
  registry: Registry,
  experiment: Experiment,
): readonly Hindrance[] => {
  const workers = machinesWith(lab, 'worker').length
  return [
    ...faultsRefused(registry, experiment.faults ?? [], provider),
    // Experiments wait until Kubernetes gives up the node.
    ...(experiment.faults?.includes('power-cut') ? doNotStayOff(lab, provider) : []),
    ...(workers < experiment.workers
      ? [
          {
            why: `${experiment.name} needs ${String(experiment.workers)} workers, ${lab.name} has ${String(workers)}`,
            fix: lab.cluster ? 'add a node that accepts pods' : `add a worker to ${lab.file}`,
          },
        ]
      : []),
    ...(lab.cluster && experiment.workload
      ? [{ why: 'it needs what lab up deploys, but lab up deploys nothing on an existing cluster' }]
      : []),
  ]
}

interface StorageClasses {
  readonly items: readonly {
    readonly metadata: { readonly name: string; readonly annotations?: Readonly<Record<string, string>> }
  }[]
}

/** What an existing cluster prevents: it is asked for its storage classes, its namespaces and our rights. */
const onCluster = async (
  { lab, kubectl }: Pick<Context, 'lab' | 'kubectl'>,
  experiment: Experiment,
): Promise<readonly Hindrance[]> => {
  const found: Hindrance[] = []
  const rbac = `lab render ${lab.name} --rbac prints the rights, for the cluster's administrator`
  if (lab.storage.length > 0) {
    const { items } = await kubectl.get<StorageClasses>('storageclasses')
    const names = items.map(({ metadata }) => metadata.name)
    const wanted = lab.cluster?.storageClass
    const byDefault = items.some(
      ({ metadata }) => metadata.annotations?.['storageclass.kubernetes.io/is-default-class'] === 'true',
    )
    if (wanted === undefined ? !byDefault : !names.includes(wanted))
      found.push({
        why:
          wanted === undefined
            ? `its claims name no storage class, and the cluster has no default (it has ${names.join(', ') || 'none'})`
            : `the cluster has no storage class ${wanted} (it has ${names.join(', ') || 'none'})`,
        fix: `lab up ${lab.name} --kubeconfig FILE --storage-class NAME`,
      })
  }
  const namespace = namespaceOf(lab, experiment)
  const state = await namespaceState(kubectl, namespace)
  if (state === 'foreign')
    found.push({
      why: `the namespace ${namespace} exists already, and was not made for lab`,
      fix: `kubectl get all --namespace ${namespace}`,
    })
  const missing = [
    ...(state === 'absent' ? await missingRights(kubectl, [namespaceMaking]) : []),
    ...(await missingRights(kubectl, namespaceRights, namespace)),
  ]
  if (missing.length > 0) found.push({ why: `no right in ${namespace} to ${summed(missing)}`, fix: rbac })
  return found
}

/** `create pods, delete pods` as `create, delete pods`. */
const summed = (rights: readonly string[]): string => {
  const verbs = new Map<string, string[]>()
  for (const right of rights) {
    const [verb = '', what = ''] = right.split(' ')
    verbs.set(what, [...(verbs.get(what) ?? []), verb])
  }
  return [...verbs].map(([what, list]) => `${list.join(', ')} ${what}`).join('; ')
}

/** Everything that prevents an experiment; if nothing does, it can be tried. */
export const hindrancesOf = async (
  context: Pick<Context, 'lab' | 'provider' | 'kubectl'>,
  registry: Registry,
  experiment: Experiment,
): Promise<readonly Hindrance[]> => {
  const { lab, provider } = context
  const first = known(lab, provider, registry, experiment)
  return lab.cluster && first.length === 0 ? onCluster(context, experiment) : first
}

/** The same for a scenario. */
export const scenarioHindrances = (
  lab: Lab,
  provider: Provider,
  registry: Registry,
  scenario: ScenarioSpec,
): readonly Hindrance[] => [
  ...faultsRefused(
    registry,
    scenario.inject.map(({ fault }) => fault),
    provider,
  ),
  ...(scenario.inject.some(
    (fault) => fault.fault === 'power-cut' && (fault.for !== undefined || scenario.heal === 'deadline'),
  )
    ? doNotStayOff(lab, provider)
    : []),
  ...(lab.cluster
    ? [{ why: 'it needs the database of lab up, but lab up deploys nothing on an existing cluster' }]
    : []),
]

/** @throws LabError with all reasons, if there are any; nothing was touched */
export const refuseHindered = (name: string, found: readonly Hindrance[]): void => {
  if (found.length === 0) return
  const fixes = [...new Set(found.flatMap(({ fix }) => fix ?? []))]
  throw new LabError('cannot-run', `${name}: ${found.map(({ why }) => why).join('\n')}`, {
    exitCode: exitCodes.usage,
    ...(fixes.length > 0 ? { hint: fixes.join('\n') } : {}),
  })
}

/** Images that the nodes of an existing cluster do not report: they have to pull them. */
export const imagesToFetch = (
  lab: Lab,
  nodes: readonly {
    readonly name: string
    readonly takesPods: boolean
    readonly images: readonly string[]
  }[],
): readonly { readonly image: string; readonly nodes: readonly string[] }[] =>
  lab.images.map(imageReference).flatMap((image) => {
    const without = nodes
      .filter(({ takesPods, images }) => takesPods && !images.includes(image))
      .map(({ name }) => name)
    return without.length > 0 ? [{ image, nodes: without }] : []
  })
