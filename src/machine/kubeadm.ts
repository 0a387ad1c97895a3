/** Settings of kubeadm and the kubelets that differ from their defaults. */
import { type ExtraArgs, type KubernetesSpec, type Lab, type MachineSpec } from '../lab/lab.js'
import { render } from '../render.js'
import type { FileOptions, MachineFile } from './machine-file.js'

type Args = Readonly<Record<'apiServer' | 'controllerManager' | 'scheduler' | 'etcd', ExtraArgs>>

/** Arguments of a lab's control plane that differ from kubeadm's defaults; the lab file overrides them. */
const defaultArgs: Args = {
  apiServer: {},
  // A single replica needs no leader election, and pod ranges follow from the lab file before a node exists.
  controllerManager: { 'leader-elect': 'false', 'allocate-node-cidrs': 'false' },
  scheduler: { 'leader-elect': 'false' },
  etcd: {},
}

/**
 * Arguments of a control plane that is, or may become, one of several. Members of etcd elect another leader after 2 s
 * without a heartbeat; the default of 1 s is less than a busy host may keep a machine waiting. Four members may join at
 * once instead of one.
 *
 * A controller manager or scheduler that cannot renew its lease for 10 s exits and starts again. This costs a machine
 * seconds of its CPU, and while etcd elects a leader it happens to all at once. So these times are not shortened by
 * `failover: fast`; they are Kubernetes' own, which apply to a provider that is not slow.
 */
const sharedArgs = (slowdown: number): Args => {
  const lease: ExtraArgs =
    slowdown === 1
      ? {}
      : {
          'leader-elect-lease-duration': `${String(15 * slowdown)}s`,
          'leader-elect-renew-deadline': `${String(10 * slowdown)}s`,
          'leader-elect-retry-period': `${String(2 * slowdown)}s`,
        }
  return {
    apiServer: {},
    controllerManager: { 'allocate-node-cidrs': 'false', ...lease },
    scheduler: lease,
    etcd: {
      'election-timeout': String(2000 * slowdown),
      'heartbeat-interval': String(200 * slowdown),
      'max-learners': '4',
    },
  }
}

/**
 * Seconds of silence after which a node is lost. While the address of the API server moves, or etcd has no leader, no
 * node can report, although all are well. One that is counted as lost then has its pods taken out of their Services,
 * until its kubelet reports them again, up to 10 s later: the database would stop because of a control plane. On a busy
 * host (load 20 on two processors), no worker could report for 12 s after one of three control planes was cut off.
 */
const lostAfter = ({ kubernetes }: Lab): number => (kubernetes?.endpoint === undefined ? 8 : 20)

/**
 * `failover: fast`. A kubelet renews its lease at a quarter of the lease duration, so every 2 s; a node is lost after
 * 8 s without a renewal, which is four missed ones, or later (`lostAfter`); nodes are checked every second; and the
 * pods are evicted one second later. Emulated machines get all but the last multiplied by their factor, since a kubelet
 * that is merely slow must not be lost. The defaults are 10 s, 50 s, 5 s and 300 s.
 */
const fastArgs = (lab: Lab, slowdown: number): Args => ({
  apiServer: { 'default-not-ready-toleration-seconds': '1', 'default-unreachable-toleration-seconds': '1' },
  controllerManager: {
    'node-monitor-grace-period': `${String(lostAfter(lab) * slowdown)}s`,
    'node-monitor-period': `${String(slowdown)}s`,
  },
  scheduler: {},
  etcd: {},
})

/**
 * With fencing, no pod is evicted by itself: the toleration is a day, meaning never. The fence removes the pods, by a
 * taint that none of them tolerates, only after the node was made unable to write.
 */
const fencedArgs: ExtraArgs = {
  'default-not-ready-toleration-seconds': '86400',
  'default-unreachable-toleration-seconds': '86400',
}

const fastKubelet = (slowdown: number): KubernetesSpec['kubelet'] => ({
  nodeLeaseDurationSeconds: 8 * slowdown,
  nodeStatusUpdateFrequency: `${String(2 * slowdown)}s`,
})

/** Settings of a lab's kubelets that differ from the kubelet's defaults; the lab file overrides them. */
const defaultKubelet: KubernetesSpec['kubelet'] = {
  failSwapOn: false,
  containerRuntimeEndpoint: 'unix:///run/containerd/containerd.sock',
  // The lab's kernel has no cpuset controller.
  enforceNodeAllocatable: [],
  // The kubelet attaches iSCSI disks itself, which means logging in on the node. Asking the controller first would
  // make a takeover up to ten seconds longer.
  enableControllerAttachDetach: false,
  // By default, a kubelet whose disk is full deletes the images that no container uses. A machine of a lab has nowhere
  // to fetch them again, and a full disk is a fault on purpose, which ends.
  evictionHard: { 'memory.available': '100Mi' },
  imageGCHighThresholdPercent: 100,
}

/**
 * The control plane's own kubelet. At every boot the controller manager and the scheduler start before the API server
 * is ready for them, and exit after 10 s; with the kubelet's default back-off of another 10 s per attempt, a lab took
 * 15 s longer to start.
 */
export const controlPlaneKubelet = (slowdown: number): KubernetesSpec['kubelet'] => ({
  crashLoopBackOff: { maxContainerRestartPeriod: `${String(2 * slowdown)}s` },
})

/** The same number as kubeadm's: coreDNSReplicas in its addon. */
export const dnsReplicas = 2

/** kubeadm's own timeouts in seconds: Timeouts of v1beta4. */
const kubeadmTimeouts = {
  controlPlaneComponentHealthCheck: 240,
  kubeletHealthCheck: 240,
  kubernetesAPICall: 60,
  // As long as a member may take to start next to others on a busy host.
  etcdAPICall: 300,
  tlsBootstrap: 300,
  discovery: 300,
}

/**
 * kubeadm's probes of the control plane, in seconds: when a silent component is restarted, and how often its
 * readiness is asked.
 */
const probes = { timeout: 15, failures: 8, readyPeriod: 1 }

/** Seconds between two readiness probes of a component; kubeadm configures none for the controller manager. */
const readyPeriodOf = (component: string, seconds: number): number | undefined =>
  component === 'kube-controller-manager' ? undefined : seconds

/** Patches for the control plane of an emulated machine. kubeadm's own `timeouts` apply only to its first start. */
export const slowStaticPods = (slowdown: number): readonly MachineFile[] =>
  ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler'].map((component) => ({
    path: `/etc/lab/kubeadm-patches/${component}+strategic.yaml`,
    content: render('machine/static-pod-patch.yaml', {
      component,
      timeout: probes.timeout * slowdown,
      failures: probes.failures * slowdown,
      readyPeriod: readyPeriodOf(component, probes.readyPeriod * slowdown),
    }),
  }))

/**
 * CPU requests, in thousandths of a CPU, of the components of a control plane that is one of several. On a busy machine
 * they determine each component's share. kubeadm requests 100 for etcd, and 250, 200 and 100 for the others. Next to
 * the system's services, this gave etcd a twentieth of a machine. While `lab verify` ran all its checks, etcd then lost
 * its leader, and fsyncs of milliseconds took seconds. With 450 of 850, neither happened under the same load, but the
 * API server was late. A single etcd may be slow without any harm.
 */
const cpuRequests = {
  etcd: 350,
  'kube-apiserver': 350,
  'kube-controller-manager': 100,
  'kube-scheduler': 50,
} as const

/**
 * Seconds between two readiness probes of a component. kubeadm's value is 1, and each probe opens a new TLS connection:
 * with three control planes on one host, that is nine connections per second.
 */
const sharedReadyPeriod = 5

/** Patches for these requests and questions; their names sort after those of `slowStaticPods`. */
export const sharedStaticPods = (slowdown: number): readonly MachineFile[] =>
  Object.entries(cpuRequests).map(([component, millis]) => ({
    path: `/etc/lab/kubeadm-patches/${component}1+strategic.yaml`,
    content: render('machine/static-pod-share.yaml', {
      component,
      cpu: `${String(millis)}m`,
      readyPeriod: readyPeriodOf(component, sharedReadyPeriod * slowdown),
    }),
  }))

/**
 * How long the API server waits for etcd before it reports itself as unhealthy. The default is 2 s, in which several
 * members on a busy host cannot always agree; with more than 4 s, one that is cut off would keep the shared address
 * for too long.
 */
const patientArgs = (lab: Lab, slowdown: number): ExtraArgs => {
  const seconds = (lab.kubernetes?.endpoint === undefined ? 2 : 4) * slowdown
  return seconds === 2
    ? {}
    : {
        'etcd-healthcheck-timeout': `${String(seconds)}s`,
        'etcd-readycheck-timeout': `${String(seconds)}s`,
      }
}

/** The data for the kubeadm templates. */
export const kubernetesData = (
  lab: Lab,
  machine: MachineSpec,
  { secrets, slowdown = 1 }: FileOptions,
): object => {
  if (!lab.kubernetes) throw new Error(`${lab.name} has no Kubernetes`)
  return {
    ...lab.kubernetes,
    machine,
    endpoint: lab.kubernetes.endpoint,
    controlPlane: machine.role === 'control-plane',
    token: secrets.bootstrapToken,
    timeouts:
      slowdown === 1 && lab.kubernetes.endpoint === undefined
        ? undefined
        : Object.entries(kubeadmTimeouts).map(([name, seconds]) => ({
            name,
            value: `${String(seconds * slowdown)}s`,
          })),
    extraArgs: Object.fromEntries(
      (['apiServer', 'controllerManager', 'scheduler', 'etcd'] as const).map((component) => [
        component,
        Object.entries({
          ...(lab.kubernetes?.endpoint === undefined ? defaultArgs : sharedArgs(slowdown))[component],
          ...(lab.failover === 'fast' ? fastArgs(lab, slowdown)[component] : {}),
          ...(lab.fencing !== 'none' && component === 'apiServer' ? fencedArgs : {}),
          ...(component === 'apiServer' ? patientArgs(lab, slowdown) : {}),
          ...lab.kubernetes?.[component],
        }).map(([name, value]) => ({
          name,
          value,
        })),
      ]),
    ),
    kubelet: {
      ...defaultKubelet,
      ...(lab.failover === 'fast' ? fastKubelet(slowdown) : {}),
      ...lab.kubernetes.kubelet,
    },
  }
}
