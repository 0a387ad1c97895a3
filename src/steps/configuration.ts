/** Running machines: reached over SSH, checked, and configured with the files that follow from the lab file. */
import { type Lab, type MachineSpec, nfsServerOf, nodesOf, pairWith } from '../lab/lab.js'
import { sha256 } from '../machine/digest.js'
import { machineFiles, tarOf } from '../machine/files.js'
import type { FileOptions, MachineFile } from '../machine/machine-file.js'
import { shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import { answerDeadline, equals, eventually, machineCheck } from './checks.js'
import { clockCheck, setClock } from './clocks.js'

const phase = 'machines'

/** Seconds from power on to SSH: 3 were measured, 12 on a busy host. */
const bootDeadline = 90

/** The kernel reports a little less memory than the machine was given. */
const memoryCheck = (lab: Lab, machine: MachineSpec): Check => {
  const wanted = machine.memory / 1024 ** 2
  return machineCheck({
    id: `${machine.name}-memory`,
    title: `${machine.name} has ${String(wanted)} MiB of memory`,
    machine: machine.name,
    within: answerDeadline,
    hint: `lab plan ${lab.name}`,
    command: shell`awk '/^MemTotal/ { printf "%d", $2 / 1024 }' /proc/meminfo`,
    judge: (output) => {
      const has = Number(output)
      return { ok: has > wanted * 0.85 && has <= wanted, saw: `${output} MiB usable` }
    },
  })
}

const reachableCheck = (lab: Lab, machine: MachineSpec): Check =>
  machineCheck({
    id: `${machine.name}-reachable`,
    title: `${machine.name} answers SSH`,
    machine: machine.name,
    within: answerDeadline,
    hint: `lab logs ${lab.name} ${machine.name}`,
    command: shell`hostname`,
    // Any answer will do: its hostname is set by a later step.
    judge: (output) => ({ ok: true, saw: output }),
  })

const hostnameCheck = (lab: Lab, machine: MachineSpec): Check =>
  machineCheck({
    id: `${machine.name}-hostname`,
    title: `the host name of ${machine.name} is ${machine.name}`,
    machine: machine.name,
    hint: `lab up ${lab.name}`,
    command: shell`hostname`,
    judge: equals(machine.name),
  })

/** MiB of free space on a machine's own disk, below which programs fail without saying why. */
const leastRoom = 16

const roomCheck = (lab: Lab, machine: MachineSpec): Check =>
  machineCheck({
    id: `${machine.name}-disk`,
    title: `${machine.name} has free space on its own disk, and can write to it`,
    machine: machine.name,
    within: bootDeadline,
    hint: `lab exec ${lab.name} ${machine.name} -- sh -c 'findmnt /; du -xam / | sort -rn | head -n 20'`,
    command: shell`findmnt --noheadings --output OPTIONS --target / | cut -d, -f1; df --output=avail -m / | tail -n 1`,
    judge: (output) => {
      const [mode = '', room = ''] = output.split('\n')
      return {
        ok: mode === 'rw' && Number(room) >= leastRoom,
        saw: `${mode === 'rw' ? '' : 'read-only, '}${room.trim()} MiB free`,
        // Only a person can decide which files to delete, so waiting does not help.
        final: true,
      }
    },
  })

const sysctls = { 'net.ipv4.ip_forward': '1', 'net.bridge.bridge-nf-call-iptables': '1' }

const sysctlCheck = (lab: Lab, machine: MachineSpec): Check =>
  machineCheck({
    id: `${machine.name}-sysctl`,
    title: `${machine.name} forwards packets and filters bridged ones`,
    machine: machine.name,
    hint: `lab exec ${lab.name} ${machine.name} -- sysctl --system`,
    command: shell`sysctl -n ${Object.keys(sysctls)} | tr '\n' ' '`,
    judge: equals(
      Object.values(sysctls).join(' '),
      (output) => `${Object.keys(sysctls).join(', ')} = ${output}`,
    ),
  })

/** The kernel features that a machine needs, built in or as a loadable module; by the name of the module. */
const kernelFeatures = (lab: Lab, machine: MachineSpec): readonly string[] => [
  ...(machine.role === 'target' ? ['target_core_mod', 'iscsi_target_mod'] : []),
  ...(pairWith(lab, machine.name) ? ['drbd'] : []),
  ...(machine.iqn === undefined ? [] : ['iscsi_tcp', 'sd_mod']),
  ...(machine.role === 'nfs' ? ['nfsd'] : []),
  ...(nfsServerOf(lab) && nodesOf(lab).includes(machine) ? ['nfs4'] : []),
  ...(nodesOf(lab).includes(machine) ? ['overlay', 'bridge', 'nf_tables', 'veth'] : []),
]

const kernelProbes: Readonly<Record<string, string>> = {
  target_core_mod: 'test -d /sys/kernel/config/target/core',
  iscsi_target_mod: 'test -d /sys/kernel/config/target/iscsi',
  drbd: 'test -e /proc/drbd',
  iscsi_tcp: 'test -d /sys/class/iscsi_transport/tcp',
  sd_mod: 'test -d /sys/bus/scsi/drivers/sd',
  nfsd: 'grep -qw nfsd /proc/filesystems',
  nfs4: 'grep -qw nfs4 /proc/filesystems',
  overlay: 'grep -qw overlay /proc/filesystems',
  bridge: 'test -d /proc/sys/net/bridge',
  nf_tables: 'nft list tables >/dev/null',
  veth: 'ip link help veth 2>&1 | grep -q veth',
}

const kernelCheck = (lab: Lab, machine: MachineSpec): Check => {
  const wanted = kernelFeatures(lab, machine)
  const script = wanted.map((name) => `${kernelProbes[name] ?? 'false'} || echo ${name}`).join('; ')
  return machineCheck({
    id: `${machine.name}-kernel`,
    title: `${machine.name}'s kernel has ${wanted.join(', ')}`,
    machine: machine.name,
    hint: `lab ssh ${lab.name} ${machine.name} -- uname -a`,
    command: { text: `${script}; true`, shown: 'kernel features' },
    judge: (output) =>
      output === ''
        ? { ok: true, saw: 'all there' }
        : { ok: false, saw: `missing: ${output.split('\n').join(', ')}`, final: true },
  })
}

export const connect = (lab: Lab, machine: MachineSpec): Step => ({
  id: `reach-${machine.name}`,
  title: `Reach ${machine.name} over SSH`,
  phase,
  machine: machine.name,
  needs: [`boot-${machine.name}`],
  // The machine may still boot: its clock is set as soon as it answers. If it never does, the checks say so.
  apply: async (context, progress) => {
    const skew = await eventually(context, bootDeadline, () => setClock(context, machine.name)).catch(() => 0)
    if (skew !== 0) progress(`its clock was ${skew.toFixed(1)} s off`)
  },
  checks: [
    reachableCheck(lab, machine),
    memoryCheck(lab, machine),
    clockCheck(lab, machine),
    roomCheck(lab, machine),
  ],
})

/** The files whose content or mode on the machine is wrong. */
const differing = async (
  context: Context,
  machine: MachineSpec,
  files: readonly MachineFile[],
): Promise<readonly MachineFile[]> => {
  const list = files.map(({ path, content }) => `${sha256(content)}  ${path}`).join('\n')
  // The hashes go through standard input: `ps` must not show the hashes of secrets.
  const answer = await context
    .machine(machine.name)
    .try(
      shell`sha256sum --check --quiet 2>/dev/null; stat -c '%a %n' ${files.map(({ path }) => path)} 2>/dev/null`,
      { input: `${list}\n`, signal: context.signal },
    )
  const lines = answer.stdout.split('\n')
  return files.filter(({ path, mode = 0o644 }) => {
    const wrongContent = lines.some((line) => line.startsWith(`${path}: FAILED`))
    return wrongContent || !lines.includes(`${mode.toString(8)} ${path}`)
  })
}

/** The scripts in this folder run at every boot, in order. A script that changed on a running machine runs at once. */
const bootScripts = '/etc/lab/boot.d/'

/** @param gone machines that are removed first: their pods and sessions must end before their routes and ACLs do */
export const configure = (
  lab: Lab,
  machine: MachineSpec,
  options: FileOptions,
  gone: readonly string[],
): Step => {
  const files = machineFiles(lab, machine, options)
  const checks: [Check, ...Check[]] = [
    {
      id: `${machine.name}-files`,
      title: `${machine.name} has the ${String(files.length)} files that the lab file requires`,
      machine: machine.name,
      hint: `lab up ${lab.name}`,
      probe: async (context) => {
        const wrong = await differing(context, machine, files)
        return wrong.length === 0
          ? { ok: true, saw: 'all correct' }
          : { ok: false, saw: `differ: ${wrong.map(({ path }) => path).join(', ')}` }
      },
    },
  ]
  checks.push(hostnameCheck(lab, machine))
  if (kernelFeatures(lab, machine).length > 0) checks.push(kernelCheck(lab, machine))
  if (nodesOf(lab).includes(machine)) checks.push(sysctlCheck(lab, machine))
  return {
    id: `configure-${machine.name}`,
    title: `Configure ${machine.name}`,
    phase,
    machine: machine.name,
    needs: [`reach-${machine.name}`, ...gone.map((name) => `remove-${name}`)],
    apply: async (context) => {
      const wrong = await differing(context, machine, files)
      const there = context.machine(machine.name)
      if (wrong.length > 0)
        await there.run(shell`tar --extract --no-same-owner --preserve-permissions --directory=/`, {
          input: await tarOf(wrong),
          signal: context.signal,
        })
      await there.run(shell`hostname -F /etc/hostname; sysctl --quiet --system`, { signal: context.signal })
      // iscsid reads its files when it starts. A restart keeps its sessions.
      if (wrong.some(({ path }) => path.startsWith('/etc/iscsi/')))
        await there.run(shell`systemctl try-restart iscsid`, { signal: context.signal })
      for (const { path } of wrong.filter((file) => file.path.startsWith(bootScripts)))
        await there.run(shell`${path}`, { signal: context.signal })
    },
    checks,
  }
}
