/** Finds machines of a lab by the words that users type. */
import { exitCodes, LabError } from '../error.js'
import type { Lab, MachineSpec } from '../lab/lab.js'
import { roles } from '../lab/roles.js'

/** One machine, a role, or all. */
export const select = (lab: Lab, who: string): readonly MachineSpec[] => {
  const found = lab.machines.filter(({ name, role }) => who === 'all' || name === who || role === who)
  if (found.length === 0)
    throw new LabError('no-machine', `${lab.name} has no machine and no role ${who}`, {
      hint: `one of: ${[...new Set([...lab.machines.map(({ name }) => name), ...roles, 'all'])].join(', ')}`,
      exitCode: exitCodes.usage,
    })
  return found
}

/** @throws LabError `no-machine` with the names that exist */
export const machineOf = (lab: Lab, name: string): MachineSpec => {
  const machine = lab.machines.find((candidate) => candidate.name === name)
  if (machine) return machine
  throw new LabError('no-machine', `${lab.name} has no machine ${name}`, {
    hint: `one of: ${lab.machines.map((each) => each.name).join(', ')}`,
    exitCode: exitCodes.usage,
  })
}
