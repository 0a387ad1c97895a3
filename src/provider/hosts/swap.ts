/** Nodes run without swap, also after a reboot: the kubelet could not tell how much memory its pods really use. */
import type { Transport } from '../../machine/machine.js'
import type { Recorder } from './undo-record.js'
import { runAsRoot } from './undo-record.js'

/**
 * What switches swap on at boot. `swap.target` starts everything from /etc/fstab, from zram-generator and from Raspberry
 * Pi's rpi-swap; the others are services of Raspberry Pi OS, zram-tools, Ubuntu and Armbian.
 */
export const swapUnits = [
  'swap.target',
  'dphys-swapfile.service',
  'rpi-zram-writeback.timer',
  'zramswap.service',
  'zram-config.service',
  'armbian-zram-config.service',
] as const

/** Lines of a script that prints what a node's swap lacks: nothing, if it is off. */
export const swapIsOff = `awk 'NR > 1 { print "swap is on: " $1 }' /proc/swaps 2>/dev/null || true`

/**
 * Masks those units that the host has, and switches all swap off. Nothing is stopped: a compressed device in memory
 * keeps its settings, and is swapped on again as it was.
 */
export const switchOffSwap = async (root: Transport, record: Recorder): Promise<void> => {
  const found = (
    await runAsRoot(
      root,
      `for unit in ${swapUnits.join(' ')}; do ! systemctl cat "$unit" >/dev/null 2>&1 || echo "$unit"; done`,
      { what: 'looking for swap' },
    )
  )
    .split('\n')
    .filter(Boolean)
  // Undone from last to first: a unit switches on with its own options what it knows of, and swapon the rest.
  await record.swap()
  if (found.length > 0) await record.units(found)
  await runAsRoot(
    root,
    // A unit that somebody wrote into /etc/systemd/system cannot be masked.
    `${found.map((unit) => `systemctl mask --quiet ${unit} 2>/dev/null || systemctl disable --quiet ${unit} 2>/dev/null || true`).join('\n')}
[ ! -e /proc/swaps ] || swapoff -a`,
    { what: 'switching swap off', timeout: 300 },
  )
}
