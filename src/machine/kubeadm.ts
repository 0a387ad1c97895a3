/** What kubeadm and kubelets are told beyond their own defaults. */
import { type ExtraArgs, type KubernetesSpec, type Lab, type MachineSpec, machinesWith } from '../lab/lab.js'
import { render } from '../render.js'
import type { FileOptions, MachineFile } from './files.js'

/** What a lab's control plane does differently from kubeadm's own; the lab file has the last word. */
const defaultArgs: Readonly<Record<'apiServer' | 'controllerManager' | 'scheduler' | 'etcd', ExtraArgs>> = {
  apiServer: {},
  // Alone, it has nobody to elect; and pod ranges follow from the lab file, known before a node is there.
  controllerManager: { 'leader-elect': 'false', 'allocate-node-cidrs': 'false' },
  scheduler: { 'leader-elect': 'false' },
  etcd: {},
}

/**
 * `failover: fast`. A kubelet renews its lease every quarter of the lease's duration, so every 2 s; a node is given
 * up when 8 s passed without, which is four renewals that did not come; it is looked at every second; and its pods
 * go one second later. On emulated machines all but the last is as much longer as they are slower: a kubelet that is
 * only slow must not be given up. As it comes, these are 10 s, 50 s, 5 s and 300 s.
 */
const fastArgs = (patience: number): typeof defaultArgs => ({
  apiServer: { 'default-not-ready-toleration-seconds': '1', 'default-unreachable-toleration-seconds': '1' },
  controllerManager: {
    'node-monitor-grace-period': `${String(8 * patience)}s`,
    'node-monitor-period': `${String(patience)}s`,
  },
  scheduler: {},
  etcd: {},
})

/**
 * With fencing, no pod goes by itself: a day, which is never. Whoever fences takes the pods away, by a taint that
 * none of them tolerates, after the node was made unable to write and not before.
 */
const fencedArgs: ExtraArgs = {
  'default-not-ready-toleration-seconds': '86400',
  'default-unreachable-toleration-seconds': '86400',
}

const fastKubelet = (patience: number): KubernetesSpec['kubelet'] => ({
  nodeLeaseDurationSeconds: 8 * patience,
  nodeStatusUpdateFrequency: `${String(2 * patience)}s`,
})

/** What a lab's kubelets do differently from the kubelet's own; the lab file has the last word. */
const defaultKubelet: KubernetesSpec['kubelet'] = {
  failSwapOn: false,
  containerRuntimeEndpoint: 'unix:///run/containerd/containerd.sock',
  // The lab's kernel has no cpuset controller.
  enforceNodeAllocatable: [],
  // The kubelet does by itself what the controller would do for iSCSI, which is nothing: attaching means
  // logging in, on the node. Asking the controller first costs a takeover up to ten seconds.
  enableControllerAttachDetach: false,
}

/**
 * What the control plane's kubelet does differently from the others'. At every boot the controller manager and
 * the scheduler start beside an API server that is not ready for them yet, and end after 10 s of asking; to wait
 * 10 s more before each further try, as kubelets do, cost a lab that started 15 s.
 */
export const controlPlaneKubelet = (patience: number): KubernetesSpec['kubelet'] => ({
  crashLoopBackOff: { maxContainerRestartPeriod: `${String(2 * patience)}s` },
})

/** As many as kubeadm makes: coreDNSReplicas in its addon. */
export const dnsReplicas = 2

/** kubeadm's own deadlines, in seconds: Timeouts of v1beta4. */
const kubeadmTimeouts = {
  controlPlaneComponentHealthCheck: 240,
  kubeletHealthCheck: 240,
  kubernetesAPICall: 60,
  etcdAPICall: 120,
  tlsBootstrap: 300,
  discovery: 300,
}

/**
 * How kubeadm has a kubelet probe the parts of the control plane, in seconds: when one that is silent is ended, and
 * how often one is asked whether it is ready.
 */
const probes = { timeout: 15, failures: 8, readyPeriod: 1 }

/** The control plane of an emulated machine. kubeadm's own `timeouts` are for its first start only. */
export const patientStaticPods = (patience: number): readonly MachineFile[] =>
  ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler'].map((component) => ({
    path: `/etc/lab/kubeadm-patches/${component}+strategic.yaml`,
    content: render('machine/static-pod-patch.yaml', {
      component,
      timeout: probes.timeout * patience,
      failures: probes.failures * patience,
      // kubeadm has no such probe for this one.
      readyPeriod: component === 'kube-controller-manager' ? undefined : probes.readyPeriod * patience,
    }),
  }))

/** How long the API server waits for etcd before it calls itself unwell: 2 s, as it comes. */
const patientArgs = (patience: number): ExtraArgs => ({
  'etcd-healthcheck-timeout': `${String(2 * patience)}s`,
  'etcd-readycheck-timeout': `${String(2 * patience)}s`,
})

/** What the kubeadm templates see. */
export const kubernetesData = (
  lab: Lab,
  machine: MachineSpec,
  { secrets, patience = 1 }: FileOptions,
): object => {
  if (!lab.kubernetes) throw new Error(`${lab.name} has no Kubernetes`)
  const controlPlane = machinesWith(lab, 'control-plane')[0]
  return {
    ...lab.kubernetes,
    machine,
    controlPlane,
    token: secrets.bootstrapToken,
    timeouts:
      patience === 1
        ? undefined
        : Object.entries(kubeadmTimeouts).map(([name, seconds]) => ({
            name,
            value: `${String(seconds * patience)}s`,
          })),
    extraArgs: Object.fromEntries(
      (['apiServer', 'controllerManager', 'scheduler', 'etcd'] as const).map((component) => [
        component,
        Object.entries({
          ...defaultArgs[component],
          ...(lab.failover === 'fast' ? fastArgs(patience)[component] : {}),
          ...(lab.fencing !== 'none' && component === 'apiServer' ? fencedArgs : {}),
          ...(patience !== 1 && component === 'apiServer' ? patientArgs(patience) : {}),
          ...lab.kubernetes?.[component],
        }).map(([name, value]) => ({
          name,
          value,
        })),
      ]),
    ),
    kubelet: {
      ...defaultKubelet,
      ...(lab.failover === 'fast' ? fastKubelet(patience) : {}),
      ...lab.kubernetes.kubelet,
    },
  }
}
