/** The network and the machines: how they are created, booted, shut down and removed. */
import { setTimeout as delay } from 'node:timers/promises'
import type { LabId } from '../identity.js'
import { type Lab, type MachineSpec, machinesWith, pairWith } from '../lab/lab.js'
import { machineFiles } from '../machine/files.js'
import type { FileOptions } from '../machine/machine-file.js'
import { shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import type { Step as AnyStep, Surroundings } from '../plan/step.js'
import { groupOf, type Leftover, type Provider } from '../provider/provider.js'
import { messageOf } from '../error.js'
import { pathsOf, secretsOf } from '../state.js'
import { leaveEtcd } from './etcd.js'
import { shared } from './checks.js'

const phase = 'machines'

const states = shared((context) => context.provider.states(context.lab))

export const createNetwork = (lab: Lab): Step => ({
  id: 'create-network',
  title: `Make the lab's network ${lab.network.subnet}`,
  phase,
  needs: [],
  apply: ({ provider }) => groupOf(provider, 'network').create(lab),
  undo: {
    title: `Take down the lab's network ${lab.network.subnet}`,
    apply: ({ provider }) => groupOf(provider, 'network').release(lab),
    gone: {
      id: 'network-released',
      title: 'nothing is left of the lab except files',
      within: 15,
      hint: `lab stop ${lab.name}`,
      probe: async ({ provider }) => {
        const left = (await provider.leftovers(lab)).filter(({ kind }) => kind !== 'file')
        return {
          ok: left.length === 0,
          saw: left.map(({ kind, what }) => `${kind}: ${what}`).join('; ') || 'nothing',
        }
      },
    },
  },
  checks: [
    {
      id: 'network',
      title: `the network ${lab.network.subnet} exists`,
      within: 15,
      hint: 'lab doctor',
      probe: ({ provider }) => groupOf(provider, 'network').observe(lab),
    },
  ],
})

/** Why a machine does not answer SSH; undefined if it answers. */
const silence = async (context: Context, name: string): Promise<string | undefined> => {
  try {
    await context.machine(name).try(shell`true`, { signal: context.signal, timeout: 20 })
    return undefined
  } catch (error) {
    context.signal.throwIfAborted()
    return messageOf(error)
  }
}

/** @param isFresh whether this run has switched the machine on */
const running = (lab: Lab, machine: MachineSpec, isFresh: () => boolean): Check => ({
  id: `${machine.name}-running`,
  title: `${machine.name} runs as the lab file says`,
  machine: machine.name,
  within: 10,
  hint: `lab up ${lab.name}`,
  probe: async (context) => {
    const state = (await states(context)).find(({ name }) => name === machine.name)
    if (!state) return { ok: false, saw: 'unknown to the provider' }
    if (state.status !== 'running') return { ok: false, saw: `${state.status}: ${state.detail}` }
    if (state.differs !== undefined) return { ok: false, saw: state.differs }
    const saw = `${state.status} ${state.detail}`
    // A machine that was switched on just now still boots, so it need not answer yet.
    const silent = isFresh() ? undefined : await silence(context, machine.name)
    return silent === undefined ? { ok: true, saw } : { ok: false, saw: `${saw}, but ${silent}` }
  },
})

/** Seconds that an orderly shutdown may take before the power is cut. */
const shutdownDeadline = 20

/** Seconds for Pacemaker to stop what it runs on a machine, or to move it. */
const handOverDeadline = 60

/** Asks the machine to switch itself off, and cuts its power if it does not. */
const shutDown = async (context: Context, name: string): Promise<void> => {
  const { lab, provider } = context
  const isOff = async (): Promise<boolean> =>
    (await provider.states(lab)).find((state) => state.name === name)?.status !== 'running'
  if (await isOff()) return
  // Pacemaker hands over what it runs here; if a machine of a pair merely vanished, it would be fenced.
  if (pairWith(lab, name))
    await context
      .machine(name)
      .try(shell`systemctl stop pacemaker corosync-qdevice corosync`, { timeout: handOverDeadline })
      .catch(() => undefined)
  // --force: the machine is off at once after the sync, without stopping every unit. LUNs are idle by then.
  await context
    .machine(name)
    .try(
      shell`sync; systemctl stop kubelet iscsid 2>/dev/null; nohup systemctl poweroff --force >/dev/null 2>&1 &`,
      {
        timeout: 10,
      },
    )
    .catch(() => undefined)
  const deadline = Date.now() + shutdownDeadline * (provider.slowdown ?? 1) * 1000
  while (Date.now() < deadline && !(await isOff())) await delay(100)
  await groupOf(provider, 'power').cut(lab, name)
}

/** Seconds to wait for the API server's list of a node's pods. While it is down, nothing replaces a pod. */
const apiTimeout = 5

/**
 * Deletes the pods that Kubernetes has given up on a node that is off. Their replacements may already run elsewhere.
 * A kubelet that starts and still finds the old pods prepares their volumes first: it would check, and so repair, a
 * file system that another node is writing to.
 */
const forgetPods = async ({ lab, kubectl, provider }: Context, node: string): Promise<void> => {
  // A machine that only does not answer may still run its pods.
  if (provider.silentMayRun) return
  const away = (await provider.states(lab))
    .filter(({ status }) => status !== 'running')
    .map(({ name }) => name)
  const asked = machinesWith(lab, 'control-plane').some(({ name }) => !away.includes(name))
  if (!asked || !away.includes(node)) return
  interface Given {
    readonly metadata: {
      readonly name: string
      readonly namespace: string
      readonly deletionTimestamp?: string
    }
  }
  const said = await kubectl
    .run(['get', 'pods', '--all-namespaces', '--field-selector', `spec.nodeName=${node}`, '-o', 'json'], {
      timeout: apiTimeout,
    })
    .catch(() => '')
  const { items } = JSON.parse(said || '{"items":[]}') as { readonly items: readonly Given[] }
  for (const { metadata } of items)
    if (metadata.deletionTimestamp !== undefined)
      await kubectl.run([
        'delete',
        'pod',
        metadata.name,
        `--namespace=${metadata.namespace}`,
        '--force',
        '--grace-period=0',
        '--ignore-not-found',
      ])
}

/** The names of the machines that exist but are no longer in the lab file. */
export const goneFrom = async (lab: Lab, provider: Provider): Promise<readonly string[]> =>
  (await provider.states(lab))
    .map(({ name }) => name)
    .filter((name) => !lab.machines.some((machine) => machine.name === name))

/** What the files of a lab's machines depend on besides the lab file. */
export const fileOptions = async (lab: Lab, provider: Provider): Promise<FileOptions> => ({
  secrets: await secretsOf(pathsOf(lab)),
  lunDevice: provider.disks?.lunDevice,
  slowdown: provider.slowdown ?? 1,
})

const isOff = (lab: LabId, name: string): Check => ({
  id: `${name}-off`,
  title: `${name} is off`,
  machine: name,
  within: 10,
  hint: `lab stop ${lab.name}`,
  probe: async (context) => {
    const state = (await states(context)).find((each) => each.name === name)
    return {
      ok: state?.status !== 'running',
      saw: state ? `${state.status}: ${state.detail}` : 'no such machine',
    }
  },
})

/** Cuts the power of a machine that runs, whatever it is doing. */
export const cutPower = (lab: Lab, name: string): Step => ({
  id: `cut-${name}`,
  title: `Cut the power of ${name}`,
  phase,
  machine: name,
  needs: [],
  apply: ({ provider }) => groupOf(provider, 'power').cut(lab, name),
  checks: [isOff(lab, name)],
})

/** Seconds that a running machine may stay silent before it is switched off: it may be busy or still booting. */
const silentDeadline = 45

export const boot = (lab: Lab, machine: MachineSpec, options: FileOptions): Step => {
  let fresh = false
  return {
    id: `boot-${machine.name}`,
    title: `Boot ${machine.name}`,
    phase,
    machine: machine.name,
    needs: ['create-network'],
    apply: async (context, progress) => {
      const state = (await context.provider.states(lab)).find(({ name }) => name === machine.name)
      if (state?.paused && context.provider.pause) {
        progress('resuming it from its pause')
        await context.provider.pause.end(lab, machine.name)
      }
      if (state?.status === 'running' && (state.paused || state.differs === undefined)) {
        progress('it runs but does not answer: waiting a while')
        if (await answers(context, machine.name)) return
      }
      if (state?.status === 'running') await shutDown(context, machine.name)
      if (lab.kubernetes && machine.role === 'worker') await forgetPods(context, machine.name)
      await switchOn(context, machine, options)
      fresh = true
    },
    checks: [running(lab, machine, () => fresh)],
    undo: {
      title: `Switch ${machine.name} off`,
      apply: (context) => shutDown(context, machine.name),
      gone: isOff(lab, machine.name),
    },
  }
}

/** Switches the machine on, or creates it where the provider creates machines. */
const switchOn = async (
  { lab, provider }: Context,
  machine: MachineSpec,
  options: FileOptions,
): Promise<void> => {
  if (provider.power?.on) await provider.power.on(lab, machine)
  else await groupOf(provider, 'machines').start(lab, machine, machineFiles(lab, machine, options))
}

const answers = async (context: Context, name: string): Promise<boolean> => {
  const until = performance.now() + silentDeadline * (context.provider.slowdown ?? 1) * 1000
  while ((await silence(context, name)) !== undefined) {
    if (performance.now() > until) return false
    await delay(500, undefined, { signal: context.signal })
  }
  return true
}

/** Also false if no API server answers, as in a stopped lab: then no pod runs that could be moved. */
const isNode = async ({ kubectl }: Context, name: string): Promise<boolean> => {
  try {
    return (await kubectl.run(['get', 'node', name, '--ignore-not-found', '-o', 'name'])) !== ''
  } catch {
    return false
  }
}

/** Removes a machine that runs or has disks but is no longer in the lab file. */
export const remove = (lab: Lab, name: string): Step => ({
  id: `remove-${name}`,
  title: `Remove ${name}, which is no longer in the lab file`,
  phase,
  machine: name,
  needs: ['create-network'],
  apply: async (context, progress) => {
    if (lab.kubernetes && (await isNode(context, name)))
      await context.kubectl.run(
        ['drain', name, '--ignore-daemonsets', '--delete-emptydir-data', '--force', '--timeout=60s'],
        { timeout: 90 },
      )
    // A control plane leaves etcd first: one that is merely gone would count as a lost member.
    if (lab.kubernetes && (await leaveEtcd(context, lab, name))) progress('it left etcd')
    await groupOf(context.provider, 'machines').remove(lab, name)
  },
  checks: [
    {
      id: `${name}-gone`,
      title: `${name} is gone`,
      machine: name,
      within: 30,
      probe: async (context) => {
        const state = (await context.provider.states(lab)).find((candidate) => candidate.name === name)
        return {
          ok: state === undefined,
          saw: state ? `${state.status}: ${state.detail}` : 'no such machine',
        }
      },
    },
  ],
})

/**
 * Removes everything that a provider has of a lab, which needs only its name.
 * @param looked called with what is left, each time that the provider is asked
 */
export const destroy = (
  lab: LabId,
  provider: Provider,
  looked: (left: readonly Leftover[]) => void,
): AnyStep<Surroundings> => ({
  id: `destroy-${provider.name}`,
  title: `End everything of ${lab.name} that ${provider.name} has`,
  phase,
  needs: [],
  apply: () => provider.destroy(lab),
  checks: [
    {
      id: `${provider.name}-nothing-left`,
      title: `nothing of ${lab.name} is left`,
      // No waiting: what is left now does not disappear by itself, and a person must look.
      within: 0,
      hint: `lab down ${lab.name}`,
      probe: async () => {
        const left = await provider.leftovers(lab)
        looked(left)
        return {
          ok: left.length === 0,
          saw: left.map(({ kind, what }) => `${kind}: ${what}`).join('; ') || 'nothing',
        }
      },
    },
  ],
})
