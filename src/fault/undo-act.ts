/** Undo actions: the code for each kind of undo that the journal holds as data. */
import { z } from 'zod'
import { LabError } from '../error.js'
import type { JournalEntry, Undo } from '../journal.js'
import type { shell } from '../machine/sh.js'
import type { Context } from '../context.js'

/** Timeout of a command of an undo, in seconds; the machine may be busy booting. */
export const undoTimeout = 30

/** One kind of undo. It must be idempotent. */
export interface UndoAct {
  /** Its name in the journal, which is unique. */
  readonly do: string
  /** @throws if it fails; the entry then stays in the journal and can be tried again */
  carryOut(context: Context, entry: JournalEntry): Promise<void>
}

/** An undo action whose data has these fields besides the machine. */
interface UndoActWith<Data> extends UndoAct {
  /** The data for the journal. */
  readonly of: (machine: string, data: Data) => Undo
}

/**
 * @param name its name in the journal
 * @param fields its data besides the machine
 */
export const undoAct = <Fields extends z.ZodRawShape>(
  name: string,
  fields: Fields,
  carryOut: (
    context: Context,
    data: z.output<z.ZodObject<Fields>> & { readonly machine: string },
    entry: JournalEntry,
  ) => Promise<void>,
): UndoActWith<z.output<z.ZodObject<Fields>>> => {
  const schema = z.strictObject({ do: z.literal(name), machine: z.string(), ...fields })
  return {
    do: name,
    of: (machine, data) => ({ do: name, machine, ...data }),
    carryOut: async (context, entry) => {
      const read = schema.safeParse(entry.undo)
      if (!read.success)
        throw new LabError('bad-journal', `${entry.id}: ${name} lacks what it needs`, {
          hint: `lab down ${context.lab.name}`,
          cause: read.error,
        })
      await carryOut(context, read.data as never, entry)
    },
  }
}

/** Whether the provider reports the machine as running. */
export const isOn = async ({ lab, provider }: Context, name: string): Promise<boolean> =>
  (await provider.states(lab)).find((state) => state.name === name)?.status === 'running'

/**
 * Runs a command on a running machine. Rules, queues and clock settings of a machine that is off are gone anyway.
 * @throws LabError `silent` if it is not known whether the machine is off: what was changed there may still act
 */
export const onRunning = async (
  context: Context,
  machine: string,
  command: ReturnType<typeof shell>,
): Promise<void> => {
  const { lab, provider, signal } = context
  const state = (await provider.states(lab)).find(({ name }) => name === machine)
  if (state?.status !== 'running') {
    if (provider.silentMayRun !== true) return
    throw new LabError(
      'silent',
      `${machine} does not answer, so it is not known whether it is off or runs with what was changed: ${state?.detail ?? 'unknown to the provider'}`,
      { hint: `when it answers again: lab heal ${lab.name}` },
    )
  }
  await context.machine(machine).run(command, { signal, timeout: undoTimeout })
}
