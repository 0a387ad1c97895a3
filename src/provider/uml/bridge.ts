/** The bridge of a lab's network, and the network cables of its machines. */
import { execFileSync } from 'node:child_process'
import { accessSync, constants as fileModes, readFileSync, statSync } from 'node:fs'
import type { StartRequest } from './requests.js'

const bridge = 'lab0'

/**
 * The hardware address that belongs to an IPv4 address: the same at every boot, since neighbours remember it for half a
 * minute, and would otherwise send to the former one. The prefix 02 marks a locally assigned address.
 */
export const macAt = (address: string): string =>
  ['02', '4c', ...address.split('.').map((part) => Number(part).toString(16).padStart(2, '0'))].join(':')

const ip = (...args: readonly string[]): void => {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

const removeLink = (name: string): void => {
  try {
    ip('link', 'delete', name)
  } catch {
    // It does not exist at the first start.
  }
}

/**
 * The device through which machines open their end of the network without any capability: a tap belongs to a user.
 * Undefined: this host has none that they could open, and each machine gets a network namespace instead.
 */
const tapDevice = (): string | undefined => {
  const attempt = (device: string, make: () => void): string | undefined => {
    try {
      make()
      ip('tuntap', 'add', 'dev', 'probe', 'mode', 'tap')
      ip('link', 'delete', 'probe')
      return device
    } catch {
      return undefined
    }
  }
  // Root makes a device node that the machines' users may open; only root may open the host's own.
  return (
    attempt('/dev/shm/tun', () => {
      execFileSync('mknod', ['-m', '666', '/dev/shm/tun', 'c', '10', '200'], { stdio: 'ignore' })
      accessSync('/dev/shm/tun', fileModes.R_OK | fileModes.W_OK)
    }) ??
    attempt('/dev/net/tun', () => {
      // If machines run as the only user that there is, that user's own permissions are enough.
      const alone = /^\s*\d+\s+\d+\s+1\s*$/.test(readFileSync('/proc/self/uid_map', 'utf8'))
      if (!alone && (statSync('/dev/net/tun').mode & 0o6) !== 0o6) throw new Error('only root could open it')
      accessSync('/dev/net/tun', fileModes.R_OK | fileModes.W_OK)
    })
  )
}

export interface Bridge {
  /**
   * The device through which machines open their end of the network; undefined: their end is an interface of its own.
   */
  readonly tap: string | undefined
  /**
   * Makes both ends of a machine's cable again.
   * @param user that the machine runs as; undefined: the user of the supervisor
   * @returns the argument for the kernel's command line
   */
  plug(link: StartRequest['link'], user: number | undefined): string
}

/** @param address of the bridge, with its prefix length: `10.77.0.1/24` */
export const makeBridge = (address: string): Bridge => {
  ip('link', 'set', 'lo', 'up')
  // Without a hardware address of its own, a bridge takes the lowest of its ports', which changes when a machine is
  // switched on or off. Then no machine could answer this host until it had asked for the address again, after 8 s.
  const mac = macAt(address.replace(/\/.*/, ''))
  ip('link', 'add', bridge, 'address', mac, 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0')
  ip('address', 'add', address, 'dev', bridge)
  ip('link', 'set', bridge, 'up')
  const tap = tapDevice()
  return {
    tap,
    plug([bridgeEnd, machineEnd, mac], user) {
      removeLink(bridgeEnd)
      if (tap === undefined) {
        ip('link', 'add', bridgeEnd, 'type', 'veth', 'peer', 'name', machineEnd)
      } else {
        ip('tuntap', 'add', 'dev', bridgeEnd, 'mode', 'tap', 'user', String(user ?? 0))
      }
      ip('link', 'set', bridgeEnd, 'master', bridge, 'up')
      const [transport, name] = tap === undefined ? ['raw', machineEnd] : ['tap', bridgeEnd]
      return `vec0:transport=${transport},ifname=${name},mac=${mac},depth=128,gro=1`
    },
  }
}
