/**
 * Signs: how lab observes that a fault acts and that it is gone. A sign observes the system rather than the command
 * that was issued.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Interrupted, messageOf } from '../error.js'
import { type Command } from '../machine/sh.js'
import type { Context } from '../context.js'
import type { Seconds, Verdict } from '../plan/step.js'

/** An observation that is repeated until it holds. */
export interface Sign {
  /** A fact in the present tense: `worker1 is off`. */
  readonly title: string
  /** Seconds until it must hold, multiplied by the provider's factor for slow machines. */
  readonly within: Seconds
  readonly probe: (context: Context) => Promise<Verdict>
}

/** The final observation of a sign. */
export interface Seen extends Verdict {
  readonly title: string
  readonly at: Date
  /** Milliseconds on this host's monotonic clock. */
  readonly ms: number
}

/** Milliseconds between two observations. */
const pause = 250

/**
 * Observes until the sign holds or its time is over. An observation that fails counts as no.
 * @throws Interrupted with the signal
 */
export const see = async ({ title, within, probe }: Sign, context: Context): Promise<Seen> => {
  const { signal, provider } = context
  const begun = performance.now()
  for (;;) {
    signal.throwIfAborted()
    const verdict = await probe(context).catch((error: unknown): Verdict => ({
      ok: false,
      saw: messageOf(error),
    }))
    if (signal.aborted) throw new Interrupted()
    const ms = performance.now()
    const late = ms - begun >= within * (provider.slowdown ?? 1) * 1000
    if (verdict.ok || verdict.final === true || late)
      return {
        title,
        ok: verdict.ok,
        saw: verdict.ok ? verdict.saw : `${verdict.saw} (waited ${((ms - begun) / 1000).toFixed(0)} s)`,
        at: new Date(),
        ms,
      }
    await delay(pause, undefined, { signal }).catch(() => undefined)
  }
}

/** Seconds for a command of an observation. */
export const lookTimeout = 10
/** Seconds for a sign that holds after one or two observations. */
export const soon = 15
/** Seconds for a machine to come back. */
export const comeback = 150
/** Seconds for the first packets after an interruption, since senders back off exponentially. */
export const reunion = 60

/** Combines several observations, all of which must hold. */
export const ofAll = async <T>(each: readonly T[], ask: (one: T) => Promise<Verdict>): Promise<Verdict> => {
  const verdicts = await Promise.all(each.map(ask))
  return {
    ok: verdicts.length > 0 && verdicts.every(({ ok }) => ok),
    saw: verdicts.map(({ saw }) => saw).join('; '),
  }
}

/** The standard output of a command, or its standard error if it failed without output. */
export const printed = async (context: Context, machine: string, command: Command): Promise<string> => {
  const { exitCode, stdout, stderr } = await context
    .machine(machine)
    .try(command, { signal: context.signal, timeout: lookTimeout })
  return exitCode === 0 || stdout.trim() !== '' ? stdout.trim() : stderr.trim()
}
