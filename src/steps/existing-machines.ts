/** Machines that somebody else made: reserved for the lab, equipped for their role, and given back as they were. */
import type { Step } from '../context.js'
import type { Lab, MachineSpec } from '../lab/lab.js'
import { machineFiles } from '../machine/files.js'
import type { FileOptions } from '../machine/machine-file.js'
import { groupOf } from '../provider/provider.js'

const phase = 'machines'

export const takeMachine = (lab: Lab, machine: MachineSpec): Step => ({
  id: `take-${machine.name}`,
  title: `Take ${machine.name} for the lab`,
  phase,
  machine: machine.name,
  needs: [`boot-${machine.name}`],
  apply: ({ provider }, progress) => groupOf(provider, 'loan').take(lab, machine, progress),
  checks: [
    {
      id: `${machine.name}-taken`,
      title: `${machine.name} is reserved for this lab`,
      machine: machine.name,
      within: 30,
      hint: `lab up ${lab.name}`,
      probe: ({ provider }) => groupOf(provider, 'loan').taken(lab, machine),
    },
  ],
  undo: {
    title: `Give ${machine.name} back as it was`,
    apply: ({ provider }, progress) => groupOf(provider, 'loan').giveBack(lab, machine, progress),
    gone: {
      id: `${machine.name}-returned`,
      title: `${machine.name} is as it was before`,
      machine: machine.name,
      within: 0,
      hint: `lab down ${lab.name}`,
      probe: ({ provider }) => groupOf(provider, 'loan').returned(lab, machine),
    },
  },
})

export const equipMachine = (lab: Lab, machine: MachineSpec, options: FileOptions): Step => {
  const files = machineFiles(lab, machine, options)
  return {
    id: `equip-${machine.name}`,
    title: `Equip ${machine.name}`,
    phase,
    machine: machine.name,
    needs: [`reach-${machine.name}`],
    apply: ({ provider }, progress) => groupOf(provider, 'equipment').equip(lab, machine, files, progress),
    checks: [
      {
        id: `${machine.name}-equipped`,
        title: `${machine.name} has what its role needs`,
        machine: machine.name,
        within: 30,
        hint: `lab up ${lab.name}`,
        probe: ({ provider }) => groupOf(provider, 'equipment').equipped(lab, machine, files),
      },
    ],
  }
}
