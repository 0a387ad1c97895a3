import { exitCodes, type ExitCode } from '../error.js'
import { leftOutLines } from '../plan/plan.js'
import { runPlan } from '../plan/runner.js'
import { planNow } from '../up.js'
import { maskKnown } from '../view/secrets.js'
import { loadLab } from '../lifecycle/load-lab.js'
import { providerForUp } from '../lifecycle/provider-in-use.js'
import { withLab } from '../command-line/with-lab.js'
import { printJson } from '../command-line/json.js'
import { asJson, type Io, type Options, type Verb, withProvider } from '../command-line/verb.js'

/** Prints what `up` would do now, and why. */
const run = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadLab(nameOrPath)
  const provider = await providerForUp(lab, options.provider, io.signal)
  return withLab(lab, { io, options, keepEvents: false }, async ({ open }) => {
    const session = await open(lab, provider)
    const problems = await provider.preflight(lab)
    const plan = await planNow(lab, provider)
    const { leftOut = [] } = plan
    const report = await runPlan(plan, 'check', session, () => undefined)
    const todo = report.results.filter(({ outcome }) => outcome !== 'ok')
    const steps = todo.map(({ step, checks }) => ({
      id: step.id,
      title: step.title,
      machine: step.machine,
      action: step.apply ? 'apply' : 'look',
      why: checks.filter(({ ok }) => !ok).map(({ check, saw }) => maskKnown(`${check.title}: no: ${saw}`)),
    }))
    if (options.output === 'json') {
      printJson(io, 'lab.plan/v1', { name: lab.name, provider: provider.name, problems, steps, leftOut })
    } else {
      for (const { problem, hint, may } of problems)
        io.stdout.write(maskKnown(`${may ? '?' : '✖'} ${problem}\n  Hint: ${hint}\n`))
      for (const line of leftOutLines(plan)) io.stdout.write(`- ${line}\n`)
      io.stdout.write(
        steps.length === 0
          ? `${lab.name} matches its file: lab up ${lab.name} would change nothing.\n`
          : `lab up ${lab.name} (${provider.name}) would:\n${steps
              .map(
                ({ title, machine, action, why }) =>
                  `  ${action === 'apply' ? '~' : '?'} ${title}${machine === undefined ? '' : ` [${machine}]`}\n${why.map((line) => `      because ${line}\n`).join('')}`,
              )
              .join('')}${String(steps.length)} of ${String(report.results.length)} steps.\n`,
      )
    }
    return problems.every(({ may }) => may) ? exitCodes.ok : exitCodes.host
  })
}

export const verb: Verb = {
  options: [withProvider, asJson],
  run,
}
