/** A class on several hosts: the other ones do their part over SSH, and this one knows which seats are where. */
import { resolve } from 'node:path'
import { cardUrl, type ClassFile, classPaths } from '../class/class.js'
import { certificateFor } from '../class/certificate.js'
import {
  joinAt,
  leaveAt,
  noSuchCommand,
  type OtherHost,
  placeHere,
  resetAt,
  roomAt,
} from '../class/elsewhere.js'
import { reloadGateway } from '../class/gateway-process.js'
import { writeCards } from '../class/make.js'
import { placeSeats, refuseSameHost, thisHost } from '../class/placing.js'
import {
  type Elsewhere,
  partHere,
  partsElsewhere,
  placesIn,
  readRoster,
  refuseLoopback,
  type Roster,
  wholeClass,
  writeRoster,
} from '../class/roster.js'
import type { Io, Options } from '../command-line/verb.js'
import { exitCodes, LabError, messageOf } from '../error.js'
import { type HostsFile, loadHosts } from '../lab/hosts-file.js'
import { loginsFor, withPinnedKeys } from '../lifecycle/hosts-survey.js'
import type { Transport } from '../machine/machine.js'
import { quote } from '../machine/sh.js'

/** The program is looked for where install.sh says that its link should be, too: sudo and SSH may not look there. */
const commandLine = (words: readonly string[]): string =>
  [
    'PATH=$PATH:/usr/local/bin',
    `command -v lab >/dev/null || exit ${String(noSuchCommand)}`,
    `exec lab ${words.map(quote).join(' ')}`,
  ].join('; ')

/** @throws LabError `no-host` if a host with seats is not in the file */
const needHosts = ({ file, hosts }: HostsFile, names: readonly string[]): void => {
  const missing = names.find((name) => !hosts.some((host) => host.name === name))
  if (missing === undefined) return
  throw new LabError('no-host', `${file} has no host ${missing}, which has seats of the class`, {
    hint: `add ${missing} to ${file} again, with its address and user`,
    exitCode: exitCodes.usage,
  })
}

/**
 * Connects to hosts, and does something with all of them.
 * @param names those of the file that are needed
 */
const withOthers = async <T>(
  file: string,
  names: readonly string[] | 'all',
  io: Io,
  act: (others: readonly OtherHost[]) => Promise<T>,
  options: Options = {},
): Promise<T> => {
  const typed = loadHosts(file)
  if (names !== 'all') needHosts(typed, names)
  const hosts = await withPinnedKeys(typed, options, io)
  const logins = await loginsFor(hosts, io)
  const open: Transport[] = []
  const connect = async (spec: (typeof hosts.hosts)[number]): Promise<Transport> => {
    const user = await logins.asUser(spec)
    open.push(user)
    return logins.asRoot(spec, user)
  }
  try {
    return await act(
      hosts.hosts
        .filter(({ name }) => names === 'all' || names.includes(name))
        .map((spec) => {
          let root: Promise<Transport> | undefined
          return {
            name: spec.name,
            address: spec.address,
            lab: async (words, { input = '', timeout, signal }) =>
              (await (root ??= connect(spec))).exec(commandLine(words), { input, timeout, signal }),
          }
        }),
    )
  } finally {
    await Promise.all(open.map((transport) => transport.close()))
  }
}

const otherOf = (others: readonly OtherHost[], { name }: Elsewhere): OtherHost => {
  const found = others.find((other) => other.name === name)
  if (!found) throw new Error(`not connected to ${name}`)
  return found
}

/**
 * Does something with every part on another host; what fails at one does not keep the others from being done.
 * @returns the errors by the name of the host
 */
const withEachPart = async (
  { hosts, elsewhere }: Roster,
  io: Io,
  act: (other: OtherHost, part: Elsewhere) => Promise<void>,
): Promise<ReadonlyMap<string, unknown>> => {
  const failed = new Map<string, unknown>()
  const names = elsewhere.map(({ name }) => name)
  await withOthers(hosts, names, io, (others) =>
    Promise.all(
      elsewhere.map(async (part) => {
        try {
          await act(otherOf(others, part), part)
        } catch (error) {
          failed.set(part.name, error)
        }
      }),
    ),
  )
  io.signal.throwIfAborted()
  return failed
}

const reasonsOf = (failed: ReadonlyMap<string, unknown>): readonly string[] =>
  [...failed.values()].map((error) => `  ${messageOf(error)}`)

/** Where the seats of a class are going to be. */
export interface Spread {
  readonly here: ClassFile
  readonly roster: Roster
}

/**
 * Decides which host has which seat, and changes nothing.
 * @param spare how many more seats fit on this host
 * @throws LabError `only-here`, `no-room`, or the reason why a host cannot be used
 */
export const spreadSeats = async (
  whole: ClassFile,
  hosts: string,
  { here, roster }: { readonly here: ClassFile | undefined; readonly roster: Roster | undefined },
  spare: () => Promise<number>,
  options: Options,
  io: Io,
): Promise<Spread> => {
  refuseLoopback(whole)
  const file = resolve(hosts)
  needHosts(
    loadHosts(file),
    (roster?.elsewhere ?? []).map(({ name }) => name),
  )
  return withOthers(
    file,
    'all',
    io,
    async (others) => {
      const rooms = await Promise.all(
        others.map(async (other) => {
          const part = roster?.elsewhere.find(({ name }) => name === other.name)?.class
          return { name: other.name, ...(await roomAt(other, whole, part, io.signal)) }
        }),
      )
      rooms.unshift({ name: thisHost, fits: await spare(), place: await placeHere(whole.lab) })
      refuseSameHost(file, rooms)
      const ids = whole.seats.map(({ id }) => id)
      const placed = placeSeats(ids, placesIn(here, roster), rooms)
      return {
        here: partHere(whole, placed),
        roster: {
          schema: 'lab.class-roster/v1' as const,
          hosts: file,
          elsewhere: [...partsElsewhere(whole, placed, others, roster)],
        },
      }
    },
    options,
  )
}

/**
 * Makes the parts on the other hosts, or changes them. The part here exists, and its gateway learns of the others. An
 * interrupted run leaves a roster, so the next one continues, and `lab class down` ends everything.
 */
export const joinOthers = async (
  { here, roster }: Spread,
  options: Options,
  io: Io,
  notice: (text: string) => void = () => undefined,
): Promise<void> => {
  const source = [
    ...(options.from === undefined ? [] : ['--from', options.from]),
    ...(options.maker === undefined ? [] : ['--maker', options.maker]),
    ...(options.offline ? ['--offline'] : []),
  ]
  await writeRoster(here.lab, roster)
  const certificates = new Map<string, string>()
  const failed = await withEachPart(roster, io, async (other, part) => {
    certificates.set(part.name, await joinAt(other, part.class, source, io.signal))
    notice(`${part.name} has ${String(part.class.seats.length)} seats`)
  })
  const elsewhere = roster.elsewhere.map((part) => {
    const certificate = certificates.get(part.name) ?? part.certificate
    return { ...part, ...(certificate === undefined ? {} : { certificate }) }
  })
  await writeRoster(here.lab, { ...roster, elsewhere })
  await writeCards(here)
  await reloadGateway(here, io.signal)
  const [first] = failed.values()
  if (failed.size === 1) throw first
  if (failed.size > 1)
    throw new LabError(
      'not-joined',
      [`${here.lab}: these hosts could not take their seats:`, ...reasonsOf(failed)].join('\n'),
      {
        hint: 'the same command again continues; lab class down ends the class on all hosts',
        exitCode: exitCodes.host,
      },
    )
}

/** The class with its seats on all hosts. */
export const wholeOf = async (here: ClassFile): Promise<ClassFile> =>
  wholeClass(here, await readRoster(here.lab))

/** The address on the card of a seat, and the certificate of its gateway; undefined if that host never took its part. */
export const entranceOf = async (
  here: ClassFile,
  id: string,
): Promise<{ readonly url: string; readonly certificate: string } | undefined> => {
  const isHere = here.seats.some((seat) => seat.id === id)
  const roster = isHere ? undefined : await readRoster(here.lab)
  const part = roster?.elsewhere.find((other) => other.class.seats.some((seat) => seat.id === id))
  const of = part?.class ?? here
  const certificate = part ? part.certificate : (await certificateFor(here.lab, here.address)).cert
  const url = cardUrl(of, of.seats.find((seat) => seat.id === id)?.token ?? '')
  return certificate === undefined ? undefined : { url, certificate }
}

/** Resets a seat if it is on another host. @returns what to tell; undefined if it is on this one */
export const resetElsewhere = async (here: ClassFile, id: string, io: Io): Promise<string | undefined> => {
  const roster = await readRoster(here.lab)
  const part = roster?.elsewhere.find((other) => other.class.seats.some((seat) => seat.id === id))
  if (!roster || !part) return undefined
  return withOthers(roster.hosts, [part.name], io, (others) =>
    resetAt(otherOf(others, part), part.class, id, io.signal),
  )
}

/** Tells the other hosts until when the class continues. */
export const extendElsewhere = async (here: ClassFile, io: Io): Promise<void> => {
  const roster = await readRoster(here.lab)
  if (!roster) return
  const elsewhere = roster.elsewhere.map((part) => ({
    ...part,
    class: { ...part.class, until: here.until },
  }))
  await joinOthers({ here, roster: { ...roster, elsewhere } }, {}, io)
}

/**
 * Ends the parts on the other hosts. Those that could not be ended stay in the roster.
 * @returns how many seats they had
 * @throws LabError `left-over` with the reason for each
 */
export const leaveOthers = async (lab: string, io: Io): Promise<number> => {
  const roster = await readRoster(lab)
  if (!roster || roster.elsewhere.length === 0) return 0
  const failed = await withEachPart(roster, io, (other, part) => leaveAt(other, part.class, io.signal))
  await writeRoster(lab, {
    ...roster,
    elsewhere: roster.elsewhere.filter(({ name }) => failed.has(name)),
  })
  if (failed.size > 0)
    throw new LabError(
      'left-over',
      [`${lab}: seats on these hosts could not be ended:`, ...reasonsOf(failed)].join('\n'),
      {
        hint: `lab class down --lab ${lab} when they answer again; if a host is gone for good, remove it from ${classPaths(lab).roster}`,
        exitCode: exitCodes.host,
      },
    )
  return roster.elsewhere.reduce((sum, part) => sum + part.class.seats.length, 0)
}
