/** A file system on a LUN: created, mounted, and read back after a new login. */
import type { FilesystemSpec, Lab } from '../lab/lab.js'
import { sha256 } from '../machine/digest.js'
import { type Command, shell } from '../machine/sh.js'
import type { Step } from '../context.js'
import { machineCheck } from './checks.js'
import { mount, newSession, type Where, whereOf } from './initiator.js'

const phase = 'iscsi'

/** Mount options that exclude writes: read-only, or shut down by the kernel after an error. */
const noWriteOptions: readonly string[] = ['ro', 'emergency_ro', 'shutdown']

/** Why a mount with these options accepts no writes; undefined if it does. */
export const whyNoWrites = (options: readonly string[]): string | undefined => {
  const dead = options.filter((option) => option !== 'ro' && noWriteOptions.includes(option))
  if (dead.length > 0) return `shut down after an I/O error (${dead.join(', ')})`
  // Older kernels remount read-only after an error, so the option does not tell who did it.
  return options.includes('ro') ? 'read-only' : undefined
}

/** Unmounts and repairs a file system that accepts no writes: only a new mount accepts them again. */
const unmountDead = ({ device, mountPoint }: Where): Command =>
  shell`! findmnt --noheadings --output OPTIONS ${mountPoint} | tr , '\n' | grep -qx ${noWriteOptions.flatMap((option) => ['-e', option])} || { umount ${mountPoint} && { e2fsck -p ${device} >/dev/null || test $? = 1; }; }`

/** The content of the file that must survive a logout. It never changes, so that it can be compared. */
const testament = (lab: Lab): string =>
  `${lab.name}: written through iSCSI, synced, unmounted, logged out, logged in, and still here\n`

export const makeFilesystem = (lab: Lab, filesystem: FilesystemSpec): Step => {
  const where = whereOf(lab, filesystem)
  const { device, mountPoint, name } = where
  const directory = `${mountPoint}/${filesystem.directory}`
  const file = `${directory}/testament`
  const machine = filesystem.initiator
  return {
    id: `make-filesystem-${name}`,
    title: `Make ${filesystem.type} with ${filesystem.directory} on it, and read a file back after a new login`,
    phase,
    machine,
    needs: [`log-in-${name}`],
    apply: async (context) => {
      const there = context.machine(machine)
      await there.run(unmountDead(where), { timeout: 120 })
      const has = await there.try(shell`blkid -p -o value -s TYPE ${device}`)
      // Exit code 2: the disk is empty. Anything else is somebody's data, and is not overwritten.
      if (has.exitCode === 2) await there.run(shell`mkfs.ext4 -q ${device}`, { timeout: 120 })
      await there.run(mount(where))
      await there.run(shell`mkdir -p ${directory} && chmod ${filesystem.mode} ${directory}`)
      await there.run(shell`cat > ${file} && sync ${file}`, { input: testament(lab) })
      await newSession(context, where)
      await there.run(mount(where))
    },
    checks: [
      machineCheck({
        id: `${name}-mounted`,
        title: `LUN ${String(filesystem.lun)} is mounted on ${machine} as ${filesystem.type}`,
        machine,
        hint: `lab up ${lab.name}`,
        command: shell`readlink -f ${device}; findmnt --noheadings --output FSTYPE,SOURCE,SIZE ${mountPoint} || true; findmnt --noheadings --output OPTIONS ${mountPoint} || true`,
        judge: (output) => {
          const [disk = '', mounted = 'not mounted', options = ''] = output.split('\n')
          const why = whyNoWrites(options.split(','))
          return {
            ok: why === undefined && mounted.startsWith(`${filesystem.type} ${disk} `),
            saw: `${why === undefined ? '' : `${why}: `}${mounted.trim()}`,
          }
        },
      }),
      machineCheck({
        id: `${name}-directory`,
        title: `${filesystem.directory} has mode ${filesystem.mode}`,
        machine,
        hint: `lab exec ${lab.name} ${machine} -- ls -ld ${directory}`,
        command: shell`stat --format=%a ${directory}`,
        judge: (output) => ({
          ok: Number.parseInt(output, 8) === Number.parseInt(filesystem.mode, 8),
          saw: `mode ${output}`,
        }),
      }),
      machineCheck({
        id: `${name}-file`,
        title: 'a file written before the last logout reads back',
        machine,
        hint: `lab exec ${lab.name} ${machine} -- cat ${file}`,
        command: shell`test -e ${file} || { echo it is not there >&2; exit 1; }; sha256sum < ${file} | cut -c1-64`,
        judge: (output) => {
          const wanted = sha256(testament(lab))
          return {
            ok: output === wanted,
            saw: output === wanted ? 'the same bytes' : `other bytes, sha256 ${output}`,
          }
        },
      }),
    ],
  }
}
