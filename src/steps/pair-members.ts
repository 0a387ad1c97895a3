/** Which machine of a pair serves, and how to ask the two. */
import type { Context } from '../context.js'
import type { PairedTarget } from '../lab/lab.js'
import { type Command, shell } from '../machine/sh.js'
import { shared } from './checks.js'
import { hasAddress } from './moving-address.js'
import { type ClusterState, readClusterState } from './pair-state.js'

/** The machines of a pair that have its address on an interface; a machine that does not answer has none. */
export const holdersOfPortal = async (
  context: Context,
  { pair }: PairedTarget,
): Promise<readonly string[]> => {
  const found = await Promise.all(
    pair.machines.map(async (name) =>
      (await hasAddress(context, name, pair.address).catch(() => false)) ? [name] : [],
    ),
  )
  return found.flat()
}

/** Asks once for many checks, separately for each pair. */
const sharedFor = <T>(
  ask: (context: Context, target: PairedTarget) => Promise<T>,
): ((context: Context, target: PairedTarget) => Promise<T>) => {
  const of = new WeakMap<PairedTarget, (context: Context) => Promise<T>>()
  return (context, target) => {
    const known = of.get(target) ?? shared((around) => ask(around, target))
    of.set(target, known)
    return known(context)
  }
}

const holders = sharedFor(holdersOfPortal)

/**
 * The machine that serves a pair's target at this moment.
 * @throws if it is not exactly one
 */
export const servingMachine = async (context: Context, target: PairedTarget): Promise<string> => {
  const [one, other] = await holders(context, target)
  if (one !== undefined && other === undefined) return one
  throw new Error(
    one === undefined
      ? `neither ${target.pair.machines.join(' nor ')} has the address ${target.pair.address}`
      : `both ${target.pair.machines.join(' and ')} have the address ${target.pair.address}`,
  )
}

/** Asks the first machine of the pair that answers, since each knows the state of both. */
export const askEither = async (
  context: Context,
  target: PairedTarget,
  command: Command,
): Promise<string> => {
  let problem: unknown
  for (const name of target.pair.machines) {
    try {
      return await context.machine(name).run(command, { signal: context.signal, timeout: 30 })
    } catch (error) {
      context.signal.throwIfAborted()
      problem = error
    }
  }
  throw problem
}

/** Pacemaker's view of the two. */
export const clusterState = sharedFor(async (context, target): Promise<ClusterState> =>
  readClusterState(await askEither(context, target, shell`crm_mon --one-shot --output-as=xml`)),
)
