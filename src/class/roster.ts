/**
 * The roster of a class on several hosts: which seats are where. Each host keeps its own seats, with a gateway of its
 * own, exactly like a class on one host. Only the host on which `lab class up` runs has a roster, with what the others
 * were told; its `class.json` has its own seats.
 */
import { z } from 'zod'
import { exitCodes, LabError } from '../error.js'
import { readIfThere, writePrivate } from '../state.js'
import { type ClassFile, classFile, classPaths, newSecret, newTeacher, whyDamaged } from './class.js'
import { thisHost } from './placing.js'

const rosterFile = z.strictObject({
  schema: z.literal('lab.class-roster/v1'),
  /** Absolute path of the hosts.yaml. */
  hosts: z.string(),
  elsewhere: z.array(
    z.strictObject({
      /** The name of the host in hosts.yaml. */
      name: z.string().min(1),
      class: classFile,
      /** The certificate of the gateway there, once there is one. */
      certificate: z.string().optional(),
    }),
  ),
})

export type Roster = z.infer<typeof rosterFile>
/** The part of a class that another host keeps. */
export type Elsewhere = Roster['elsewhere'][number]

/** @throws LabError `bad-roster` for a file that this version cannot read */
export const readRoster = async (lab: string): Promise<Roster | undefined> => {
  const { roster } = classPaths(lab)
  const text = await readIfThere(roster)
  if (text === undefined) return undefined
  try {
    return rosterFile.parse(JSON.parse(text))
  } catch (error) {
    throw new LabError('bad-roster', `${roster} cannot be used: ${whyDamaged(error)}`, {
      hint: `correct the file, or give up the seats on other hosts: there lab class down --lab ${lab}, and here rm ${roster}`,
      exitCode: exitCodes.host,
      cause: error,
    })
  }
}

export const writeRoster = (lab: string, roster: Roster): Promise<void> =>
  writePrivate(classPaths(lab).roster, `${JSON.stringify(roster, null, 2)}\n`)

/** Orders seats by their numbers. */
export const byNumber = (a: { readonly id: string }, b: { readonly id: string }): number =>
  a.id.localeCompare(b.id, 'en', { numeric: true })

/** The class with its seats on all hosts. */
export const wholeClass = (local: ClassFile, roster: Roster | undefined): ClassFile => ({
  ...local,
  seats: [...local.seats, ...(roster?.elsewhere ?? []).flatMap((other) => other.class.seats)].sort(byNumber),
})

/** The host of each seat. */
export const placesIn = (
  local: ClassFile | undefined,
  roster: Roster | undefined,
): ReadonlyMap<string, string> =>
  new Map([
    ...(local?.seats ?? []).map(({ id }) => [id, thisHost] as const),
    ...(roster?.elsewhere ?? []).flatMap((other) =>
      other.class.seats.map(({ id }) => [id, other.name] as const),
    ),
  ])

/** Addresses at which a server is reached under each address of its host. */
const anywhere = ['0.0.0.0', '::']

/** @throws LabError `only-here` if nobody on another host could reach the gateway */
export const refuseLoopback = ({ host, lab, seats, port }: ClassFile): void => {
  if (!/^(127\.|::1$|localhost$)/.test(host)) return
  throw new LabError(
    'only-here',
    `--hosts: the gateways of a class on several hosts must be reachable from outside, and ${host} is not`,
    {
      hint: `lab class up ${lab} --count ${String(seats.length)} --hosts FILE --listen 0.0.0.0:${String(port)}`,
      exitCode: exitCodes.usage,
    },
  )
}

/** The part of a class that the host keeps on which `lab class up` runs. */
export const partHere = (whole: ClassFile, places: ReadonlyMap<string, string>): ClassFile => ({
  ...whole,
  seats: whole.seats.filter(({ id }) => places.get(id) === thisHost),
})

/**
 * The parts of a class that other hosts keep. A gateway listens at the address of its host, or at all of them if the
 * one here does. Each has secrets of its own, which open nothing on another host.
 * @param hosts name and address of each
 */
export const partsElsewhere = (
  whole: ClassFile,
  places: ReadonlyMap<string, string>,
  hosts: readonly { readonly name: string; readonly address: string }[],
  before: Roster | undefined,
): readonly Elsewhere[] =>
  hosts.flatMap(({ name, address }) => {
    const seats = whole.seats.filter(({ id }) => places.get(id) === name)
    const old = before?.elsewhere.find((other) => other.name === name)
    if (seats.length === 0) return []
    return {
      name,
      class: {
        ...whole,
        seats,
        address,
        host: anywhere.includes(whole.host) ? whole.host : address,
        teacher: old?.class.teacher ?? newTeacher(),
        secret: old?.class.secret ?? newSecret(),
      },
      ...(old?.certificate === undefined ? {} : { certificate: old.certificate }),
    }
  })
