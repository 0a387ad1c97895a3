import { lasting, where } from '../lab/fault-machines.js'
import { faultOfMachine } from './fault.js'
import { enablingTargets, withoutTargets } from './targets.js'

const fields = { machine: where(), for: lasting }

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    'target-loss': typeof fields
  }
}

export const targetLoss = faultOfMachine({
  name: 'target-loss',
  description: 'Makes the targets of a machine vanish, with all sessions. Healed by restoring them.',
  fields,
  sensible: [['target'], 'only machines with the role target serve targets'],
  undos: [enablingTargets],
  aim: (hit) => withoutTargets(hit, `targets of ${hit.names} vanished`),
})
