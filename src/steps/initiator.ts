/** open-iscsi: a machine's initiator name, its daemon, and its sessions with targets. */
import {
  accessTo,
  byPathLink,
  discoveryChapOf,
  type FilesystemSpec,
  type Lab,
  type MachineSpec,
  portalOf,
  targetNamed,
} from '../lab/lab.js'
import { sha256 } from '../machine/digest.js'
import { type Command, shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import { equals, machineCheck } from './checks.js'
import { discover, hashOfRecord, nodeArgs, recordsOf, recordText, writeRecord } from './open-iscsi.js'
import { shortName } from './target.js'

const phase = 'iscsi'

const initiatorName = (lab: Lab, machine: MachineSpec & { readonly iqn: string }): Check =>
  machineCheck({
    id: `${machine.name}-iqn`,
    title: `the initiator name of ${machine.name} is ${machine.iqn}`,
    machine: machine.name,
    hint: `lab up ${lab.name}`,
    command: shell`sed -n s/^InitiatorName=//p /etc/iscsi/initiatorname.iscsi`,
    judge: equals(machine.iqn),
  })

const iscsid = (lab: Lab, machine: MachineSpec): Check =>
  machineCheck({
    id: `${machine.name}-iscsid`,
    title: `iscsid on ${machine.name} starts on demand, and has read its name and configuration`,
    machine: machine.name,
    within: 20,
    hint: `lab exec ${lab.name} ${machine.name} -- systemctl status iscsid.socket iscsid.service`,
    // iscsid reads its files when it starts. Compare the time of the last status change: the files are unpacked
    // without a modification time of their own. `masked` says more than `inactive` does.
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
      // A socket unit does not start while its service runs. Sessions survive the stop of both.
      shell`was=$(systemctl is-active iscsid); systemctl unmask --quiet iscsid.socket iscsid.service; systemctl daemon-reload; systemctl stop iscsid.service iscsid.socket; systemctl reset-failed iscsid 2>/dev/null; systemctl start iscsid.socket && { test "$was" != active || systemctl start iscsid; }`,
    )
  },
  checks: [initiatorName(lab, machine), iscsid(lab, machine)],
})

export interface Where {
  readonly lab: Lab
  readonly filesystem: FilesystemSpec
  /** `target00-lun-0`: a LUN has one user, so this names the file system as well. */
  readonly name: string
  readonly portal: string
  readonly device: string
  readonly mountPoint: string
}

export const deviceOf = (portal: string, iqn: string, lun: number): string =>
  `/dev/disk/by-path/${byPathLink(portal, iqn, lun)}`

export const whereOf = (lab: Lab, filesystem: FilesystemSpec): Where => {
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

/** The file systems of an initiator on one target, which share a session. */
const sharing = ({ lab, filesystem }: Where): readonly Where[] =>
  lab.filesystems
    .filter(({ initiator, target }) => initiator === filesystem.initiator && target === filesystem.target)
    .map((each) => whereOf(lab, each))

/** The file systems of that session that come before this one, and are mounted before it is created. */
const earlier = (where: Where): readonly Where[] => {
  const all = sharing(where)
  return all.slice(
    0,
    all.findIndex(({ name }) => name === where.name),
  )
}

export const mount = ({ filesystem, device, mountPoint }: Where): Command =>
  shell`mkdir -p ${mountPoint}; mountpoint -q ${mountPoint} || mount -t ${filesystem.type} ${device} ${mountPoint}`

/** Waits up to 20 s for the disk of a session: udev's queue may be empty before the kernel has found the disk. */
const appears = ({ device }: Where): Command =>
  shell`n=0; until test -b ${device}; do n=$((n + 1)); test $n -le 200 || { echo ${`${device} has not appeared within 20 s`} >&2; exit 1; }; sleep 0.1; done`

/** Ends the session, if there is one, logs in again, and mounts the earlier file systems again. */
export const newSession = async (context: Context, where: Where): Promise<void> => {
  const machine = context.machine(where.filesystem.initiator)
  for (const { mountPoint } of sharing(where))
    await machine.run(shell`! mountpoint -q ${mountPoint} || umount ${mountPoint}`)
  const iqn = where.filesystem.target
  // Log out at every portal: the lab file may name another one now.
  await machine.try(
    shell`ls -d ${recordsOf(iqn)} 2>/dev/null | grep -q . || exit 0; iscsiadm -m node -T ${iqn} --logout; iscsiadm -m node -T ${iqn} --op=delete`,
  )
  const { command, input } = writeRecord(iqn, where.portal, targetNamed(where.lab, iqn).chap)
  await machine.run(command, { input })
  await machine.run(shell`iscsiadm ${nodeArgs(iqn, where.portal)} --login`)
  await machine.run(appears(where))
  for (const other of earlier(where)) await machine.run(mount(other))
}

/** Discovers with CHAP. The check leaves no record of the credentials behind. */
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

/** The LUNs of the target that the machine should see. */
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
    // udev takes its time for each disk.
    within: 18 + 2 * luns.length,
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

/** A session continues when the lab file changes the password, but the next login would fail. */
const recorded = (where: Where): Check => {
  const { lab, filesystem, portal } = where
  const { chap } = targetNamed(lab, filesystem.target)
  const wanted = sha256(recordText(chap))
  return machineCheck({
    id: `${where.name}-record`,
    title: `${filesystem.initiator} would log in again with the name and password of the lab file`,
    machine: filesystem.initiator,
    hint: `lab up ${lab.name}`,
    command: hashOfRecord(filesystem.target, portal),
    judge: (output) => ({
      ok: output === wanted,
      saw: output === wanted ? 'its record is correct' : 'its record differs from the lab file',
    }),
  })
}

/**
 * Scans for LUNs that were added to the target of a session, and waits until udev has named their disks: if one seemed
 * to be missing, the file systems would lose their session. Returns false if a new session is needed.
 */
const lookAgain = async (context: Context, where: Where): Promise<boolean> => {
  const machine = context.machine(where.filesystem.initiator)
  const { iqn } = targetNamed(where.lab, where.filesystem.target)
  const scan = await machine.try(
    shell`ls -d ${recordsOf(iqn)} 2>/dev/null | grep -q . && iscsiadm ${nodeArgs(iqn, where.portal)} --rescan && { udevadm settle --timeout=20 || true; }`,
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
