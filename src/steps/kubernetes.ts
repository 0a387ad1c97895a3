/** The cluster: kubeadm's work, and how one sees that it is done. */
import { readFile } from 'node:fs/promises'
import {
  type KubernetesSpec,
  type Lab,
  type MachineSpec,
  machinesWith,
  nodesOf,
  podRangeOf,
} from '../lab/lab.js'
import { dnsReplicas } from '../machine/files.js'
import { type Command, shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import type { Verdict } from '../plan/step.js'
import { LabError, messageOf } from '../error.js'
import { outOfService } from '../fencing/taint.js'
import { apiEndpointOf } from '../provider/provider.js'
import { render } from '../render.js'
import { pathsOf, secretsOf, writePrivate } from '../state.js'
import {
  admitKubelet,
  controlPlaneCertificates,
  keepRenewed,
  kubeletCertificates,
  renewControlPlane,
} from './certificates.js'
import { apply, eventually, machineCheck, shared } from './checks.js'

const phase = 'kubernetes'

interface Condition {
  readonly type: string
  readonly status: string
  readonly reason?: string
  readonly message?: string
  /** When the kubelet last said so, by its machine's clock: ISO 8601, whole seconds. */
  readonly lastHeartbeatTime?: string
}

interface Node {
  readonly metadata: { readonly name: string }
  readonly spec: {
    readonly podCIDR?: string
    readonly unschedulable?: boolean
    readonly taints?: readonly { readonly key: string; readonly effect: string }[]
  }
  readonly status: {
    readonly addresses: readonly { readonly type: string; readonly address: string }[]
    readonly conditions: readonly Condition[]
    readonly nodeInfo: {
      readonly bootID: string
      readonly kubeletVersion: string
      readonly containerRuntimeVersion: string
    }
  }
}

export interface Pod {
  readonly metadata: {
    readonly name: string
    readonly namespace: string
    readonly labels?: Readonly<Record<string, string>>
    readonly deletionTimestamp?: string
  }
  readonly spec: { readonly nodeName?: string }
  readonly status: {
    readonly phase: string
    readonly podIP?: string
    readonly conditions?: readonly Condition[]
    readonly containerStatuses?: readonly {
      readonly ready: boolean
      readonly restartCount: number
      /** `containerd://ID`; of the present one, or where none runs, of the last. */
      readonly containerID?: string
      readonly state: {
        readonly waiting?: { readonly reason: string; readonly message?: string }
        readonly running?: { readonly startedAt: string }
      }
    }[]
  }
  /** Why this is news of another time: the API server keeps what it last heard, however long ago that is. */
  readonly outdated?: string
}

interface List<T> {
  readonly items: readonly T[]
}

export const nodes = shared(async ({ kubectl }) => (await kubectl.get<List<Node>>('nodes')).items)

/** Milliseconds for which a boot stays known: another one takes longer. */
const bootFreshFor = 2000

/** What a command says on each node; those that do not answer are left out. */
const onNodes = async <T>(
  context: Context,
  command: Command,
  read: (output: string) => T,
): Promise<ReadonlyMap<string, T>> => {
  const answers = await Promise.all(
    nodesOf(context.lab).map(async ({ name }): Promise<readonly (readonly [string, T])[]> => {
      try {
        const output = await context.machine(name).run(command, { signal: context.signal, timeout: 5 })
        return [[name, read(output.trim())]]
      } catch {
        return []
      }
    }),
  )
  return new Map(answers.flat())
}

/** A name for each machine's present boot, as its own kernel tells it. */
const boots = shared(
  (context) => onNodes(context, shell`cat /proc/sys/kernel/random/boot_id`, (output) => output),
  bootFreshFor,
)

/** The containers that run on each node now: containerd keeps a folder for each where no boot is outlived. */
const containers = shared((context) =>
  onNodes(
    context,
    shell`ls /run/containerd/io.containerd.runtime.v2.task/k8s.io 2>/dev/null || true`,
    (output): ReadonlySet<string> => new Set(output.split('\n')),
  ),
)

/** When each node's kubelet was last started, as its own machine tells: milliseconds since 1970, whole seconds. */
const kubeletStarts = shared((context) =>
  onNodes(
    context,
    shell`systemctl show --property=ActiveEnterTimestamp --timestamp=unix --value kubelet`,
    (output) => Number(output.replace('@', '')) * 1000,
  ),
)

/**
 * By the containers that run, and not by when they were started: the clock of a machine that slept is set later,
 * and all that was dated before then seems to be of another boot.
 */
const outdated = (pod: Pod, running: ReadonlyMap<string, ReadonlySet<string>>): string | undefined => {
  const { nodeName } = pod.spec
  if (nodeName === undefined) return undefined
  const there = running.get(nodeName)
  if (!there) return `${nodeName} does not answer`
  const said = (pod.status.containerStatuses ?? []).filter(({ state }) => state.running !== undefined)
  return said.some(({ containerID = '' }) => !there.has(containerID.replace('containerd://', '')))
    ? `its container no longer runs on ${nodeName}, which has not said so yet`
    : undefined
}

export const pods = shared(async (context): Promise<readonly Pod[]> => {
  // One after the other: a container that has started since is no news that is old.
  const { items } = await context.kubectl.get<List<Pod>>('pods', '--all-namespaces')
  const running = await containers(context)
  return items.map((pod) => {
    const why = outdated(pod, running)
    return why === undefined ? pod : { ...pod, outdated: why }
  })
})

export const isReady = (pod: Pod): boolean =>
  pod.outdated === undefined &&
  pod.metadata.deletionTimestamp === undefined &&
  (pod.status.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false)

/** `Pending, ContainerCreating` */
export const describePod = (pod: Pod): string => {
  const waiting = pod.status.containerStatuses?.map(({ state }) => state.waiting?.reason).find(Boolean)
  const scheduled = pod.status.conditions?.find(
    ({ type, status }) => type === 'PodScheduled' && status !== 'True',
  )
  return [
    pod.metadata.deletionTimestamp === undefined ? pod.status.phase : 'Terminating',
    isReady(pod) ? 'ready' : undefined,
    waiting,
    scheduled?.message,
    pod.outdated,
    pod.spec.nodeName === undefined ? undefined : `on ${pod.spec.nodeName}`,
  ]
    .filter(Boolean)
    .join(', ')
}

const controlPlaneOf = (lab: Lab): MachineSpec => {
  const machine = machinesWith(lab, 'control-plane')[0]
  if (!machine) throw new Error(`${lab.name} has no control plane`)
  return machine
}

const journal = (lab: Lab, machine: string, unit: string): string =>
  `lab exec ${lab.name} ${machine} -- journalctl -u ${unit} -n 40 --no-pager`

const service = (lab: Lab, machine: MachineSpec, unit: string): Check =>
  machineCheck({
    id: `${machine.name}-${unit}`,
    title: `${unit} runs on ${machine.name}`,
    machine: machine.name,
    within: 30,
    hint: journal(lab, machine.name, unit),
    command: shell`systemctl show --property=ActiveState,SubState,NRestarts --value ${unit} | tr '\n' ' '`,
    judge: (output) => ({ ok: output.includes('active running'), saw: output.trim() }),
  })

export const startContainerd = (lab: Lab, machine: MachineSpec): Step => ({
  id: `start-containerd-${machine.name}`,
  title: `Start containerd on ${machine.name}`,
  phase,
  machine: machine.name,
  needs: [`configure-${machine.name}`],
  apply: async (context) => {
    // A kubelet that was there before looks at its runtime every 5 s, tells every 10 s, and may call itself not
    // ready long after all is well; a fresh one says how it is. In a cluster that is only being made there is none.
    await context
      .machine(machine.name)
      .run(shell`systemctl start containerd && systemctl try-restart kubelet`, { signal: context.signal })
  },
  checks: [service(lab, machine, 'containerd')],
})

/** The API server as `127.0.0.1` of this host, under the name that its certificate has. */
const writeKubeconfig = async (context: Context, lab: Lab): Promise<void> => {
  const admin = await context.machine(controlPlaneOf(lab).name).run(shell`cat /etc/kubernetes/admin.conf`)
  const endpoint = await apiEndpointOf(context.provider, lab)
  const text = admin
    .replace(/server: .*/, `server: ${endpoint}`)
    .replaceAll('kubernetes-admin@kubernetes', lab.name)
  await writePrivate(pathsOf(lab).kubeconfig, text)
}

/**
 * kubeadm init in two halves. The controller manager and the scheduler, started beside an API server that is
 * not ready, take its CPU away and give up after 10 s; then they cost another 10 s of back-off.
 */
const earlierPhases = ['certs', 'kubeconfig', 'etcd', 'control-plane/apiserver', 'kubelet-start']
const laterPhases = [
  'wait-control-plane',
  'upload-config',
  'upload-certs',
  'mark-control-plane',
  'bootstrap-token',
  'kubelet-finalize',
  'addon',
]

/**
 * Made when both halves are done, of the settings' hash: an API server that answers may still lack its bootstrap
 * token, and kubeadm does not change a cluster that is there.
 */
const initialisedMark = '/var/lib/lab-initialised'

/** How the mark compares with the settings that the machine now has. */
const initialisedWith = async (
  context: Context,
  machine: MachineSpec,
): Promise<'these settings' | 'other settings' | 'not yet'> => {
  const { stdout } = await context
    .machine(machine.name)
    .try(shell`cat ${initialisedMark} 2>/dev/null; sha256sum < /etc/lab/kubeadm.yaml`)
  const [kept, now] = stdout.trim().split('\n')
  return now === undefined ? 'not yet' : kept === now ? 'these settings' : 'other settings'
}

/** Where the control plane's parts are described, and what kubeadm wrote there. */
const manifests = '/etc/kubernetes/manifests'
const manifestsKept = '/var/lib/lab-manifests'

const keepManifests: Command = shell`rm -rf ${manifestsKept}; cp -a ${manifests} ${manifestsKept}`

/** Only those that differ, and each at once: the kubelet starts a part again when its description changes. */
const restoreManifests: Command = shell`cd ${manifestsKept} 2>/dev/null || exit 0; for file in *; do cmp -s "$file" ${manifests}/"$file" || { cp -a "$file" ${manifests}/."$file".new && mv ${manifests}/."$file".new ${manifests}/"$file"; }; done`

/** What is in the manifests now and was not, by file: `> - --etcd-servers=https://127.0.0.1:1`. */
const manifestsCheck = (lab: Lab, machine: MachineSpec): Check =>
  machineCheck({
    id: 'manifests',
    title: 'the control plane is described as kubeadm wrote it',
    machine: machine.name,
    hint: `lab up ${lab.name}`,
    command: shell`test ! -d ${manifestsKept} || diff -r ${manifestsKept} ${manifests} | grep -e '^[<>O]' -e ^diff | sed -e '/^diff/s|.*/||' -e '/^Only/s|.*/||'; true`,
    judge: (output) => ({
      ok: output === '',
      saw: output === '' ? 'as it was' : output.replaceAll(/\s*\n\s*/g, '; ').slice(0, 300),
    }),
  })

/** Seconds for etcd and the API server: 20 were measured on two cores. */
const apiDeadline = 180

export const initControlPlane = (lab: Lab): Step => {
  const machine = controlPlaneOf(lab)
  return {
    id: 'init-control-plane',
    title: 'Initialise the control plane with kubeadm',
    phase,
    machine: machine.name,
    needs: [`start-containerd-${machine.name}`],
    apply: async (context, progress) => {
      const there = context.machine(machine.name)
      const initialised = await there.try(shell`test -e ${initialisedMark}`)
      if (initialised.exitCode === 0 && (await initialisedWith(context, machine)) === 'other settings')
        throw new LabError(
          'kubernetes-changed',
          `the Kubernetes settings of ${lab.name} cannot be changed while it is up`,
          {
            hint: `lab down ${lab.name}, then lab up ${lab.name}; or undo the change in the lab file`,
          },
        )
      if (initialised.exitCode === 0) {
        // It was made earlier: the kubelet brings it up again, if its certificate is still good.
        await there.run(restoreManifests)
        if (await renewControlPlane(context, machine.name)) progress('new certificates for the control plane')
        const admitted = await admitKubelet(context, machine.name, machine.name)
        progress(
          `already initialised: ${admitted ? 'a new certificate for its kubelet' : 'starting its kubelet'}`,
        )
        await there.run(shell`systemctl start kubelet`, { signal: context.signal })
        if (admitted) await keepRenewed(context, machine.name)
      } else {
        // A run that was cut short leaves half a control plane, which kubeadm refuses to build upon.
        await there.run(
          shell`test ! -e /etc/kubernetes/manifests/kube-apiserver.yaml || kubeadm reset --force`,
          {
            timeout: 120,
            signal: context.signal,
          },
        )
        const kubeadm = (skipped: readonly string[]): Promise<string> =>
          there.run(
            shell`kubeadm init --config /etc/lab/kubeadm.yaml ${`--skip-phases=${['preflight', 'show-join-command', ...skipped].join(',')}`}`,
            { timeout: 300, signal: context.signal },
          )
        progress('etcd and the API server')
        await kubeadm([...laterPhases, 'control-plane/controller-manager', 'control-plane/scheduler'])
        await writeKubeconfig(context, lab)
        // It says so itself once its roles are there, too.
        await eventually(context, apiDeadline, () =>
          context.kubectl.run(['get', '--raw=/readyz'], { timeout: 5 }),
        )
        progress('controller manager, scheduler, bootstrap token, kube-proxy')
        await kubeadm([...earlierPhases, 'wait-control-plane', 'addon/coredns'])
        await there.run(
          shell`sha256sum < /etc/lab/kubeadm.yaml > ${initialisedMark} && sync ${initialisedMark}`,
        )
        await there.run(keepManifests)
      }
      await writeKubeconfig(context, lab)
    },
    checks: [
      {
        id: 'kubeadm-init',
        title: 'kubeadm init ran to its end, with the settings of the lab file',
        machine: machine.name,
        hint: `lab up ${lab.name}`,
        probe: async (context) => {
          const saw = await initialisedWith(context, machine)
          return { ok: saw === 'these settings', saw }
        },
      },
      service(lab, machine, 'kubelet'),
      manifestsCheck(lab, machine),
      {
        id: 'kubeconfig',
        title: "this host's kubeconfig leads to the API server",
        within: 10,
        hint: `lab up ${lab.name}`,
        probe: async ({ provider }) => {
          const path = pathsOf(lab).kubeconfig
          const text = await readFile(path, 'utf8').catch((error: unknown) => messageOf(error))
          const [, server] = /^\s*server: (\S+)$/m.exec(text) ?? []
          const endpoint = await apiEndpointOf(provider, lab)
          if (server === undefined)
            return { ok: false, saw: `${path} names no server: ${text.slice(0, 100)}` }
          return {
            ok: server === endpoint,
            saw: server === endpoint ? server : `${path} says ${server}, wanted ${endpoint}`,
          }
        },
      },
      ...controlPlaneCertificates(lab, machine),
      kubeletCertificates(lab, machine),
      {
        id: 'api-answers',
        title: 'the API server is ready',
        machine: machine.name,
        within: 120,
        hint: `lab exec ${lab.name} ${machine.name} -- sh -c 'tail -n 15 /var/log/pods/kube-system_kube-apiserver-*/*/*.log'`,
        probe: async (context) => {
          const endpoint = await apiEndpointOf(context.provider, lab)
          return {
            ok: (await context.kubectl.run(['get', '--raw=/readyz'])) === 'ok',
            saw: `${endpoint}/readyz says ok`,
          }
        },
      },
    ],
  }
}

/** kubeadm's CoreDNS: what init leaves to the end, and workers need not wait for. */
export const installDns = (lab: Lab): Step => {
  const machine = controlPlaneOf(lab)
  return {
    id: 'install-dns',
    title: 'Install CoreDNS with kubeadm',
    phase,
    machine: machine.name,
    needs: ['init-control-plane'],
    apply: async (context) => {
      await context
        .machine(machine.name)
        .run(shell`kubeadm init phase addon coredns --config /etc/lab/kubeadm.yaml`, {
          timeout: 120,
          signal: context.signal,
        })
    },
    checks: [
      {
        id: 'coredns',
        title: 'CoreDNS is ready',
        // Its pods come while everything else does; with twelve processes to a processor they took two minutes and more.
        within: 240,
        hint: `lab kubectl ${lab.name} -- -n kube-system describe deployments,pods -l k8s-app=kube-dns`,
        probe: async (context) => {
          const found = (await pods(context)).filter((pod) => pod.metadata.labels?.['k8s-app'] === 'kube-dns')
          const ready = found.filter(isReady)
          return {
            ok: ready.length === dnsReplicas,
            saw: found.map((pod) => `${pod.metadata.name}: ${describePod(pod)}`).join('; ') || 'no such pods',
          }
        },
      },
    ],
  }
}

/** Milliseconds for which a node may join with a token. */
const tokenLife = 3_600_000

/** What lets a machine join: until then, and no longer. @param token `ID.SECRET` */
export const bootstrapTokenManifest = (token: string, now = Date.now()): string => {
  const [id = '', secret = ''] = token.split('.')
  return render('manifests/bootstrap-token.yaml', {
    id,
    secret,
    expiration: new Date(now + tokenLife).toISOString(),
  })
}

export const joinWorker = (lab: Lab, machine: MachineSpec): Step => ({
  id: `join-${machine.name}`,
  title: `Join ${machine.name} to the cluster`,
  phase,
  machine: machine.name,
  needs: ['init-control-plane', `start-containerd-${machine.name}`],
  apply: async (context) => {
    const there = context.machine(machine.name)
    const controlPlane = controlPlaneOf(lab)
    const known =
      (await context.kubectl.run(['get', 'node', machine.name, '--ignore-not-found', '-o', 'name'])) !== ''
    const joined = (await there.try(shell`test -s /etc/kubernetes/kubelet.conf`)).exitCode === 0
    if (known && joined) {
      const admitted = await admitKubelet(context, controlPlane.name, machine.name)
      await there.run(shell`systemctl start kubelet`, { signal: context.signal })
      if (admitted) await keepRenewed(context, machine.name)
    } else {
      // The one of the beginning has ended by now, or may: it is not for ever that whoever knows it may join.
      await apply(context, bootstrapTokenManifest((await secretsOf(pathsOf(lab))).bootstrapToken))
      await there.run(shell`test ! -e /etc/kubernetes/kubelet.conf || kubeadm reset --force`, {
        timeout: 120,
        signal: context.signal,
      })
      const authority = await context
        .machine(controlPlane.name)
        .run(shell`base64 -w0 /etc/kubernetes/pki/ca.crt`)
      const clusterInfo = {
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [
          {
            name: '',
            cluster: {
              server: `https://${controlPlane.address}:6443`,
              'certificate-authority-data': authority,
            },
          },
        ],
      }
      await there.write('/etc/lab/cluster-info.yaml', { content: JSON.stringify(clusterInfo), mode: 0o600 })
      await there.run(shell`kubeadm join --config /etc/lab/kubeadm.yaml --skip-phases=preflight`, {
        timeout: 300,
        signal: context.signal,
      })
    }
  },
  checks: [service(lab, machine, 'kubelet'), registered(lab, machine), kubeletCertificates(lab, machine)],
})

const registered = (lab: Lab, machine: MachineSpec): Check => ({
  id: `${machine.name}-registered`,
  title: `${machine.name} is a node of the cluster`,
  machine: machine.name,
  within: 60,
  hint: journal(lab, machine.name, 'kubelet'),
  probe: async (context) => {
    const node = (await nodes(context)).find(({ metadata }) => metadata.name === machine.name)
    return { ok: node !== undefined, saw: node ? 'registered' : 'no such node' }
  },
})

/** A node whose machine the lab file no longer has: drained when the machine was removed, and now forgotten. */
export const forgetNodes = (lab: Lab): Step => {
  const strangers = async (context: Context): Promise<readonly string[]> =>
    (await nodes(context))
      .map(({ metadata }) => metadata.name)
      .filter((name) => !nodesOf(lab).some((machine) => machine.name === name))
  return {
    id: 'forget-nodes',
    title: 'Forget nodes that the lab file does not have',
    phase,
    needs: ['init-control-plane'],
    apply: async (context) => {
      const names = await strangers(context)
      if (names.length > 0) await context.kubectl.run(['delete', 'node', '--ignore-not-found', ...names])
    },
    checks: [
      {
        id: 'nodes-known',
        title: 'every node of the cluster is a machine of the lab',
        within: 20,
        hint: `lab kubectl ${lab.name} -- get nodes`,
        probe: async (context) => {
          const names = await strangers(context)
          return { ok: names.length === 0, saw: names.join(', ') || 'no others' }
        },
      },
    ],
  }
}

/**
 * Ready as its kubelet says since it was started. The API server keeps True for 40 s after a node is gone, across a
 * reboot until the kubelet is heard again, and across a restart of the kubelet, whose first word it then is.
 */
const judgeReady = async ({ metadata: { name }, status }: Node, context: Context): Promise<Verdict> => {
  const [known, starts] = await Promise.all([boots(context), kubeletStarts(context)])
  const boot = known.get(name)
  const started = starts.get(name)
  if (!boot || started === undefined) return { ok: false, saw: `${name} does not answer` }
  if (boot !== status.nodeInfo.bootID)
    return { ok: false, saw: `its kubelet was not heard since ${name} was switched on` }
  const ready = status.conditions.find(({ type }) => type === 'Ready')
  if (!ready) return { ok: false, saw: 'no Ready condition' }
  if (!(Date.parse(ready.lastHeartbeatTime ?? '') >= started))
    return { ok: false, saw: 'its kubelet was not heard since it was started' }
  const ok = ready.status === 'True'
  return {
    ok,
    saw: `Ready=${ready.status}, ${ready.reason ?? ''}${ok ? '' : `: ${ready.message ?? ''}`}`,
  }
}

/** kubeadm's, which keeps pods from the control plane. */
const ownTaint = 'node-role.kubernetes.io/control-plane'
/** Those that Kubernetes gives and takes by itself begin so, but for the one that says that a node is gone for good. */
const byItself = 'node.kubernetes.io/'

/** `key:effect`, as `kubectl taint` takes them, of those that somebody has put there and left. */
const foreignTaints = ({ spec }: Node): readonly string[] =>
  (spec.taints ?? [])
    .filter(({ key }) => key !== ownTaint && (key === outOfService || !key.startsWith(byItself)))
    .map(({ key, effect }) => `${key}:${effect}`)

const nodeChecks = (
  lab: Lab,
  machine: MachineSpec,
  kubernetes: KubernetesSpec,
): readonly [Check, ...Check[]] => {
  const range = podRangeOf(lab, machine)
  const check = (
    id: string,
    title: string,
    judge: (node: Node, context: Context) => Verdict | Promise<Verdict>,
  ): Check => ({
    id: `${machine.name}-${id}`,
    title,
    machine: machine.name,
    within: 90,
    hint: `lab kubectl ${lab.name} -- describe node ${machine.name}`,
    probe: async (context) => {
      const node = (await nodes(context)).find(({ metadata }) => metadata.name === machine.name)
      return node ? judge(node, context) : { ok: false, saw: 'no such node' }
    },
  })
  return [
    check('ready', `node ${machine.name} is Ready`, judgeReady),
    check('schedulable', `node ${machine.name} takes pods`, (node) => {
      const taints = foreignTaints(node)
      const saw = [
        ...(node.spec.unschedulable ? ['cordoned'] : []),
        ...taints.map((taint) => `tainted ${taint}`),
      ]
      return { ok: saw.length === 0, saw: saw.join(', ') || 'neither cordoned nor tainted' }
    }),
    check('version', `node ${machine.name} runs Kubernetes ${kubernetes.version}`, ({ status }) => ({
      ok: status.nodeInfo.kubeletVersion === `v${kubernetes.version}`,
      saw: `kubelet ${status.nodeInfo.kubeletVersion}, ${status.nodeInfo.containerRuntimeVersion}`,
    })),
    check('address', `node ${machine.name} is ${machine.address} on the lab's network`, ({ status }) => {
      const address = status.addresses.find(({ type }) => type === 'InternalIP')?.address
      return { ok: address === machine.address, saw: `InternalIP ${address ?? 'not set'}` }
    }),
    check('pod-range', `pods of ${machine.name} get addresses of ${range}`, ({ spec }) => ({
      ok: spec.podCIDR === range,
      saw: `podCIDR ${spec.podCIDR ?? 'not set'}`,
    })),
  ]
}

export const routesCheck = (lab: Lab, machine: MachineSpec): Check => {
  const wanted = nodesOf(lab)
    .filter((other) => other !== machine)
    .map((other) => `${podRangeOf(lab, other)} via ${other.address}`)
    .sort()
  return machineCheck({
    id: `${machine.name}-routes`,
    title: `${machine.name} has a route to every other node's pods`,
    machine: machine.name,
    hint: `lab exec ${lab.name} ${machine.name} -- /etc/lab/boot.d/10-routes`,
    command: shell`ip -4 route show proto 86`,
    judge: (output) => {
      const seen = output
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => line.split(' ').slice(0, 3).join(' '))
        .sort()
      const missing = wanted.filter((route) => !seen.includes(route)).map((route) => `missing: ${route}`)
      const left = seen.filter((route) => !wanted.includes(route)).map((route) => `left over: ${route}`)
      const wrong = [...missing, ...left]
      return { ok: wrong.length === 0, saw: (wrong.length === 0 ? seen : wrong).join('; ') || 'none' }
    },
  })
}

export const routePods = (lab: Lab, machine: MachineSpec): Step => ({
  id: `route-pods-${machine.name}`,
  title: `Route other nodes' pods on ${machine.name}`,
  phase,
  machine: machine.name,
  needs: [`configure-${machine.name}`],
  apply: async (context) => {
    await context.machine(machine.name).run(shell`/etc/lab/boot.d/10-routes`, { signal: context.signal })
  },
  checks: [routesCheck(lab, machine)],
})

/** The node's pod range, given by lab and not by the controller manager: known before the node is there. */
export const readyNode = (lab: Lab, machine: MachineSpec, kubernetes: KubernetesSpec): Step => ({
  id: `ready-${machine.name}`,
  title: `See node ${machine.name} ready`,
  phase,
  machine: machine.name,
  needs: [
    machine.role === 'control-plane' ? 'init-control-plane' : `join-${machine.name}`,
    `route-pods-${machine.name}`,
  ],
  apply: async ({ kubectl }) => {
    const range = podRangeOf(lab, machine)
    const node = await kubectl.get<Node>('node', machine.name)
    if (node.spec.podCIDR === undefined)
      await kubectl.run([
        'patch',
        'node',
        machine.name,
        '--type=merge',
        '--patch',
        JSON.stringify({ spec: { podCIDR: range, podCIDRs: [range] } }),
      ])
    if (node.spec.unschedulable === true) await kubectl.run(['uncordon', machine.name])
    for (const taint of foreignTaints(node)) await kubectl.run(['taint', 'node', machine.name, `${taint}-`])
  },
  checks: nodeChecks(lab, machine, kubernetes),
})

export const proveControlPlane = (lab: Lab): Step => {
  const machine = controlPlaneOf(lab)
  const component = (name: string): Check => ({
    id: name,
    title: `${name} is ready`,
    machine: machine.name,
    within: 120,
    hint: `lab kubectl ${lab.name} -- -n kube-system logs ${name}-${machine.name}`,
    probe: async (context) => {
      const pod = (await pods(context)).find(({ metadata }) => metadata.name === `${name}-${machine.name}`)
      if (!pod) return { ok: false, saw: 'no such pod' }
      const restarts = pod.status.containerStatuses?.[0]?.restartCount ?? 0
      return { ok: isReady(pod), saw: `${describePod(pod)}, ${String(restarts)} restarts` }
    },
  })
  return {
    id: 'prove-control-plane',
    title: 'See every part of the control plane at work',
    phase,
    machine: machine.name,
    needs: ['init-control-plane'],
    checks: [
      ...(['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'etcd'] as const).map(component),
      machineCheck({
        id: 'etcd-health',
        title: 'etcd answers and is healthy',
        machine: machine.name,
        within: 60,
        hint: `lab kubectl ${lab.name} -- -n kube-system logs etcd-${machine.name}`,
        command: shell`curl --silent --max-time 5 http://127.0.0.1:2381/health`,
        judge: (output) => ({ ok: output.includes('"health":"true"'), saw: output || 'no answer' }),
      }),
    ] as unknown as [Check, ...Check[]],
  }
}

export const proveProxy = (lab: Lab): Step => ({
  id: 'prove-kube-proxy',
  title: 'See kube-proxy on every node',
  phase,
  needs: nodesOf(lab).map((machine) => `ready-${machine.name}`),
  apply: async (context) => {
    // kubeadm made it with the control plane; it comes up where nobody has removed it.
    const there = ['-n', 'kube-system', 'get', 'daemonset', 'kube-proxy', '--ignore-not-found', '-o', 'name']
    if ((await context.kubectl.run(there)) === '')
      await context
        .machine(controlPlaneOf(lab).name)
        .run(shell`kubeadm init phase addon kube-proxy --config /etc/lab/kubeadm.yaml`, {
          timeout: 120,
          signal: context.signal,
        })
  },
  checks: nodesOf(lab).map((machine) => ({
    id: `${machine.name}-kube-proxy`,
    title: `kube-proxy runs on ${machine.name}`,
    machine: machine.name,
    within: 90,
    hint: `lab kubectl ${lab.name} -- -n kube-system describe daemonsets,pods -l k8s-app=kube-proxy`,
    probe: async (context: Context) => {
      const pod = (await pods(context)).find(
        ({ metadata, spec }) =>
          metadata.labels?.['k8s-app'] === 'kube-proxy' && spec.nodeName === machine.name,
      )
      return pod ? { ok: isReady(pod), saw: describePod(pod) } : { ok: false, saw: 'no such pod' }
    },
  })) as unknown as [Check, ...Check[]],
})
