/** A lab on an existing cluster: the cluster is examined before anything is changed. */
import { randomUUID } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { exitCodes, LabError, messageOf } from '../error.js'
import type { Lab } from '../lab/lab.js'
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
  const { homeOf, keepCluster, keptCluster, nodeOf, onCluster } =
    await import('../provider/cluster/lab-record.js')
  const kept = await keptCluster(lab)
  if (options.kubeconfig === undefined && !kept) {
    if (options.context !== undefined || options.storageClass !== undefined)
      throw new LabError('bad-kubeconfig', '--context and --storage-class need a cluster from --kubeconfig', {
        hint: `lab up ${lab.name} --kubeconfig FILE`,
        exitCode: exitCodes.usage,
      })
    return lab
  }
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
  const { builtKubectl } = await import('../parts/parts.js')
  const { minifiedKubeconfig } = await import('../provider/cluster/kubeconfig.js')
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
  const [
    { kubectlWith },
    { defaultClassOf, hindrancesOf, imagesToFetch, scenarioHindrances },
    { registry },
    { providerNamed },
  ] = await Promise.all([
    import('../machine/kubectl.js'),
    import('../trial/hindrances.js'),
    import('../registry.js'),
    import('../provider/load.js'),
  ])
  const folder = await mkdtemp(join(tmpdir(), 'lab-cluster-'))
  try {
    const file = join(folder, 'kubeconfig')
    await writeFile(file, kubeconfig, { mode: 0o600 })
    const kubectl = kubectlWith(program, file, signal)
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
    const look = `kubectl --kubeconfig ${quote(options.kubeconfig ?? pathsOf(lab).kubeconfig)} get nodes`
    const seen: Seen = {
      version: await ask(
        'it does not answer',
        async () =>
          (
            JSON.parse(await kubectl.run(['get', '--raw', '/version'])) as { gitVersion: string }
          ).gitVersion.replace(/^v/, ''),
        look,
      ),
      nodes: await ask(
        'its nodes are not visible',
        async () => (await kubectl.get<{ items: readonly NodeObject[] }>('nodes')).items.map(nodeOf),
        `lab render ${lab.name} --rbac prints the rights, for the cluster's administrator`,
      ),
    }
    // If the account may not list storage classes, everything that needs one is refused below.
    const storageClass =
      options.storageClass ??
      kept?.storageClass ??
      defaultClassOf(
        await kubectl.get<StorageClasses>('storageclasses').then(
          ({ items }) => items,
          () => [],
        ),
      )
    const namespace = homeOf(lab)
    const cluster: KeptCluster = {
      context,
      server,
      owner: kept?.owner ?? randomUUID(),
      ...(storageClass === undefined ? {} : { storageClass }),
      ...(namespace === undefined ? {} : { namespace }),
      version: seen.version,
      nodes: seen.nodes.map(({ images: _images, ...node }) => node),
    }
    const placed = onCluster(lab, cluster)
    const provider = await providerNamed('cluster')
    const found: Possible[] = []
    for (const scenario of placed.scenarios)
      found.push({
        name: scenario.name,
        hindrances: await scenarioHindrances({ lab: placed, provider, kubectl }, registry, scenario),
      })
    for (const { name } of placed.experiments) {
      const experiment = registry.experiments.find((each) => each.name === name)
      if (experiment)
        found.push({
          name,
          hindrances: await hindrancesOf({ lab: placed, provider, kubectl }, registry, experiment),
        })
    }
    const lines = possibleTable(found)
    if (found.every(({ hindrances }) => hindrances.length > 0))
      throw new LabError('preflight', `nothing of ${lab.name} can run on ${server}\n${lines.join('\n')}`, {
        hint:
          [...new Set(found.flatMap(({ hindrances }) => hindrances.flatMap(({ fix }) => fix ?? [])))].join(
            '\n',
          ) || 'lab list',
        exitCode: exitCodes.host,
      })
    notice(`Kubernetes ${seen.version} at ${server}: only kubectl, no power switches, no SSH, no iSCSI`)
    for (const text of lines) notice(text)
    for (const { image, nodes } of imagesToFetch(placed, seen.nodes))
      notice(`${nodes.join(', ')} must pull ${image}`)
    await keepCluster(lab, cluster)
    // Commands that name no namespace, such as `lab kubectl`, are about what was deployed.
    if (namespace !== undefined)
      await kubectl.run(['config', 'set-context', '--current', '--namespace', namespace])
    await writePrivate(pathsOf(lab).kubeconfig, await readFile(file, 'utf8'))
    return placed
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
