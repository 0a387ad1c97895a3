/** Copies of the disks of a lab's machines: sparse, or with shared blocks if the host's file system supports it. */
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { LabId } from '../../identity.js'
import { pathsOf } from '../../state.js'
import type { Snapshots } from '../provider.js'

/**
 * What defines a machine: its disks, their base, and its SSH keys. The rest of its folder is written at every boot.
 * The base disk is not copied: a copy-on-write disk remembers the modification time of its base, which must stay.
 */
const isKept = (name: string): boolean =>
  name === 'root.cow' || name === 'base.json' || name.startsWith('host_key') || /^lun-.*\.raw$/.test(name)

const machinesOf = (lab: LabId): string => pathsOf(lab).machines

/** The files of a folder of machines, by machine. */
const filesIn = async (folder: string): Promise<readonly (readonly [string, readonly string[]])[]> =>
  Promise.all(
    (await readdir(folder)).map(
      async (machine) => [machine, (await readdir(join(folder, machine))).filter(isKept)] as const,
    ),
  )

/** Owners, modes, times and holes are kept. */
const copyMachines = async (from: string, into: string): Promise<void> => {
  await Promise.all(
    (await filesIn(from)).map(async ([machine, files]) => {
      await mkdir(join(into, machine), { recursive: true, mode: 0o700 })
      if (files.length === 0) return
      const { execa } = await import('execa')
      await execa('cp', [
        '--archive',
        '--sparse=auto',
        '--reflink=auto',
        '--target-directory',
        join(into, machine),
        '--',
        ...files.map((file) => join(from, machine, file)),
      ])
    }),
  )
}

export const snapshots: Snapshots = {
  size: async (lab) => {
    const sizes = (await filesIn(machinesOf(lab))).flatMap(([machine, files]) =>
      files.map(async (file) => (await stat(join(machinesOf(lab), machine, file))).blocks * 512),
    )
    return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0)
  },
  save: (lab, into) => copyMachines(machinesOf(lab), into),
  load: async (lab, from) => {
    const machines = machinesOf(lab)
    const next = `${machines}.new`
    await rm(next, { recursive: true, force: true })
    await mkdir(next, { mode: 0o700 })
    await copyMachines(from, next)
    await rm(machines, { recursive: true, force: true })
    await rename(next, machines)
  },
}
