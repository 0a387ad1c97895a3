import { faultOfMachine } from './fault.js'
import { enablingTargets, withoutTargets } from './targets.js'

export const targetLoss = faultOfMachine({
  name: 'target-loss',
  description: 'Makes the targets of a machine vanish with all sessions. Healed by restoring them.',
  fields: {},
  lasts: true,
  sensible: [['target'], 'only machines with the role target serve targets'],
  undos: [enablingTargets],
  aim: (hit) => withoutTargets(hit, `targets of ${hit.names} vanished`),
})
