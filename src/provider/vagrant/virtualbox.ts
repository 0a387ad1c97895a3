/** VirtualBox, through VBoxManage. */
import type { LabId } from '../../identity.js'
import { open, readFile, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { addressText, sizeOf } from '../../lab/address.js'
import type { Lab } from '../../lab/lab.js'
import { pathsOf, writePrivate } from '../../state.js'
import type { Leftover } from '../provider.js'
import { type Found, type Hypervisor, prefixOf, subnetOf } from './hypervisor.js'
import { answer, ask, explain, must } from './tools.js'

const manage = (lab: LabId, machine: string | undefined, ...args: readonly string[]) =>
  must(lab.name, 'VBoxManage', args, machine === undefined ? {} : { machine })

const tryManage = (...args: readonly string[]) => ask('VBoxManage', args)

/** Empty if VBoxManage is not installed and the lab was not made with it. */
const told = async (lab: LabId, ...args: readonly string[]): Promise<string> =>
  (await answer(lab, 'virtualbox', 'VBoxManage', args)) ?? ''

const vmOf = (lab: LabId, machine: string): string => `${prefixOf(lab)}${machine}`

/** `key="value"` and `key=value` lines. */
const parseInfo = (text: string): ReadonlyMap<string, string> =>
  new Map(
    text.split('\n').flatMap((line) => {
      const at = line.indexOf('=')
      return at < 0
        ? []
        : [
            [
              line.slice(0, at),
              line
                .slice(at + 1)
                .trim()
                .replace(/^"|"$/g, ''),
            ] as const,
          ]
    }),
  )

/**
 * VMState, as printed by showvminfo --machinereadable, of a machine that certainly does not run. In any other state,
 * such as `saving` or `onlinesnapshotting`, it may write.
 */
const offWords: Readonly<Record<string, string>> = {
  poweroff: 'it is off',
  aborted: 'its power was cut, or VirtualBox ended',
  saved: 'its state is saved',
  'aborted-saved': 'its state was saved, then lost',
  gurumeditation: 'VirtualBox stopped it (guru meditation)',
  teleported: 'it was moved to another host',
  // Its settings cannot be read, so it cannot have been started.
  inaccessible: 'VirtualBox cannot read it',
  '': 'VirtualBox cannot read it',
}

const isOn = (info: ReadonlyMap<string, string>): boolean => !((info.get('VMState') ?? '') in offWords)

/**
 * When the machine was last switched on, according to its log: `00:00:00.1 Log opened
 * 2026-11-21T20:15:02.123456000Z`.
 */
const startedAt = async (folder: string): Promise<string> => {
  const log = await open(join(folder, 'VBox.log')).catch(() => undefined)
  if (!log) return ''
  try {
    const { buffer, bytesRead } = await log.read(Buffer.alloc(4096))
    return /Log opened (\S+)/.exec(buffer.toString('utf8', 0, bytesRead))?.[1] ?? ''
  } finally {
    await log.close()
  }
}

/** Parses lines of `"NAME" {UUID}`. */
const registered = async (lab: LabId): Promise<readonly { vm: string; id: string }[]> =>
  (await told(lab, 'list', 'vms')).split('\n').flatMap((line) => {
    const [, vm = '', id = ''] = /^"(.*)" \{([0-9a-f-]+)\}$/.exec(line.trim()) ?? []
    return vm.startsWith(prefixOf(lab)) ? [{ vm, id }] : []
  })

/** Undefined if the machine was removed since it was listed. */
const foundOf = async (
  lab: LabId,
  { vm, id }: { readonly vm: string; readonly id: string },
): Promise<Found | undefined> => {
  const said = await tryManage('showvminfo', id, '--machinereadable')
  if (!said.ok) {
    if (!(await registered(lab)).some((each) => each.id === id)) return undefined
    throw explain('VBoxManage', said.all, { lab: lab.name, machine: vm.slice(prefixOf(lab).length) })
  }
  const info = parseInfo(said.stdout)
  const state = info.get('VMState') ?? ''
  const on = isOn(info)
  const since = on ? await startedAt(info.get('LogFldr') ?? '') : ''
  return {
    name: vm.slice(prefixOf(lab).length),
    id,
    running: on,
    ...(state === 'paused' ? { paused: true } : {}),
    detail: on
      ? `VirtualBox machine ${vm}${since === '' ? '' : `, since ${since}`}`
      : (offWords[state] ?? ''),
    memory: info.has('memory') ? Number(info.get('memory')) * 1024 ** 2 : undefined,
    cpus: info.has('cpus') ? Number(info.get('cpus')) : undefined,
  }
}

const machines: Hypervisor['machines'] = async (lab) =>
  (await Promise.all((await registered(lab)).map((each) => foundOf(lab, each)))).filter(
    (found) => found !== undefined,
  )

/** This host's address in the lab's network: the first. Vagrant looks for an interface with this address. */
const gatewayOf = (lab: Lab): string => addressText(subnetOf(lab.network.subnet).base + 1)

/** Parses blocks of `Name:  value` lines, separated by empty lines. */
const blocks = (text: string): readonly ReadonlyMap<string, string>[] =>
  text
    .split(/\n\s*\n/)
    .map(
      (block) =>
        new Map(
          block.split('\n').flatMap((line) => {
            const at = line.indexOf(':')
            return at < 0 ? [] : [[line.slice(0, at).trim(), line.slice(at + 1).trim()] as const]
          }),
        ),
    )
    .filter((block) => block.size > 0)

const hostOnly = async (lab: Lab): Promise<string | undefined> =>
  blocks(await told(lab, 'list', 'hostonlyifs'))
    .find((block) => block.get('IPAddress') === gatewayOf(lab))
    ?.get('Name')

/** The file with the name of the host-only interface that was created for this lab. */
const ownInterface = (lab: LabId): string => pathsOf(lab).vagrant.hostOnly

/** Removes the interface unless another machine uses it meanwhile. */
const removeOwnInterface = async (lab: LabId): Promise<void> => {
  const name = await readFile(ownInterface(lab), 'utf8').catch(() => undefined)
  if (name === undefined) return
  if (!(await told(lab, 'list', '--long', 'vms')).includes(`'${name}'`))
    await manage(lab, undefined, 'hostonlyif', 'remove', name)
}

/** VirtualBox 7 has another kind of host-only network on macOS, which Vagrant creates with the first machine. */
const hasInterfaces = process.platform !== 'darwin'

const createNetwork: Hypervisor['createNetwork'] = async (lab) => {
  if (!hasInterfaces || (await hostOnly(lab)) !== undefined) return
  const said = await manage(lab, undefined, 'hostonlyif', 'create')
  const name = /Interface '(.+)' was successfully created/.exec(said)?.[1]
  if (name === undefined) throw new Error(`VBoxManage hostonlyif create: ${said}`)
  // The lab removes only what it created.
  await writePrivate(ownInterface(lab), name)
  const netmask = addressText(2 ** 32 - sizeOf(subnetOf(lab.network.subnet)))
  await manage(lab, undefined, 'hostonlyif', 'ipconfig', name, '--ip', gatewayOf(lab), '--netmask', netmask)
}

/** Registered disks that are in the lab's folder. */
const media = async (lab: LabId): Promise<readonly { id: string; path: string }[]> =>
  blocks(await told(lab, 'list', 'hdds')).flatMap((block) => {
    const [id, path] = [block.get('UUID'), block.get('Location')]
    return id !== undefined && path?.startsWith(`${pathsOf(lab).root}/`) ? [{ id, path }] : []
  })

/** After a power cut, a machine stays locked for a moment. */
const unlocked = async (lab: LabId, machine: string): Promise<void> => {
  for (let tries = 0; tries < 50; tries++) {
    const { ok, stdout } = await tryManage('showvminfo', vmOf(lab, machine), '--machinereadable')
    const info = parseInfo(stdout)
    if (ok && !info.has('SessionName') && !isOn(info)) return
    await delay(100)
  }
}

const cut: Hypervisor['cut'] = async (lab, machine) => {
  const on = (await machines(lab)).some(({ name, running: is }) => name === machine && is)
  if (!on) return
  await manage(lab, machine, 'controlvm', vmOf(lab, machine), 'poweroff')
  await unlocked(lab, machine)
}

const closeMedia = async (lab: LabId, which: (path: string) => boolean): Promise<void> => {
  for (const { id, path } of await media(lab))
    if (which(path)) {
      await tryManage('closemedium', 'disk', id, '--delete')
      await rm(path, { force: true })
    }
}

/** Named as in the Vagrantfile: `target-0.vdi`. */
const disksOfMachine =
  (machine: string) =>
  (path: string): boolean =>
    /^(.*)-\d+\.vdi$/.exec(basename(path))?.[1] === machine

const remove: Hypervisor['remove'] = async (lab, machine) => {
  if ((await registered(lab)).some(({ vm }) => vm === vmOf(lab, machine))) {
    await cut(lab, machine)
    await manage(lab, machine, 'unregistervm', vmOf(lab, machine), '--delete')
  }
  await closeMedia(lab, disksOfMachine(machine))
}

export const virtualbox: Hypervisor = {
  program: 'VBoxManage',
  // Vagrant always creates VirtualBox machines one after another.
  together: 64,
  machines,
  createNetwork,
  // A host-only interface costs nothing, and machines that are off refer to it by name.
  releaseNetwork: () => Promise.resolve(),
  network: async (lab) => {
    if (!hasInterfaces) return { ok: true, saw: 'Vagrant creates the network with the first machine' }
    const name = await hostOnly(lab)
    return name === undefined
      ? { ok: false, saw: `no host-only interface has ${gatewayOf(lab)}` }
      : { ok: true, saw: `host-only interface ${name}` }
  },
  start: async (lab, machine) => {
    const vm = vmOf(lab, machine.name)
    const found = (await machines(lab)).find(({ name }) => name === machine.name)
    const cpus = Math.ceil(machine.cpus)
    if (found?.memory !== machine.memory || found.cpus !== cpus)
      await manage(
        lab,
        machine.name,
        'modifyvm',
        vm,
        '--memory',
        String(Math.ceil(machine.memory / 1024 ** 2)),
        '--cpus',
        String(cpus),
      )
    await manage(lab, machine.name, 'startvm', vm, '--type', 'headless')
  },
  cut,
  pause: async (lab, machine) => {
    await manage(lab, machine, 'controlvm', vmOf(lab, machine), 'pause')
  },
  resume: async (lab, machine) => {
    await manage(lab, machine, 'controlvm', vmOf(lab, machine), 'resume')
  },
  remove,
  destroy: async (lab) => {
    for (const { name } of await machines(lab)) await remove(lab, name).catch(() => undefined)
    await closeMedia(lab, () => true)
    await removeOwnInterface(lab)
  },
  leftovers: async (lab) => {
    const [found, disks] = await Promise.all([machines(lab), media(lab)])
    return [
      ...found.map(({ name, running: on }): Leftover => ({
        kind: on ? 'process' : 'file',
        what: `VirtualBox machine ${vmOf(lab, name)}`,
      })),
      ...disks.map(({ path }): Leftover => ({ kind: 'file', what: `VirtualBox disk ${path}` })),
    ]
  },
}
