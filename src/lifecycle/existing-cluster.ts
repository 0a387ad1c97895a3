/** A lab on an existing cluster: the cluster is examined before anything is changed. */
import { randomUUID } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { exitCodes, LabError, messageOf } from '../error.js'
import type { Lab } from '../lab/lab.js'
import type { Kubectl } from '../machine/kubectl.js'
import { quote } from '../machine/sh.js'
import type { ClusterNode, KeptCluster, NodeObject } from '../provider/cluster/lab-record.js'
import type { Hindrance, StorageClasses } from '../trial/hindrances.js'
import { pathsOf, readIfThere, writePrivate } from '../state.js'
import type { HostsOptions } from './existing-hosts.js'
import { refuseOtherProvider } from './provider-in-use.js'

const field = (kubeconfig: string, name: string): string =>
  new RegExp(`^\\s*${name}: (\\S+)$`, 'm').exec(kubeconfig)?.[1] ?? ''

/** The findings about a cluster. */
interface Seen {
  readonly version: string
  readonly nodes: readonly ClusterNode[]
}

/** Whether the lab can run there, and what the cluster lacks. */
interface Possible {
  readonly name: string
  readonly hindrances: readonly Hindrance[]
}

/** The table that is printed in advance: what can run, and what prevents the rest. */
export const possibleTable = (found: readonly Possible[]): readonly string[] => {
  const width = Math.max(0, ...found.map(({ name }) => name.length))
  return found.map(({ name, hindrances }) =>
    hindrances.length === 0
      ? `✔ ${name}`
      : `✖ ${name.padEnd(width)}  ${hindrances.map(({ why }) => why).join('; ')}`,
  )
}

export interface ClusterOptions extends HostsOptions {
  /** A context of the kubeconfig; default: its current one. */
  readonly context?: string
  /** The storage class of claims; default: the cluster's own. */
  readonly storageClass?: string
}

/** @throws LabError if the options contradict one another, or nothing of the lab can run on any cluster */
const refuseOptions = async (lab: Lab, options: ClusterOptions): Promise<void> => {
  await refuseOtherProvider(
    lab,
    'cluster',
    '--kubeconfig',
    options.hosts === undefined ? options.provider : 'hosts',
  )
  if (!lab.kubernetes)
    throw new LabError('no-kubernetes', `${lab.name} has no Kubernetes: nothing of it can run on a cluster`, {
      hint: `lab up ${lab.name}`,
      exitCode: exitCodes.usage,
    })
}

/** A cluster that is asked: its address, and kubectl with its kubeconfig. */
interface Asked {
  readonly server: string
  readonly kubectl: Kubectl
  readonly signal: AbortSignal
}

/**
 * @param look the command with which a person can see whether the cluster answers
 * @throws LabError `cluster-silent` if it does not answer, or does not let its nodes be seen
 */
const lookAt = async ({ server, kubectl, signal }: Asked, lab: Lab, look: string): Promise<Seen> => {
  const [{ nodeOf }, { serverVersion }] = await Promise.all([
    import('../provider/cluster/lab-record.js'),
    import('../machine/kubectl.js'),
  ])
  const ask = async <T>(what: string, question: () => Promise<T>, hint: string): Promise<T> => {
    try {
      return await question()
    } catch (error) {
      signal.throwIfAborted()
      throw new LabError('cluster-silent', `${server}: ${what}: ${messageOf(error)}`, {
        hint,
        exitCode: exitCodes.host,
        cause: error,
      })
    }
  }
  const version = await ask('it does not answer', () => serverVersion(kubectl), look)
  return {
    version: version.replace(/^v/, ''),
    nodes: await ask(
      'its nodes are not visible',
      async () => (await kubectl.get<{ items: readonly NodeObject[] }>('nodes')).items.map(nodeOf),
      `lab render ${lab.name} --rbac prints the rights, for the cluster's administrator`,
    ),
  }
}

/**
 * The default storage class. Undefined: there is none, or the account may not list them, and everything that needs one
 * is refused.
 */
const defaultClass = async ({ kubectl }: Asked): Promise<string | undefined> => {
  const { defaultClassOf } = await import('../trial/hindrances.js')
  const classes = await kubectl.get<StorageClasses>('storageclasses').then(
    ({ items }) => items,
    () => [],
  )
  return defaultClassOf(classes)
}

/**
 * What of the lab can run there.
 * @throws LabError `preflight` if nothing can
 */
const possibleOn = async ({ server, kubectl }: Asked, lab: Lab): Promise<readonly Possible[]> => {
  const [{ hindrancesOf, scenarioHindrances }, { registry }, { providerNamed }, { askingOnce }] =
    await Promise.all([
      import('../trial/hindrances.js'),
      import('../registry.js'),
      import('../provider/load.js'),
      import('../machine/kubectl.js'),
    ])
  // Scenarios have most of their questions in common.
  const around = { lab, provider: await providerNamed('cluster'), kubectl: askingOnce(kubectl) }
  const found: Possible[] = []
  for (const scenario of lab.scenarios)
    found.push({
      name: scenario.name,
      hindrances: await scenarioHindrances(around, registry, scenario),
    })
  for (const { name } of lab.experiments) {
    const experiment = registry.experiments.find((each) => each.name === name)
    if (experiment) found.push({ name, hindrances: await hindrancesOf(around, registry, experiment) })
  }
  if (found.some(({ hindrances }) => hindrances.length === 0)) return found
  const fixes = new Set(found.flatMap(({ hindrances }) => hindrances.flatMap(({ fix }) => fix ?? [])))
  throw new LabError(
    'preflight',
    `nothing of ${lab.name} can run on ${server}\n${possibleTable(found).join('\n')}`,
    { hint: [...fixes].join('\n') || 'lab list', exitCode: exitCodes.host },
  )
}

/**
 * The lab on the nodes of the cluster. It asks the cluster for its nodes, rights, storage classes and images, and
 * lists what is missing and what that prevents.
 * @throws LabError `preflight` if nothing of the lab can run there; nothing was touched
 */
export const labOnCluster = async (
  lab: Lab,
  options: ClusterOptions,
  signal: AbortSignal,
  notice: (text: string) => void,
): Promise<Lab> => {
  const { homeOf, keepCluster, keptCluster, onCluster } = await import('../provider/cluster/lab-record.js')
  const kept = await keptCluster(lab)
  if (options.kubeconfig === undefined && !kept) {
    if (options.context !== undefined || options.storageClass !== undefined)
      throw new LabError('bad-kubeconfig', '--context and --storage-class need a cluster from --kubeconfig', {
        hint: `lab up ${lab.name} --kubeconfig FILE`,
        exitCode: exitCodes.usage,
      })
    return lab
  }
  await refuseOptions(lab, options)
  const [{ builtKubectl }, { kubectlWith }, { minifiedKubeconfig }, { imagesToFetch }] = await Promise.all([
    import('../parts/parts.js'),
    import('../machine/kubectl.js'),
    import('../provider/cluster/kubeconfig.js'),
    import('../trial/hindrances.js'),
  ])
  const program = builtKubectl() ?? 'kubectl'
  const kubeconfig =
    options.kubeconfig === undefined
      ? ((await readIfThere(pathsOf(lab).kubeconfig)) ?? '')
      : await minifiedKubeconfig(program, options.kubeconfig, options.context)
  const [server, context] = [field(kubeconfig, 'server'), field(kubeconfig, 'current-context')]
  if (kept && kept.server !== server)
    throw new LabError('other-cluster', `${lab.name} is up on ${kept.server}, not on ${server}`, {
      hint: `lab down ${lab.name}`,
      exitCode: exitCodes.usage,
    })
  const folder = await mkdtemp(join(tmpdir(), 'lab-cluster-'))
  try {
    const file = join(folder, 'kubeconfig')
    await writeFile(file, kubeconfig, { mode: 0o600 })
    const asked: Asked = { server, kubectl: kubectlWith(program, file, signal), signal }
    const look = `kubectl --kubeconfig ${quote(options.kubeconfig ?? pathsOf(lab).kubeconfig)} get nodes`
    const { version, nodes } = await lookAt(asked, lab, look)
    const storageClass = options.storageClass ?? kept?.storageClass ?? (await defaultClass(asked))
    const namespace = homeOf(lab)
    const cluster: KeptCluster = {
      context,
      server,
      owner: kept?.owner ?? randomUUID(),
      ...(storageClass === undefined ? {} : { storageClass }),
      ...(namespace === undefined ? {} : { namespace }),
      version,
      nodes: nodes.map(({ images: _images, ...node }) => node),
    }
    const placed = onCluster(lab, cluster)
    const found = await possibleOn(asked, placed)
    notice(`Kubernetes ${version} at ${server}: only kubectl, no power switches, no SSH, no iSCSI`)
    for (const text of possibleTable(found)) notice(text)
    for (const { image, nodes: lacking } of imagesToFetch(placed, nodes))
      notice(`${lacking.join(', ')} must pull ${image}`)
    await keepCluster(lab, cluster)
    // Commands that name no namespace, such as `lab kubectl`, are about what was deployed.
    if (namespace !== undefined)
      await asked.kubectl.run(['config', 'set-context', '--current', '--namespace', namespace])
    await writePrivate(pathsOf(lab).kubeconfig, await readFile(file, 'utf8'))
    return placed
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
