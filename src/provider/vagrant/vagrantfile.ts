/** The Vagrantfile of a lab. */
import { wordOf } from '../../identity.js'
import { addressText, sizeOf } from '../../lab/address.js'
import { disksOn, type Lab, type MachineSpec } from '../../lab/lab.js'
import { boxName } from '../../parts/parts.js'
import { render } from '../../render.js'
import { subnetOf, type VagrantKind } from './hypervisor.js'

/**
 * One Vagrantfile serves both providers; `provider` is the default of a plain `vagrant up`.
 * @param boxVersion of lab's own box; without it, Vagrant uses the newest that was added
 */
export const renderVagrantfile = (lab: Lab, provider: VagrantKind, boxVersion?: string): string =>
  render('Vagrantfile', {
    lab: wordOf(lab),
    provider,
    box: lab.box ?? boxName,
    stock: lab.box !== undefined,
    boxVersion,
    netmask: addressText(2 ** 32 - sizeOf(subnetOf(lab.network.subnet))),
    // Text goes through the template's `ruby` helper. The rest is arithmetic, so that it is a number even if untyped
    // code made the lab: NaN is no more than an undefined constant in Ruby.
    machines: lab.machines.map((machine) => ({
      ...machine,
      cpus: Math.ceil(machine.cpus),
      disks: disksOf(lab, machine).map((disk) => ({ ...disk, lun: Math.trunc(disk.lun) })),
    })),
  })

export interface Disk {
  /** IQN of the target that serves it. */
  readonly target: string
  readonly lun: number
  /** Bytes. */
  readonly size: number
}

/** A disk per LUN, in the order of the lab file. */
export const disksOf = (lab: Lab, machine: MachineSpec): readonly Disk[] =>
  disksOn(lab, machine.name).map(({ target, ...lun }) => ({ target: target.iqn, ...lun }))
