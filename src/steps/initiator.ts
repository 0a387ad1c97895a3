/** open-iscsi: who a machine says it is, its sessions, and a file system on a LUN (seed 002, first half). */
import { type FilesystemSpec, type Lab, type MachineSpec, portalOf, targetNamed } from '../lab/lab.js'
import { sha256 } from '../machine/files.js'
import { type Command, shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../plan/step.js'
import { equals, machineCheck } from './checks.js'
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
    title: `iscsid on ${machine.name} is there when it is called`,
    machine: machine.name,
    within: 20,
    hint: `lab exec ${lab.name} ${machine.name} -- journalctl -u iscsid -n 30`,
    command: shell`systemctl is-active iscsid.socket`,
    judge: equals('active'),
  })

export const prepareInitiator = (lab: Lab, machine: MachineSpec & { readonly iqn: string }): Step => ({
  id: `prepare-initiator-${machine.name}`,
  title: `Prepare ${machine.name} as an initiator`,
  phase,
  machine: machine.name,
  needs: [`configure-${machine.name}`],
  apply: async (context) => {
    // iscsid reads its name when it starts.
    await context
      .machine(machine.name)
      .run(shell`systemctl restart iscsid.socket; systemctl try-restart iscsid`)
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

const whereOf = (lab: Lab, filesystem: FilesystemSpec): Where => {
  const target = targetNamed(lab, filesystem.target)
  const portal = portalOf(lab, target)
  const name = `${shortName(lab, target)}-lun-${String(filesystem.lun)}`
  return {
    lab,
    filesystem,
    name,
    portal,
    device: `/dev/disk/by-path/ip-${portal}-iscsi-${filesystem.target}-lun-${String(filesystem.lun)}`,
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

const nodeArgs = ({ filesystem, portal }: Where): readonly string[] => [
  '-m',
  'node',
  '-T',
  filesystem.target,
  '-p',
  portal,
]

/**
 * The node record with the CHAP credentials. They go into the record's file through standard input, because
 * iscsiadm takes them only as arguments, which every user of the machine could read.
 */
const writeRecord = async (context: Context, where: Where): Promise<void> => {
  const { filesystem, lab } = where
  const { username, password } = targetNamed(lab, filesystem.target).chap
  const machine = context.machine(filesystem.initiator)
  const args = nodeArgs(where)
  await machine.run(
    shell`iscsiadm ${args} -o new >/dev/null && iscsiadm ${args} -o update -n node.session.auth.authmethod -v CHAP`,
  )
  await machine.run(
    shell`set -e; file=$(find /etc/iscsi/nodes /var/lib/iscsi/nodes -type f -path ${`*/${filesystem.target}/*`} -path ${`*${where.portal.replace(':', ',')}*`} 2>/dev/null | head -n 1); test -n "$file"; umask 077; grep -v -e ^node.session.auth.username -e ^node.session.auth.password -e END.RECORD "$file" > "$file".new; cat >> "$file".new; mv "$file".new "$file"`,
    {
      input: `node.session.auth.username = ${username}\nnode.session.auth.password = ${password}\n# END RECORD\n`,
    },
  )
}

const mount = ({ filesystem, device, mountPoint }: Where): Command =>
  shell`mkdir -p ${mountPoint}; mountpoint -q ${mountPoint} || mount -t ${filesystem.type} ${device} ${mountPoint}`

/** Ends the session, if there is one, and begins another; what was made before is mounted again. */
const newSession = async (context: Context, where: Where): Promise<void> => {
  const machine = context.machine(where.filesystem.initiator)
  for (const { mountPoint } of sharing(where))
    await machine.run(shell`! mountpoint -q ${mountPoint} || umount ${mountPoint}`)
  // At whatever portal that was: the lab file may have another one now.
  for (const operation of ['--logout', '--op=delete'])
    await machine.try(shell`iscsiadm -m node -T ${where.filesystem.target} ${operation}`)
  await writeRecord(context, where)
  await machine.run(
    shell`iscsiadm ${nodeArgs(where)} --login && udevadm settle --timeout=20 --exit-if-exists=${where.device}`,
  )
  for (const other of earlier(where)) await machine.run(mount(other))
}

const discovered = (where: Where): Check =>
  machineCheck({
    id: `${where.name}-discovered`,
    title: `${where.filesystem.initiator} discovers ${where.filesystem.target}`,
    machine: where.filesystem.initiator,
    within: 20,
    hint: `lab exec ${where.lab.name} ${where.filesystem.initiator} -- iscsiadm -m discovery -t sendtargets -p ${where.portal}`,
    command: shell`iscsiadm -m discoverydb -t sendtargets -p ${where.portal} -o nonpersistent --discover`,
    judge: (output) => ({
      ok: output.includes(where.filesystem.target),
      saw: output.split('\n').join('; ') || 'nothing',
    }),
  })

const loggedIn = (where: Where): Check =>
  machineCheck({
    id: `${where.name}-logged-in`,
    title: `${where.filesystem.initiator} is logged in to ${where.filesystem.target}, once, and has LUN ${String(where.filesystem.lun)}`,
    machine: where.filesystem.initiator,
    within: 20,
    hint: `lab exec ${where.lab.name} ${where.filesystem.initiator} -- iscsiadm -m session -P 3`,
    command: shell`iscsiadm -m session; test -b ${where.device} && readlink -f ${where.device}`,
    judge: (output) => {
      const sessions = output.split('\n').filter((line) => line.includes(`${where.filesystem.target} `))
      return { ok: sessions.length === 1 && output.includes('/dev/'), saw: output.split('\n').join('; ') }
    },
  })

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
    apply: (context) => newSession(context, where),
    checks: [discovered(where), loggedIn(where)],
  }
}

/** What is written to the file that must survive a logout: the same for ever, so that it can be compared. */
const testament = (lab: Lab): string =>
  `${lab.name}: written through iSCSI, synced, unmounted, logged out, logged in, and still here\n`

/** Options of a mount that no longer takes writes: as the kernel shows that a file system was shut down. */
export const shutDown: readonly string[] = ['ro', 'emergency_ro', 'shutdown']

export const makeFilesystem = (lab: Lab, filesystem: FilesystemSpec): Step => {
  const where = whereOf(lab, filesystem)
  const { device, mountPoint, name } = where
  const directory = `${mountPoint}/${filesystem.directory}`
  const file = `${directory}/testament`
  const machine = filesystem.initiator
  const hint = `lab exec ${lab.name} ${machine} -- findmnt ${mountPoint}`
  return {
    id: `make-filesystem-${name}`,
    title: `Make ${filesystem.type} with ${filesystem.directory} on it, and read a file back after a new login`,
    phase,
    machine,
    needs: [`log-in-${name}`],
    apply: async (context) => {
      const there = context.machine(machine)
      // One that was shut down takes nothing until it is mounted anew.
      await there.run(
        shell`! findmnt --noheadings --output OPTIONS ${mountPoint} | tr , '\n' | grep -qx ${shutDown.flatMap((option) => ['-e', option])} || umount ${mountPoint}`,
      )
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
        hint,
        command: shell`readlink -f ${device}; findmnt --noheadings --output FSTYPE,SOURCE,SIZE ${mountPoint} || true; findmnt --noheadings --output OPTIONS ${mountPoint} || true`,
        judge: (output) => {
          const [disk = '', mounted = 'not mounted', options = ''] = output.split('\n')
          const dead = options.split(',').filter((option) => shutDown.includes(option))
          if (dead.length > 0)
            return {
              ok: false,
              saw: `${mounted.trim()}, shut down after an I/O error (${dead.join(', ')})`,
            }
          return { ok: mounted.startsWith(`${filesystem.type} ${disk} `), saw: mounted }
        },
      }),
      machineCheck({
        id: `${name}-directory`,
        title: `${filesystem.directory} has mode ${filesystem.mode}`,
        machine,
        hint,
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
        hint,
        command: shell`sha256sum < ${file} | cut -c1-64`,
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
