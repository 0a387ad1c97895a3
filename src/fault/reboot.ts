import { LabError } from '../error.js'
import { readJournal } from '../journal.js'
import { CommandError } from '../machine/machine.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import { where } from '../lab/fault-machines.js'
import { faultOfMachine } from './fault.js'
import { bootIdOf, BootIds, described, isBack, stateOf, switchingOn } from './power.js'
import { comeback, ofAll, type Sign } from './sign.js'

/** Seconds for the command that restarts a machine. */
const timeout = 30

/**
 * Tells a machine to reboot. Its refusal counts, but a lost reply or a command killed by the shutdown does not: a
 * sign shows whether it rebooted.
 */
const restart = async (context: Context, machine: string): Promise<void> => {
  try {
    await context.machine(machine).run(shell`systemctl reboot`, { timeout })
  } catch (error) {
    if (!(error instanceof LabError) || (error instanceof CommandError && error.result.exitCode < 128))
      throw error
  }
}

const hasRestarted = (names: readonly string[], before: BootIds): Sign => ({
  title: `${names.join(', ')} has rebooted`,
  within: comeback,
  probe: (context) =>
    ofAll(names, async (name) => {
      const state = await stateOf(context, name)
      if (state.status !== 'running') {
        // An agent that fences by power may be faster than the reboot: the machine went down, as intended.
        const fenced = (await readJournal(context.lab)).some(
          ({ kind, undo }) => kind === 'fence' && undo.machine === name,
        )
        return { ok: fenced, saw: `${described(state)}${fenced ? ', fenced while it went down' : ''}` }
      }
      const bootId = await bootIdOf(context, name)
      const old = before.of(name)
      return {
        ok: old !== undefined && bootId !== old,
        saw:
          bootId === old
            ? `${name}: still boot ${bootId}`
            : `${name}: boot ${bootId}, before ${old ?? 'unknown'}`,
      }
    }),
})

const fields = { machine: where() }

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    reboot: typeof fields
  }
}

export const reboot = faultOfMachine({
  name: 'reboot',
  description: 'Restarts a machine in an orderly way. The machine comes back by itself.',
  fields,
  silences: () => true,
  undos: [switchingOn],
  aim: ({ on, names, each, undo }) => {
    const boots = new BootIds()
    return {
      detail: `${names} restarted`,
      undo: undo((machine) => switchingOn.of(machine, {})),
      possible: (context) => boots.note(context, on),
      act: (context) => each(({ name }) => restart(context, name)),
      acting: hasRestarted(on, boots),
      gone: isBack(on, boots),
    }
  },
})
