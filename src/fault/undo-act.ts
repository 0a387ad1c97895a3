/** Undos: what the journal holds as data, with the code that carries it out. */
import { z } from 'zod'
import { LabError } from '../error.js'
import type { JournalEntry, Undo } from '../journal.js'
import type { shell } from '../machine/sh.js'
import type { Context } from '../context.js'

/** Seconds for a command of an undo; the machine may be busy coming back. */
export const undoTimeout = 30

/** One way to undo something. It may be carried out twice. */
export interface UndoAct {
  /** What the journal calls it; no two acts share a name. */
  readonly do: string
  /** @throws when it could not be done; the entry then stays in the journal, and it may be tried again */
  carryOut(context: Context, entry: JournalEntry): Promise<void>
}

/** An act whose data has these fields beside the machine. */
interface UndoActWith<Data> extends UndoAct {
  /** The data for the journal. */
  readonly of: (machine: string, data: Data) => Undo
}

/**
 * @param name what the journal calls it
 * @param fields what it must know beside the machine
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
        throw new LabError('bad-journal', `${entry.id}: ${name} lacks what it needs`, { cause: read.error })
      await carryOut(context, read.data as never, entry)
    },
  }
}

/** Whether the provider runs a machine. */
export const isOn = async ({ lab, provider }: Context, name: string): Promise<boolean> =>
  (await provider.states(lab)).find((state) => state.name === name)?.status === 'running'

/** Runs a command on a machine that is on: rules, queues and clocks of one that is off are gone with it. */
export const onRunning = async (
  context: Context,
  machine: string,
  command: ReturnType<typeof shell>,
): Promise<void> => {
  if (!(await isOn(context, machine))) return
  await context.machine(machine).run(command, { signal: context.signal, timeout: undoTimeout })
}
