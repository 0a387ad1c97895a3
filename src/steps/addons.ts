/** kubeadm's addons: CoreDNS and kube-proxy. */
import { type Lab, nodesOf } from '../lab/lab.js'
import { dnsReplicas } from '../machine/kubeadm.js'
import { shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import { controlPlaneOf } from './control-plane.js'
import { describePod, isReady, pods } from './pods.js'

const phase = 'kubernetes'

/** Installs CoreDNS with kubeadm, separately from kubeadm init, so that workers need not wait for it. */
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
        // Its pods start together with everything else: with twelve processes per processor they took over two
        // minutes.
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

export const proveProxy = (lab: Lab): Step => ({
  id: 'prove-kube-proxy',
  title: 'Check kube-proxy on every node',
  phase,
  needs: nodesOf(lab).map((machine) => `ready-${machine.name}`),
  apply: async (context) => {
    // kubeadm init made the DaemonSet; recreate it only if somebody has removed it.
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
