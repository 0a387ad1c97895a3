/** Addresses that move between machines. */
import type { Context } from '../context.js'
import { shell } from '../machine/sh.js'

/** Whether a machine has an IPv4 address on an interface, according to itself. @throws if it does not answer */
export const hasAddress = async (context: Context, name: string, address: string): Promise<boolean> => {
  const { stdout } = await context
    .machine(name)
    .try(shell`ip -brief -4 address show to ${address}/32`, { signal: context.signal, timeout: 10 })
  return stdout.trim() !== ''
}
