/** Workers: they join the cluster with a bootstrap token. */
import type { Lab, MachineSpec } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Step } from '../context.js'
import { render } from '../render.js'
import { pathsOf, secretsOf } from '../state.js'
import { admitKubelet, keepRenewed, kubeletCertificates } from './certificates.js'
import { apply, serviceCheck } from './checks.js'
import { controlPlaneOf } from './control-plane.js'
import { registered } from './nodes.js'

const phase = 'kubernetes'

/** Milliseconds for which a bootstrap token is valid. */
const tokenLife = 3_600_000

/** The Secret of a bootstrap token, which lets a machine join until it expires. @param token `ID.SECRET` */
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
      // The first token expires, so that nobody can join with it forever: renew it for this node.
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
  checks: [
    serviceCheck(lab, machine, 'kubelet'),
    registered(lab, machine),
    kubeletCertificates(lab, machine),
  ],
})
