/**
 * Gives a host the contents of the base disk that its machine needs. Each change is recorded before it is made.
 */
import { readFile } from 'node:fs/promises'
import { disksOn, type Lab, type MachineSpec, nfsServerOf, nodesOf } from '../../lab/lab.js'
import { serialOf, sha256 } from '../../machine/digest.js'
import { tarOf } from '../../machine/files.js'
import type { MachineFile } from '../../machine/machine-file.js'
import type { Transport } from '../../machine/machine.js'
import { quote } from '../../machine/sh.js'
import { baseFile } from '../../parts/base-disk.js'
import type { Architecture } from '../../parts/architecture.js'
import { nodePrograms } from '../../parts/nodes.js'
import { switchOnMemory } from './memory-controller.js'
import { swapIsOff, switchOffSwap } from './swap.js'
import { hasMemoryController, hostFolder, Recorder, runAsRoot } from './undo-record.js'

/** What a host gets in addition to the files of the lab file. */
export interface Equipment {
  /** Debian packages, all of which the base disk has as well (`system.packages` in parts/parts.yaml). */
  readonly packages: readonly string[]
  readonly files: readonly MachineFile[]
  /** Programs, by their path on the host. */
  readonly programs: readonly { readonly from: string; readonly to: string }[]
  readonly modules: readonly string[]
  /** Units that start at boot. */
  readonly enabled: readonly string[]
  /** Units whose state the lab changes. */
  readonly units: readonly string[]
  readonly noSwap: boolean
}

/** The folder of the LUNs' block devices: links to loop devices, made at every boot. */
export const lunLink = (index: number): string => `/dev/lab/lun${String(index)}`

const lunsScript = (lab: Lab, machine: MachineSpec): string => {
  const luns = disksOn(lab, machine.name).map(({ lun, size, target }) => ({
    serial: serialOf(target, lun),
    size,
  }))
  return `#!/bin/sh
# Written by lab: makes a file, a loop device and a link to that device for each LUN.
set -e
mkdir -p ${hostFolder}/luns /dev/lab
${luns
  .map(({ serial, size }, index) => {
    const file = `${hostFolder}/luns/${serial}`
    return `[ "$(stat -c %s ${file} 2>/dev/null || echo 0)" -ge ${String(size)} ] || truncate -s ${String(size)} ${file}
loop=$(losetup --noheadings --output NAME --associated ${file} | head -n 1)
if [ -n "$loop" ]; then losetup -c "$loop"
else loop=$(losetup --find --show --direct-io=on ${file} 2>/dev/null || losetup --find --show ${file})
fi
ln -sfn "$loop" ${lunLink(index)}
`
  })
  .join('')}`
}

/** The base disk's unit waits for the base disk's own network; a host has its own, and gets its address later. */
const bootUnit = async (): Promise<string> =>
  (await baseFile('etc/systemd/system/lab-boot.service')).replace(
    'Before=network-online.target ',
    'After=network-online.target systemd-modules-load.service\nWants=network-online.target\nBefore=',
  )

/** How machines differ that are not of lab's own base disk. */
export interface EquipOptions {
  /** Whether the machine has a disk for each LUN. Default: it gets files behind loop devices. */
  readonly ownDisks?: boolean
  /** Default: this computer's. */
  readonly architecture?: Architecture | undefined
}

export const equipmentFor = async (
  lab: Lab,
  machine: MachineSpec,
  { ownDisks = false, architecture }: EquipOptions = {},
): Promise<Equipment> => {
  const isNode = nodesOf(lab).includes(machine)
  const server = nfsServerOf(lab)
  const isTarget = machine.role === 'target'
  const initiator = machine.iqn !== undefined
  const base = async (path: string, mode?: number): Promise<MachineFile> => ({
    path: `/${path}`,
    content: await baseFile(path),
    ...(mode === undefined ? {} : { mode }),
  })
  const modules = [
    ...(isTarget && !ownDisks ? ['loop'] : []),
    ...(isTarget ? ['target_core_mod', 'target_core_iblock', 'iscsi_target_mod'] : []),
    ...(initiator ? ['iscsi_tcp'] : []),
    ...(machine.role === 'nfs' ? ['nfsd'] : []),
    ...(isNode ? ['overlay', 'br_netfilter', 'nf_tables', 'nf_conntrack'] : []),
  ]
  const boots = isNode || isTarget || machine.role === 'nfs'
  // One of several control planes, which share an address.
  const sharesAddress = machine.role === 'control-plane' && lab.kubernetes?.endpoint !== undefined
  return {
    packages: [
      ...(initiator ? ['open-iscsi', 'e2fsprogs'] : []),
      ...(isNode ? ['runc', 'nftables', 'conntrack', 'ethtool', 'curl', 'procps'] : []),
      ...(sharesAddress ? ['keepalived'] : []),
      ...(machine.role === 'nfs' ? ['nfs-kernel-server'] : []),
      ...(server && isNode ? ['nfs-common'] : []),
    ],
    files: [
      ...(modules.length > 0
        ? [{ path: '/etc/modules-load.d/lab.conf', content: `# Written by lab.\n${modules.join('\n')}\n` }]
        : []),
      ...(boots
        ? [
            { path: '/etc/systemd/system/lab-boot.service', content: await bootUnit() },
            await base('usr/local/sbin/lab-boot', 0o755),
          ]
        : []),
      ...(isTarget && !ownDisks
        ? [{ path: '/etc/lab/boot.d/40-luns', content: lunsScript(lab, machine), mode: 0o755 }]
        : []),
      ...(isNode
        ? [
            await base('etc/sysctl.d/90-lab.conf'),
            await base('etc/containerd/config.toml'),
            await base('etc/systemd/system/containerd.service'),
            await base('etc/systemd/system/kubelet.service'),
          ]
        : []),
    ],
    programs: isNode ? nodePrograms(architecture) : [],
    modules,
    enabled: [
      ...(boots ? ['lab-boot.service'] : []),
      ...(isNode ? ['containerd.service', 'kubelet.service'] : []),
    ],
    units: [
      ...(boots ? ['lab-boot.service'] : []),
      ...(initiator ? ['iscsid.socket', 'iscsid.service', 'open-iscsi.service'] : []),
      ...(isNode ? ['containerd.service', 'kubelet.service'] : []),
      // Those of the lab file's own files, which would stay at work without their files.
      ...(isNode && initiator ? ['lab-lun-guard.socket'] : []),
      ...(isNode && server ? ['srv-nfs.automount', 'srv-nfs.mount'] : []),
      ...(sharesAddress ? ['keepalived.service', 'lab-endpoint.service'] : []),
    ],
    noSwap: isNode,
  }
}

/** Folders in which a lab keeps files whose names are not known in advance. */
const folders = (lab: Lab, machine: MachineSpec): readonly string[] => [
  ...(machine.iqn === undefined ? [] : ['/etc/iscsi', '/var/lib/iscsi', '/mnt']),
  ...(machine.role === 'target' ? ['/etc/target'] : []),
  ...(machine.role === 'control-plane' && lab.kubernetes?.endpoint !== undefined ? ['/etc/keepalived'] : []),
  ...(machine.role === 'nfs' || (nfsServerOf(lab) && nodesOf(lab).includes(machine)) ? ['/srv'] : []),
  ...(nodesOf(lab).includes(machine)
    ? [
        ...['/etc/kubernetes', '/etc/cni', '/var/lib/kubelet', '/var/lib/etcd', '/var/lib/containerd'],
        ...['/var/lib/cni', '/opt/cni', '/var/log/pods', '/var/log/containers', '/root/.kube'],
        ...['/opt/local-path-provisioner', '/opt/containerd', '/usr/libexec/kubernetes'],
        ...['/var/lib/lab-initialised', '/var/lib/lab-manifests'],
      ]
    : []),
]

/** Backup files that `useradd` and similar programs leave. */
const userFiles = ['passwd', 'group', 'shadow', 'gshadow', 'subuid', 'subgid'].map((name) => `/etc/${name}-`)

const sysctlNames = async (): Promise<readonly string[]> =>
  [...(await baseFile('etc/sysctl.d/90-lab.conf')).matchAll(/^([a-z][\w.-]*) = /gm)].map(
    ([, name = '']) => name,
  )

/** Settings that the kubelet makes itself. */
const kubeletSysctls = [
  ...['kernel.panic', 'kernel.panic_on_oops', 'vm.overcommit_memory', 'vm.panic_on_oom'],
  ...['kernel.keys.root_maxkeys', 'kernel.keys.root_maxbytes'],
]

const marker = `${hostFolder}/equipped`

/** A name for all of a host's equipment. */
const nameOf = async (
  { programs, ...equipment }: Equipment,
  files: readonly MachineFile[],
): Promise<string> =>
  sha256(
    JSON.stringify([
      equipment,
      await Promise.all(programs.map(async ({ from, to }) => [to, sha256(await readFile(from))])),
      files.map(({ path }) => path),
    ]),
  )

const names = new Map<string, Promise<string>>()

/** Whether a host has its equipment at present. */
export const lookEquipped = async (
  root: Transport,
  lab: Lab,
  machine: MachineSpec,
  files: readonly MachineFile[],
  options?: EquipOptions,
): Promise<{ readonly ok: boolean; readonly saw: string }> => {
  const equipment = await equipmentFor(lab, machine, options)
  const key = `${machine.name} ${JSON.stringify(files.map(({ path }) => path))}`
  const name = names.get(key) ?? nameOf(equipment, files)
  names.set(key, name)
  const said = await runAsRoot(
    root,
    `[ "$(cat ${marker} 2>/dev/null)" = ${await name} ] || echo 'not all of it, or of another lab file'
${equipment.packages.length > 0 ? `for name in ${equipment.packages.join(' ')}; do dpkg-query -W -f '\${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || echo "no package $name"; done` : ''}
${equipment.programs.map(({ to }) => `[ -x ${to} ] || echo 'no ${to}'`).join('\n')}
sha256sum --check --quiet 2>/dev/null | sed 's/: FAILED.*//' | sed 's/^/differs: /'
${equipment.noSwap ? `${swapIsOff}\n${hasMemoryController} || echo 'no memory controller in cgroup v2'` : ''}
${equipment.enabled.map((unit) => `systemctl is-enabled --quiet ${unit} || echo 'not enabled: ${unit}'`).join('\n')}
true`,
    {
      input: equipment.files.map(({ path, content }) => `${sha256(content)}  ${path}\n`).join(''),
      what: 'checking the equipment',
    },
  )
  const wrong = said.split('\n').filter(Boolean)
  return wrong.length === 0
    ? {
        ok: true,
        saw: `${String(equipment.packages.length)} packages, ${String(equipment.programs.length)} programs, ${String(equipment.files.length)} files`,
      }
    : { ok: false, saw: wrong.join('; ') }
}

/** Timeout of apt in seconds: for a slow card and a slow mirror. */
const aptDeadline = 1200

/** Missing packages: those that would be installed with them are recorded, and then all are installed. */
const installPackages = async (
  root: Transport,
  record: Recorder,
  wanted: readonly string[],
  progress: (note: string) => void,
): Promise<void> => {
  if (wanted.length === 0) return
  const apt = 'DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -q -o DPkg::Lock::Timeout=300'
  const missing = (
    await runAsRoot(
      root,
      `for name in ${wanted.join(' ')}; do dpkg-query -W -f '\${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || echo "$name"; done`,
      { what: 'looking for packages' },
    )
  )
    .split('\n')
    .filter(Boolean)
  if (missing.length === 0) return
  progress(`packages: ${missing.join(', ')}`)
  const install = `${apt} --no-install-recommends -o Dpkg::Options::=--force-confold`
  const simulate = `dpkg --configure -a >/dev/null 2>&1 || true; ${install} --simulate install ${missing.join(' ')} | sed -n 's/^Inst \\([^ ]*\\) .*/\\1/p'`
  // Older package lists may name packages that no longer exist.
  await runAsRoot(
    root,
    `[ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mtime -1 2>/dev/null)" ] || ${apt} update >/dev/null`,
    { timeout: aptDeadline, what: 'apt-get update' },
  )
  const coming = (await runAsRoot(root, simulate, { timeout: 300, what: 'apt-get' }))
    .split('\n')
    .filter(Boolean)
  const upgraded = (
    await runAsRoot(
      root,
      `for name in ${coming.join(' ')}; do dpkg-query -W -f '\${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed && echo "$name"; done; true`,
      { what: 'looking for packages' },
    )
  )
    .split('\n')
    .filter(Boolean)
  const fresh = coming.filter((name) => !upgraded.includes(name))
  await record.packages(fresh)
  await runAsRoot(
    root,
    `${install} -o APT::Keep-Downloaded-Packages=false --yes install ${missing.join(' ')}`,
    { timeout: aptDeadline, what: `apt-get install ${missing.join(' ')}` },
  )
}

/** Sends programs that the host does not have with this content. @returns the bytes that were sent */
const sendPrograms = async (
  root: Transport,
  programs: Equipment['programs'],
  progress: (note: string) => void,
): Promise<number> => {
  let sent = 0
  for (const { from, to } of programs) {
    const content = await readFile(from)
    const hash = sha256(content)
    const has = await runAsRoot(root, `sha256sum ${quote(to)} 2>/dev/null | cut -c1-64; true`, {
      what: 'comparing',
    })
    if (has.trim() === hash) continue
    progress(`${to}, ${String(Math.ceil(content.length / 1024 ** 2))} MiB`)
    const next = quote(`${to}.lab-new`)
    await runAsRoot(
      root,
      `set -e; mkdir -p "$(dirname ${quote(to)})"; cat > ${next}; [ "$(sha256sum ${next} | cut -c1-64)" = ${hash} ]; chmod 755 ${next}; mv ${next} ${quote(to)}`,
      { input: content, timeout: 900, what: `sending ${to}` },
    )
    sent += content.length
  }
  return sent
}

/** @param files that the lab file requires: `configure` writes them later, and they are recorded here */
export const equip = async (
  root: Transport,
  lab: Lab,
  machine: MachineSpec,
  files: readonly MachineFile[],
  progress: (note: string) => void,
  options?: EquipOptions,
): Promise<void> => {
  const equipment = await equipmentFor(lab, machine, options)
  const isNode = nodesOf(lab).includes(machine)
  const record = await Recorder.open(root)
  // In the reverse order of undoing, which is from last to first: services, their files, packages, the rest. The boot
  // line is the last, since the host is restarted after it.
  if (isNode) await switchOnMemory(root, record, progress)
  await record.hostname()
  await record.modules(equipment.modules)
  if (isNode) await record.sysctls([...(await sysctlNames()), ...kubeletSysctls])
  await record.files('users', userFiles)
  await installPackages(root, record, equipment.packages, progress)
  await record.files('configuration', [
    ...files.map(({ path }) => path),
    ...equipment.files.map(({ path }) => path),
    ...equipment.programs.map(({ to }) => to),
    ...folders(lab, machine),
  ])
  // kube-proxy mounts this folder. It does not exist if the kernel has no modules, so create it.
  if (isNode) await record.newFolders('modules', ['/usr/lib/modules'])
  if (equipment.units.length > 0) await record.units(equipment.units)
  if (machine.role === 'target') await record.target()
  if (machine.iqn !== undefined) await record.sessions(lab.targets.map(({ iqn }) => iqn))
  if (isNode) await record.containers()
  if (equipment.noSwap) await switchOffSwap(root, record)

  const sent = await sendPrograms(root, equipment.programs, progress)
  if (sent > 0) progress(`${String(Math.ceil(sent / 1024 ** 2))} MiB sent`)
  await runAsRoot(root, 'tar --extract --no-same-owner --preserve-permissions --directory=/', {
    input: await tarOf(equipment.files),
    what: 'writing files',
  })
  await runAsRoot(
    root,
    `${equipment.modules.map((name) => `modprobe -q ${name} 2>/dev/null || true`).join('\n')}
${isNode ? 'sysctl -q -p /etc/sysctl.d/90-lab.conf\nmkdir -p /etc/kubernetes/manifests /var/lib/kubelet' : ''}
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config 2>/dev/null || true
set -e
systemctl daemon-reload
${equipment.enabled.length > 0 ? `systemctl enable --quiet ${equipment.enabled.join(' ')}` : ''}
${machine.role === 'target' && !options?.ownDisks ? '/etc/lab/boot.d/40-luns' : ''}
true`,
    { what: 'switching on', timeout: 120 },
  )
  await runAsRoot(root, `cat > ${marker}.new && mv ${marker}.new ${marker}`, {
    input: await nameOf(equipment, files),
    what: 'noting down',
  })
}
