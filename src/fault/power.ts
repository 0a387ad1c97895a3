/** Machines that are off and come back: shared by power cuts and reboots. */
import { machineNamed } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import type { MachineState } from '../provider/provider.js'
import { boot, fileOptions } from '../steps/machines.js'
import { comeback, ofAll, type Sign } from './sign.js'
import { isOn, undoAct } from './undo-act.js'

/** Starts a machine with its files, as `up` does, and waits until it answers. */
export const switchOn = async (context: Context, name: string): Promise<void> => {
  const { lab, provider } = context
  const options = await fileOptions(lab, provider)
  await boot(lab, machineNamed(lab, name), options).apply?.(context, () => undefined)
}

export const switchingOn = undoAct('switch-on', {}, async (context, { machine }) => {
  if (!(await isOn(context, machine))) await switchOn(context, machine)
})

/** Changes with every boot. */
export const bootIdOf = (context: Context, machine: string): Promise<string> =>
  context
    .machine(machine)
    .run(shell`cat /proc/sys/kernel/random/boot_id`, { signal: context.signal, timeout: 5 })

export const stateOf = async ({ lab, provider }: Context, machine: string): Promise<MachineState> =>
  (await provider.states(lab)).find(({ name }) => name === machine) ?? {
    name: machine,
    status: 'absent',
    detail: 'the provider does not know the machine',
  }

export const described = ({ name, status, paused, detail }: MachineState): string =>
  `${name}: ${paused === true ? 'paused' : status}${detail === '' ? '' : ` (${detail})`}`

/** Boot ids from before a fault, for comparison. */
export class BootIds {
  readonly #before = new Map<string, string>()

  /** @throws LabError if a machine does not answer */
  async note(context: Context, names: readonly string[]): Promise<void> {
    await Promise.all(
      names.map(async (name) => {
        this.#before.set(name, await bootIdOf(context, name))
      }),
    )
  }

  of(name: string): string | undefined {
    return this.#before.get(name)
  }
}

/** @param before boot ids from before the fault */
export const isBack = (names: readonly string[], before: BootIds): Sign => ({
  title: `${names.join(', ')} is on again and has booted`,
  within: comeback,
  probe: (context) =>
    ofAll(names, async (name) => {
      const state = await stateOf(context, name)
      if (state.status !== 'running') return { ok: false, saw: described(state) }
      const bootId = await bootIdOf(context, name)
      return {
        ok: bootId !== before.of(name),
        saw: `${name}: boot ${bootId}, before ${before.of(name) ?? 'unknown'}`,
      }
    }),
})
