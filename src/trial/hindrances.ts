/** Why an experiment or a scenario cannot run with this lab, known before anything is touched. */
import type { Context } from '../context.js'
import { exitCodes, LabError, messageOf } from '../error.js'
import { refusalOf } from '../fault/fault.js'
import { staysOff, switchHint } from '../fault/power-cut.js'
import { imageReference } from '../lab/images.js'
import { type Lab, machinesWith, type ScenarioSpec } from '../lab/lab.js'
import { objectIfThere } from '../machine/kubectl.js'
import { namespaceState, type NamespaceState } from '../machine/owned-namespace.js'
import type { Provider } from '../provider/provider.js'
import { claimOf, images as databaseImages } from '../steps/database-pods.js'
import type { Experiment } from './experiment-context.js'
import { faultNamed } from './injection.js'
import { namespaceOf } from './namespace.js'
import type { Registry } from './registry.js'
import {
  cordons,
  missingRights,
  namespaceMaking,
  namespaceRights,
  type Right,
  scenarioRights,
} from './rights.js'

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

/** The storage classes of a cluster. */
export interface StorageClasses {
  readonly items: readonly {
    readonly metadata: { readonly name: string; readonly annotations?: Readonly<Record<string, string>> }
  }[]
}

/** The class of claims that name none. */
export const defaultClassOf = (classes: StorageClasses['items']): string | undefined =>
  classes.find(
    ({ metadata }) => metadata.annotations?.['storageclass.kubernetes.io/is-default-class'] === 'true',
  )?.metadata.name

type OnCluster = Pick<Context, 'lab' | 'kubectl'>

/** A storage class that is missing on an existing cluster. */
const withoutStorage = async ({ lab, kubectl }: OnCluster): Promise<readonly Hindrance[]> => {
  if (lab.storage.length === 0) return []
  const { items } = await kubectl.get<StorageClasses>('storageclasses')
  const names = items.map(({ metadata }) => metadata.name)
  const wanted = lab.cluster?.storageClass
  if (wanted === undefined ? defaultClassOf(items) !== undefined : names.includes(wanted)) return []
  return [
    {
      why:
        wanted === undefined
          ? `its claims name no storage class, and the cluster has no default (it has ${names.join(', ') || 'none'})`
          : `the cluster has no storage class ${wanted} (it has ${names.join(', ') || 'none'})`,
      fix: `lab up ${lab.name} --kubeconfig FILE --storage-class NAME`,
    },
  ]
}

const stateOf = ({ lab, kubectl }: OnCluster, namespace: string): Promise<NamespaceState> =>
  namespaceState(kubectl, namespace, lab.cluster?.owner)

/** A namespace that belongs to somebody else, and rights that are missing in it. */
const withoutNamespace = async (
  { lab, kubectl }: OnCluster,
  namespace: string,
  state: NamespaceState,
  rights: readonly Right[],
  inCluster: readonly Right[] = [],
): Promise<readonly Hindrance[]> => {
  const fix = `lab render ${lab.name} --rbac prints the rights, for the cluster's administrator`
  const missing = [
    ...(state === 'absent' ? await missingRights(kubectl, [namespaceMaking]) : []),
    ...(await missingRights(kubectl, rights, namespace)),
  ]
  const everywhere = await missingRights(kubectl, inCluster)
  return [
    ...(state === 'foreign'
      ? [
          {
            why: `the namespace ${namespace} exists already, and was not made for lab`,
            fix: `kubectl get all --namespace ${namespace}`,
          },
        ]
      : []),
    ...(missing.length > 0 ? [{ why: `no right in ${namespace} to ${summed(missing)}`, fix }] : []),
    ...(everywhere.length > 0 ? [{ why: `no right in the cluster to ${summed(everywhere)}`, fix }] : []),
  ]
}

/** What an existing cluster prevents: it is asked for its storage classes, its namespaces and our rights. */
const onCluster = async (context: OnCluster, experiment: Experiment): Promise<readonly Hindrance[]> => {
  const namespace = namespaceOf(context.lab, experiment)
  return [
    ...(await withoutStorage(context)),
    ...(await withoutNamespace(context, namespace, await stateOf(context, namespace), namespaceRights)),
  ]
}

/** A node port of the database that something else has. The API server is asked to make the Service, as a trial. */
const takenPorts = async (
  { lab, kubectl }: OnCluster,
  namespace: string,
  state: NamespaceState,
): Promise<readonly Hindrance[]> => {
  const { database } = lab
  if (!database || (await objectIfThere(kubectl, ['service', database.name, '--namespace', namespace])))
    return []
  const said = await kubectl
    .run(
      ['create', '--dry-run=server', '--namespace', state === 'absent' ? 'default' : namespace, '-f', '-'],
      {
        input: JSON.stringify({
          apiVersion: 'v1',
          kind: 'Service',
          metadata: { generateName: 'lab-' },
          spec: {
            type: 'NodePort',
            ports: [database.nodePort, database.ledgerPort].map((port) => ({
              name: `p${String(port)}`,
              port,
              nodePort: port,
            })),
          },
        }),
      },
    )
    .catch(messageOf)
  const ports = [...said.matchAll(/(\d+): provided port is already allocated/g)].map(([, port]) => port)
  return ports.length === 0
    ? []
    : [
        {
          why: `node port ${[...new Set(ports)].join(' and ')} is taken on the cluster`,
          fix: `choose another database.nodePort in ${lab.file}`,
        },
      ]
}

/** Whether this computer reaches the node ports, through which the client of a scenario writes. */
const unreachable = async ({
  lab,
  provider,
}: Pick<Context, 'lab' | 'provider'>): Promise<readonly Hindrance[]> => {
  const port = lab.database?.nodePort ?? 0
  const tried = await Promise.all(
    machinesWith(lab, 'worker').map(({ address }) =>
      provider.dial(lab, address, port).then(
        (socket) => {
          socket.destroy()
          return undefined
        },
        // A node that refuses the connection is reached: nothing listens there yet.
        (error: unknown) =>
          (error as NodeJS.ErrnoException).code === 'ECONNREFUSED' ? undefined : messageOf(error),
      ),
    ),
  )
  return tried.some((why) => why === undefined)
    ? []
    : [
        {
          why: `this computer does not reach the nodes: ${tried[0] ?? 'no node accepts pods'}`,
          fix: `run lab on a computer in the nodes' network, which reaches their port ${String(port)}`,
        },
      ]
}

interface Claim {
  readonly spec: { readonly volumeName?: string }
}

interface Volume {
  readonly spec: {
    readonly nodeAffinity?: {
      readonly required?: {
        readonly nodeSelectorTerms: readonly {
          readonly matchExpressions?: readonly { readonly key: string; readonly values?: readonly string[] }[]
        }[]
      }
    }
  }
}

/** The only node that can use the database's volume; undefined if several can, or there is no volume yet. */
const onlyNodeOf = async (
  { kubectl }: OnCluster,
  claim: string,
  namespace: string,
): Promise<string | undefined> => {
  const found = await objectIfThere<Claim>(kubectl, [
    'persistentvolumeclaim',
    claim,
    '--namespace',
    namespace,
  ])
  if (found?.spec.volumeName === undefined) return undefined
  const volume = await objectIfThere<Volume>(kubectl, ['persistentvolume', found.spec.volumeName])
  const terms = volume?.spec.nodeAffinity?.required?.nodeSelectorTerms ?? []
  const hosts = terms.flatMap(({ matchExpressions = [] }) =>
    matchExpressions
      .filter(({ key }) => key === 'kubernetes.io/hostname')
      .flatMap(({ values = [] }) => values),
  )
  return new Set(hosts).size === 1 ? hosts[0] : undefined
}

/** What an existing cluster prevents for a scenario, which needs the database of `lab up`. */
const scenarioOnCluster = async (
  context: OnCluster & Pick<Context, 'provider'>,
  scenario: ScenarioSpec,
): Promise<readonly Hindrance[]> => {
  const { lab } = context
  const { database, cluster } = lab
  if (!database || cluster?.namespace === undefined)
    return [{ why: 'its database is on an iSCSI disk, which an existing cluster does not have' }]
  const rights = scenarioRights([scenario])
  const state = await stateOf(context, cluster.namespace)
  const workers = machinesWith(lab, 'worker').length
  // A node that takes no pods any more leaves its work to another one.
  const moves = scenario.expect.takeover !== undefined || cordons(scenario)
  const only = moves ? await onlyNodeOf(context, claimOf(database), cluster.namespace) : undefined
  return [
    ...(moves && workers < 2
      ? [
          {
            why: `the database must move to another node, and the cluster has ${String(workers)} that accept pods`,
            fix: 'add a node that accepts pods',
          },
        ]
      : []),
    ...(only === undefined
      ? []
      : [
          {
            why: `the database's volume can be used on ${only} alone, so the database cannot move`,
            fix: `lab down ${lab.name}, then lab up ${lab.name} --kubeconfig FILE --storage-class NAME`,
          },
        ]),
    ...(await withoutStorage(context)),
    ...(await withoutNamespace(context, cluster.namespace, state, rights.namespace, rights.cluster)),
    ...(await takenPorts(context, cluster.namespace, state)),
    ...(await unreachable(context)),
  ]
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

/** What the provider and the machines prevent of a scenario; nothing is queried. */
const knownOfScenario = (
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
]

/** The same for a scenario. */
export const scenarioHindrances = async (
  context: Pick<Context, 'lab' | 'provider' | 'kubectl'>,
  registry: Registry,
  scenario: ScenarioSpec,
): Promise<readonly Hindrance[]> => {
  const { lab, provider } = context
  const first = knownOfScenario(lab, provider, registry, scenario)
  return lab.cluster && first.length === 0 ? scenarioOnCluster(context, scenario) : first
}

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
  [
    ...lab.images.map(imageReference),
    ...(lab.database && lab.cluster?.namespace !== undefined ? [databaseImages.database] : []),
  ].flatMap((image) => {
    const without = nodes
      .filter(({ takesPods, images }) => takesPods && !images.includes(image))
      .map(({ name }) => name)
    return without.length > 0 ? [{ image, nodes: without }] : []
  })
