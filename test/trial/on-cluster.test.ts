/** Scenarios on a cluster that somebody else made: what rules them out, which rights they need, and whom a drain hits. */
import { describe, expect, it } from 'vitest'
import { parseAllDocuments } from 'yaml'
import type { Context } from '../../src/context.js'
import { LabError } from '../../src/error.js'
import type { Lab } from '../../src/lab/lab.js'
import { homeOf, type KeptCluster, onCluster } from '../../src/provider/cluster/lab-record.js'
import { providerNamed } from '../../src/provider/load.js'
import { loadLab, registry } from '../../src/registry.js'
import { manifestsOf } from '../../src/steps/database.js'
import { scenarioHindrances } from '../../src/trial/hindrances.js'
import { faultNamed } from '../../src/trial/injection.js'
import { rbacManifest } from '../../src/trial/rights.js'
import { planUp } from '../../src/up.js'

const provider = await providerNamed('cluster')
const written = await loadLab('deployment-ha')

const node = (name: string, takesPods = true) => ({
  name,
  address: '10.0.0.1',
  takesPods,
  cpus: 1,
  memory: 2 ** 31,
})

const kept: KeptCluster = {
  context: 'work',
  server: 'https://10.0.0.1:6443',
  owner: 'us',
  storageClass: 'standard',
  namespace: homeOf(written),
  version: '1.36.3',
  nodes: [node('head', false), node('one'), node('two')],
}

const placed = (lab: Lab = written, cluster: Partial<KeptCluster> = {}): Lab =>
  onCluster(lab, { ...kept, ...cluster })

/** What the cluster answers to `kubectl get`, by the words after it; what is not listed does not exist. */
type Answers = Readonly<Record<string, object>>

const usual: Answers = {
  storageclasses: { items: [{ metadata: { name: 'standard' } }] },
  'namespace lab-deployment-ha': {
    metadata: { labels: { 'app.kubernetes.io/managed-by': 'lab', 'lab/given': 'true' } },
  },
}

interface Asked {
  readonly answers?: Answers
  /** `patch nodes`: rights that the account lacks. */
  readonly without?: readonly string[]
  /** The API server's answer to a Service that is made as a trial. */
  readonly service?: string
  /** The error of every connection to a node; absent: nothing listens there. */
  readonly nodes?: string
}

const contextOf = (
  lab: Lab,
  { answers = {}, without = [], service = '', nodes = 'ECONNREFUSED' }: Asked = {},
) => {
  const said: string[] = []
  const found: Answers = { ...usual, ...answers }
  const run = async (args: readonly string[], options: { input?: string } = {}): Promise<string> => {
    await Promise.resolve()
    said.push(args.join(' '))
    if (args[0] === 'get') {
      const words = args.slice(1).filter((word) => !word.startsWith('-') && word !== 'json')
      return JSON.stringify(found[words.slice(0, 2).join(' ')] ?? '').replace(/^""$/, '')
    }
    if (args.includes('--dry-run=server')) {
      if (service !== '') throw new LabError('kubectl-failed', service)
      return ''
    }
    const input = JSON.parse(options.input ?? '{}') as {
      items?: {
        spec: { resourceAttributes: { verb: string; resource: string; subresource?: string } }
      }[]
    }
    // As kubectl does.
    if (input.items?.length === 0) throw new LabError('kubectl-failed', 'error: no objects passed to create')
    return JSON.stringify({
      items: (input.items ?? []).map(({ spec: { resourceAttributes: asked } }) => ({
        status: {
          allowed: !without.includes(
            `${asked.verb} ${[asked.resource, asked.subresource].filter(Boolean).join('/')}`,
          ),
        },
      })),
    })
  }
  const kubectl = {
    run,
    get: async (...args: readonly string[]) => JSON.parse(await run(['get', ...args])) as unknown,
  }
  const dial = () => Promise.reject(Object.assign(new Error(`connect ${nodes}`), { code: nodes }))
  const context = {
    lab,
    provider: { ...provider, dial },
    kubectl,
    signal: new AbortController().signal,
  } as unknown as Context
  return { context, said }
}

const scenarioOf = (lab: Lab, name: string) => {
  const found = lab.scenarios.find((scenario) => scenario.name === name)
  if (!found) throw new Error(`no scenario ${name}`)
  return found
}

const whyNot = async (name: string, asked: Asked = {}, lab: Lab = placed()): Promise<readonly string[]> =>
  (await scenarioHindrances(contextOf(lab, asked).context, registry, scenarioOf(lab, name))).map(
    ({ why }) => why,
  )

describe('a scenario on an existing cluster', () => {
  it.each(['drain', 'pod-deleted', 'cordoned'])(
    'a scenario on an existing cluster can run if kubectl alone can do it: %s',
    async (name) => {
      expect(await whyNot(name)).toEqual([])
    },
  )

  it.each(['power-cut', 'hang'])(
    'a scenario on an existing cluster is refused if it needs more than kubectl: %s',
    async (name) => {
      expect(await whyNot(name)).toEqual([expect.stringMatching(/cluster cannot|cannot reach nodes/)])
    },
  )

  it('a scenario on an existing cluster is refused if the data of its database is on an iSCSI disk', async () => {
    const lab = await loadLab('iscsi-ha')
    expect(homeOf(lab)).toBeUndefined()
    const { namespace: _, ...cluster } = kept
    expect(await whyNot('drain', {}, onCluster(lab, cluster))).toEqual([
      'its database is on an iSCSI disk, which an existing cluster does not have',
    ])
  })

  it('a scenario on an existing cluster is refused if the database cannot move, since only one node accepts pods', async () => {
    const lab = placed(written, { nodes: [node('head', false), node('one')] })
    expect(await whyNot('drain', {}, lab)).toEqual([
      'the database must move to another node, and the cluster has 1 that accept pods',
    ])
    expect(await whyNot('pod-deleted', {}, lab)).toEqual([])
  })

  it('a scenario on an existing cluster is refused if the volume of the database can be used on one node alone', async () => {
    const answers = {
      'persistentvolumeclaim mysql-data': { spec: { volumeName: 'pv-1' } },
      'persistentvolume pv-1': {
        spec: {
          nodeAffinity: {
            required: {
              nodeSelectorTerms: [{ matchExpressions: [{ key: 'kubernetes.io/hostname', values: ['one'] }] }],
            },
          },
        },
      },
    }
    expect(await whyNot('drain', { answers })).toEqual([
      "the database's volume can be used on one alone, so the database cannot move",
    ])
    expect(await whyNot('pod-deleted', { answers })).toEqual([])
  })

  it('a scenario on an existing cluster is refused without a storage class, and the classes of the cluster are named', async () => {
    const { storageClass: _, ...without } = kept
    expect(await whyNot('drain', {}, onCluster(written, without))).toEqual([
      'its claims name no storage class, and the cluster has no default (it has standard)',
    ])
    expect(await whyNot('drain', {}, placed(written, { storageClass: 'fast' }))).toEqual([
      'the cluster has no storage class fast (it has standard)',
    ])
  })

  it('a scenario on an existing cluster is refused if the account lacks a right, in the namespace or in the cluster', async () => {
    expect(await whyNot('drain', { without: ['create pods/eviction', 'patch nodes'] })).toEqual([
      'no right in lab-deployment-ha to create pods/eviction',
      'no right in the cluster to patch nodes',
    ])
    // Deleting a pod needs no right on nodes.
    expect(await whyNot('pod-deleted', { without: ['patch nodes'] })).toEqual([])
  })

  it('a scenario on an existing cluster is refused if its namespace does not belong to the lab, or its node port is in use', async () => {
    expect(await whyNot('drain', { answers: { 'namespace lab-deployment-ha': { metadata: {} } } })).toEqual([
      'the namespace lab-deployment-ha exists already, and was not made for lab',
    ])
    expect(
      await whyNot('drain', {
        service: 'spec.ports[0].nodePort: Invalid value: 32306: provided port is already allocated',
      }),
    ).toEqual(['node port 32306 is taken on the cluster'])
  })

  it('a scenario on an existing cluster is refused if this computer does not reach the nodes', async () => {
    expect(await whyNot('drain', { nodes: 'EHOSTUNREACH' })).toEqual([
      'this computer does not reach the nodes: connect EHOSTUNREACH',
    ])
  })

  it('a scenario on an existing cluster treats a namespace that lab up made as its own', async () => {
    const answers = { 'namespace lab-deployment-ha': { metadata: { annotations: { 'lab/owner': 'us' } } } }
    expect(await whyNot('drain', { answers })).toEqual([])
  })
})

describe('the rights for scenarios on an existing cluster', () => {
  const objectsOf = (names: readonly string[]) =>
    parseAllDocuments(
      rbacManifest(
        written,
        [],
        written.scenarios.filter(({ name }) => names.includes(name)),
      ),
    ).map((each) => each.toJS() as { kind: string; metadata: { namespace?: string }; rules?: object[] })

  it('the rights for scenarios on an existing cluster allow a change of nodes only if a scenario cordons one, and of nothing else in the cluster', () => {
    const changes = (names: readonly string[]) =>
      objectsOf(names)
        .filter(({ kind }) => kind === 'ClusterRole')
        .flatMap(({ rules }) => rules as { resources: string[]; verbs: string[] }[])
        .flatMap(({ resources, verbs }) =>
          verbs
            .filter((verb) => !['get', 'list', 'watch'].includes(verb))
            .map((verb) => [verb, ...resources]),
        )
    expect(changes(['pod-deleted'])).toEqual([])
    expect(changes(['pod-deleted', 'drain'])).toEqual([['patch', 'nodes']])
  })

  it('the rights for scenarios on an existing cluster are for one namespace, which is the one of what lab up deploys', () => {
    const roles = objectsOf(['drain']).filter(({ kind }) => kind === 'Role')
    expect(roles.map(({ metadata }) => metadata.namespace)).toEqual(['lab-deployment-ha'])
  })
})

describe('a drain on an existing cluster', () => {
  it('a drain on an existing cluster cordons the node, and evicts the pods of the lab alone', async () => {
    const lab = placed()
    const { context, said } = contextOf(lab)
    let there = true
    const { kubectl } = context
    const asked: string[] = []
    const watched: Context = {
      ...context,
      kubectl: {
        ...kubectl,
        run: async (args, options) => {
          const words = args.join(' ')
          asked.push(words)
          if (words.includes('/eviction')) there = false
          if (args[0] === 'cordon' || words.includes('/eviction')) return ''
          return kubectl.run(args, options)
        },
        get: async <T>(...args: readonly string[]) => {
          asked.push(`get ${args.join(' ')}`)
          return Promise.resolve({
            items: there ? [{ metadata: { name: 'mysql-server-1' }, status: { phase: 'Running' } }] : [],
          } as T)
        },
      },
    }
    const fault = await faultNamed(registry, 'drain').aim(
      watched,
      { fault: 'drain', machine: 'database' },
      { server: 'one', index: 0 },
    )
    await fault.act(watched)
    expect(said).toEqual([])
    expect(asked).toEqual([
      'cordon one',
      'get pods --namespace lab-deployment-ha --field-selector spec.nodeName=one',
      'create --raw /api/v1/namespaces/lab-deployment-ha/pods/mysql-server-1/eviction -f -',
      'get pods --namespace lab-deployment-ha --field-selector spec.nodeName=one',
    ])
    expect(fault.undo).toEqual([{ do: 'uncordon', machine: 'one' }])
  })
})

describe('what lab up deploys on an existing cluster', () => {
  it('what lab up deploys on an existing cluster is the database with a claim that every storage class supports, in a namespace of its own', () => {
    const text = manifestsOf(placed()).find(({ name }) => name === 'database')?.text ?? ''
    expect(text).toContain('accessModes: [ReadWriteOnce]')
    expect(text).toContain('storageClassName: standard')
    expect(text.match(/labels: \{"app.kubernetes.io\/managed-by":"lab"\}/g)).toHaveLength(2)
  })

  it('what lab up deploys on an existing cluster needs nothing that the cluster brings, and asks nothing over SSH', () => {
    const { steps } = planUp(placed(), provider, {
      secrets: { bootstrapToken: '', clusterKey: '' },
      lunDevice: undefined,
    })
    const ids = steps.map(({ id }) => id)
    expect(steps.flatMap(({ needs }) => needs).filter((id) => !ids.includes(id))).toEqual([])
    expect(ids).toEqual([
      'reach-cluster',
      'ready-head',
      'ready-one',
      'ready-two',
      'take-namespace',
      'provide-storage',
      'deploy-database',
      'write-row',
      'start-clients',
      'prove-inside-one',
      'prove-inside-two',
    ])
  })
})
