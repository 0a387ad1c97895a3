import type { Check, Context, Seconds, Verdict } from '../plan/step.js'
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
      const result = await context.machine(check.machine).try(command, { signal: context.signal, timeout: 30 })
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

/** Milliseconds for which checks of one run share an answer: one `kubectl get` serves twenty of them. */
const shareFor = 400

/** Makes a question of the cluster that checks asking at the same moment ask only once. */
export const shared = <T>(ask: (context: Context) => Promise<T>): ((context: Context) => Promise<T>) => {
  const answers = new WeakMap<Context, { at: number; answer: Promise<T> }>()
  return (context) => {
    const known = answers.get(context)
    if (known && performance.now() - known.at < shareFor) return known.answer
    const answer = ask(context)
    answer.catch(() => undefined)
    answers.set(context, { at: performance.now(), answer })
    return answer
  }
}

export type { Seconds }
