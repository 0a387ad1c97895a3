/** The control plane: created by kubeadm init, kept as kubeadm wrote it, and checked. */
import { readFile } from 'node:fs/promises'
import { type Lab, type MachineSpec, machinesWith } from '../lab/lab.js'
import { type Command, shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import { LabError, messageOf } from '../error.js'
import { apiEndpointOf } from '../provider/provider.js'
import { pathsOf, writePrivate } from '../state.js'
import {
  admitKubelet,
  controlPlaneCertificates,
  keepRenewed,
  kubeletCertificates,
  renewControlPlane,
} from './certificates.js'
import { eventually, machineCheck, serviceCheck } from './checks.js'
import { describePod, isReady, pods } from './pods.js'

const phase = 'kubernetes'

export const controlPlaneOf = (lab: Lab): MachineSpec => {
  const machine = machinesWith(lab, 'control-plane')[0]
  if (!machine) throw new Error(`${lab.name} has no control plane`)
  return machine
}

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

/** Compares the mark with the machine's present settings. */
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

/** The folder of the control plane's static pod manifests, and the copy of what kubeadm wrote there. */
const manifests = '/etc/kubernetes/manifests'
const manifestsKept = '/var/lib/lab-manifests'

const keepManifests: Command = shell`rm -rf ${manifestsKept}; cp -a ${manifests} ${manifestsKept}`

/** Restores only the manifests that differ, each by one rename: the kubelet restarts a pod whose manifest changes. */
const restoreManifests: Command = shell`cd ${manifestsKept} 2>/dev/null || exit 0; for file in *; do cmp -s "$file" ${manifests}/"$file" || { cp -a "$file" ${manifests}/."$file".new && mv ${manifests}/."$file".new ${manifests}/"$file"; }; done`

/** Shows how the manifests differ from kubeadm's, by file: `> - --etcd-servers=https://127.0.0.1:1`. */
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
        // An earlier run made it: the kubelet starts it again if its certificate is still valid.
        await there.run(restoreManifests)
        if (await renewControlPlane(context, machine.name)) progress('new certificates for the control plane')
        const admitted = await admitKubelet(context, machine.name, machine.name)
        progress(
          `already initialised: ${admitted ? 'a new certificate for its kubelet' : 'starting its kubelet'}`,
        )
        await there.run(shell`systemctl start kubelet`, { signal: context.signal })
        if (admitted) await keepRenewed(context, machine.name)
      } else {
        // A run that was interrupted leaves half a control plane, and kubeadm init refuses to continue from it.
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
        // The API server is ready only when its default roles exist as well.
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
      serviceCheck(lab, machine, 'kubelet'),
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
