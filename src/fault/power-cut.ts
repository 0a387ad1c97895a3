import { exitCodes, LabError } from '../error.js'
import { bootIdOf, BootIds, described, isBack, stateOf, switchingOn } from './power.js'
import { groupOf, lacksSwitch } from '../provider/provider.js'
import { lasting, where } from '../lab/fault-machines.js'
import { faultOfMachine } from './fault.js'
import { ofAll, type Sign, soon } from './sign.js'

/**
 * @param boots boot ids from before: a machine that was only forced to reboot may already be back
 * @param forced those of the machines that have no power switch
 */
const isOff = (names: readonly string[], boots: BootIds, forced: readonly string[]): Sign => ({
  title:
    forced.length === 0
      ? `${names.join(', ')} is off, as the provider reports it`
      : `${names.join(', ')} is off, or has booted again`,
  within: soon,
  probe: (context) =>
    ofAll(names, async (name) => {
      const state = await stateOf(context, name)
      const off = state.status === 'stopped' || state.status === 'absent'
      if (off || !forced.includes(name)) return { ok: off, saw: described(state) }
      const bootId = await bootIdOf(context, name)
      return { ok: bootId !== boots.of(name), saw: `${described(state)}, boot ${bootId}` }
    }),
})

/** Why a lasting power cut is impossible on these machines. */
export const staysOff = (forced: readonly string[]): string =>
  `${forced.join(', ')} has no power switch: it can only be forced to reboot, and does not stay off`

export const switchHint = 'power: { agent: fence_… } in hosts.yaml'

const fields = { machine: where(), for: lasting }

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    'power-cut': typeof fields
  }
}

export const powerCut = faultOfMachine({
  name: 'power-cut',
  description: 'Switches a machine off without warning. Healed by switching it on.',
  fields,
  silences: () => true,
  refusal: lacksSwitch,
  undos: [switchingOn],
  aim: ({ context: { lab, provider }, spec, on, names, each, undo }) => {
    const boots = new BootIds()
    const forced = on.filter((name) => provider.power?.onlyReboots?.(name) === true)
    return {
      detail:
        forced.length === 0
          ? `power of ${names} cut`
          : `${names} forced to reboot by sysrq, which is less than a power cut: ${forced.join(', ')} has no power switch, stays under power, and comes back by itself`,
      undo: undo((machine) => switchingOn.of(machine, {})),
      possible: async (context) => {
        if (forced.length > 0 && spec.for !== undefined)
          throw new LabError('fault-impossible', staysOff(forced), {
            exitCode: exitCodes.usage,
            hint: switchHint,
          })
        await boots.note(context, on)
      },
      act: ({ provider }) => each(({ name }) => groupOf(provider, 'power').cut(lab, name)),
      acting: isOff(on, boots, forced),
      gone: isBack(on, boots),
    }
  },
})
