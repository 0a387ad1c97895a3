/**
 * The control planes: created by kubeadm init, joined to others by kubeadm join, kept as kubeadm wrote them, and checked.
 * Over 400 lines because init, join, repair and the move to a shared address use the same marks, files and deadlines.
 */
import { readFile } from 'node:fs/promises'
import { apiAddressOf, type Lab, type MachineSpec, machinesWith } from '../lab/lab.js'
import type { Machine } from '../machine/machine.js'
import { sha256 } from '../machine/digest.js'
import { machineFiles } from '../machine/files.js'
import { type Command, shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import { LabError, messageOf } from '../error.js'
import { apiEndpointOf } from '../provider/provider.js'
import { pathsOf, writePrivate } from '../state.js'
import {
  admitKubelet,
  controlPlaneCertificates,
  keepRenewed,
  kubeconfigCertificate,
  kubeletCertificates,
  renewControlPlane,
} from './certificates.js'
import { eventually, machineCheck, serviceCheck } from './checks.js'
import { controlPlanesAtWork, leaveEtcd } from './etcd.js'
import { prepareJoin } from './joining.js'
import { fileOptions } from './machines.js'
import { registered } from './nodes.js'
import { describePod, isReady, pods } from './pods.js'

const phase = 'kubernetes'

export const controlPlaneOf = (lab: Lab): MachineSpec => {
  const machine = machinesWith(lab, 'control-plane')[0]
  if (!machine) throw new Error(`${lab.name} has no control plane`)
  return machine
}

/** The step after which a machine is a node of the cluster. */
export const memberStepOf = (lab: Lab, machine: MachineSpec): string =>
  machine === controlPlaneOf(lab) ? 'init-control-plane' : `join-${machine.name}`

/** Writes this host's kubeconfig: the API server at the endpoint that the provider forwards to it. */
const writeKubeconfig = async (context: Context, lab: Lab): Promise<void> => {
  const admin = await context.machine(controlPlaneOf(lab).name).run(shell`cat /etc/kubernetes/admin.conf`)
  const endpoint = await apiEndpointOf(context.provider, lab)
  const text = admin
    .replace(/server: .*/, `server: ${endpoint}`)
    .replaceAll('kubernetes-admin@kubernetes', lab.name)
  await writePrivate(pathsOf(lab).kubeconfig, text)
}

/**
 * kubeadm init runs in two halves. If the controller manager and the scheduler start while the API server is not yet
 * ready, they take its CPU time and give up after 10 s, and their back-off costs another 10 s.
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
 * This file holds the hash of kubeadm's settings. It is written when both halves are done: an API server that answers
 * may still lack its bootstrap token. kubeadm cannot change the settings of a cluster that exists.
 */
const initialisedMark = '/var/lib/lab-initialised'

const setMark = shell`sha256sum < /etc/lab/kubeadm.yaml > ${initialisedMark} && sync ${initialisedMark}`

/** Compares the mark with the machine's present settings. */
const initialisedWith = async (
  context: Context,
  machine: MachineSpec,
): Promise<'these settings' | 'other settings' | 'not yet'> => {
  const { stdout } = await context
    .machine(machine.name)
    .try(
      shell`test -d /var/lib/etcd/member && cat ${initialisedMark} 2>/dev/null; sha256sum < /etc/lab/kubeadm.yaml`,
    )
  const [kept, now] = stdout.trim().split('\n')
  return now === undefined ? 'not yet' : kept === now ? 'these settings' : 'other settings'
}

const kubeadmRan = (lab: Lab, machine: MachineSpec, id: string, what: string): Check => ({
  id,
  title: `${what}, with the settings of the lab file`,
  machine: machine.name,
  hint: `lab up ${lab.name}`,
  probe: async (context) => {
    const saw = await initialisedWith(context, machine)
    return { ok: saw === 'these settings', saw }
  },
})

/** The folder of the control plane's static pod manifests, and the copy of what kubeadm wrote there. */
const manifests = '/etc/kubernetes/manifests'
const manifestsKept = '/var/lib/lab-manifests'

const keepManifests: Command = shell`rm -rf ${manifestsKept}; cp -a ${manifests} ${manifestsKept}`

/** Records that kubeadm is done, its settings, and the files that it wrote. */
const settle = async (there: Machine): Promise<void> => {
  await there.run(setMark)
  await there.run(keepManifests)
}

/** Restores only the manifests that differ, each by one rename: the kubelet restarts a pod whose manifest changes. */
const restoreManifests: Command = shell`cd ${manifestsKept} 2>/dev/null || exit 0; for file in *; do cmp -s "$file" ${manifests}/"$file" || { cp -a "$file" ${manifests}/."$file".new && mv ${manifests}/."$file".new ${manifests}/"$file"; }; done`

/** Shows how the manifests differ from kubeadm's, by file: `> - --etcd-servers=https://127.0.0.1:1`. */
const manifestsCheck = (lab: Lab, machine: MachineSpec, id = 'manifests'): Check =>
  machineCheck({
    id,
    title: `the control plane ${id === 'manifests' ? '' : `of ${machine.name} `}is configured as kubeadm wrote it`,
    machine: machine.name,
    hint: `lab up ${lab.name}`,
    command: shell`test ! -d ${manifestsKept} || diff -r ${manifestsKept} ${manifests} | grep -e '^[<>O]' -e ^diff | sed -e '/^diff/s|.*/||' -e '/^Only/s|.*/||'; true`,
    judge: (output) => ({
      ok: output === '',
      saw: output === '' ? 'as it was' : output.replaceAll(/\s*\n\s*/g, '; ').slice(0, 300),
    }),
  })

/**
 * Seconds for etcd and the API server. 20 were measured on two quiet cores; 75 after a boot with all pods, and more
 * than 120 in some, on two cores with a load of 13 to 20.
 */
const apiDeadline = 180

/** Continues with a control plane that was made before: the kubelet starts it if its certificates are still valid. */
const restore = async (context: Context, name: string, progress: (note: string) => void): Promise<void> => {
  const there = context.machine(name)
  await there.run(restoreManifests)
  if (await renewControlPlane(context, name)) progress('new certificates for the control plane')
  const admitted = await admitKubelet(context, name, name)
  progress(`already initialised: ${admitted ? 'a new certificate for its kubelet' : 'starting its kubelet'}`)
  await there.run(shell`systemctl start kubelet`, { signal: context.signal })
  if (admitted) await keepRenewed(context, name)
}

/** Work on a control plane of this name. */
type Work = (context: Context, lab: Lab, name: string, progress: (note: string) => void) => Promise<void>

/** Makes a cluster, with this machine as its first control plane. */
const initialise: Work = async (context, lab, name, progress) => {
  const there = context.machine(name)
  // A run that was interrupted leaves half a control plane, and kubeadm init refuses to continue from it.
  await there.run(shell`test ! -e /etc/kubernetes/manifests/kube-apiserver.yaml || kubeadm reset --force`, {
    timeout: 120,
    signal: context.signal,
  })
  const kubeadm = (skipped: readonly string[]): Promise<string> =>
    there.run(
      shell`kubeadm init --config /etc/lab/kubeadm.yaml ${`--skip-phases=${['preflight', 'show-join-command', ...skipped].join(',')}`}`,
      { timeout: 300, signal: context.signal },
    )
  progress('etcd and the API server')
  await kubeadm([...laterPhases, 'control-plane/controller-manager', 'control-plane/scheduler'])
  await writeKubeconfig(context, lab)
  // The API server is ready only when its default roles exist, too.
  await eventually(context, apiDeadline, () => context.kubectl.run(['get', '--raw=/readyz'], { timeout: 5 }))
  progress('controller manager, scheduler, bootstrap token, kube-proxy')
  await kubeadm([...earlierPhases, 'wait-control-plane', 'addon/coredns'])
  await settle(there)
}

/** The keys that sign the certificates and tokens of every control plane. */
const authorityFiles = ['ca', 'front-proxy-ca', 'etcd/ca'].flatMap((name) => [`${name}.crt`, `${name}.key`])
const handedOver = [...authorityFiles, 'sa.key', 'sa.pub']

/**
 * Makes a machine another control plane of the cluster. The keys of the cluster go from machine to machine over SSH,
 * only through standard input and output; kubeadm's own way would leave them in a Secret for two hours.
 * @param via a working control plane
 */
const join = async (
  context: Context,
  name: string,
  via: string,
  progress: (note: string) => void,
): Promise<void> => {
  const { kubectl, signal } = context
  const there = context.machine(name)
  if (await leaveEtcd(context, context.lab, name)) progress('its lost member was removed from etcd')
  await kubectl.run(['delete', 'node', name, '--ignore-not-found'])
  await prepareJoin(context, name, via)
  const keys = await context
    .machine(via)
    .run(shell`tar --create --directory=/etc/kubernetes/pki ${handedOver} | base64 --wrap=0`, { signal })
  await there.run(
    shell`mkdir -p /etc/kubernetes/pki && base64 --decode | tar --extract --directory=/etc/kubernetes/pki`,
    { input: keys, signal },
  )
  progress(`joining etcd, next to ${via}`)
  await there.run(shell`kubeadm join --config /etc/lab/kubeadm-join.yaml --skip-phases=preflight`, {
    timeout: 420,
    signal,
  })
  await settle(there)
}

/** A control plane that the machine can join; undefined if there is no cluster yet. @throws if this is unknown */
const clusterBeside = async (context: Context, lab: Lab, name: string): Promise<string | undefined> => {
  const others = machinesWith(lab, 'control-plane').filter((other) => other.name !== name)
  const made = await Promise.all(
    others.map(async (other) => [other.name, await initialisedWith(context, other)] as const),
  )
  const before = made.filter(([, saw]) => saw !== 'not yet').map(([other]) => other)
  if (before.length === 0) return undefined
  const [via] = await eventually(context, apiDeadline, async () => {
    const found = (await controlPlanesAtWork(context, lab, name)).filter((other) => before.includes(other))
    if (found.length > 0) return found
    throw new LabError(
      'no-quorum',
      `${name} has no control plane on its disk, and most members of etcd are gone: the remaining ones (${before.join(', ')}) cannot admit it`,
      {
        hint: `bring back the other machines with their disks; or lab down ${lab.name}, and build everything again`,
      },
    )
  })
  return via
}

/**
 * Whether a control plane was made alone, with its own address, and differs from the lab file only in this: then it
 * can become the first of several.
 */
const wasAlone = async (context: Context, lab: Lab, machine: MachineSpec): Promise<boolean> => {
  if (!lab.kubernetes?.endpoint) return false
  const alone: Lab = {
    ...lab,
    machines: lab.machines.filter((each) => each.role !== 'control-plane' || each.name === machine.name),
    kubernetes: { ...lab.kubernetes, endpoint: undefined },
  }
  const options = await fileOptions(lab, context.provider)
  const file = machineFiles(alone, machine, options).find(({ path }) => path === '/etc/lab/kubeadm.yaml')
  const kept = await context.machine(machine.name).run(shell`cut -d ' ' -f 1 ${initialisedMark}`)
  return file !== undefined && sha256(file.content) === kept
}

/**
 * Gives the API server of a cluster with a single control plane an address of its own. kubeadm makes certificates,
 * manifests, kubeconfigs and the cluster's own settings again; data stays.
 */
const moveToEndpoint: Work = async (context, lab, name, progress) => {
  const there = context.machine(name)
  const phase = (...words: readonly string[]): Promise<string> =>
    there.run(shell`kubeadm init phase ${words} --config /etc/lab/kubeadm.yaml`, {
      timeout: 120,
      signal: context.signal,
    })
  progress(`the API server moves to ${apiAddressOf(lab)}`)
  await there.run(
    shell`cd /etc/kubernetes && rm -f pki/apiserver.crt pki/apiserver.key admin.conf super-admin.conf`,
  )
  await phase('certs', 'apiserver')
  for (const who of ['admin', 'super-admin']) await phase('kubeconfig', who)
  await phase('etcd', 'local')
  await phase('control-plane', 'all')
  await there.run(shell`systemctl start kubelet`, { signal: context.signal })
  await writeKubeconfig(context, lab)
  await eventually(context, apiDeadline, () => phase('upload-config', 'all'))
  await eventually(context, apiDeadline, () => phase('bootstrap-token', '--skip-token-print'))
  await phase('addon', 'kube-proxy')
  await context.kubectl.run(['-n', 'kube-system', 'rollout', 'restart', 'daemonset/kube-proxy'])
  await settle(there)
}

const refuseChange = (lab: Lab): never => {
  throw new LabError(
    'kubernetes-changed',
    `the Kubernetes settings of ${lab.name} cannot be changed while it is up`,
    {
      hint: `lab down ${lab.name}, then lab up ${lab.name}; or undo the change in the lab file`,
    },
  )
}

/** The parts that an API server's answer calls not ready; of the 40, those that are ready say nothing. */
export const notReadyYet = (readyz: string): readonly string[] =>
  [...readyz.matchAll(/\[-\](\S+) failed/g)].map(([, part = '']) => part)

/** The first control plane. If it has lost its disk, and others have a cluster, it joins that one. */
export const initControlPlane = (lab: Lab): Step => {
  const machine = controlPlaneOf(lab)
  const others = machinesWith(lab, 'control-plane').filter((other) => other !== machine)
  return {
    id: 'init-control-plane',
    title: 'Initialise the control plane with kubeadm',
    phase,
    machine: machine.name,
    needs: [machine, ...others].map(({ name }) => `start-containerd-${name}`),
    apply: async (context, progress) => {
      const saw = await initialisedWith(context, machine)
      if (saw === 'other settings') {
        if (await wasAlone(context, lab, machine)) await moveToEndpoint(context, lab, machine.name, progress)
        else refuseChange(lab)
      }
      const via = saw === 'not yet' ? await clusterBeside(context, lab, machine.name) : undefined
      if (saw !== 'not yet') await restore(context, machine.name, progress)
      else if (via !== undefined) await join(context, machine.name, via, progress)
      else await initialise(context, lab, machine.name, progress)
      await writeKubeconfig(context, lab)
    },
    checks: [
      kubeadmRan(lab, machine, 'kubeadm-init', 'kubeadm init completed'),
      serviceCheck(lab, machine, 'kubelet'),
      manifestsCheck(lab, machine),
      {
        id: 'kubeconfig',
        title: "this host's kubeconfig points to the API server",
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
            saw: server === endpoint ? server : `${path} says ${server}; it should say ${endpoint}`,
          }
        },
      },
      controlPlaneCertificates(lab, machine),
      kubeconfigCertificate(lab),
      kubeletCertificates(lab, machine),
      {
        id: 'api-answers',
        title: 'the API server is ready',
        machine: machine.name,
        within: apiDeadline,
        hint: `lab exec ${lab.name} ${machine.name} -- sh -c 'tail -n 15 /var/log/pods/kube-system_kube-apiserver-*/*/*.log'`,
        probe: async (context) => {
          const endpoint = await apiEndpointOf(context.provider, lab)
          try {
            const said = await context.kubectl.run(['get', '--raw=/readyz'])
            return { ok: said === 'ok', saw: `${endpoint}/readyz says ${said}` }
          } catch (error) {
            const parts = notReadyYet(messageOf(error))
            if (parts.length === 0) throw error
            return { ok: false, saw: `${endpoint}/readyz: not ready: ${parts.join(', ')}` }
          }
        },
      },
    ],
  }
}

const machineBefore = (lab: Lab, machine: MachineSpec): MachineSpec => {
  const machines = machinesWith(lab, 'control-plane')
  return machines[machines.indexOf(machine) - 1] ?? controlPlaneOf(lab)
}

/**
 * Another control plane, after the one before it in the lab file. In parallel they would not be faster: on two
 * processors each waited for the other until kubeadm gave up. If it has lost its disk, its former member of etcd is
 * removed first.
 */
export const joinControlPlane = (lab: Lab, machine: MachineSpec): Step => ({
  id: memberStepOf(lab, machine),
  title: `Join ${machine.name} to the cluster as a control plane`,
  phase,
  machine: machine.name,
  needs: [memberStepOf(lab, machineBefore(lab, machine)), `start-containerd-${machine.name}`],
  apply: async (context, progress) => {
    const saw = await initialisedWith(context, machine)
    if (saw === 'other settings') refuseChange(lab)
    if (saw === 'these settings') return restore(context, machine.name, progress)
    const via = await clusterBeside(context, lab, machine.name)
    if (via === undefined) throw new Error(`no cluster other than on ${machine.name}`)
    return join(context, machine.name, via, progress)
  },
  checks: [
    kubeadmRan(lab, machine, `${machine.name}-kubeadm-join`, `kubeadm join completed on ${machine.name}`),
    serviceCheck(lab, machine, 'kubelet'),
    manifestsCheck(lab, machine, `${machine.name}-manifests`),
    registered(lab, machine),
    controlPlaneCertificates(lab, machine, `${machine.name}-certificates`),
    kubeletCertificates(lab, machine),
  ],
})

export const proveControlPlane = (lab: Lab): Step => {
  const first = controlPlaneOf(lab)
  const machines = machinesWith(lab, 'control-plane')
  const idOf = (name: string, machine: MachineSpec): string =>
    machine === first ? name : `${machine.name}-${name}`
  const component = (name: string, machine: MachineSpec): Check => ({
    id: idOf(name, machine),
    title: machines.length === 1 ? `${name} is ready` : `${name} of ${machine.name} is ready`,
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
  const health = (machine: MachineSpec): Check =>
    machineCheck({
      id: idOf('etcd-health', machine),
      title:
        machines.length === 1
          ? 'etcd answers and is healthy'
          : `etcd of ${machine.name} answers and is healthy`,
      machine: machine.name,
      within: 60,
      hint: `lab kubectl ${lab.name} -- -n kube-system logs etcd-${machine.name}`,
      command: shell`curl --silent --max-time 5 http://127.0.0.1:2381/health`,
      judge: (output) => ({ ok: output.includes('"health":"true"'), saw: output || 'no answer' }),
    })
  return {
    id: 'prove-control-plane',
    title: 'Check every part of the control plane',
    phase,
    machine: first.name,
    needs: machines.map((machine) => memberStepOf(lab, machine)),
    checks: machines.flatMap((machine) => [
      ...(['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'etcd'] as const).map((name) =>
        component(name, machine),
      ),
      health(machine),
    ]) as unknown as [Check, ...Check[]],
  }
}
