import { BootIds, described, isBack, stateOf, switchingOn } from './power.js'
import { groupOf, lacksSwitch } from '../provider/provider.js'
import { lasting, where } from '../lab/where.js'
import { faultOfMachine } from './fault.js'
import { ofAll, type Sign, soon } from './sign.js'

const isOff = (names: readonly string[]): Sign => ({
  title: `${names.join(', ')} is off, as the provider reports it`,
  within: soon,
  probe: (context) =>
    ofAll(names, async (name) => {
      const state = await stateOf(context, name)
      return { ok: state.status === 'stopped' || state.status === 'absent', saw: described(state) }
    }),
})

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
  aim: ({ context: { lab }, on, names, each, undo }) => {
    const boots = new BootIds()
    return {
      detail: `power of ${names} cut`,
      undo: undo((machine) => switchingOn.of(machine, {})),
      possible: (context) => boots.note(context, on),
      act: ({ provider }) => each(({ name }) => groupOf(provider, 'power').cut(lab, name)),
      acting: isOff(on),
      gone: isBack(on, boots),
    }
  },
})
