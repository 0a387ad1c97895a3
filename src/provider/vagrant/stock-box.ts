/** Machines made of any box of Vagrant's catalogue: lab gets in, and installs what their roles need. */
import { wordOf } from '../../identity.js'
import type { Lab, MachineSpec } from '../../lab/lab.js'
import { tarOf } from '../../machine/files.js'
import { labKeys, machineKeys } from '../../machine/keys.js'
import type { Transport } from '../../machine/machine.js'
import { quote } from '../../machine/sh.js'
import { defaultSessions, sshTransport } from '../../machine/ssh.js'
import { equip, lookEquipped } from '../../provider/hosts/equip.js'
import type { Equipment, Provider } from '../provider.js'

/**
 * The script that Vagrant runs once on such a machine. It only gives lab access: the machine gets its other files once
 * it has been equipped.
 */
export const stockEntryScript = async (lab: Lab, machine: MachineSpec): Promise<string> => {
  const keys = await labKeys(lab)
  const own = await machineKeys(lab, machine.name)
  const archive = await tarOf([
    { path: '/root/.ssh/authorized_keys', content: `${keys.publicKey}\n`, mode: 0o600 },
    { path: '/etc/ssh/ssh_host_ed25519_key', content: own.privateKey, mode: 0o600 },
    { path: '/etc/ssh/ssh_host_ed25519_key.pub', content: `${own.publicKey}\n` },
    // Before Debian's own settings, and before those of some boxes, which let nobody log in as root.
    { path: '/etc/ssh/sshd_config.d/00-lab.conf', content: 'PermitRootLogin prohibit-password\n' },
  ])
  return `#!/bin/bash
# Written by lab. Vagrant runs it once on a new machine, as root. It lets lab log in.
set -euo pipefail
# Remove this script, because it contains keys.
rm -f -- "$0"
. /etc/os-release
case "$ID $VERSION_ID" in
  'debian 12' | 'debian 13' | 'ubuntu 22.04' | 'ubuntu 2'[4-6].*) ;;
  *) echo "lab needs a box with Debian 12 or 13, or Ubuntu 22.04 to 26.04, and not $PRETTY_NAME" >&2; exit 1 ;;
esac
mkdir -p -m 700 /root/.ssh
base64 --decode << 'ARCHIVE' | tar --extract --no-same-owner --preserve-permissions --no-overwrite-dir --directory=/
${archive.toString('base64').replaceAll(/.{76}/g, '$&\n').trimEnd()}
ARCHIVE
hostname ${quote(machine.name)}
systemctl restart ssh
`
}

/** Runs commands as root on a machine, with the lab's key; the connection stays open as long as this process lives. */
const opened = new Map<string, Promise<Transport>>()

/** @param dial of the provider */
export const stockEquipment = (
  dial: Provider['dial'],
  slowdown: number | undefined,
): Pick<Equipment, 'equipped' | 'equip'> => {
  const asRoot = (lab: Lab, { name, address }: MachineSpec): Promise<Transport> => {
    const key = `${wordOf(lab)} ${name} ${address}`
    const transport =
      opened.get(key) ??
      (async () =>
        sshTransport({
          address: `${name} (${address})`,
          user: 'root',
          privateKey: (await labKeys(lab)).privateKey,
          hostKey: (await machineKeys(lab, name)).publicKey.split(' ')[1] ?? '',
          sessions: defaultSessions,
          ...(slowdown === undefined ? {} : { slowdown }),
          dial: () => dial(lab, address, 22),
        }))()
    opened.set(key, transport)
    return transport
  }
  // Vagrant gives a target a disk for each LUN.
  const options = { ownDisks: true }
  return {
    equipped: async (lab, machine, files) =>
      lookEquipped(await asRoot(lab, machine), lab, machine, files, options),
    equip: async (lab, machine, files, progress) =>
      equip(await asRoot(lab, machine), lab, machine, files, progress, options),
  }
}
