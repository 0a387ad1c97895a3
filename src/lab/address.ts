import { isIPv4 } from 'node:net'

/** An IPv4 subnet. Addresses are unsigned 32-bit numbers here and dotted text everywhere else. */
export interface Subnet {
  /** First address. */
  readonly base: number
  /** Prefix length, 0 to 32. */
  readonly prefix: number
}

/** Number of addresses in the subnet, the network and broadcast addresses included. */
export const sizeOf = (subnet: Subnet): number => 2 ** (32 - subnet.prefix)

/** Dotted decimal to number; undefined for anything else, such as `10.1` or `010.0.0.1`. */
export const parseAddress = (text: string): number | undefined =>
  isIPv4(text) ? text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0) : undefined

export const addressText = (address: number): string =>
  [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.')

/** `192.168.56.7/24` to the subnet that holds the address; undefined when it is not CIDR notation. */
export const parseSubnet = (text: string): Subnet | undefined => {
  const [, dotted = '', length = ''] = /^([\d.]+)\/(0|[1-9]\d?)$/.exec(text) ?? []
  const address = parseAddress(dotted)
  const prefix = Number(length)
  if (address === undefined || prefix > 32) return undefined
  // Division, not a bit mask: JavaScript's shifts work modulo 32 and give signed numbers.
  const size = 2 ** (32 - prefix)
  return { base: Math.floor(address / size) * size, prefix }
}

export const subnetText = (subnet: Subnet): string => `${addressText(subnet.base)}/${String(subnet.prefix)}`

/** Position of an address in its subnet: 21 for 192.168.56.21 in 192.168.56.0/24; undefined when outside. */
export const hostNumber = (subnet: Subnet, address: number): number | undefined => {
  const number = address - subnet.base
  return number >= 0 && number < sizeOf(subnet) ? number : undefined
}

export const overlaps = (a: Subnet, b: Subnet): boolean =>
  hostNumber(a, b.base) !== undefined || hostNumber(b, a.base) !== undefined

const privateSubnets: readonly Subnet[] = [
  { base: 0x0a000000, prefix: 8 },
  { base: 0xac100000, prefix: 12 },
  { base: 0xc0a80000, prefix: 16 },
]

/** Wholly within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16 (RFC 1918). */
export const isPrivate = (subnet: Subnet): boolean =>
  privateSubnets.some((range) => range.prefix <= subnet.prefix && overlaps(range, subnet))

/** The n-th /24 of a subnet; undefined when it has no such part. */
export const nthRange = (subnet: Subnet, n: number): Subnet | undefined => {
  const range = { base: subnet.base + n * 256, prefix: 24 }
  return subnet.prefix <= 24 && hostNumber(subnet, range.base) !== undefined ? range : undefined
}
