import { existsSync } from 'node:fs'
import { labHere, type LabId } from '../identity.js'
import { exitCodes, type ExitCode, LabError } from '../error.js'
import type { Leftover, Provider } from '../provider/provider.js'
import { allProviders } from '../provider/load.js'
import { runPlan, succeeded } from '../plan/runner.js'
import { pathsOf } from '../state.js'
import { fileOptions } from '../steps/machines.js'
import { planDown, planGiveBack } from '../up.js'
import { maskKnown } from '../view/secrets.js'
import { printFailures } from '../command-line/fail.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { askForHosts } from '../lifecycle/existing-hosts.js'
import { healFirst } from '../lifecycle/heal.js'
import { providerToEnd } from '../lifecycle/provider-in-use.js'
import { type Held, withLab } from '../command-line/with-lab.js'
import { printJson } from '../command-line/json.js'
import { asJson, type Io, type Options, type Verb, withWait } from '../command-line/verb.js'

const leftoversOf = async (lab: LabId, where: readonly Provider[]): Promise<readonly Leftover[]> =>
  (await Promise.all(where.map((provider) => provider.leftovers(lab)))).flat()

/**
 * The lab for a name or the path of a lab file. A name is enough if anything of the lab is left, even if that is only
 * a process whose files are gone.
 */
const meant = async (nameOrPath: string): Promise<LabId> => {
  const known = /^[a-z0-9-]+$/.test(nameOrPath) ? labHere(nameOrPath) : undefined
  if (known && existsSync(pathsOf(known).root)) return known
  try {
    return labHere((await loadRunning(nameOrPath)).name)
  } catch (error) {
    if (!known) throw error
    const { left, silent } = await askAll(known)
    if (left.length > 0) return known
    throw silent.length > 0 ? cannotTell(error, known, silent) : error
  }
}

interface Silent {
  readonly provider: Provider
  readonly why: LabError
}

/** What all providers have of a lab, and which of them cannot be asked and have no record of it. */
const askAll = async (
  lab: LabId,
): Promise<{
  readonly answering: readonly Provider[]
  readonly left: readonly Leftover[]
  readonly silent: readonly Silent[]
}> => {
  const answering: Provider[] = []
  const left: Leftover[] = []
  const silent: Silent[] = []
  for (const provider of await allProviders())
    try {
      left.push(...(await provider.leftovers(lab)))
      answering.push(provider)
    } catch (error) {
      if (!(error instanceof LabError && error.code === 'not-asked')) throw error
      silent.push({ provider, why: error })
    }
  return { answering, left, silent }
}

/** There is no such lab, as far as the files tell, and a provider that may have something of it does not answer. */
const cannotTell = (noLab: unknown, lab: LabId, silent: readonly Silent[]): unknown =>
  noLab instanceof LabError
    ? new LabError(noLab.code, noLab.message, {
        hint: [
          noLab.hint ?? 'lab list',
          ...silent.map(
            ({ provider, why }) =>
              `or, if ${provider.name}, which does not answer, may have machines of ${lab.name}: ${why.hint ?? 'lab doctor'}`,
          ),
        ].join('\n'),
        exitCode: noLab.exitCode,
        cause: noLab,
      })
    : noLab

/**
 * Undoes what `up` changed on machines that lab did not create.
 * @throws LabError if the lab cannot be read: nothing is removed then, because that would leave them as they are
 * @returns whether they are as they were
 */
const giveBack = async (
  nameOrPath: string,
  provider: Provider,
  { open, view }: Held,
  io: Io,
): Promise<boolean> => {
  const lab = await loadRunning(nameOrPath).catch((error: unknown) => {
    // An `up` that was killed early has recorded the machines, and has not copied the lab file yet.
    if (!(error instanceof LabError && error.code === 'no-such-lab')) throw error
    throw new LabError('no-such-lab', `${nameOrPath} cannot be given back without its lab file`, {
      hint: 'lab down FILE, with its lab file',
      exitCode: exitCodes.usage,
      cause: error,
    })
  })
  await askForHosts(lab, io)
  if (lab.cluster) {
    const session = await open(lab, provider)
    // Removes what runs have left; what cannot be undone now stays in the journal, and is reported as left.
    await healFirst(session, (text) => view.notice(text))
    await session.close()
    return true
  }
  const plan = planGiveBack(lab, provider, await fileOptions(lab, provider))
  const session = await open(lab, provider)
  const report = await runPlan(plan, 'undo', session, (event) => view.event(event))
  printFailures(lab, report, io)
  // What is forgotten next includes the keys that it uses.
  await session.close()
  return succeeded(report)
}

/** Ends a lab whatever state it is in, then looks afresh: exit code 1 if anything of it is left, 130 after Ctrl-C. */
const run = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await meant(nameOrPath)
  return withLab(lab, { io, options, lock: 'down', keepEvents: true }, async (held) => {
    const { view } = held
    // If the record of the provider is damaged, every provider is tried: `down` ends a lab whatever state it is in.
    const inUse = await providerToEnd(lab)
    const { answering: where, silent } = inUse ? { answering: [inUse], silent: [] } : await askAll(lab)
    let existed = existsSync(pathsOf(lab).root)
    const asBefore = !inUse || inUse.machines !== undefined || (await giveBack(nameOrPath, inUse, held, io))
    /** The last look at each provider: the plan looks before it ends anything, and after it. */
    const looks = new Map<Provider, readonly Leftover[]>()
    const plan = planDown(lab, where, (provider, found) => {
      existed ||= found.length > 0
      looks.set(provider, found)
    })
    const report = await runPlan(plan, 'undo', { signal: io.signal }, () => undefined)
    // After a failure or Ctrl-C, the last look may have been before the end.
    const left = succeeded(report) ? [...looks.values()].flat() : await leftoversOf(lab, where)
    await view.close()
    if (options.output === 'json')
      printJson(io, 'lab.down/v1', {
        name: lab.name,
        existed,
        left,
        notAsked: silent.map(({ provider, why }) => ({
          provider: provider.name,
          why: why.message,
          hint: why.hint,
        })),
      })
    else {
      io.stdout.write(
        left.length === 0
          ? `${lab.name}: ${existed ? 'gone' : 'was not up'}; nothing left: no processes, namespaces, interfaces, mounts or files${asBefore ? '' : ', but a machine is not as it was before'}\n`
          : `${lab.name}: this is left:\n${left.map(({ kind, what }) => `  ${kind}: ${maskKnown(what)}\n`).join('')}`,
      )
      for (const { provider, why } of silent)
        io.stdout.write(
          `  ${provider.name} was not asked, and no record says that it has anything of ${lab.name}: ${maskKnown(why.message)}\n`,
        )
    }
    printFailures(lab, report, io)
    if (left.length === 0 && asBefore) return exitCodes.ok
    return report.interrupted ? exitCodes.interrupted : exitCodes.failed
  })
}

export const verb: Verb = {
  options: [asJson, withWait],
  run,
}
