/** Machines: there, running as wanted, reachable, and with the files that make them what they are. */
import { setTimeout as delay } from 'node:timers/promises'
import type { LabId } from '../identity.js'
import { type Lab, type MachineSpec, machinesWith, nfsServerOf, nodesOf } from '../lab/lab.js'
import { type FileOptions, type MachineFile, machineFiles, sha256, tarOf } from '../machine/files.js'
import { shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import type { Seconds, Step as AnyStep, Surroundings } from '../plan/step.js'
import { groupOf, type Provider } from '../provider/provider.js'
import { messageOf } from '../error.js'
import { pathsOf, secretsOf } from '../state.js'
import { equals, eventually, machineCheck, shared } from './checks.js'

const phase = 'machines'

export const states = shared((context) => context.provider.states(context.lab))

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
      title: 'nothing of the lab but files is left',
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
      title: `the network ${lab.network.subnet} is there`,
      within: 15,
      hint: 'lab doctor',
      probe: ({ provider }) => groupOf(provider, 'network').look(lab),
    },
  ],
})

/** Seconds from power on to SSH: 3 were measured, 12 on a busy host. */
const bootDeadline = 90
/** Seconds for what a machine that answers SSH must then say of itself. */
const answerDeadline = 15

/** Why a machine cannot be talked to; undefined: it answers. */
const silence = async (context: Context, name: string): Promise<string | undefined> => {
  try {
    await context.machine(name).try(shell`true`, { signal: context.signal, timeout: 20 })
    return undefined
  } catch (error) {
    context.signal.throwIfAborted()
    return messageOf(error)
  }
}

/** @param isFresh whether this very run has switched it on */
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
    // One that was switched on just now is still on its way to where it answers.
    const silent = isFresh() ? undefined : await silence(context, machine.name)
    return silent === undefined ? { ok: true, saw } : { ok: false, saw: `${saw}, but ${silent}` }
  },
})

/** Seconds that an orderly shutdown may take before the power is cut. */
const shutdownDeadline = 20

/** Asks the machine to switch itself off, and cuts its power if it does not. */
export const shutDown = async (context: Context, name: string): Promise<void> => {
  const { lab, provider } = context
  const isOff = async (): Promise<boolean> =>
    (await provider.states(lab)).find((state) => state.name === name)?.status !== 'running'
  if (await isOff()) return
  // Twice force: at once after a sync, without stopping unit after unit. LUNs are quiet by then.
  await context
    .machine(name)
    .try(
      shell`sync; systemctl stop kubelet iscsid 2>/dev/null; nohup systemctl poweroff --force >/dev/null 2>&1 &`,
      {
        timeout: 10,
      },
    )
    .catch(() => undefined)
  const deadline = Date.now() + shutdownDeadline * (provider.patience ?? 1) * 1000
  while (Date.now() < deadline && !(await isOff())) await delay(100)
  await groupOf(provider, 'power').cut(lab, name)
}

/** Seconds for the API server to say which pods are on a node; where it is away, too, nobody has replaced them. */
const apiPatience = 5

/**
 * Makes Kubernetes forget the pods of a node that is off which it has given up. Their replacements may run
 * elsewhere by now, and a kubelet that starts and still finds the old ones makes their volumes ready first, to see
 * what is left of them: it would check, and so repair, a file system that another node is writing to.
 */
const forgetPods = async ({ lab, kubectl, provider }: Context, node: string): Promise<void> => {
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
      timeout: apiPatience,
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

/** What the files of a lab's machines need beside the lab file. */
export const fileOptions = async (lab: Lab, provider: Provider): Promise<FileOptions> => ({
  secrets: await secretsOf(pathsOf(lab)),
  lunDevice: provider.disks?.lunDevice,
  patience: provider.patience ?? 1,
})

/** Seconds for a machine that runs and is silent: it may be busy, or on its way up, before it is switched off. */
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
        progress('it goes on from where it was paused')
        await context.provider.pause.end(lab, machine.name)
      }
      if (state?.status === 'running' && (state.paused || state.differs === undefined)) {
        progress('it runs, and is silent: it is given some time')
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
      gone: {
        id: `${machine.name}-off`,
        title: `${machine.name} is off`,
        machine: machine.name,
        within: 10,
        hint: `lab stop ${lab.name}`,
        probe: async (context) => {
          const state = (await states(context)).find(({ name }) => name === machine.name)
          return {
            ok: state?.status !== 'running',
            saw: state ? `${state.status}: ${state.detail}` : 'no such machine',
          }
        },
      },
    },
  }
}

/** Makes the machine where the provider makes machines; else it is there, and off. */
const switchOn = async (
  { lab, provider }: Context,
  machine: MachineSpec,
  options: FileOptions,
): Promise<void> => {
  if (provider.power?.on) await provider.power.on(lab, machine)
  else await groupOf(provider, 'machines').start(lab, machine, machineFiles(lab, machine, options))
}

const answers = async (context: Context, name: string): Promise<boolean> => {
  const until = performance.now() + silentDeadline * (context.provider.patience ?? 1) * 1000
  while ((await silence(context, name)) !== undefined) {
    if (performance.now() > until) return false
    await delay(500, undefined, { signal: context.signal })
  }
  return true
}

/** What the kernel calls the memory it was given is a little less than what it was given. */
const memoryCheck = (lab: Lab, machine: MachineSpec): Check => {
  const wanted = machine.memory / 1024 ** 2
  return machineCheck({
    id: `${machine.name}-memory`,
    title: `${machine.name} has ${String(wanted)} MiB of memory`,
    machine: machine.name,
    within: answerDeadline,
    hint: `lab plan ${lab.name}`,
    command: shell`awk '/^MemTotal/ { printf "%d", $2 / 1024 }' /proc/meminfo`,
    judge: (output) => {
      const has = Number(output)
      return { ok: has > wanted * 0.85 && has <= wanted, saw: `${output} MiB usable` }
    },
  })
}

const reachableCheck = (lab: Lab, machine: MachineSpec): Check =>
  machineCheck({
    id: `${machine.name}-reachable`,
    title: `${machine.name} answers SSH`,
    machine: machine.name,
    within: answerDeadline,
    hint: `lab logs ${lab.name} ${machine.name}`,
    command: shell`hostname`,
    // What it calls itself is set when it is configured.
    judge: (output) => ({ ok: true, saw: output }),
  })

const hostnameCheck = (lab: Lab, machine: MachineSpec): Check =>
  machineCheck({
    id: `${machine.name}-hostname`,
    title: `${machine.name} calls itself ${machine.name}`,
    machine: machine.name,
    hint: `lab up ${lab.name}`,
    command: shell`hostname`,
    judge: equals(machine.name),
  })

/** MiB of a machine's own disk below which programs fail in ways that do not tell why. */
const leastRoom = 16

const roomCheck = (lab: Lab, machine: MachineSpec): Check =>
  machineCheck({
    id: `${machine.name}-disk`,
    title: `${machine.name} has room on its own disk, and may write there`,
    machine: machine.name,
    within: bootDeadline,
    hint: `lab exec ${lab.name} ${machine.name} -- sh -c 'findmnt /; du -xam / | sort -rn | head -n 20'`,
    command: shell`findmnt --noheadings --output OPTIONS --target / | cut -d, -f1; df --output=avail -m / | tail -n 1`,
    judge: (output) => {
      const [mode = '', room = ''] = output.split('\n')
      return {
        ok: mode === 'rw' && Number(room) >= leastRoom,
        saw: `${mode === 'rw' ? '' : 'read-only, '}${room.trim()} MiB free`,
        // What is too much is somebody's, and for that person to remove.
        final: true,
      }
    },
  })

/** Seconds by which a machine's clock may differ from the operator's. */
const clockTolerance = 1.5

/** Seconds by which a machine's clock is ahead of this host's; 0 where nobody could tell the difference. */
const skewOf = async (context: Context, name: string): Promise<Seconds> => {
  const before = Date.now() / 1000
  const there = Number(
    await context.machine(name).run(shell`date +%s.%N`, { signal: context.signal, timeout: 30 }),
  )
  const after = Date.now() / 1000
  // The answer was made at some moment between the two.
  return there < before ? there - before : there > after ? there - after : 0
}

const clockCheck = (lab: Lab, machine: MachineSpec): Check => ({
  id: `${machine.name}-clock`,
  title: `${machine.name} is in step with this host's clock`,
  machine: machine.name,
  within: answerDeadline,
  hint: `lab up ${lab.name}`,
  probe: async (context) => {
    const skew = await skewOf(context, machine.name)
    return { ok: Math.abs(skew) <= clockTolerance, saw: `${skew.toFixed(3)} s apart` }
  },
})

/**
 * Sets a machine's clock to this host's, where they differ: the clock of a machine stands still while its host
 * sleeps. A kubelet's last word was then said by another clock, so it is started again and says anew how it is; its
 * pods go on.
 * @returns the seconds by which it was wrong
 */
export const setClock = async (context: Context, name: string): Promise<Seconds> => {
  const skew = await skewOf(context, name)
  if (Math.abs(skew) <= clockTolerance) return 0
  const options = { signal: context.signal, timeout: 30 }
  await context.machine(name).run(shell`date -s ${`@${(Date.now() / 1000).toFixed(3)}`}`, options)
  if (nodesOf(context.lab).some((node) => node.name === name))
    await context.machine(name).run(shell`systemctl try-restart kubelet`, options)
  return skew
}

/** @returns what was wrong, a sentence for each machine whose clock was */
export const setClocks = async (context: Context): Promise<readonly string[]> =>
  (
    await Promise.all(
      context.lab.machines.map(async ({ name }) => {
        // One that does not answer is for others to complain of.
        const skew = await setClock(context, name).catch(() => 0)
        return skew === 0
          ? []
          : [`the clock of ${name} was ${Math.abs(skew).toFixed(0)} s ${skew < 0 ? 'behind' : 'ahead'}`]
      }),
    )
  ).flat()

const sysctls = { 'net.ipv4.ip_forward': '1', 'net.bridge.bridge-nf-call-iptables': '1' }

const sysctlCheck = (lab: Lab, machine: MachineSpec): Check =>
  machineCheck({
    id: `${machine.name}-sysctl`,
    title: `${machine.name} forwards packets and filters bridged ones`,
    machine: machine.name,
    hint: `lab exec ${lab.name} ${machine.name} -- sysctl --system`,
    command: shell`sysctl -n ${Object.keys(sysctls)} | tr '\n' ' '`,
    judge: equals(
      Object.values(sysctls).join(' '),
      (output) => `${Object.keys(sysctls).join(', ')} = ${output}`,
    ),
  })

/** What the kernel must be able to do, as it says itself: built in, or a module that loads. */
const kernelFeatures = (lab: Lab, machine: MachineSpec): readonly string[] => [
  ...(machine.role === 'target' ? ['target_core_mod', 'iscsi_target_mod'] : []),
  ...(machine.iqn === undefined ? [] : ['iscsi_tcp', 'sd_mod']),
  ...(machine.role === 'nfs' ? ['nfsd'] : []),
  ...(nfsServerOf(lab) && nodesOf(lab).includes(machine) ? ['nfs4'] : []),
  ...(nodesOf(lab).includes(machine) ? ['overlay', 'bridge', 'nf_tables', 'veth'] : []),
]

const kernelProbes: Readonly<Record<string, string>> = {
  target_core_mod: 'test -d /sys/kernel/config/target/core',
  iscsi_target_mod: 'test -d /sys/kernel/config/target/iscsi',
  iscsi_tcp: 'test -d /sys/class/iscsi_transport/tcp',
  sd_mod: 'test -d /sys/bus/scsi/drivers/sd',
  nfsd: 'grep -qw nfsd /proc/filesystems',
  nfs4: 'grep -qw nfs4 /proc/filesystems',
  overlay: 'grep -qw overlay /proc/filesystems',
  bridge: 'test -d /proc/sys/net/bridge',
  nf_tables: 'nft list tables >/dev/null',
  veth: 'ip link help veth 2>&1 | grep -q veth',
}

const kernelCheck = (lab: Lab, machine: MachineSpec): Check => {
  const wanted = kernelFeatures(lab, machine)
  const script = wanted.map((name) => `${kernelProbes[name] ?? 'false'} || echo ${name}`).join('; ')
  return machineCheck({
    id: `${machine.name}-kernel`,
    title: `${machine.name}'s kernel has ${wanted.join(', ')}`,
    machine: machine.name,
    hint: `lab ssh ${lab.name} ${machine.name} -- uname -a`,
    command: { text: `${script}; true`, shown: 'kernel features' },
    judge: (output) =>
      output === ''
        ? { ok: true, saw: 'all there' }
        : { ok: false, saw: `missing: ${output.split('\n').join(', ')}`, final: true },
  })
}

export const reach = (lab: Lab, machine: MachineSpec): Step => ({
  id: `reach-${machine.name}`,
  title: `Reach ${machine.name} over SSH`,
  phase,
  machine: machine.name,
  needs: [`boot-${machine.name}`],
  // It may be booting: its clock is set as soon as it answers. One that never does is for the checks to name.
  apply: async (context, progress) => {
    const skew = await eventually(context, bootDeadline, () => setClock(context, machine.name)).catch(() => 0)
    if (skew !== 0) progress(`its clock was ${skew.toFixed(1)} s off`)
  },
  checks: [
    reachableCheck(lab, machine),
    memoryCheck(lab, machine),
    clockCheck(lab, machine),
    roomCheck(lab, machine),
  ],
})

/** Paths of those files whose content or mode is not the wanted one. */
const differing = async (
  context: Context,
  machine: MachineSpec,
  files: readonly MachineFile[],
): Promise<readonly MachineFile[]> => {
  const list = files.map(({ path, content }) => `${sha256(content)}  ${path}`).join('\n')
  // Both lists come through standard input: content hashes of secrets are nobody's business in `ps` either.
  const answer = await context
    .machine(machine.name)
    .try(
      shell`sha256sum --check --quiet 2>/dev/null; stat -c '%a %n' ${files.map(({ path }) => path)} 2>/dev/null`,
      { input: `${list}\n`, signal: context.signal },
    )
  const lines = answer.stdout.split('\n')
  return files.filter(({ path, mode = 0o644 }) => {
    const wrongContent = lines.some((line) => line.startsWith(`${path}: FAILED`))
    return wrongContent || !lines.includes(`${mode.toString(8)} ${path}`)
  })
}

/** Files below this run at every boot, in order; one that changed on a running machine is run at once. */
const bootScripts = '/etc/lab/boot.d/'

/** @param gone machines that are removed first: their pods and sessions end before their routes and ACLs do */
export const configure = (
  lab: Lab,
  machine: MachineSpec,
  options: FileOptions,
  gone: readonly string[],
): Step => {
  const files = machineFiles(lab, machine, options)
  const checks: [Check, ...Check[]] = [
    {
      id: `${machine.name}-files`,
      title: `${machine.name} has the ${String(files.length)} files that the lab file asks for`,
      machine: machine.name,
      hint: `lab up ${lab.name}`,
      probe: async (context) => {
        const wrong = await differing(context, machine, files)
        return wrong.length === 0
          ? { ok: true, saw: 'all as wanted' }
          : { ok: false, saw: `differ: ${wrong.map(({ path }) => path).join(', ')}` }
      },
    },
  ]
  checks.push(hostnameCheck(lab, machine))
  if (kernelFeatures(lab, machine).length > 0) checks.push(kernelCheck(lab, machine))
  if (nodesOf(lab).includes(machine)) checks.push(sysctlCheck(lab, machine))
  return {
    id: `configure-${machine.name}`,
    title: `Configure ${machine.name}`,
    phase,
    machine: machine.name,
    needs: [`reach-${machine.name}`, ...gone.map((name) => `remove-${name}`)],
    apply: async (context) => {
      const wrong = await differing(context, machine, files)
      const there = context.machine(machine.name)
      if (wrong.length > 0)
        await there.run(shell`tar --extract --no-same-owner --preserve-permissions --directory=/`, {
          input: await tarOf(wrong),
          signal: context.signal,
        })
      await there.run(shell`hostname -F /etc/hostname; sysctl --quiet --system`, { signal: context.signal })
      // It reads its files when it starts. Sessions stay.
      if (wrong.some(({ path }) => path.startsWith('/etc/iscsi/')))
        await there.run(shell`systemctl try-restart iscsid`, { signal: context.signal })
      for (const { path } of wrong.filter((file) => file.path.startsWith(bootScripts)))
        await there.run(shell`${path}`, { signal: context.signal })
    },
    checks,
  }
}

/** False too where no API server answers, as in a lab that is stopped: nothing runs there that could move. */
const isNode = async ({ kubectl }: Context, name: string): Promise<boolean> => {
  try {
    return (await kubectl.run(['get', 'node', name, '--ignore-not-found', '-o', 'name'])) !== ''
  } catch {
    return false
  }
}

/** A machine that runs, or has disks, but is no longer in the lab file. */
export const remove = (lab: Lab, name: string): Step => ({
  id: `remove-${name}`,
  title: `Remove ${name}, which is no longer in the lab file`,
  phase,
  machine: name,
  needs: ['create-network'],
  apply: async (context) => {
    if (lab.kubernetes && (await isNode(context, name)))
      await context.kubectl.run(
        ['drain', name, '--ignore-daemonsets', '--delete-emptydir-data', '--force', '--timeout=60s'],
        { timeout: 90 },
      )
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

/** Ends everything that a provider has of a lab, of which nothing but the name may be known. */
export const destroy = (lab: LabId, provider: Provider): AnyStep<Surroundings> => ({
  id: `destroy-${provider.name}`,
  title: `End everything of ${lab.name} that ${provider.name} has`,
  phase,
  needs: [],
  apply: () => provider.destroy(lab),
  checks: [
    {
      id: `${provider.name}-nothing-left`,
      title: `nothing of ${lab.name} is left`,
      // What was ended is gone by now, or somebody has to look.
      within: 0,
      hint: `lab down ${lab.name}`,
      probe: async () => {
        const left = await provider.leftovers(lab)
        return {
          ok: left.length === 0,
          saw: left.map(({ kind, what }) => `${kind}: ${what}`).join('; ') || 'nothing',
        }
      },
    },
  ],
})
