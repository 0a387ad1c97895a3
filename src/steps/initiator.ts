/** open-iscsi: who a machine says it is, its sessions, and a file system on a LUN. */
import {
  accessTo,
  byPathLink,
  type DatabaseVolume,
  discoveryChapOf,
  type FilesystemSpec,
  type Lab,
  type MachineSpec,
  machinesWith,
  portalOf,
  targetNamed,
} from '../lab/lab.js'
import { sha256 } from '../machine/files.js'
import { type Command, shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import type { Verdict } from '../plan/step.js'
import { equals, machineCheck } from './checks.js'
import { discover, hashOfRecord, nodeArgs, recordsOf, recordText, writeRecord } from './open-iscsi.js'
import { shortName } from './target.js'

const phase = 'iscsi'

const initiatorName = (lab: Lab, machine: MachineSpec & { readonly iqn: string }): Check =>
  machineCheck({
    id: `${machine.name}-iqn`,
    title: `${machine.name} calls itself ${machine.iqn}`,
    machine: machine.name,
    hint: `lab up ${lab.name}`,
    command: shell`sed -n s/^InitiatorName=//p /etc/iscsi/initiatorname.iscsi`,
    judge: equals(machine.iqn),
  })

const iscsid = (lab: Lab, machine: MachineSpec): Check =>
  machineCheck({
    id: `${machine.name}-iscsid`,
    title: `iscsid on ${machine.name} is there when it is called, and has read its name and configuration`,
    machine: machine.name,
    within: 20,
    hint: `lab exec ${lab.name} ${machine.name} -- systemctl status iscsid.socket iscsid.service`,
    // It reads them when it starts. The time of the last change, since they are unpacked with no time of their own.
    // `masked` says more than `inactive` does.
    command: shell`systemctl show --property=ActiveState,UnitFileState --value iscsid.socket | grep -x -e active -e masked || systemctl show --property=ActiveState --value iscsid.socket; systemctl is-active --quiet iscsid || exit 0; started=$(date -d "$(systemctl show -p ActiveEnterTimestamp --value iscsid)" +%s); for file in /etc/iscsi/initiatorname.iscsi /etc/iscsi/iscsid.conf; do test "$started" -ge "$(stat -c %Z $file)" || echo older than $file; done`,
    judge: equals('active', (output) => output.split('\n').join(', ')),
  })

export const prepareInitiator = (lab: Lab, machine: MachineSpec & { readonly iqn: string }): Step => ({
  id: `prepare-initiator-${machine.name}`,
  title: `Prepare ${machine.name} as an initiator`,
  phase,
  machine: machine.name,
  needs: [`configure-${machine.name}`],
  apply: async (context) => {
    // iscsid reads its name when it starts.
    await context.machine(machine.name).run(
      // A socket does not start beside its service that runs. Sessions outlive both.
      shell`was=$(systemctl is-active iscsid); systemctl unmask --quiet iscsid.socket iscsid.service; systemctl daemon-reload; systemctl stop iscsid.service iscsid.socket; systemctl reset-failed iscsid 2>/dev/null; systemctl start iscsid.socket && { test "$was" != active || systemctl start iscsid; }`,
    )
  },
  checks: [initiatorName(lab, machine), iscsid(lab, machine)],
})

interface Where {
  readonly lab: Lab
  readonly filesystem: FilesystemSpec
  /** `target00-lun-0`: a LUN has one user, so this names the file system as well. */
  readonly name: string
  readonly portal: string
  readonly device: string
  readonly mountPoint: string
}

const deviceOf = (portal: string, iqn: string, lun: number): string =>
  `/dev/disk/by-path/${byPathLink(portal, iqn, lun)}`

const whereOf = (lab: Lab, filesystem: FilesystemSpec): Where => {
  const target = targetNamed(lab, filesystem.target)
  const portal = portalOf(lab, target)
  const name = `${shortName(lab, target)}-lun-${String(filesystem.lun)}`
  return {
    lab,
    filesystem,
    name,
    portal,
    device: deviceOf(portal, filesystem.target, filesystem.lun),
    mountPoint: `/mnt/${name}`,
  }
}

/** The file systems that an initiator has on one target: they share its session, and come and go with it. */
const sharing = ({ lab, filesystem }: Where): readonly Where[] =>
  lab.filesystems
    .filter(({ initiator, target }) => initiator === filesystem.initiator && target === filesystem.target)
    .map((each) => whereOf(lab, each))

/** Those of them that come before this one, and are mounted by the time that it is made. */
const earlier = (where: Where): readonly Where[] => {
  const all = sharing(where)
  return all.slice(
    0,
    all.findIndex(({ name }) => name === where.name),
  )
}

const mount = ({ filesystem, device, mountPoint }: Where): Command =>
  shell`mkdir -p ${mountPoint}; mountpoint -q ${mountPoint} || mount -t ${filesystem.type} ${device} ${mountPoint}`

/** Options of a mount that takes no writes: mounted read-only, or shut down by the kernel after an error. */
export const shutDown: readonly string[] = ['ro', 'emergency_ro', 'shutdown']

/** Why a mount with these options takes no writes; undefined: it does. */
export const whyNoWrites = (options: readonly string[]): string | undefined => {
  const dead = options.filter((option) => option !== 'ro' && shutDown.includes(option))
  if (dead.length > 0) return `shut down after an I/O error (${dead.join(', ')})`
  // Older kernels make it read-only after an error; who did it cannot be told from the option.
  return options.includes('ro') ? 'read-only' : undefined
}

/** Unmounts what takes no writes, and repairs it: it takes none until it is mounted anew. */
const unmountDead = ({ device, mountPoint }: Where): Command =>
  shell`! findmnt --noheadings --output OPTIONS ${mountPoint} | tr , '\n' | grep -qx ${shutDown.flatMap((option) => ['-e', option])} || { umount ${mountPoint} && { e2fsck -p ${device} >/dev/null || test $? = 1; }; }`

/** Waits for the disk of a session, up to 20 s: the queue of udev may be empty before the kernel has found it. */
const appears = ({ device }: Where): Command =>
  shell`n=0; until test -b ${device}; do n=$((n + 1)); test $n -le 200 || { echo ${`${device} has not appeared within 20 s`} >&2; exit 1; }; sleep 0.1; done`

/** Ends the session, if there is one, and begins another; what was made before is mounted again. */
const newSession = async (context: Context, where: Where): Promise<void> => {
  const machine = context.machine(where.filesystem.initiator)
  for (const { mountPoint } of sharing(where))
    await machine.run(shell`! mountpoint -q ${mountPoint} || umount ${mountPoint}`)
  const iqn = where.filesystem.target
  // At whatever portal that was: the lab file may have another one now.
  await machine.try(
    shell`ls -d ${recordsOf(iqn)} 2>/dev/null | grep -q . || exit 0; iscsiadm -m node -T ${iqn} --logout; iscsiadm -m node -T ${iqn} --op=delete`,
  )
  const { command, input } = writeRecord(iqn, where.portal, targetNamed(where.lab, iqn).chap)
  await machine.run(command, { input })
  await machine.run(shell`iscsiadm ${nodeArgs(iqn, where.portal)} --login`)
  await machine.run(appears(where))
  for (const other of earlier(where)) await machine.run(mount(other))
}

/** With the credentials of discovery; the record is gone again with the check, so whoever has none is refused. */
const discovered = (where: Where): Check => {
  const { lab, filesystem, portal } = where
  const { machine } = targetNamed(lab, filesystem.target)
  return {
    id: `${where.name}-discovered`,
    title: `${filesystem.initiator} discovers ${filesystem.target} with CHAP`,
    machine: filesystem.initiator,
    within: 20,
    hint: `lab exec ${lab.name} ${machine} -- dmesg`,
    probe: async (context) => {
      const { command, input } = discover(portal, discoveryChapOf(lab, machine))
      const { exitCode, stdout } = await context
        .machine(filesystem.initiator)
        .try(command, { input, signal: context.signal, timeout: 30 })
      const lines = stdout.trim().split('\n')
      return {
        ok: exitCode === 0 && lines.some((line) => line.split(' ')[1] === filesystem.target),
        saw: lines.join('; ') || 'nothing',
      }
    },
  }
}

/** What the machine is meant to see of the target, and is shown to see. */
const lunsOf = ({ lab, filesystem }: Where): readonly number[] =>
  accessTo(lab, targetNamed(lab, filesystem.target)).find(
    ({ initiator }) => initiator.name === filesystem.initiator,
  )?.luns ?? []

const loggedIn = (where: Where): Check => {
  const { lab, filesystem, portal } = where
  const luns = lunsOf(where)
  return machineCheck({
    id: `${where.name}-logged-in`,
    title: `${filesystem.initiator} is logged in to ${filesystem.target}, once, and has ${luns.length === 1 ? 'LUN' : 'LUNs'} ${luns.join(', ')}`,
    machine: filesystem.initiator,
    within: 20,
    hint: `lab exec ${lab.name} ${filesystem.initiator} -- iscsiadm -m session -P 3`,
    command: shell`iscsiadm -m session; cd /dev/disk/by-path && ls | sed -n ${`s/^${byPathLink(portal, filesystem.target, 0).slice(0, -1)}\\([0-9]*\\)$/has \\1/p`}; test -b ${where.device}`,
    judge: (output) => {
      const lines = output.split('\n')
      const sessions = lines.filter((line) => line.split(' ')[3] === filesystem.target)
      const has = lines
        .filter((line) => line.startsWith('has '))
        .map((line) => Number(line.slice(4)))
        .sort((one, other) => one - other)
      return {
        ok: sessions.length === 1 && has.join() === luns.join(),
        saw: `${sessions.join('; ') || 'no session'}; LUNs ${has.join(', ') || 'none'}`,
      }
    },
  })
}

/** A session lives on when the lab file has another password by now: the next login would fail. */
const recorded = (where: Where): Check => {
  const { lab, filesystem, portal } = where
  const { chap } = targetNamed(lab, filesystem.target)
  const wanted = sha256(recordText(chap))
  return machineCheck({
    id: `${where.name}-record`,
    title: `${filesystem.initiator} would log in again with the lab file's name and password`,
    machine: filesystem.initiator,
    hint: `lab up ${lab.name}`,
    command: hashOfRecord(filesystem.target, portal),
    judge: (output) => ({
      ok: output === wanted,
      saw: output === wanted ? 'its record is as wanted' : 'its record differs',
    }),
  })
}

/** Makes LUNs known that were added to the target of a session. False where another session is needed for it. */
const lookAgain = async (context: Context, where: Where): Promise<boolean> => {
  const machine = context.machine(where.filesystem.initiator)
  const { iqn } = targetNamed(where.lab, where.filesystem.target)
  const scan = await machine.try(
    shell`ls -d ${recordsOf(iqn)} 2>/dev/null | grep -q . && iscsiadm ${nodeArgs(iqn, where.portal)} --rescan`,
  )
  if (scan.exitCode !== 0 || (await machine.try(appears(where))).exitCode !== 0) return false
  for (const check of [loggedIn(where), recorded(where)]) if (!(await check.probe(context)).ok) return false
  return true
}

export const logIn = (lab: Lab, filesystem: FilesystemSpec): Step => {
  const where = whereOf(lab, filesystem)
  return {
    id: `log-in-${where.name}`,
    title: `Log in to ${filesystem.target} with CHAP, for LUN ${String(filesystem.lun)}`,
    phase,
    machine: filesystem.initiator,
    needs: [
      `prepare-initiator-${filesystem.initiator}`,
      `serve-${shortName(lab, targetNamed(lab, filesystem.target))}`,
      ...earlier(where).map(({ name }) => `make-filesystem-${name}`),
    ],
    apply: async (context) => {
      if (!(await lookAgain(context, where))) await newSession(context, where)
    },
    checks: [discovered(where), loggedIn(where), recorded(where)],
  }
}

/** What is written to the file that must survive a logout: the same for ever, so that it can be compared. */
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
      // Exit code 2: nothing on it. Anything else that is not our type is somebody's data, and stays.
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

/** Blocks at the end of a disk that ext4 leaves, where they are too few for another group. */
const spareBlocks = 2048

/** Looks at a disk and the ext4 on it: the first line is the size of the disk, then its blocks and their size. */
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
 * Lets a mounted ext4 have so many blocks: EXT4_IOC_RESIZE_FS of the kernel. resize2fs does the same, but opens the
 * disk for writing first, which the lab's kernel refuses while it is mounted.
 */
const resize =
  'open(my $top, "<", $ARGV[0]) or die "$!\\n"; ioctl($top, 0x40086610, pack("Q", $ARGV[1])) or die "$!\\n"'

/** Asks the target for the size of the disk, and lets the file system on it have all of it. */
const grow = (iqn: string, portal: string, device: string): Command =>
  shell`iscsiadm ${nodeArgs(iqn, portal)} --rescan >/dev/null && udevadm settle && size=$(dumpe2fs -h ${device} 2>/dev/null | sed -n 's/^Block size: *//p') && perl -e ${resize} "$(findmnt --noheadings --first-only --output TARGET --source "$(readlink -f ${device})")" $(($(blockdev --getsize64 ${device}) / size))`

/** Seconds for a file system to grow: its new groups are written. */
const growing = 300

/** A LUN that is larger in the lab file grows at the target by itself; the initiator must be told. */
export const growFilesystem = (lab: Lab, filesystem: FilesystemSpec): Step => {
  const { device, name, portal } = whereOf(lab, filesystem)
  const machine = filesystem.initiator
  const size = sizeOf(lab, filesystem.target, filesystem.lun)
  return {
    id: `grow-filesystem-${name}`,
    title: `See that the file system fills the LUN, or let it grow`,
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

/** The same for the LUN of a database, on whichever worker has it. */
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
    title: "See that the database's file system fills its LUN, or let it grow",
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
