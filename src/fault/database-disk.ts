/** The disk with the database's data: its device on a node, and its mount point. */
import { type DatabaseSpec, type Lab, portalOf, targetNamed } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import { lookTimeout } from './sign.js'

/** The database's LUN as a node sees it, whatever other disks the node has. */
export const deviceOf = (lab: Lab, { volume }: DatabaseSpec): string | undefined => {
  if (volume.kind !== 'lun') return undefined
  const target = targetNamed(lab, volume.target)
  return `/dev/disk/by-path/ip-${portalOf(lab, target)}-iscsi-${target.iqn}-lun-${String(volume.lun)}`
}

/** The mount point of the database's LUN on a node; empty if it is not mounted. */
export const dataFolderOn = async (context: Context, machine: string): Promise<string> => {
  const { lab } = context
  const device = lab.database && deviceOf(lab, lab.database)
  if (device === undefined) return ''
  const { stdout } = await context
    .machine(machine)
    .try(
      shell`test -b ${device} && findmnt --raw --noheadings --first-only --output TARGET --source "$(readlink -f ${device})"`,
      { signal: context.signal, timeout: lookTimeout },
    )
  return stdout.trim()
}
