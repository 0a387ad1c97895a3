/**
 * The rights that experiments need on a cluster that somebody else made, in terms of RBAC: the same list is checked
 * before a run, and rendered for the administrator.
 */
import { stringify } from 'yaml'
import type { Kubectl } from '../machine/kubectl.js'
import type { Experiment } from './experiment-context.js'
import { namespaceOf } from './namespace.js'
import type { Lab, ScenarioSpec } from '../lab/lab.js'
import { givenLabels } from '../machine/owned-namespace.js'

/** Verbs on kinds of one API group. */
export interface Right {
  /** The API group; empty: the core group. */
  readonly group: '' | 'apps' | 'discovery.k8s.io' | 'storage.k8s.io' | 'policy'
  readonly resources: readonly string[]
  readonly verbs: readonly string[]
}

const look = ['get', 'list', 'watch'] as const
const all = [...look, 'create', 'update', 'patch', 'delete', 'deletecollection'] as const

/** In the namespace of an experiment. */
export const namespaceRights: readonly Right[] = [
  { group: '', resources: ['pods', 'services', 'persistentvolumeclaims', 'configmaps'], verbs: all },
  { group: '', resources: ['pods/exec'], verbs: ['create', 'get'] },
  { group: '', resources: ['events', 'serviceaccounts'], verbs: look },
  { group: 'apps', resources: ['deployments', 'replicasets', 'statefulsets'], verbs: all },
  {
    group: 'apps',
    resources: ['deployments/scale', 'statefulsets/scale'],
    verbs: ['get', 'update', 'patch'],
  },
  { group: 'apps', resources: ['controllerrevisions'], verbs: look },
]

/** In the namespace of what `lab up` deploys, in addition: for the database, its clients, and its eviction. */
const homeRights: readonly Right[] = [
  { group: '', resources: ['secrets'], verbs: all },
  { group: '', resources: ['pods/eviction'], verbs: ['create'] },
  { group: 'apps', resources: ['daemonsets'], verbs: all },
  { group: 'discovery.k8s.io', resources: ['endpointslices'], verbs: look },
]

/** In the whole cluster, for faults that cordon a node. */
const cordonRight: Right = { group: '', resources: ['nodes'], verbs: ['patch'] }

/** In the whole cluster, to see on which nodes the volume of a database can be used. */
const volumeRight: Right = { group: '', resources: ['persistentvolumes'], verbs: ['get'] }

/** Whether a scenario keeps a node from taking pods. */
export const cordons = ({ inject }: ScenarioSpec): boolean =>
  inject.some(({ fault }) => fault === 'drain' || fault === 'cordon')

/** What scenarios need: in the namespace of their lab, and in the whole cluster. */
export const scenarioRights = (
  scenarios: readonly ScenarioSpec[],
): { readonly namespace: readonly Right[]; readonly cluster: readonly Right[] } => {
  return {
    namespace: [...namespaceRights, ...homeRights],
    cluster: [volumeRight, ...(scenarios.some(cordons) ? [cordonRight] : [])],
  }
}

/** In the whole cluster: read-only. */
export const clusterRights: readonly Right[] = [
  { group: '', resources: ['nodes'], verbs: look },
  { group: 'storage.k8s.io', resources: ['storageclasses'], verbs: ['get', 'list'] },
]

/** To make and remove a namespace. Not needed if it was made in advance, as the rendered manifest does. */
export const namespaceMaking: Right = {
  group: '',
  resources: ['namespaces'],
  verbs: ['get', 'create', 'delete'],
}

/** A right as one question: `create pods/exec`. */
interface Question {
  readonly group: string
  readonly resource: string
  readonly verb: string
  /** Absent: in the whole cluster. */
  readonly namespace?: string
}

const questionsOf = (rights: readonly Right[], namespace?: string): readonly Question[] =>
  rights.flatMap(({ group, resources, verbs }) =>
    resources.flatMap((resource) =>
      verbs.map((verb) => ({ group, resource, verb, ...(namespace === undefined ? {} : { namespace }) })),
    ),
  )

interface Review {
  readonly status: { readonly allowed: boolean }
}

/**
 * The rights that the user of kubectl lacks, according to `kubectl auth can-i`: `create pods/exec`. All are checked in
 * one call.
 */
export const missingRights = async (
  kubectl: Kubectl,
  rights: readonly Right[],
  namespace?: string,
): Promise<readonly string[]> => {
  const questions = questionsOf(rights, namespace)
  if (questions.length === 0) return []
  const reviews = questions.map(({ group, resource, verb, namespace: within }) => {
    const [name, subresource] = resource.split('/')
    return {
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SelfSubjectAccessReview',
      spec: {
        resourceAttributes: {
          group,
          resource: name,
          verb,
          ...(subresource === undefined ? {} : { subresource }),
          ...(within === undefined ? {} : { namespace: within }),
        },
      },
    }
  })
  const said = await kubectl.run(['create', '--validate=false', '-f', '-', '-o', 'json'], {
    input: JSON.stringify({ apiVersion: 'v1', kind: 'List', items: reviews }),
    timeout: 60,
  })
  // A single object is printed as such; several are printed as a list, or one after the other.
  const answers = readObjects(said)
  return questions.flatMap(({ verb, resource }, index) =>
    answers[index]?.status.allowed === true ? [] : [`${verb} ${resource}`],
  )
}

/** The output of `kubectl create -o json` for several objects. */
export const readObjects = (text: string): readonly Review[] => {
  const parsed = JSON.parse(`[${text.trim().replaceAll(/\n\}\s*\n?\{/g, '\n},\n{')}]`) as readonly (
    Review | { readonly items: readonly Review[] }
  )[]
  return parsed.flatMap((each) => ('items' in each ? each.items : [each]))
}

const ruleOf = ({ group, resources, verbs }: Right): object => ({ apiGroups: [group], resources, verbs })

/**
 * Manifests for the administrator: a namespace for each experiment, a service account, and the least rights that it
 * needs. They allow no change outside these namespaces, but to cordon nodes if a scenario does that.
 */
export const rbacManifest = (
  lab: Lab,
  experiments: readonly Experiment[],
  scenarios: readonly ScenarioSpec[],
): string => {
  const home = `lab-${lab.name}`
  const wanted = scenarioRights(scenarios)
  const namespaces = [...new Set(experiments.map((experiment) => namespaceOf(lab, experiment)))]
  const seen = scenarios.length > 0 ? [home, ...namespaces] : namespaces
  const account = { kind: 'ServiceAccount', name: 'lab', namespace: home }
  const namespace = (name: string): object => ({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name, labels: givenLabels },
  })
  const role = (kind: 'Role' | 'ClusterRole', metadata: object, rules: readonly object[]): object => ({
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind,
    metadata,
    rules,
  })
  const binding = (kind: 'Role' | 'ClusterRole', metadata: object, name: string): object => ({
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: `${kind}Binding`,
    metadata,
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind, name },
    subjects: [account],
  })
  const objects = [
    namespace(home),
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: account.name, namespace: home } },
    role('ClusterRole', { name: home }, [
      ...clusterRights.map(ruleOf),
      ...(scenarios.length > 0 ? wanted.cluster.map(ruleOf) : []),
      { apiGroups: [''], resources: ['namespaces'], resourceNames: seen, verbs: ['get'] },
    ]),
    binding('ClusterRole', { name: home }, home),
    ...(scenarios.length > 0
      ? [
          role('Role', { name: 'lab', namespace: home }, wanted.namespace.map(ruleOf)),
          binding('Role', { name: 'lab', namespace: home }, 'lab'),
        ]
      : []),
    ...namespaces.flatMap((name) => [
      namespace(name),
      role('Role', { name: 'lab', namespace: name }, namespaceRights.map(ruleOf)),
      binding('Role', { name: 'lab', namespace: name }, 'lab'),
    ]),
  ]
  return `# The least rights that lab needs for ${lab.name} on an existing cluster. Its administrator runs:
#   lab render ${lab.name} --rbac | kubectl apply -f -
# Then make a kubeconfig for the service account, with the server and the authority of your own:
#   kubectl create token ${account.name} --namespace ${home} --duration 8h
${objects.map((each) => stringify(each, { aliasDuplicateObjects: false })).join('---\n')}`
}
