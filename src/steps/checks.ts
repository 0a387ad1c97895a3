import { setTimeout as delay } from 'node:timers/promises'
import type { Check, Context } from '../context.js'
import type { Seconds, Verdict } from '../plan/step.js'
import type { Lab, MachineSpec } from '../lab/lab.js'
import { type Command, shell } from '../machine/sh.js'

/** Where a check is asked: at a machine, or at the one that has a certain job at the moment. */
export type Place =
  | { readonly machine: string; readonly at?: never }
  | { readonly machine?: never; readonly at: (context: Context) => Promise<string> }

/** A check whose evidence is the output of one command on a machine. */
export const machineCheck = (
  check: Omit<Check, 'probe' | 'machine'> & {
    readonly command: Command
    /** Judges the trimmed standard output; a non-zero exit code always fails the check. */
    readonly judge: (output: string) => Verdict
  } & Place,
): Check => {
  const { command, judge, at, machine, ...rest } = check
  const where = at ?? ((): Promise<string> => Promise.resolve(machine))
  return {
    ...rest,
    ...(machine === undefined ? {} : { machine }),
    probe: async (context) => {
      const result = await context
        .machine(await where(context))
        .try(command, { signal: context.signal, timeout: 30 })
      const output = result.stdout.trim()
      if (result.exitCode !== 0)
        return { ok: false, saw: result.stderr.trim() || output || `exit code ${String(result.exitCode)}` }
      return judge(output)
    },
  }
}

/** Seconds for a machine that answers SSH to answer a question about itself. */
export const answerDeadline = 15

/** The command that shows the last lines of a unit's journal, as a hint. */
export const journalHint = (lab: Lab, machine: string, unit: string): string =>
  `lab exec ${lab.name} ${machine} -- journalctl -u ${unit} -n 40 --no-pager`

/** A systemd service that must run on a machine. */
export const serviceCheck = (lab: Lab, machine: MachineSpec, unit: string): Check =>
  machineCheck({
    id: `${machine.name}-${unit}`,
    title: `${unit} runs on ${machine.name}`,
    machine: machine.name,
    within: 30,
    hint: journalHint(lab, machine.name, unit),
    command: shell`systemctl show --property=ActiveState,SubState,NRestarts --value ${unit} | tr '\n' ' '`,
    judge: (output) => ({ ok: output.includes('active running'), saw: output.trim() }),
  })

/** The output must be exactly this. */
export const equals =
  (wanted: string, shown: (output: string) => string = (output) => output || 'nothing') =>
  (output: string): Verdict => ({
    ok: output === wanted,
    saw: output === wanted ? shown(output) : `${shown(output)}; it should be ${wanted}`,
  })

/**
 * Runs a question once for many checks that ask it at the same time: one `kubectl get` serves twenty of them.
 * @param freshFor milliseconds for which an answer serves other checks of the same run
 */
export const shared = <T>(
  ask: (context: Context) => Promise<T>,
  freshFor = 250,
): ((context: Context) => Promise<T>) => {
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

/** Applies a manifest, and takes over fields that others have set. */
export const apply = async (context: Context, manifest: string): Promise<void> => {
  await context.kubectl.run(['apply', '--server-side', '--force-conflicts', '-f', '-'], {
    input: manifest,
    timeout: 60,
  })
}

/** Seconds between two attempts. */
const pause = 0.25

/**
 * Tries until it succeeds.
 * @param deadline multiplied by the provider's factor for slow machines
 * @throws its last error once the deadline has passed, or at once when interrupted
 */
export const eventually = async <T>(
  { signal, provider }: Context,
  deadline: Seconds,
  action: () => Promise<T>,
): Promise<T> => {
  const until = performance.now() + deadline * (provider.slowdown ?? 1) * 1000
  for (;;) {
    try {
      return await action()
    } catch (error) {
      signal.throwIfAborted()
      if (performance.now() > until) throw error
      await delay(pause * 1000, undefined, { signal })
    }
  }
}
