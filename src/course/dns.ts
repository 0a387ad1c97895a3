/** Answers of a name server, as busybox's nslookup prints them. */
import type { Verdict } from '../plan/step.js'

/** Addresses of a name: A records. */
export const addressesIn = (output: string, name: string): readonly string[] => {
  const lines = output.split('\n').map((line) => line.trim())
  return lines.flatMap((line, index) => {
    const address = /^Address(?: \d+)?:\s*(\d+\.\d+\.\d+\.\d+)$/.exec(line)?.[1]
    // The first Address is that of the name server, which no name is before.
    return address !== undefined && /^Name:\s*(\S+)$/.exec(lines[index - 1] ?? '')?.[1] === name
      ? [address]
      : []
  })
}

/** The names that the SRV records of a name lead to. */
export const targetsIn = (output: string, name: string): readonly string[] =>
  output.split('\n').flatMap((line) => {
    const [, of, target] = /^(\S+)\s+service = \d+ \d+ \d+ (\S+)$/.exec(line.trim()) ?? []
    return of === name && target !== undefined ? [target.replace(/\.$/, '')] : []
  })

interface Member {
  readonly name: string
  readonly address: string | undefined
}

/**
 * The SRV records of a headless Service lead to these members and to nobody else, and the A records of each lead to
 * its address and to no other.
 * @param srv what nslookup said of the Service
 * @param a what it said of each member, by name
 */
export const recordsLeadTo = (
  service: string,
  members: readonly Member[],
  srv: string,
  a: ReadonlyMap<string, string>,
): Verdict => {
  const wanted = members.map(({ name }) => `${name}.${service}`)
  const targets = [...targetsIn(srv, service)].sort()
  if (targets.join() !== [...wanted].sort().join())
    return {
      ok: false,
      saw: `SRV records of ${service} lead to ${targets.join(', ') || 'nobody'}, wanted ${wanted.join(', ')}`,
    }
  const found = members.map(({ name, address }) => {
    const addresses = addressesIn(a.get(name) ?? '', `${name}.${service}`)
    return { name, address, addresses, ok: addresses.length === 1 && addresses[0] === address }
  })
  return {
    ok: found.every(({ ok }) => ok),
    saw: `SRV: ${targets.join(', ')}; A: ${found
      .map(
        ({ name, address, addresses, ok }) =>
          `${name} ${addresses.join(' and ') || 'nobody'}${ok ? '' : `, the pod has ${address ?? 'no address'}`}`,
      )
      .join(', ')}`,
  }
}
