/** The subnets of a draft: those of the file, or their defaults. */
import { addressText, hostNumber, parseAddress, parseSubnet, sizeOf } from './address.js'
import type { DraftFile } from './draft.js'
import { defaults } from './fields.js'

type File = DraftFile

/** A subnet of the file or its default; `path` leads to what the author wrote. */
export const subnetAt = (file: File, section: 'network' | 'kubernetes', key: string, byDefault: string) => {
  const owner = file[section] as Readonly<Record<string, string | undefined>> | undefined
  const given = owner !== undefined && key in owner
  const text = given ? owner[key] : owner === undefined && section in file ? undefined : byDefault
  return { path: [section, key] as const, given, text, subnet: parseSubnet(text ?? '') }
}

export const labSubnet = (file: File) => subnetAt(file, 'network', 'subnet', defaults.subnet)
export const podSubnet = (file: File) => subnetAt(file, 'kubernetes', 'podSubnet', defaults.podSubnet)

/** Why nothing in the lab can have this address of its network; undefined if it can, or if this is unknown. */
export const addressProblem = (file: File, address: string): string | undefined => {
  const { subnet, text = '' } = labSubnet(file)
  if (!subnet) return undefined
  const host = hostNumber(subnet, parseAddress(address) ?? -1)
  const range = `expected one from ${addressText(subnet.base + 2)} to ${addressText(subnet.base + sizeOf(subnet) - 2)}`
  if (host === undefined) return `${address} is outside the lab subnet ${text}; ${range}`
  if (host === 0) return `${address} is the subnet itself; ${range}`
  if (host === 1) return `${address} belongs to this host; ${range}`
  if (host === sizeOf(subnet) - 1) return `${address} is the broadcast address of the subnet; ${range}`
  return undefined
}

/** Addresses with host numbers below this one are left to routers and hosts, as long as there are others. */
const firstFree = 10

/**
 * The lowest free address of a subnet, from host 10 on, or else from host 2 on.
 * @returns undefined if every address is taken, or the subnet is invalid
 */
export const freeAddress = (subnetText: string, taken: readonly string[]): string | undefined => {
  const subnet = parseSubnet(subnetText)
  if (!subnet) return undefined
  const used = new Set(taken.map(parseAddress))
  const isFree = (host: number): boolean => !used.has(subnet.base + host)
  // The first address is this host's, the last one the broadcast address.
  const last = sizeOf(subnet) - 2
  for (let host = firstFree; host <= last; host += 1) if (isFree(host)) return addressText(subnet.base + host)
  for (let host = 2; host <= Math.min(last, firstFree - 1); host += 1)
    if (isFree(host)) return addressText(subnet.base + host)
  return undefined
}
