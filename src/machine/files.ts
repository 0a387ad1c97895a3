import tar from 'tar-stream'
import {
  type ExtraArgs,
  initiatorsOf,
  type Lab,
  type MachineSpec,
  machineNamed,
  machinesWith,
  nodesOf,
  podRangeOf,
} from '../lab/lab.js'
import { render } from '../render.js'
import type { LabSecrets } from '../state.js'

/** A file that a machine must have, owned by root. */
export interface MachineFile {
  readonly path: string
  readonly content: string
  /** Octal, default 0644. */
  readonly mode?: number
}

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

export interface FileOptions {
  readonly secrets: LabSecrets
  /** The block device of a target machine's n-th LUN. */
  readonly lunDevice: (index: number) => string
}

const hostsFile = (lab: Lab): string =>
  [
    '127.0.0.1 localhost',
    '::1 localhost',
    ...lab.machines.map((machine) => `${machine.address} ${machine.name}`),
    '',
  ].join('\n')

/** What the templates of a target machine see: its targets, numbered devices, and who may log in. */
export const targetData = (lab: Lab, machine: MachineSpec, lunDevice: FileOptions['lunDevice']): object => {
  let device = 0
  return {
    targets: lab.targets
      .filter((target) => target.machine === machine.name)
      .map((target) => ({
        ...target,
        address: machine.address,
        luns: target.luns.map(({ lun, size }) => ({ lun, size, device: lunDevice(device++) })),
        initiators: initiatorsOf(lab).map(({ iqn }) => iqn),
      })),
  }
}

/** What a lab's control plane does differently from kubeadm's own; the lab file has the last word. */
const defaultArgs: Readonly<Record<'apiServer' | 'controllerManager' | 'scheduler' | 'etcd', ExtraArgs>> = {
  apiServer: {},
  // Alone, it has nobody to elect; and pod ranges follow from the lab file, known before a node is there.
  controllerManager: { 'leader-elect': 'false', 'allocate-node-cidrs': 'false' },
  scheduler: { 'leader-elect': 'false' },
  etcd: {},
}

/** What the kubeadm templates see. */
const kubernetesData = (lab: Lab, machine: MachineSpec, secrets: LabSecrets): object => {
  if (!lab.kubernetes) throw new Error(`${lab.name} has no Kubernetes`)
  const controlPlane = machinesWith(lab, 'control-plane')[0]
  return {
    ...lab.kubernetes,
    machine,
    controlPlane,
    token: secrets.bootstrapToken,
    extraArgs: Object.fromEntries(
      (['apiServer', 'controllerManager', 'scheduler', 'etcd'] as const).map((component) => [
        component,
        Object.entries({ ...defaultArgs[component], ...lab.kubernetes?.[component] }).map(
          ([name, value]) => ({
            name,
            value,
          }),
        ),
      ]),
    ),
    kubelet: Object.keys(lab.kubernetes.kubelet).length > 0 ? lab.kubernetes.kubelet : undefined,
  }
}

/** Every file that makes a machine what the lab file says it is; pure, so that it can be shown and compared. */
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
      { path: '/etc/iscsi/iscsid.conf', content: render('machine/iscsid.conf', {}), mode: 0o600 },
    )
  if (machine.role === 'target') {
    files.push({
      path: '/etc/lab/boot.d/50-target',
      content: render('machine/target.sh', targetData(lab, machine, options.lunDevice)),
      mode: 0o700,
    })
  }
  if (nodesOf(lab).includes(machine)) {
    const data = kubernetesData(lab, machine, options.secrets)
    files.push(
      { path: '/etc/lab/node', content: `${machine.role}\n` },
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
    )
  }
  return files
}
