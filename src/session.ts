/** What every command that touches a running lab works with. */
import { setMaxListeners } from 'node:events'
import type { Lab, MachineSpec } from './lab/lab.js'
import { LabError } from './error.js'
import { hasKeys, labKeys, machineKeys } from './machine/keys.js'
import { kubectlWith } from './machine/kubectl.js'
import { Machine, type Transport } from './machine/machine.js'
import type { Context } from './context.js'
import { lacksSsh, type Provider } from './provider/provider.js'
import { pathsOf } from './state.js'

/** A transport that is opened when a step first uses its machine. */
const lazily = (open: () => Promise<Transport>, address: string): Transport => {
  let opened: Promise<Transport> | undefined
  const transport = (): Promise<Transport> =>
    (opened ??= open().catch((error: unknown) => {
      opened = undefined
      throw error
    }))
  return {
    address,
    exec: async (command, options) => (await transport()).exec(command, options),
    close: async () => {
      if (opened) await (await opened).close()
    },
  }
}

/**
 * Runs commands as root on a machine, over a connection that the provider opens. The host key proves that it is the
 * right machine.
 */
export const transportTo = async (lab: Lab, machine: MachineSpec, provider: Provider): Promise<Transport> => {
  const { defaultSessions, sshTransport } = await import('./machine/ssh.js')
  const { privateKey } = await labKeys(lab)
  const server = await provider.sshServer?.(lab, machine.name)
  const hostKey = server?.hostKey ?? (await machineKeys(lab, machine.name)).publicKey
  return sshTransport({
    address: `${machine.name} (${machine.address})`,
    user: 'root',
    privateKey,
    hostKey: hostKey.split(' ')[1] ?? '',
    // The server of a machine that lab made allows as many as lab needs. One of several control planes is not asked
    // everything at once: the others would miss its answers meanwhile.
    ...(server || (lab.kubernetes?.endpoint !== undefined && machine.role === 'control-plane')
      ? { sessions: defaultSessions }
      : {}),
    ...(provider.slowdown === undefined ? {} : { slowdown: provider.slowdown }),
    dial: () => provider.dial(lab, server?.address ?? machine.address, server?.port ?? 22),
  })
}

export interface Session extends Context {
  close(): Promise<void>
}

export const openSession = (
  lab: Lab,
  provider: Provider,
  signal: AbortSignal,
  kubectlBinary: string,
): Session => {
  const machines = new Map<string, Machine>()
  // Every running command listens to it, and many run at once.
  setMaxListeners(0, signal)
  return {
    lab,
    provider,
    signal,
    slowdown: provider.slowdown,
    kubectl: kubectlWith(kubectlBinary, pathsOf(lab).kubeconfig, signal, provider.slowdown),
    machine: (name) => {
      let machine = machines.get(name)
      if (!machine) {
        const spec = lab.machines.find((candidate) => candidate.name === name)
        if (!spec)
          throw new LabError('no-machine', `${lab.name} has no machine ${name}`, {
            hint: `its machines: ${lab.machines.map((each) => each.name).join(', ')}`,
            exitCode: 2,
          })
        const address = `${name} (${spec.address})`
        const open = async (): Promise<Transport> => {
          const why = lacksSsh(provider)
          if (why !== undefined) throw new LabError('not-offered', `${address}: ${why}`)
          if (!provider.sshServer && !hasKeys(lab, name))
            throw new LabError('ssh-unreachable', `${address}: no SSH connection was ever made`)
          return transportTo(lab, spec, provider)
        }
        machine = new Machine(name, lazily(open, address))
        machines.set(name, machine)
      }
      return machine
    },
    close: async () => {
      await Promise.all([...machines.values()].map((machine) => machine.close()))
    },
  }
}
