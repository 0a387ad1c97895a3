/** The subnets of a draft: those of the file, or their defaults. */
import { parseSubnet } from './address.js'
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
