/** The bridge of a lab's network, and the cables of its machines. */
import { execFileSync } from 'node:child_process'
import { accessSync, constants as fileModes, readFileSync, statSync } from 'node:fs'
import type { StartRequest } from './requests.js'

const bridge = 'lab0'

const ip = (...args: readonly string[]): void => {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

const removeLink = (name: string): void => {
  try {
    ip('link', 'delete', name)
  } catch {
    // It is not there on the first start.
  }
}

/**
 * The device that machines open their end of the network with, without any capability: a tap belongs to a user.
 * Undefined: this host has none that they could open, and a machine gets a network namespace of its own instead.
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
  // Root makes one that the machines' users may open; the host's own may be for root alone.
  return (
    attempt('/dev/shm/tun', () => {
      execFileSync('mknod', ['-m', '666', '/dev/shm/tun', 'c', '10', '200'], { stdio: 'ignore' })
      accessSync('/dev/shm/tun', fileModes.R_OK | fileModes.W_OK)
    }) ??
    attempt('/dev/net/tun', () => {
      // Where machines run as the one user that there is here, what that one may is enough.
      const alone = /^\s*\d+\s+\d+\s+1\s*$/.test(readFileSync('/proc/self/uid_map', 'utf8'))
      if (!alone && (statSync('/dev/net/tun').mode & 0o6) !== 0o6) throw new Error('only root could open it')
      accessSync('/dev/net/tun', fileModes.R_OK | fileModes.W_OK)
    })
  )
}

export interface Bridge {
  /** The device that machines open their end of the network with; undefined: their end is an interface of its own. */
  readonly tap: string | undefined
  /**
   * Makes both ends of a machine's cable anew.
   * @param user whom the machine runs as; undefined: whoever runs the supervisor
   * @returns how the machine's kernel is told: an argument for its command line
   */
  plug(link: StartRequest['link'], user: number | undefined): string
}

/** @param address the bridge's own, with the length of its prefix: `10.77.0.1/24` */
export const makeBridge = (address: string): Bridge => {
  ip('link', 'set', 'lo', 'up')
  ip('link', 'add', bridge, 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0')
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
