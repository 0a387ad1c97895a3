/** How machines are made: their parts, their disks, and the files that they find when they boot. */
import { existsSync } from 'node:fs'
import { chmod, lchown, mkdir, open, rm, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { LabError } from '../../error.js'
import { imagesOf } from '../../lab/images.js'
import type { Lab } from '../../lab/lab.js'
import { tarOf } from '../../machine/files.js'
import { labKeys, machineKeys } from '../../machine/keys.js'
import { needHostPackages } from '../../parts/host.js'
import { type NeededPart, neededParts, preparedParts, prepareParts } from '../../parts/parts.js'
import { writePrivate } from '../../state.js'
import type { Machines, Provider } from '../provider.js'
import type { Bind } from './confine.js'
import { makeCow } from './cow.js'
import {
  argvOf,
  baseOf,
  bindsOf,
  cpuOf,
  linkOf,
  lunsOf,
  machineFolder,
  networkFile,
  noteMachine,
  seen,
  userOf,
} from './machine.js'
import { needNewSupervisor, socketOf } from './network.js'
import type { StartRequest } from './requests.js'
import { callSupervisor } from './tunnel.js'

export const prepare: Provider['prepare'] = async (lab, preparation) => {
  const images = imagesOf(lab)
  if (!('missing' in (await preparedParts({ images })))) return
  await needHostPackages(preparation)
  await prepareParts({ preparation, images })
}

export const partsOf = (lab: Lab): readonly NeededPart[] => neededParts({ images: imagesOf(lab) })

/** Gives the files of a machine to its user alone. In a lab of an earlier version they belong to root. */
const giveFiles = async (user: number | undefined, binds: readonly Bind[]): Promise<void> => {
  for (const { from, writable } of binds) {
    const own = writable === true || from.endsWith('/seed.tar')
    // For a link, the link itself: nothing else may change its owner.
    if (own && user !== undefined) await lchown(from, user, user)
    if (!own && user !== undefined) {
      // Parts contain no secrets, and the mode of their folder stays as it is.
      const { mode } = await stat(from)
      const readable = mode | 0o444 | (mode & 0o100 ? 0o111 : 0)
      if (mode !== readable) await chmod(from, readable & 0o777)
    }
  }
}

export const start: Machines['start'] = async (lab, machine, files) => {
  await needNewSupervisor(lab)
  const folder = machineFolder(lab, machine.name)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  let base = await baseOf(lab, machine.name)
  if (!base) {
    const parts = await preparedParts({ images: imagesOf(lab) })
    if ('missing' in parts)
      throw new LabError('not-prepared', `parts are missing: ${parts.missing.join(', ')}`, {
        hint: `lab prepare ${lab.name}`,
      })
    base = { kernel: parts.kernel, baseDisk: parts.baseDisk }
    // The rest of a machine that was partly made, on an unknown base disk.
    await rm(join(folder, 'root.cow'), { force: true })
  } else if (!existsSync(base.baseDisk) || !existsSync(base.kernel)) {
    throw new LabError(
      'base-gone',
      `${machine.name}: ${base.baseDisk} is gone, and the machine's disk is useless without it`,
      {
        hint: `lab down ${lab.name}, then lab up ${lab.name}`,
      },
    )
  }
  const keys = await labKeys(lab)
  const own = await machineKeys(lab, machine.name)
  await writePrivate(
    join(folder, 'seed.tar'),
    await tarOf([
      ...files,
      { path: '/etc/lab/network', content: networkFile(lab, machine) },
      { path: '/root/.ssh/authorized_keys', content: `${keys.publicKey}\n`, mode: 0o600 },
      { path: '/etc/ssh/ssh_host_ed25519_key', content: own.privateKey, mode: 0o600 },
      { path: '/etc/ssh/ssh_host_ed25519_key.pub', content: `${own.publicKey}\n` },
    ]),
  )
  for (const { path, size } of lunsOf(lab, machine)) {
    const disk = await open(path, 'a', 0o600)
    const { size: has } = await disk.stat()
    await disk.close()
    // A LUN may grow but never shrinks, since there may be data at its end.
    if (has < size) await truncate(path, size)
  }
  if (!existsSync(join(folder, 'root.cow'))) await makeCow(join(folder, 'root.cow'), base.baseDisk, seen.base)
  const user = userOf(lab, machine.name)
  const binds = bindsOf(lab, machine, base)
  await giveFiles(user, binds)
  await noteMachine(lab, machine.name, base)
  // Written last: without this file the machine counts as absent and is made again.
  await writePrivate(join(folder, 'base.json'), JSON.stringify(base))
  const request: StartRequest = {
    argv: argvOf(lab, machine),
    cpu: await cpuOf(lab, machine),
    console: join(folder, 'console.log'),
    link: linkOf(lab, machine),
    binds,
    ...(user === undefined ? {} : { user }),
  }
  await callSupervisor(socketOf(lab), 'PUT', `/machines/${machine.name}`, request)
}
