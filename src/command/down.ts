import { existsSync } from 'node:fs'
import { labHere, type LabId } from '../identity.js'
import { exitCodes, type ExitCode, LabError } from '../error.js'
import type { Leftover, Provider } from '../provider/provider.js'
import { allProviders } from '../provider/registry.js'
import { runPlan } from '../plan/runner.js'
import { pathsOf } from '../state.js'
import { fileOptions } from '../steps/machines.js'
import { planDown, planGiveBack } from '../up.js'
import { maskKnown } from '../view/secrets.js'
import { printFailures } from './fail.js'
import { loadRunning } from './kept-lab.js'
import { providerInUse } from './provider-in-use.js'
import { withLab, withSession } from './with-lab.js'
import { printJson } from './json.js'
import { asJson, type Io, type Options, type Verb, withWait } from './verb.js'

const leftoversOf = async (lab: LabId, where: readonly Provider[]): Promise<readonly Leftover[]> =>
  (await Promise.all(where.map((provider) => provider.leftovers(lab)))).flat()

/**
 * The lab for a name or the path of a lab file. A name is enough if anything of the lab is left, even if that is only
 * a process whose files are gone.
 */
const meant = async (nameOrPath: string): Promise<LabId> => {
  if (/^[a-z0-9-]+$/.test(nameOrPath)) {
    const lab = labHere(nameOrPath)
    if (existsSync(pathsOf(lab).root) || (await leftoversOf(lab, await allProviders())).length > 0) return lab
  }
  return labHere((await loadRunning(nameOrPath)).name)
}

/**
 * Undoes what `up` changed on machines that lab did not create. If the record of it is lost, the machines stay as
 * they are.
 */
const giveBack = async (name: string, provider: Provider, io: Io): Promise<void> => {
  const lab = await loadRunning(name).catch(() => undefined)
  if (!lab) return
  await withSession(lab, provider, io.signal, async (session) => {
    const plan = planGiveBack(lab, provider, await fileOptions(lab, provider))
    printFailures(lab, await runPlan(plan, 'undo', session, () => undefined), io)
  })
}

/** Ends a lab whatever state it is in, then looks afresh: exit code 1 if anything of it is left, 130 after Ctrl-C. */
const run = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await meant(nameOrPath)
  return withLab(lab, { io, options, lock: 'down', keepEvents: true }, async ({ view }) => {
    // If the record of the provider is damaged, every provider is tried: `down` ends a lab whatever state it is in.
    const inUse = await providerInUse(lab).catch((error: unknown) => {
      if (error instanceof LabError && error.code === 'bad-state') return undefined
      throw error
    })
    const where = inUse ? [inUse] : await allProviders()
    const existed = existsSync(pathsOf(lab).root) || (await leftoversOf(lab, where)).length > 0
    if (inUse && !inUse.machines) await giveBack(lab.name, inUse, io)
    const report = await runPlan(planDown(lab, where), 'undo', { signal: io.signal }, () => undefined)
    const left = await leftoversOf(lab, where)
    await view.close()
    if (options.output === 'json') printJson(io, 'lab.down/v1', { name: lab.name, existed, left })
    else {
      io.stdout.write(
        left.length === 0
          ? `${lab.name}: ${existed ? 'gone' : 'was not up'}; nothing left: no processes, namespaces, interfaces, mounts or files\n`
          : `${lab.name}: still there:\n${left.map(({ kind, what }) => `  ${kind}: ${maskKnown(what)}\n`).join('')}`,
      )
    }
    printFailures(lab, report, io)
    if (left.length === 0) return exitCodes.ok
    return report.interrupted ? exitCodes.interrupted : exitCodes.failed
  })
}

export const verb: Verb = {
  options: [asJson, withWait],
  run,
}
