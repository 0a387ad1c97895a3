/** Control planes that are no longer in the lab file: they must leave etcd before their machines are removed. */
import { LabError } from '../error.js'
import { type Lab, machinesWith } from '../lab/lab.js'
import type { MachineState, Provider } from '../provider/provider.js'
import { appliedLab } from './load-lab.js'

const controlPlanes = (lab: Lab): readonly string[] =>
  machinesWith(lab, 'control-plane').map(({ name }) => name)

/** The control planes that the lab file no longer has. @param before the lab as it was last brought up */
const leavingFrom = (before: Lab, lab: Lab): readonly string[] =>
  controlPlanes(before).filter((name) => !controlPlanes(lab).includes(name))

/**
 * Why control planes that the lab file no longer has cannot be removed now; undefined if they can, or there are none.
 * etcd lets a member go only if most members agree. If the machine were removed nevertheless, the others would count it
 * as lost, and might never have a leader again.
 */
export const whyTheyStay = (
  before: Lab,
  lab: Lab,
  states: readonly Pick<MachineState, 'name' | 'status'>[],
): string | undefined => {
  const members = controlPlanes(before)
  const leaving = leavingFrom(before, lab)
  const running = members.filter((name) =>
    states.some((state) => state.name === name && state.status === 'running'),
  )
  return leaving.length === 0 || running.length > members.length / 2
    ? undefined
    : `${leaving.join(' and ')} can leave etcd only while most of its members run; of ${members.join(', ')} there run: ${running.join(', ') || 'none'}`
}

/** @throws LabError before anything is changed */
export const refuseToLoseQuorum = async (lab: Lab, provider: Provider): Promise<void> => {
  // A copy that this program cannot read says nothing.
  const before = await appliedLab(lab).catch(() => undefined)
  if (!before || leavingFrom(before, lab).length === 0) return
  const why = whyTheyStay(before, lab, await provider.states(lab))
  if (why !== undefined)
    throw new LabError('no-quorum', why, { hint: `lab start ${lab.name}; then lab up with the new file` })
}
