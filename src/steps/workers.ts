/** Workers: they join the cluster with a bootstrap token. */
import { apiAddressOf, type Lab, type MachineSpec } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Check, Step } from '../context.js'
import { admitKubelet, keepRenewed, kubeletCertificates } from './certificates.js'
import { equals, machineCheck, serviceCheck } from './checks.js'
import { controlPlaneOf } from './control-plane.js'
import { prepareJoin } from './joining.js'
import { registered } from './nodes.js'

const phase = 'kubernetes'

/**
 * Whether the kubelet uses the API server's address in the lab file: in a lab that got a shared address later, nodes
 * may use the old one.
 */
const kubeletServer = (lab: Lab, machine: MachineSpec): Check =>
  machineCheck({
    id: `${machine.name}-endpoint`,
    title: `${machine.name}'s kubelet asks the API server at ${apiAddressOf(lab)}`,
    machine: machine.name,
    hint: `lab up ${lab.name}`,
    command: shell`sed -n 's/^ *server: //p' /etc/kubernetes/kubelet.conf`,
    judge: equals(`https://${apiAddressOf(lab)}:6443`),
  })

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
      if (lab.kubernetes?.endpoint !== undefined)
        await there.run(
          shell`grep -q ${`server: https://${apiAddressOf(lab)}:6443`} /etc/kubernetes/kubelet.conf || { sed -i ${`s|server: .*|server: https://${apiAddressOf(lab)}:6443|`} /etc/kubernetes/kubelet.conf && systemctl restart kubelet; }`,
          { signal: context.signal },
        )
    } else {
      await prepareJoin(context, machine.name, controlPlane.name)
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
    ...(lab.kubernetes?.endpoint === undefined ? [] : [kubeletServer(lab, machine)]),
  ],
})
