/**
 * The rights that experiments need on a cluster that somebody else made, in terms of RBAC: the same list is checked
 * before a run, and rendered for the administrator.
 */
import { stringify } from 'yaml'
import type { Kubectl } from '../machine/kubectl.js'
import type { Experiment } from './experiment-context.js'
import { namespaceOf } from './namespace.js'
import type { Lab } from '../lab/lab.js'

/** Verbs on kinds of one API group. */
export interface Right {
  /** The API group; empty: the core group. */
  readonly group: '' | 'apps' | 'storage.k8s.io' | 'policy'
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

/** Labels of a namespace that somebody made for lab to use. */
export const givenLabels = { 'app.kubernetes.io/managed-by': 'lab', 'lab/given': 'true' } as const

const ruleOf = ({ group, resources, verbs }: Right): object => ({ apiGroups: [group], resources, verbs })

/**
 * Manifests for the administrator: a namespace for each experiment, a service account, and the least rights that it
 * needs. None of them allow changes outside these namespaces.
 */
export const rbacManifest = (lab: Lab, experiments: readonly Experiment[]): string => {
  const home = `lab-${lab.name}`
  const namespaces = [...new Set(experiments.map((experiment) => namespaceOf(lab, experiment)))]
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
      { apiGroups: [''], resources: ['namespaces'], resourceNames: namespaces, verbs: ['get'] },
    ]),
    binding('ClusterRole', { name: home }, home),
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
