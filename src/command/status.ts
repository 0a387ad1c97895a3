import { existsSync } from 'node:fs'
import { exitCodes, type ExitCode } from '../error.js'
import type { Lab } from '../lab/lab.js'
import { quote } from '../machine/sh.js'
import { lacks } from '../provider/provider.js'
import { pathsOf } from '../state.js'
import { maskKnown } from '../view/secrets.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { providerOf } from '../lifecycle/provider-in-use.js'
import { printJson } from '../command-line/json.js'
import { asJson, type Io, type Options, type Verb } from '../command-line/verb.js'

/** Which nodes are watched, being fenced and fenced; undefined if the lab has no fencing. */
const fencingStatus = async (lab: Lab) => {
  const { agentState, isAtWork } = await import('../fencing/state.js')
  const fenced = await fencedNodes(lab)
  if (lab.fencing === 'none' && fenced.length === 0) return undefined
  const state = await agentState(lab)
  const watching = state !== undefined && isAtWork(state)
  return {
    method: lab.fencing,
    watching,
    suspended: state?.suspended ?? false,
    pid: state?.pid,
    looked: state?.at,
    /** The nodes that would be fenced if they were lost. */
    watched: state?.watched ?? [],
    /** The nodes that are being fenced without a confirmation yet that they cannot write. */
    fencing: state?.fencing ?? [],
    /** Since when the agent sees no node, and why. */
    blind: state?.blind && { ...state.blind, why: maskKnown(state.blind.why) },
    fenced,
  }
}

/** The machines that were switched off by hand and are still off. */
const offByHand = async (lab: Lab): Promise<readonly string[]> => {
  if (!existsSync(pathsOf(lab).faults)) return []
  const { readJournal } = await import('../journal.js')
  return (await readJournal(lab)).filter(({ kind }) => kind === 'hand').map(({ undo }) => undo.machine)
}

/** The nodes whose fence is still to be undone. The journal's parser is loaded only if there is a journal. */
const fencedNodes = async (lab: Lab): Promise<readonly string[]> => {
  if (!existsSync(pathsOf(lab).faults)) return []
  const { fencesIn, readJournal } = await import('../journal.js')
  return [...fencesIn(await readJournal(lab)).keys()]
}

const fencingLines = (
  lab: Lab,
  status: NonNullable<Awaited<ReturnType<typeof fencingStatus>>>,
): readonly string[] => [
  ...(status.method === 'none'
    ? []
    : [
        status.watching
          ? `fencing ${status.method}: ${
              status.suspended
                ? 'the agent waits for another command to finish'
                : status.blind
                  ? `the agent sees no node since ${status.blind.since}, because it cannot ask Kubernetes: ${status.blind.why}`
                  : status.watched.length === 0
                    ? 'the agent has not seen a worker ready yet'
                    : `the agent watches ${status.watched.map(({ node, since }) => `${node} since ${since}`).join(', ')}`
            } (pid ${String(status.pid)})`
          : `fencing ${status.method}: no agent watches the workers; type: lab up ${lab.name}`,
      ]),
  ...(status.fencing.length > 0 ? [`being fenced: ${status.fencing.join(', ')}`] : []),
  ...(status.fenced.length > 0
    ? [`fenced: ${status.fenced.join(', ')}; to bring back: lab heal ${lab.name}`]
    : []),
]

/** Reports the present state from the provider's own tools, without asking any machine. */
const run = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  const provider = await providerOf(lab)
  const [machines, { ok, saw }, fencing, byHand] = await Promise.all([
    provider.states(lab),
    provider.network?.observe(lab) ?? { ok: true, saw: lacks(provider, 'network') ?? '' },
    fencingStatus(lab),
    offByHand(lab),
  ])
  const network = { ok, saw: maskKnown(saw) }
  const paths = pathsOf(lab)
  const rows = machines.map((state) => {
    const spec = lab.machines.find(({ name }) => name === state.name)
    // The log contains the last output of a machine.
    return {
      ...state,
      detail: maskKnown(state.detail),
      address: spec?.address ?? '',
      role: spec?.role ?? '(not in the lab file)',
    }
  })
  const files = {
    folder: paths.root,
    kubeconfig: existsSync(paths.kubeconfig) ? paths.kubeconfig : undefined,
    sshConfig: paths.sshConfig,
  }
  const up = rows.every((row) => row.status === 'running')
  if (options.output === 'json')
    printJson(io, 'lab.status/v1', {
      name: lab.name,
      provider: provider.name,
      up,
      network,
      machines: rows,
      fencing: fencing ?? null,
      offByHand: byHand,
      files,
    })
  else {
    const width = Math.max(...rows.map(({ name }) => name.length))
    io.stdout.write(
      [
        `${lab.name}  ${lab.description}`,
        lab.cluster
          ? `provider ${provider.name}: ${lab.cluster.context} at ${lab.cluster.server}`
          : `provider ${provider.name}, network ${lab.network.subnet}: ${network.saw}`,
        ...rows.map(({ name, address, role, status: is, detail, differs }) =>
          `  ${name.padEnd(width)}  ${address.padEnd(15)}  ${role.padEnd(13)}  ${is}  ${is === 'running' ? (differs ?? '') : detail}`.trimEnd(),
        ),
        ...(fencing ? fencingLines(lab, fencing) : []),
        ...byHand.map(
          (name) => `switched off by hand: ${name}; to switch it on: lab power ${lab.name} ${name} on`,
        ),
        ...(files.kubeconfig === undefined ? [] : [`kubectl --kubeconfig ${quote(files.kubeconfig)}`]),
        ...(lab.cluster ? [] : [`ssh -F ${quote(files.sshConfig)} ${rows[0]?.name ?? ''}`]),
        '',
      ].join('\n'),
    )
  }
  return exitCodes.ok
}

export const verb: Verb = {
  options: [asJson],
  looks: true,
  run,
}
