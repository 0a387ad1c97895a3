/**
 * Machines that exist already, reached over SSH: the hosts that a hosts.yaml names. They are reserved for a lab,
 * equipped, and given back. `lab` makes neither machines nor networks there, and switches nothing off.
 */
import { hostname, userInfo } from 'node:os'
import { existsSync } from 'node:fs'
import { LabError, messageOf } from '../../error.js'
import { type LabId, wordOf } from '../../identity.js'
import type { HostSpec } from '../../lab/hosts-file.js'
import { type Lab, type MachineSpec, machinesWith } from '../../lab/lab.js'
import { labKeys } from '../../machine/keys.js'
import type { Transport } from '../../machine/machine.js'
import { quote } from '../../machine/sh.js'
import { defaultSessions, sshTransport } from '../../machine/ssh.js'
import type { Architecture } from '../../parts/architecture.js'
import { imageArchive } from '../../parts/nodes.js'
import { pathsOf, removeState } from '../../state.js'
import type { Leftover, MachineState, Power, Problem, Provider } from '../provider.js'
import { equip, lookEquipped, lunLink } from './equip.js'
import { keepReturned, keepTaken, type KeptHosts, keptHosts } from './lab-record.js'
import { handBack, holderToReturn, keyLineOf, keyNote, readHolder } from './give-back.js'
import { type Holder, holderText, lockFile } from './lock.js'
import { Logins, patience } from './login.js'
import { askManifest, manifestFile } from './manifest.js'
import { runAgent } from './power.js'
import { prepareEquipment } from './prepare.js'
import { askBoot } from './restart.js'
import { hostFolder, runAsRoot } from './undo-record.js'

/**
 * The logins for hosts on which the lab's key is not installed yet, or no longer; a command that may ask for passwords
 * provides them.
 */
let givenLogins: Logins | undefined
export const useLogins = (logins: Logins): void => void (givenLogins = logins)

const loginsOf = ({ file }: KeptHosts): Logins => givenLogins ?? new Logins(file, undefined, () => undefined)

/** @throws LabError if the lab has no hosts */
const need = async (lab: LabId): Promise<KeptHosts> => {
  const kept = await keptHosts(lab)
  if (kept) return kept
  throw new LabError(
    'no-hosts',
    `${lab.name} has no hosts yet: it is not known which hosts its machines are`,
    {
      hint: `lab up ${lab.name} --hosts FILE`,
    },
  )
}

const specOf = (kept: KeptHosts, machine: string): HostSpec => {
  const spec = kept.file.hosts.find(({ name }) => name === machine)
  if (!spec)
    throw new LabError('no-host', `${kept.file.file} has no host for ${machine}`, {
      hint: `lab hosts check ${quote(kept.file.file)}`,
    })
  return spec
}

const architectureOf = ({ machines }: KeptHosts, machine: string): Architecture | undefined =>
  machines.find(({ name }) => name === machine)?.architecture

/** Runs commands as root with the lab's key; the connection stays open as long as this process lives. */
const opened = new Map<string, Promise<Transport>>()

const asRoot = (lab: LabId, kept: KeptHosts, machine: string): Promise<Transport> => {
  const key = `${wordOf(lab)} ${machine}`
  let transport = opened.get(key)
  if (!transport) {
    const spec = specOf(kept, machine)
    transport = (async () =>
      sshTransport({
        address: `${machine} (${spec.address})`,
        user: 'root',
        privateKey: (await labKeys(lab)).privateKey,
        hostKey: spec.hostKey?.split(' ')[1] ?? '',
        sessions: defaultSessions,
        patience,
        dial: () => loginsOf(kept).dial(spec),
      }))()
    opened.set(key, transport)
  }
  return transport
}

/** Connects as root with the lab's key, or if that fails, as the user of hosts.yaml. The caller closes it. */
const anyRoot = async (
  lab: LabId,
  kept: KeptHosts,
  machine: string,
): Promise<{ readonly root: Transport; readonly close: () => Promise<void> }> => {
  const root = await asRoot(lab, kept, machine)
  try {
    await root.exec('true', { timeout: 30 })
    return { root, close: () => Promise.resolve() }
  } catch (error) {
    if (!(error instanceof LabError) || error.code !== 'login-refused') throw error
  }
  const logins = loginsOf(kept)
  const spec = specOf(kept, machine)
  const user = await logins.asUser(spec)
  try {
    return { root: await logins.asRoot(spec, user), close: () => user.close() }
  } catch (error) {
    await user.close()
    throw error
  }
}

// The lock of a host

const keyOf = async (lab: LabId): Promise<string> => (await labKeys(lab)).publicKey.split(' ')[1] ?? ''

/** The line that gives the lab access. */
const keyLine = async (lab: LabId): Promise<string> => keyLineOf({ key: await keyOf(lab), lab: wordOf(lab) })

const taken = async (lab: Lab, machine: MachineSpec): Promise<{ ok: boolean; saw: string }> => {
  const holder = await readHolder(await asRoot(lab, await need(lab), machine.name))
  if (!holder) return { ok: false, saw: 'it is not in use' }
  return { ok: holder.key === (await keyOf(lab)), saw: holderText(holder) }
}

const take = async (lab: Lab, machine: MachineSpec, progress: (note: string) => void): Promise<void> => {
  const kept = await need(lab)
  await keepTaken(lab, machine.name)
  const { root, close } = await anyRoot(lab, kept, machine.name)
  try {
    const mine: Holder = {
      who: `${userInfo().username}@${hostname()}`,
      lab: wordOf(lab),
      key: await keyOf(lab),
      since: new Date().toISOString(),
    }
    // An existing file is never overwritten: exactly one lab gets the lock, with its complete content.
    await runAsRoot(
      root,
      `set -e; mkdir -p ${hostFolder}; chmod 700 ${hostFolder}; cat > ${lockFile}.$$; sync ${lockFile}.$$
ln ${lockFile}.$$ ${lockFile} 2>/dev/null || true; rm ${lockFile}.$$; sync ${hostFolder}`,
      { input: JSON.stringify(mine), what: 'taking it' },
    )
    const holder = await readHolder(root)
    if (holder?.key !== mine.key)
      throw new LabError(
        'host-taken',
        `${machine.name}: ${holder ? holderText(holder) : `${lockFile} is empty`}`,
        { hint: `run lab down ${holder?.lab ?? 'LAB'} there; or use another host for ${machine.name}` },
      )
    progress('listing the present state')
    if (
      (await runAsRoot(root, `[ -s ${manifestFile} ] || echo none`, { what: 'looking' })).trim() === 'none'
    ) {
      const manifest = await askManifest(root)
      await runAsRoot(
        root,
        `set -e; cat > ${manifestFile}.new; sync ${manifestFile}.new; mv ${manifestFile}.new ${manifestFile}; sync ${hostFolder}`,
        { input: manifest, what: 'saving the list' },
      )
    }
    const line = quote(await keyLine(lab))
    await runAsRoot(
      root,
      `set -e; umask 077; cd /root
[ -e ${keyNote} ] || { { [ ! -d .ssh ] || echo folder; [ ! -e .ssh/authorized_keys ] || echo file; } > ${keyNote}.new; sync ${keyNote}.new; mv ${keyNote}.new ${keyNote}; }
mkdir -p .ssh
grep -qxF ${line} .ssh/authorized_keys 2>/dev/null || { [ ! -s .ssh/authorized_keys ] || [ -z "$(tail -c 1 .ssh/authorized_keys | tr -d '\\n')" ] || echo >> .ssh/authorized_keys; echo ${line} >> .ssh/authorized_keys; }`,
      { what: 'giving the lab access' },
    )
  } finally {
    await close()
  }
}

/** The differences on hosts that this process gave back. */
const differences = new Map<string, readonly string[]>()

const giveBack = async (lab: Lab, machine: MachineSpec, progress: (note: string) => void): Promise<void> => {
  const kept = await need(lab)
  if (kept.returned.includes(machine.name)) return
  const { root, close } = await anyRoot(lab, kept, machine.name)
  try {
    const mine = { key: await keyOf(lab), lab: wordOf(lab) }
    const other = await readHolder(root)
    if (other && other.key !== mine.key)
      throw new LabError('host-taken', `${machine.name}: ${holderText(other)}, and not this lab`)
    const holder = await holderToReturn(root, mine)
    if (holder) differences.set(`${wordOf(lab)} ${machine.name}`, await handBack(root, holder, progress))
    await keepReturned(lab, machine.name)
  } finally {
    await close()
  }
}

const returned = async (lab: Lab, machine: MachineSpec): Promise<{ ok: boolean; saw: string }> => {
  const kept = await keptHosts(lab)
  if (kept && !kept.returned.includes(machine.name)) return { ok: false, saw: 'it still belongs to this lab' }
  const different = differences.get(`${wordOf(lab)} ${machine.name}`) ?? []
  return {
    ok: different.length === 0,
    saw: different.length === 0 ? 'nothing is different' : `different: ${different.join('; ')}`,
  }
}

const states = async (lab: Lab): Promise<readonly MachineState[]> => {
  const kept = await need(lab)
  return Promise.all(
    lab.machines.map(async ({ name }): Promise<MachineState> => {
      try {
        const spec = specOf(kept, name)
        ;(await loginsOf(kept).dial(spec)).destroy()
        const root = await asRoot(lab, kept, name)
        const { stdout } = await root.exec(askBoot, { timeout: 15 })
        return { name, status: 'running', detail: `boot ${stdout.trim()}` }
      } catch (error) {
        const refused = error instanceof LabError && error.code === 'login-refused'
        return refused
          ? { name, status: 'running', detail: 'it does not give this lab access' }
          : { name, status: 'stopped', detail: messageOf(error) }
      }
    }),
  )
}

/** Hosts that the lab still uses. */
const stillTaken = async (lab: LabId): Promise<readonly string[]> => {
  const kept = await keptHosts(lab)
  return (kept?.machines ?? []).map(({ name }) => name).filter((name) => !kept?.returned.includes(name))
}

/** Seconds after which a machine that was told to reboot at once counts as still running. */
const rebootTimeout = 20

/** The switches of hosts.yaml; a machine without one is forced to reboot. */
const switchesOf = (kept: KeptHosts): Power => ({
  onlyReboots: (machine) => specOf(kept, machine).power === undefined,
  cut: async (lab, machine, only) => {
    const spec = specOf(kept, machine)
    if (spec.power) {
      const lock = pathsOf(lab).switchLock(machine)
      await runAgent(spec, spec.power, 'off', loginsOf(kept), lock)
      if (await runAgent(spec, spec.power, 'status', loginsOf(kept), lock))
        throw new LabError(
          'power-failed',
          `${machine}: ${spec.power.agent} reports it as on, after it was switched off`,
        )
      return
    }
    // After a fence, the machine must certainly write no more; a reboot that was only requested is not certain.
    if (only)
      throw new LabError(
        'not-offered',
        `${machine} has no power switch, so it is uncertain whether it is off`,
        {
          hint: `set power: { agent: fence_… } for ${machine} in ${kept.file.file}`,
        },
      )
    const root = await asRoot(lab, kept, machine)
    // A machine that does not answer was not forced to do anything.
    await root.exec('true', { timeout: rebootTimeout })
    // It does not answer any more once it has done so.
    await root
      .exec(
        'echo 1 > /proc/sys/kernel/sysrq; nohup sh -c "sleep 0.3; echo b > /proc/sysrq-trigger" >/dev/null 2>&1 &',
        {
          timeout: rebootTimeout,
        },
      )
      .catch(() => undefined)
  },
  on: async (lab, { name }) => {
    const spec = specOf(kept, name)
    if (spec.power) await runAgent(spec, spec.power, 'on', loginsOf(kept), pathsOf(lab).switchLock(name))
  },
})

/** Workers that fencing by power could not switch off. */
const fencingProblems = (lab: Lab, kept: KeptHosts): readonly Problem[] =>
  lab.fencing === 'power'
    ? machinesWith(lab, 'worker')
        .filter(({ name }) => kept.file.hosts.find((host) => host.name === name)?.power === undefined)
        .map(({ name }) => ({
          problem: `fencing: power switches lost nodes off, but ${name} has no power switch`,
          hint: `set power: { agent: fence_… } for ${name} in ${kept.file.file}, or fencing: none in the lab file`,
        }))
    : []

export const hostsProvider: Provider = {
  name: 'hosts',
  silentMayRun: true,
  probe: () =>
    Promise.resolve({
      usable: false,
      evidence: 'machines that exist already are used only if they are named',
      remedy: "lab hosts init 'USER@ADDRESS' and lab up LAB --hosts hosts.yaml",
    }),
  // The survey finds what hosts lack before the lab uses them; later, the steps of the plan report it.
  preflight: async (lab) => {
    const kept = await keptHosts(lab)
    return kept
      ? fencingProblems(lab, kept)
      : [
          {
            problem: `${lab.name} has no hosts yet: neither they nor their memory are known`,
            hint: `lab up ${lab.name} --hosts FILE`,
          },
        ]
  },
  forLab: async (lab) => {
    const kept = await keptHosts(lab)
    return kept ? { ...hostsProvider, power: switchesOf(kept) } : hostsProvider
  },
  prepare: prepareEquipment,
  states,
  sshServer: async (lab, machine) => {
    const kept = await need(lab)
    const spec = specOf(kept, machine)
    const jump = kept.file.jumpHosts.find(({ name }) => name === spec.via)
    return {
      address: spec.address,
      port: spec.port,
      hostKey: spec.hostKey ?? '',
      ...(jump
        ? { proxyCommand: `ssh -W %h:%p -p ${String(jump.port)} ${quote(`${jump.user}@${jump.address}`)}` }
        : {}),
    }
  },
  dial: async (lab, host, port) => {
    const kept = await need(lab)
    const placed = kept.machines.find(({ address }) => address === host)
    const spec =
      kept.file.hosts.find(({ name, address }) => name === placed?.name || address === host) ??
      kept.file.hosts[0]
    if (!spec) throw new Error(`${kept.file.file} has no hosts`)
    // Outside its network, a host has the address of its SSH server; its other ports are at the same address.
    return loginsOf(kept).dial(spec, host, port)
  },
  destroy: async (lab) => {
    if ((await stillTaken(lab)).length === 0) await removeState(pathsOf(lab))
  },
  leftovers: async (lab): Promise<readonly Leftover[]> => [
    ...(await stillTaken(lab)).map((what): Leftover => ({
      kind: 'machine',
      what: `${what} has not been given back yet`,
    })),
    ...(existsSync(pathsOf(lab).root) ? [{ kind: 'file', what: pathsOf(lab).root } as const] : []),
  ],
  disks: { lunDevice: lunLink },
  images: {
    archive: async (reference, lab, machine) =>
      imageArchive(reference, architectureOf(await need(lab), machine)),
  },
  loan: {
    taken,
    take,
    giveBack,
    returned,
  },
  equipment: {
    needed: () => true,
    equipped: async (lab, machine, files) => {
      const kept = await need(lab)
      const options = { architecture: architectureOf(kept, machine.name) }
      return lookEquipped(await asRoot(lab, kept, machine.name), lab, machine, files, options)
    },
    equip: async (lab, machine, files, progress) => {
      const kept = await need(lab)
      const options = { architecture: architectureOf(kept, machine.name) }
      await equip(await asRoot(lab, kept, machine.name), lab, machine, files, progress, options)
    },
  },
}

export const makeProvider = (): Provider => hostsProvider
