import type { Check, Context, Verdict } from '../plan/step.js'
import type { Command } from '../machine/sh.js'

/** A check whose evidence is the output of one command on a machine. */
export const machineCheck = (
  check: Omit<Check, 'probe'> & {
    readonly machine: string
    readonly command: Command
    /** Decides on the trimmed standard output; a non-zero exit code is a no before that. */
    readonly judge: (output: string) => Verdict
  },
): Check => {
  const { command, judge, ...rest } = check
  return {
    ...rest,
    probe: async (context) => {
      const result = await context
        .machine(check.machine)
        .try(command, { signal: context.signal, timeout: 30 })
      const output = result.stdout.trim()
      if (result.exitCode !== 0)
        return { ok: false, saw: result.stderr.trim() || output || `exit code ${String(result.exitCode)}` }
      return judge(output)
    },
  }
}

/** The output must be exactly this. */
export const equals =
  (wanted: string, shown: (output: string) => string = (output) => output || 'nothing') =>
  (output: string): Verdict => ({
    ok: output === wanted,
    saw: output === wanted ? shown(output) : `${shown(output)}, wanted ${wanted}`,
  })

/** Milliseconds for which an answer serves other checks of the same run: they ask at the same moment. */
const freshFor = 250

/** Makes a question that many checks ask at once be asked once: one `kubectl get` serves twenty of them. */
export const shared = <T>(ask: (context: Context) => Promise<T>): ((context: Context) => Promise<T>) => {
  const answers = new WeakMap<Context, { readonly answer: Promise<T>; until: number }>()
  return (context) => {
    const known = answers.get(context)
    if (known && performance.now() < known.until) return known.answer
    const fresh = { answer: ask(context), until: Infinity }
    const asked = performance.now()
    const settle = (): void => {
      fresh.until = Math.max(asked + freshFor, performance.now())
    }
    fresh.answer.then(settle, settle)
    answers.set(context, fresh)
    return fresh.answer
  }
}
