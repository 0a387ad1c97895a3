/** Commands that look and change nothing: status, verify, plan, list, logs, doctor. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { exitCodes, type ExitCode, LabError } from '../error.js'
import type { Lab } from '../lab/lab.js'
import { quote } from '../machine/sh.js'
import { madeLabs, pathsOf } from '../state.js'
import { maskKnown } from '../view/secrets.js'
import {
  type Io,
  loadLab,
  loadRunning,
  type Options,
  printJson,
  providerForUp,
  providerInUse,
  providerOf,
  sessionFor,
} from './common.js'

/** Who is watched, fenced and about to be fenced; undefined: nobody is to be. */
const fencingStatus = async (lab: Lab) => {
  const { agentState, isAtWork } = await import('../fencing/state.js')
  const fenced = await fencedNodes(lab)
  if (lab.fencing === 'none' && fenced.length === 0) return undefined
  const state = await agentState(lab.name)
  const watching = state !== undefined && isAtWork(state)
  return {
    method: lab.fencing,
    watching,
    suspended: state?.suspended ?? false,
    pid: state?.pid,
    looked: state?.at,
    /** Who would be fenced if they went. */
    watched: state?.watched ?? [],
    /** Who is being fenced, and of whom nothing confirms yet that they cannot write. */
    fencing: state?.fencing ?? [],
    fenced,
  }
}

/** The nodes whose fence is to be undone. The journal's parser is loaded where there is a journal. */
const fencedNodes = async (lab: Lab): Promise<readonly string[]> => {
  if (!existsSync(pathsOf(lab.name).faults)) return []
  const { fencesIn, readJournal } = await import('../journal.js')
  return [...fencesIn(await readJournal(lab.name)).keys()]
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
                ? 'the agent waits for a command that is at work'
                : status.watched.length === 0
                  ? 'the agent has not seen a worker ready yet'
                  : `the agent watches ${status.watched.map(({ node, since }) => `${node} since ${since}`).join(', ')}`
            } (pid ${String(status.pid)})`
          : `fencing ${status.method}: nobody watches the workers; type: lab up ${lab.name}`,
      ]),
  ...(status.fencing.length > 0 ? [`being fenced: ${status.fencing.join(', ')}`] : []),
  ...(status.fenced.length > 0
    ? [`fenced: ${status.fenced.join(', ')}; to bring back: lab heal ${lab.name}`]
    : []),
]

/** What is there now, from the provider's own tools: no machine is asked. */
export const status = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  const provider = await providerOf(lab)
  const [machines, { ok, saw }, fencing] = await Promise.all([
    provider.states(lab),
    provider.network(lab),
    fencingStatus(lab),
  ])
  const network = { ok, saw: maskKnown(saw) }
  const paths = pathsOf(lab.name)
  const rows = machines.map((state) => {
    const spec = lab.machines.find(({ name }) => name === state.name)
    // What a machine printed last is in there.
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
      files,
    })
  else {
    const width = Math.max(...rows.map(({ name }) => name.length))
    io.stdout.write(
      [
        `${lab.name}  ${lab.description}`,
        `provider ${provider.name}, network ${lab.network.subnet}: ${network.saw}`,
        ...rows.map(({ name, address, role, status: is, detail, differs }) =>
          `  ${name.padEnd(width)}  ${address.padEnd(15)}  ${role.padEnd(13)}  ${is}  ${is === 'running' ? (differs ?? '') : detail}`.trimEnd(),
        ),
        ...(fencing ? fencingLines(lab, fencing) : []),
        ...(files.kubeconfig === undefined ? [] : [`kubectl --kubeconfig ${quote(files.kubeconfig)}`]),
        `ssh -F ${quote(files.sshConfig)} ${rows[0]?.name ?? ''}`,
        '',
      ].join('\n'),
    )
  }
  return exitCodes.ok
}

/** Every check of the running lab, now. */
export const verify = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  const provider = await providerOf(lab)
  const [{ runPlan, succeeded }, { reportJson, reportTable }, { planFor }, { wantsColor }, { viewFor }] =
    await Promise.all([
      import('../plan/runner.js'),
      import('../plan/report.js'),
      import('./up.js'),
      import('../view/view.js'),
      import('./viewing.js'),
    ])
  const session = await sessionFor(lab, provider, io.signal)
  const view = viewFor(io, options)
  try {
    const report = await runPlan(await planFor(lab, provider), 'look', session, (event) => {
      if (options.events) view.event(event)
    })
    await view.close()
    if (options.output === 'json') printJson(io, 'lab.report/v1', reportJson(report, maskKnown))
    else if (!options.events) io.stdout.write(`${reportTable(report, wantsColor(io.stdout), maskKnown)}\n`)
    return report.interrupted ? exitCodes.interrupted : succeeded(report) ? exitCodes.ok : exitCodes.failed
  } finally {
    await view.close()
    await session.close()
  }
}

/** What `up` would do now, and why. */
export const plan = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadLab(nameOrPath)
  const provider = await providerForUp(lab, options, io.signal)
  const [{ runPlan }, { planFor }] = await Promise.all([import('../plan/runner.js'), import('./up.js')])
  const session = await sessionFor(lab, provider, io.signal)
  try {
    const problems = await provider.preflight(lab)
    const report = await runPlan(await planFor(lab, provider), 'look', session, () => undefined)
    const todo = report.results.filter(({ outcome }) => outcome !== 'ok')
    const steps = todo.map(({ step, checks }) => ({
      id: step.id,
      title: step.title,
      machine: step.machine,
      action: step.apply ? 'apply' : 'look',
      why: checks.filter(({ ok }) => !ok).map(({ check, saw }) => maskKnown(`${check.title}: no: ${saw}`)),
    }))
    if (options.output === 'json') {
      printJson(io, 'lab.plan/v1', { name: lab.name, provider: provider.name, problems, steps })
    } else {
      for (const { problem, hint, may } of problems)
        io.stdout.write(`${may ? '?' : '✖'} ${problem}\n  Hint: ${hint}\n`)
      io.stdout.write(
        steps.length === 0
          ? `${lab.name} is as its file says: lab up ${lab.name} would do nothing.\n`
          : `lab up ${lab.name} (${provider.name}) would:\n${steps
              .map(
                ({ title, machine, action, why }) =>
                  `  ${action === 'apply' ? '~' : '?'} ${title}${machine === undefined ? '' : ` [${machine}]`}\n${why.map((line) => `      because ${line}\n`).join('')}`,
              )
              .join('')}${String(steps.length)} of ${String(report.results.length)} steps.\n`,
      )
    }
    return problems.every(({ may }) => may) ? exitCodes.ok : exitCodes.host
  } finally {
    await session.close()
  }
}

/** Shipped labs, and those that are up. */
export const list = async (options: Options, io: Io): Promise<ExitCode> => {
  const { shippedLabs } = await import('../lab/load.js')
  const there = await madeLabs()
  const shipped = shippedLabs()
  const others = there
    .filter((name) => !shipped.some((lab) => lab.name === name))
    .map((name) => ({ name, file: pathsOf(name).source, description: '(from a file of yours)', runs: [] }))
  const labs = await Promise.all(
    [...shipped, ...others].map(async (lab) => ({ ...lab, provider: (await providerInUse(lab))?.name })),
  )
  if (options.output === 'json') printJson(io, 'lab.list/v1', { labs })
  else {
    const width = Math.max(...labs.map(({ name }) => name.length))
    for (const { name, provider, description, runs } of labs) {
      io.stdout.write(
        `${name.padEnd(width)}  ${(provider === undefined ? '-' : `made (${provider})`).padEnd(12)}  ${description}\n`,
      )
      for (const each of runs) io.stdout.write(`  ${each.name.padEnd(18)}  ${each.description}\n`)
    }
  }
  return exitCodes.ok
}

/** The end of a machine's console, or of its whole journal. */
export const logs = async (
  nameOrPath: string,
  machine: string,
  options: Options & { readonly lines: string; readonly journal?: boolean },
  io: Io,
): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  if (!/^[1-9]\d*$/.test(options.lines))
    throw new LabError('bad-lines', `--lines ${options.lines}: wanted a number, 1 or more`, {
      exitCode: exitCodes.usage,
    })
  const provider = await providerOf(lab)
  if (!lab.machines.some(({ name }) => name === machine))
    throw new LabError('no-machine', `${lab.name} has no machine ${machine}`, {
      hint: `its machines: ${lab.machines.map(({ name }) => name).join(', ')}`,
      exitCode: exitCodes.usage,
    })
  if (options.journal) {
    const session = await sessionFor(lab, provider, io.signal)
    try {
      const { shell } = await import('../machine/sh.js')
      const said = await session.machine(machine).run(shell`journalctl --no-pager --lines=${options.lines}`)
      io.stdout.write(`${maskKnown(said)}\n`)
    } finally {
      await session.close()
    }
    return exitCodes.ok
  }
  const text = await readFile(provider.consoleLog(lab, machine), 'utf8').catch(() => '')
  io.stdout.write(`${maskKnown(text.trimEnd().split('\n').slice(-Number(options.lines)).join('\n'))}\n`)
  return exitCodes.ok
}

/** For each provider: usable or not, what was tried, and what would make it usable. */
export const doctor = async (options: Options, io: Io): Promise<ExitCode> => {
  const { allProviders } = await import('../provider/registry.js')
  const { hostPackages } = await import('../parts/host.js')
  const found = await Promise.all(
    (await allProviders()).map(async (provider) => ({
      provider: provider.name,
      ...(await provider.probe(io.signal)),
    })),
  )
  const host = await hostPackages()
  const chosen = found.find(({ usable }) => usable)?.provider
  if (options.output === 'json') printJson(io, 'lab.doctor/v1', { providers: found, chosen, host })
  else {
    for (const { provider, usable, evidence, remedy } of found)
      io.stdout.write(
        `${usable ? '✔' : '✖'} ${provider.padEnd(10)}  ${usable ? 'usable' : 'not usable'}: ${evidence}\n${usable || remedy === undefined ? '' : `  to make it usable:\n${remedy.replace(/^/gm, '    ')}\n`}`,
      )
    io.stdout.write(
      chosen === undefined ? 'No provider works here.\n' : `lab up uses ${chosen} unless told otherwise.\n`,
    )
    if (host.missing.length > 0)
      io.stdout.write(`Missing on this host: ${host.missing.join(', ')}: ${host.install}\n`)
  }
  return chosen === undefined ? exitCodes.host : exitCodes.ok
}
