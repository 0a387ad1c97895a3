import tar from 'tar-stream'
import {
  apiAddressOf,
  accessTo,
  type Chap,
  discoveryChapOf,
  type Lab,
  type MachineSpec,
  machineNamed,
  machinesWith,
  nfsServerOf,
  nodesOf,
  pairsOf,
  pairWith,
  podRangeOf,
  portalOf,
  targetNamed,
  targetsOn,
} from '../lab/lab.js'
import { render } from '../render.js'
import { serialOf } from './digest.js'
import {
  controlPlaneKubelet,
  dnsReplicas,
  kubernetesData,
  sharedStaticPods,
  slowStaticPods,
} from './kubeadm.js'
import type { FileOptions, MachineFile } from './machine-file.js'
import { mirrorDevice, pairFiles } from './pair.js'

/** A tar archive of the files, reproducible byte for byte. */
export const tarOf = async (files: readonly MachineFile[]): Promise<Buffer> => {
  const pack = tar.pack()
  for (const { path, content, mode = 0o644 } of files)
    pack.entry({ name: path.replace(/^\//, ''), mode, mtime: new Date(0), uid: 0, gid: 0 }, content)
  pack.finalize()
  const chunks: Buffer[] = []
  for await (const chunk of pack) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

const hostsFile = (lab: Lab): string =>
  [
    '127.0.0.1 localhost',
    '::1 localhost',
    ...lab.machines.map((machine) => `${machine.address} ${machine.name}`),
    '',
  ].join('\n')

/** What a machine serves: each target with its portal, its numbered disks, its initiators, and the LUNs they see. */
const served = (lab: Lab, machine: MachineSpec) => {
  let disks = 0
  return targetsOn(lab, machine.name).map((target) => ({
    ...target,
    portal: portalOf(lab, target),
    luns: target.luns.map(({ lun }) => {
      const serial = serialOf(target, lun)
      const disk = disks++
      return { lun, disk, serial, store: `iblock_${String(disk)}/${serial}` }
    }),
    initiators: accessTo(lab, target).map(({ initiator, luns }) => ({ iqn: initiator.iqn, luns })),
  }))
}

/** The folders that a target machine should have in configfs, below `target`; any others are leftovers. */
export const targetFolders = (lab: Lab, machine: MachineSpec): readonly string[] =>
  served(lab, machine).flatMap(({ iqn, portal, luns, initiators }) => {
    const group = `iscsi/${iqn}/tpgt_1`
    return [
      group,
      `${group}/np/${portal}`,
      ...luns.flatMap(({ lun, store }) => [`core/${store}`, `${group}/lun/lun_${String(lun)}`]),
      ...initiators.flatMap(({ iqn: name, luns: seen }) => [
        `${group}/acls/${name}`,
        ...seen.map((lun) => `${group}/acls/${name}/lun_${String(lun)}`),
      ]),
    ]
  })

/** Data for templates, which may test for an absent value only if its key exists. */
const chapData = (chap: Chap): object => ({ ...chap, mutual: chap.mutual })

/** @param nothing whether it should serve nothing, whatever the lab file says */
const targetScript = (
  lab: Lab,
  machine: MachineSpec,
  lunDevice: (index: number) => string,
  { nothing = false }: { readonly nothing?: boolean } = {},
): string =>
  render('machine/target.sh', {
    folders: nothing ? [] : targetFolders(lab, machine),
    // A machine with this role serves something; the loader has checked it.
    discovery: chapData(discoveryChapOf(lab, machine.name)),
    targets: (nothing ? [] : served(lab, machine)).map((target) => ({
      ...target,
      chap: chapData(target.chap),
      luns: target.luns.map((lun) => ({ ...lun, device: lunDevice(lun.disk) })),
    })),
  })

/**
 * The default settings of open-iscsi. On a worker they include the discovery CHAP, so that a volume with only
 * `chapAuthSession` can be discovered as well. A machine with the role initiator gets its settings when it is used.
 */
const iscsidConf = (lab: Lab, machine: MachineSpec): string => {
  const volume = lab.database?.volume
  const target = volume?.kind === 'lun' ? targetNamed(lab, volume.target) : lab.targets[0]
  return render('machine/iscsid.conf', {
    moves: pairsOf(lab).length > 0,
    discovery:
      machine.role === 'worker' && target
        ? chapRecord('discovery.sendtargets.auth', discoveryChapOf(lab, target.machine))
        : undefined,
  })
}

/** Lines of a record or a configuration of open-iscsi, which reads everything after the equals sign as the value. */
export const chapRecord = (section: string, { username, password, mutual }: Chap): string =>
  [
    `authmethod = CHAP`,
    `username = ${username}`,
    `password = ${password}`,
    ...(mutual ? [`username_in = ${mutual.username}`, `password_in = ${mutual.password}`] : []),
  ]
    .map((line) => `${section}.${line}\n`)
    .join('')

/** The folder of NFS volumes, on the server and on the nodes that mount it. */
export const nfsFolder = '/srv/nfs'

/** Seconds for which the locks of a vanished client remain. Another client waits this long for them. */
const nfsLease = 10

const nfsServerFiles = (lab: Lab): readonly MachineFile[] => [
  {
    path: '/etc/exports',
    content: `${nfsFolder} ${lab.network.subnet}(rw,sync,no_root_squash,no_subtree_check,fsid=0)\n`,
  },
  {
    path: '/etc/nfs.conf.d/lab.conf',
    content: `[nfsd]\nthreads=4\nvers3=n\nlease-time=${String(nfsLease)}\ngrace-time=${String(nfsLease)}\n`,
  },
  {
    path: '/etc/lab/boot.d/50-nfs',
    content: render('machine/nfs-server.sh', { folder: nfsFolder }),
    mode: 0o755,
  },
]

/**
 * Mounted on demand: a node that is up before the server waits when a volume is used, and never writes to its own
 * disk instead.
 */
const nfsClientFiles = (server: MachineSpec): readonly MachineFile[] => {
  const data = { server, folder: nfsFolder }
  return [
    { path: '/etc/systemd/system/srv-nfs.mount', content: render('machine/nfs.mount', data) },
    { path: '/etc/systemd/system/srv-nfs.automount', content: render('machine/nfs.automount', data) },
    {
      path: '/etc/lab/boot.d/40-nfs',
      content: '#!/bin/sh\nsystemctl start --no-block srv-nfs.automount\n',
      mode: 0o755,
    },
  ]
}

/** First in the PATH of a kubelet: wrappers of the programs that make, check and mount a file system. */
export const lunGuardFolder = '/etc/lab/lun-guard'

/** Port on which nodes tell each other which LUNs they use. */
export const lunGuardPort = 3259

const guarded = ['/usr/bin/mount', ...['fsck', 'mkfs.ext3', 'mkfs.ext4'].map((name) => `/usr/sbin/${name}`)]

/**
 * Kubernetes allows two nodes to mount an iSCSI disk at the same time, for example with a second replica, or when a
 * new pod starts while the old one is still ending. So a kubelet asks the other nodes before it writes to a disk.
 */
const lunGuardFiles = (lab: Lab, machine: MachineSpec): readonly MachineFile[] => {
  const others = nodesOf(lab).filter(({ name, iqn }) => iqn !== undefined && name !== machine.name)
  const unit = '/etc/systemd/system/lab-lun-guard'
  const data = { address: machine.address, port: lunGuardPort }
  return [
    {
      path: '/etc/lab/lun-guard.sh',
      content: render('machine/lun-guard.sh', {
        others: others.map(({ name, address }) => `${name}=${address}`).join(' '),
        api: `https://${apiAddressOf(lab)}:6443`,
        port: lunGuardPort,
        fencing: lab.fencing !== 'none',
      }),
      mode: 0o755,
    },
    ...guarded.map((program) => ({
      path: `${lunGuardFolder}/${program.split('/').at(-1) ?? ''}`,
      content: render('machine/lun-guard-program.sh', { program }),
      mode: 0o755,
    })),
    {
      path: '/etc/systemd/system/kubelet.service.d/lab-lun-guard.conf',
      content: `[Service]\nEnvironment=PATH=${lunGuardFolder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin\n`,
    },
    { path: `${unit}.socket`, content: render('machine/lun-guard.socket', data) },
    { path: `${unit}@.service`, content: render('machine/lun-guard.service', data) },
    {
      path: '/etc/lab/boot.d/40-lun-guard',
      content: '#!/bin/sh\nsystemctl start --no-block lab-lun-guard.socket\n',
      mode: 0o755,
    },
  ]
}

/**
 * Weights of control groups; 100 is the default. `lab` may run many checks at once over SSH. Neither these nor the
 * system's services may take the CPU from the pods, which have a weight of 39.
 */
const weights = { 'system.slice': 50, 'ssh.service': 20 } as const

const weightFiles = (): readonly MachineFile[] =>
  Object.entries(weights).map(([unit, weight]) => ({
    path: `/etc/systemd/system/${unit}.d/20-lab-share.conf`,
    content: `# Written by lab.\n[${unit.endsWith('.slice') ? 'Slice' : 'Service'}]\nCPUWeight=${String(weight)}\n`,
  }))

/**
 * The address of the API server, which belongs to no machine. The control planes agree by VRRP on which of them has
 * it, with keepalived. A single control plane simply has it.
 */
const endpointFiles = (lab: Lab, machine: MachineSpec): readonly MachineFile[] => {
  const endpoint = lab.kubernetes?.endpoint
  if (endpoint === undefined) return []
  const peers = machinesWith(lab, 'control-plane').filter((other) => other !== machine)
  const { name, address } = machine
  return [
    {
      path: '/etc/lab/endpoint-watch.sh',
      content: render('machine/endpoint-watch.sh', { address, peers: peers.map((peer) => peer.address) }),
      mode: 0o755,
    },
    {
      path: '/etc/systemd/system/lab-endpoint.service',
      content:
        '[Unit]\nDescription=Tell keepalived whether the API server is ready\n\n[Service]\nExecStart=/etc/lab/endpoint-watch.sh\nRestart=always\nRestartSec=1\n',
    },
    {
      path: '/etc/lab/boot.d/20-endpoint',
      content: render('machine/endpoint.sh', {
        name,
        address,
        endpoint,
        // 1 to 255; it must be unique in the lab's network.
        router: endpoint.split('.')[3],
        peers: peers.map((peer) => peer.address),
      }),
      mode: 0o755,
    },
  ]
}

/** The files that only a control plane has. @param data what its kubeadm files are made of */
const controlPlaneFiles = (
  lab: Lab,
  machine: MachineSpec,
  { slowdown, data }: { readonly slowdown: number; readonly data: ReturnType<typeof kubernetesData> },
): readonly MachineFile[] => {
  const shared = lab.kubernetes?.endpoint !== undefined
  return [
    {
      path: '/etc/lab/kubeadm-patches/kubeletconfiguration+merge.yaml',
      content: render('machine/kubelet-patch.yaml', {
        kubelet: { ...controlPlaneKubelet(slowdown), ...lab.kubernetes?.kubelet },
      }),
    },
    {
      path: '/etc/lab/kubeadm-patches/corednsdeployment+strategic.yaml',
      content: render('machine/coredns-patch.yaml', { replicas: dnsReplicas }),
    },
    ...(slowdown === 1 ? [] : slowStaticPods(slowdown)),
    ...(shared ? [...sharedStaticPods(slowdown), ...weightFiles()] : []),
    ...endpointFiles(lab, machine),
    ...(shared
      ? [
          {
            path: '/etc/lab/kubeadm-join.yaml',
            content: render('machine/kubeadm-join.yaml', data),
            mode: 0o600,
          },
        ]
      : []),
  ]
}

/** The files that a machine has as a node of the cluster. */
const nodeFiles = (lab: Lab, machine: MachineSpec, options: FileOptions): readonly MachineFile[] => {
  const server = nfsServerOf(lab)
  const data = kubernetesData(lab, machine, options)
  const { slowdown = 1 } = options
  return [
    ...(server ? nfsClientFiles(server) : []),
    ...(machine.iqn === undefined ? [] : lunGuardFiles(lab, machine)),
    { path: '/etc/lab/node', content: `${machine.role}\n` },
    ...(machine.role === 'control-plane' ? controlPlaneFiles(lab, machine, { slowdown, data }) : []),
    {
      path: '/etc/cni/net.d/10-lab.conflist',
      content: render('machine/cni.conflist', { podRange: podRangeOf(lab, machine) }),
    },
    {
      path: '/etc/lab/boot.d/10-routes',
      content: render('machine/routes.sh', {
        routes: nodesOf(lab)
          .filter((other) => other !== machine)
          .map((other) => ({
            podRange: podRangeOf(lab, other),
            via: machineNamed(lab, other.name).address,
          })),
      }),
      mode: 0o755,
    },
    {
      path: '/etc/lab/kubeadm.yaml',
      content: render(
        machine.role === 'control-plane' ? 'machine/kubeadm-init.yaml' : 'machine/kubeadm-join.yaml',
        data,
      ),
      mode: 0o600,
    },
  ]
}

/** Every file that configures a machine as in the lab file; pure, so that the files can be shown and compared. */
export const machineFiles = (
  lab: Lab,
  machine: MachineSpec,
  options: FileOptions,
): readonly MachineFile[] => {
  const files: MachineFile[] = [
    { path: '/etc/hostname', content: `${machine.name}\n` },
    { path: '/etc/hosts', content: hostsFile(lab) },
  ]
  if (machine.iqn !== undefined)
    files.push(
      { path: '/etc/iscsi/initiatorname.iscsi', content: `InitiatorName=${machine.iqn}\n`, mode: 0o600 },
      { path: '/etc/iscsi/iscsid.conf', content: iscsidConf(lab, machine), mode: 0o600 },
    )
  if (machine.iqn?.startsWith('naa.'))
    // Debian looks for the initiator's name before iscsid starts, and mistakes one that begins with n for none.
    files.push({
      path: '/etc/systemd/system/iscsid.service.d/lab.conf',
      content: '[Service]\nExecStartPre=\n',
    })
  if (machine.role === 'target' && options.lunDevice && !pairWith(lab, machine.name)) {
    files.push({
      path: '/etc/lab/boot.d/50-target',
      content: targetScript(lab, machine, options.lunDevice),
      mode: 0o700,
    })
  }
  files.push(
    ...pairFiles(lab, machine, {
      lunDevice: options.lunDevice,
      secret: options.secrets.clusterKey,
      slowdown: options.slowdown,
      scripts: () => ({
        serve: targetScript(lab, machine, mirrorDevice),
        serveNothing: targetScript(lab, machine, mirrorDevice, { nothing: true }),
      }),
    }),
  )
  if (machine.role === 'nfs') files.push(...nfsServerFiles(lab))
  if (nodesOf(lab).includes(machine)) files.push(...nodeFiles(lab, machine, options))
  return files
}
