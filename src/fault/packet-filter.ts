/** nftables tables that drop packets: one for each fault, separate from everybody else's rules. */
import { z } from 'zod'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import { lookTimeout } from './sign.js'
import { onRunning, undoAct } from './undo-act.js'

/** Timeout of a command on a machine that is about to be broken, in seconds. */
const timeout = 30

export const loadTable = (context: Context, machine: string, table: string): Promise<string> =>
  context.machine(machine).run(shell`nft -f -`, { input: table, signal: context.signal, timeout })

/** @throws LabError if the machine does not support nftables */
export const listTables = (context: Context, machine: string): Promise<string> =>
  context.machine(machine).run(shell`nft list tables`, { timeout })

export const hasTable = async (context: Context, machine: string, table: string): Promise<boolean> =>
  (
    await context
      .machine(machine)
      .try(shell`nft list table inet ${table}`, { signal: context.signal, timeout: lookTimeout })
  ).exitCode === 0

export const removingTable = undoAct('remove-table', { table: z.string() }, (context, { machine, table }) =>
  onRunning(
    context,
    machine,
    shell`! nft list table inet ${table} >/dev/null 2>&1 || nft delete table inet ${table}`,
  ),
)
