/** A host that answered, and what was found out about it. */
import { parseSubnet, subnetText } from '../../lab/address.js'
import type { HostSpec } from '../../lab/hosts-file.js'
import type { Facts, HostInterface } from './facts.js'

/**
 * - `refuse`: the host cannot be used, and nothing is changed
 * - `warn`: a lab may still work
 * - `change`: `up` changes this, and `down` reverts it
 * - `ok`: nothing needs to be done
 */
export type Level = 'refuse' | 'warn' | 'change' | 'ok'

export interface Finding {
  /** Name of the machine. */
  readonly host: string
  /** The subject: `architecture`. */
  readonly what: string
  readonly level: Level
  readonly saw: string
  /** What to type, or to do; undefined if there is nothing to do. */
  readonly fix?: string
  /** Whether `up` says so before it begins, because people notice it: a restart. */
  readonly announced?: boolean
}

/** A host that answered. */
export interface Asked {
  readonly spec: HostSpec
  readonly facts: Facts
  /** Seconds by which its clock is ahead of this computer's. */
  readonly skew: number
  /** Names of hosts that it cannot reach over SSH. */
  readonly unreached: readonly string[]
  /** Ports of other hosts that the lab needs and that it cannot reach, although it reaches the host. */
  readonly shut?: readonly { readonly host: string; readonly port: number }[]
}

/** The interface with a host's address in the lab. */
export const interfaceOf = ({ spec, facts }: Pick<Asked, 'spec' | 'facts'>): HostInterface | undefined =>
  spec.interface === undefined
    ? (facts.interfaces.find(({ address }) => address === spec.address) ??
      facts.interfaces.find(({ name }) => name === facts.defaultInterface) ??
      facts.interfaces[0])
    : facts.interfaces.find(({ name }) => name === spec.interface)

/** The network of that address. */
export const subnetOf = (asked: Pick<Asked, 'spec' | 'facts'>): string | undefined => {
  const own = interfaceOf(asked)
  const subnet = own && parseSubnet(`${own.address}/${String(own.prefix)}`)
  return subnet && subnetText(subnet)
}
