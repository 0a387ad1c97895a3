import { where } from '../lab/fault-machines.js'
import { isCordoned, takesPods, uncordoning } from './drain.js'
import { faultOfMachine } from './fault.js'

const fields = { machine: where() }

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    cordon: typeof fields
  }
}

export const cordon = faultOfMachine({
  name: 'cordon',
  description: 'Cordons a node: it takes no new pods, and keeps those that it has. Healed by uncordoning it.',
  fields,
  byKubectl: true,
  sensible: [['control-plane', 'worker'], 'only Kubernetes nodes take pods'],
  undos: [uncordoning],
  aim: ({ on, names, each, undo }) => ({
    detail: `${names} cordoned`,
    undo: undo((machine) => uncordoning.of(machine, {})),
    act: ({ kubectl }) => each(({ name }) => kubectl.run(['cordon', name])),
    acting: isCordoned(on),
    gone: takesPods(on),
  }),
})
