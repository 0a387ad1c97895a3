/** The size of a LUN and of the ext4 on it: both grow when the lab file says so. */
import {
  type DatabaseVolume,
  type FilesystemSpec,
  type Lab,
  machinesWith,
  portalOf,
  targetNamed,
} from '../lab/lab.js'
import { type Command, shell } from '../machine/sh.js'
import type { Context, Step } from '../context.js'
import type { Verdict } from '../plan/step.js'
import { machineCheck } from './checks.js'
import { deviceOf, whereOf } from './initiator.js'
import { nodeArgs } from './open-iscsi.js'

const phase = 'iscsi'

/** Blocks at the end of a disk that ext4 leaves unused because they are too few for another block group. */
const spareBlocks = 2048

/** Prints one line each: the bytes of the disk, and the number and size of the blocks of its ext4. */
const sizes = (device: string): Command =>
  shell`blockdev --getsize64 ${device} && dumpe2fs -h ${device} 2>/dev/null | sed -En 's/^Block (count|size): *//p'`

const judgeSize =
  (size: number) =>
  (output: string): Verdict => {
    const [disk = 0, blocks = 0, blockSize = 0] = output.split('\n').map(Number)
    const filesystem = blocks * blockSize
    return {
      ok: disk === size && blocks > 0 && filesystem > size - spareBlocks * blockSize,
      saw: `a disk of ${String(disk)} bytes, a file system of ${String(filesystem)}`,
    }
  }

/**
 * Resizes a mounted ext4 to a number of blocks by the ioctl EXT4_IOC_RESIZE_FS. resize2fs does the same, but opens
 * the disk for writing first, which the lab's kernel refuses while it is mounted.
 */
const resize =
  'open(my $top, "<", $ARGV[0]) or die "$!\\n"; ioctl($top, 0x40086610, pack("Q", $ARGV[1])) or die "$!\\n"'

/** Asks the target for the size of the disk, and resizes the file system to fill it. */
const grow = (iqn: string, portal: string, device: string): Command =>
  shell`iscsiadm ${nodeArgs(iqn, portal)} --rescan >/dev/null && udevadm settle && size=$(dumpe2fs -h ${device} 2>/dev/null | sed -n 's/^Block size: *//p') && perl -e ${resize} "$(findmnt --noheadings --first-only --output TARGET --source "$(readlink -f ${device})")" $(($(blockdev --getsize64 ${device}) / size))`

/** Seconds for a file system to grow: the kernel writes its new block groups. */
const growing = 300

/** When a LUN grows at the target, its initiator must be told to rescan it. */
export const growFilesystem = (lab: Lab, filesystem: FilesystemSpec): Step => {
  const { device, name, portal } = whereOf(lab, filesystem)
  const machine = filesystem.initiator
  const size = sizeOf(lab, filesystem.target, filesystem.lun)
  return {
    id: `grow-filesystem-${name}`,
    title: `Check that the file system fills the LUN, or let it grow`,
    phase,
    machine,
    needs: [`make-filesystem-${name}`],
    apply: async (context) => {
      await context.machine(machine).run(grow(filesystem.target, portal, device), { timeout: growing })
    },
    checks: [
      machineCheck({
        id: `${name}-size`,
        title: `LUN ${String(filesystem.lun)} has ${String(size)} bytes on ${machine} as well, and ${filesystem.type} fills them`,
        machine,
        within: 20,
        hint: `lab exec ${lab.name} ${machine} -- lsblk --bytes ${device}`,
        command: sizes(device),
        judge: judgeSize(size),
      }),
    ],
  }
}

const sizeOf = (lab: Lab, iqn: string, lun: number): number =>
  targetNamed(lab, iqn).luns.find((candidate) => candidate.lun === lun)?.size ?? 0

/** Grows the file system on the database's LUN, on the worker that mounts it. */
export const growVolume = (lab: Lab, volume: Extract<DatabaseVolume, { kind: 'lun' }>): Step => {
  const portal = portalOf(lab, targetNamed(lab, volume.target))
  const device = deviceOf(portal, volume.target, volume.lun)
  const size = sizeOf(lab, volume.target, volume.lun)
  const users = async (context: Context): Promise<readonly string[]> => {
    const found = await Promise.all(
      machinesWith(lab, 'worker').map(async ({ name }) => {
        const mounted = await context
          .machine(name)
          .try(
            shell`test -b ${device} && findmnt --noheadings --first-only --source "$(readlink -f ${device})"`,
            {
              signal: context.signal,
            },
          )
        return mounted.exitCode === 0 ? name : undefined
      }),
    )
    return found.filter((name) => name !== undefined)
  }
  return {
    id: 'grow-volume',
    title: "Check that the database's file system fills its LUN, or let it grow",
    phase: 'database',
    needs: ['deploy-database'],
    apply: async (context) => {
      for (const name of await users(context))
        await context.machine(name).run(grow(volume.target, portal, device), { timeout: growing })
    },
    checks: [
      {
        id: 'volume-size',
        title: `the database's LUN has ${String(size)} bytes where it is mounted, and ext4 fills them`,
        within: 60,
        hint: `lab up ${lab.name}`,
        probe: async (context) => {
          const [name] = await users(context)
          if (name === undefined) return { ok: false, saw: 'mounted on no worker' }
          const { stdout } = await context.machine(name).try(sizes(device), { signal: context.signal })
          const { ok, saw } = judgeSize(size)(stdout.trim())
          return { ok, saw: `${name}: ${saw}` }
        },
      },
    ],
  }
}
