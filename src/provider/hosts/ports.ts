/** The TCP ports of a lab's machines: those that must be free, and those that others must reach. */
import { type Lab, type MachineSpec, nodesOf, type Role } from '../../lab/lab.js'

/** TCP ports that a machine of a role needs. */
export const portsOf: Readonly<Record<Role, readonly number[]>> = {
  'control-plane': [6443, 2379, 2380, 10250, 10257, 10259],
  worker: [10250],
  target: [3260],
  initiator: [],
  nfs: [2049],
}

/** TCP ports on which a machine must reach another one, for the lab to work. */
export const neededPorts = (lab: Lab, from: string, to: string): readonly number[] => {
  const [one, other] = [from, to].map((wanted) => lab.machines.find(({ name }) => name === wanted))
  if (!one || !other) return []
  const isNode = (machine: MachineSpec): boolean => nodesOf(lab).includes(machine)
  const controls = (machine: MachineSpec): boolean => machine.role === 'control-plane'
  return [
    ...(isNode(one) && controls(other) ? [6443] : []),
    ...(controls(one) && controls(other) ? [2379, 2380] : []),
    ...(controls(one) && isNode(other) ? [10250] : []),
    ...(one.iqn !== undefined && other.role === 'target' ? [3260] : []),
    ...(isNode(one) && other.role === 'nfs' ? [2049] : []),
  ]
}
