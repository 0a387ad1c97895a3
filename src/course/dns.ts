/** Parses answers of a name server, as busybox's nslookup prints them. */
import type { Verdict } from '../plan/step.js'

/** The addresses of a name, from A records. */
export const addressesIn = (output: string, name: string): readonly string[] => {
  const lines = output.split('\n').map((line) => line.trim())
  return lines.flatMap((line, index) => {
    const address = /^Address(?: \d+)?:\s*(\d+\.\d+\.\d+\.\d+)$/.exec(line)?.[1]
    // The first Address belongs to the name server and has no Name before it.
    return address !== undefined && /^Name:\s*(\S+)$/.exec(lines[index - 1] ?? '')?.[1] === name
      ? [address]
      : []
  })
}

/** The targets of a name's SRV records. */
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
 * The SRV records of a headless Service name exactly these members, and the A records of each member are exactly its
 * address.
 * @param srv output of nslookup for the Service
 * @param a output of nslookup for each member, by name
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
      saw: `SRV records of ${service} lead to ${targets.join(', ') || 'nothing'}; they should lead to ${wanted.join(', ')}`,
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
          `${name} ${addresses.join(' and ') || 'nothing'}${ok ? '' : `, the pod has ${address ?? 'no address'}`}`,
      )
      .join(', ')}`,
  }
}
