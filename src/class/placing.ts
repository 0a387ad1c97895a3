/** Which host has which seat of a class: decided once for each seat, by room, and never changed. */
import { exitCodes, LabError } from '../error.js'

/** The name of the host on which `lab class up` runs; those of hosts.yaml are never empty. */
export const thisHost = ''

export interface HostRoom {
  readonly name: string
  /** How many more seats fit there. */
  readonly fits: number
}

/** For messages. */
export const shownHost = (name: string): string => (name === thisHost ? 'this host' : name)

/**
 * @param hosts each with what is different on every host
 * @throws LabError `same-host` if a host has two names: its room would be counted twice
 */
export const refuseSameHost = (
  file: string,
  hosts: readonly { readonly name: string; readonly place: string }[],
): void => {
  const seen = new Map<string, string>()
  for (const { name, place } of hosts) {
    const other = seen.get(place)
    if (other !== undefined)
      throw new LabError(
        'same-host',
        `${file}: ${name} is ${other === thisHost ? 'this host' : `the same host as ${other}`}`,
        {
          hint: `remove ${name} from ${file}${other === thisHost ? ': this host takes seats in any case' : ''}`,
          exitCode: exitCodes.usage,
        },
      )
    seen.set(place, name)
  }
}

/**
 * A host for each seat. Seats that have one keep it; each of the others goes where most seats still fit, so that no
 * host is full as long as another one has room.
 * @param placed hosts by the number of the seat
 * @throws LabError `no-room`, with the number of seats that fit on all hosts
 */
export const placeSeats = (
  ids: readonly string[],
  placed: ReadonlyMap<string, string>,
  rooms: readonly HostRoom[],
): ReadonlyMap<string, string> => {
  const unplaced = ids.filter((id) => !placed.has(id))
  const fits = rooms.reduce((sum, room) => sum + room.fits, 0)
  if (fits < unplaced.length)
    throw new LabError(
      'no-room',
      [
        `${String(unplaced.length)} more seats do not fit on these hosts:`,
        ...rooms.map((room) => `  ${shownHost(room.name)}: room for ${String(room.fits)} more`),
      ].join('\n'),
      {
        hint: `${fits + placed.size === 0 ? 'not even one seat fits: stop other labs on these hosts' : `--count ${String(ids.length - unplaced.length + fits)}`}; or add another host to the file`,
        exitCode: exitCodes.host,
      },
    )
  const left = new Map(rooms.map((room) => [room.name, room.fits]))
  const places = new Map(placed)
  for (const id of unplaced) {
    // The first of those with the most room.
    const [name, most] = [...left].reduce((best, next) => (next[1] > best[1] ? next : best))
    places.set(id, name)
    left.set(name, most - 1)
  }
  return new Map(ids.map((id) => [id, places.get(id) ?? thisHost]))
}
