/** A class on several hosts: the other ones do their part over SSH, and this one knows which seats are where. */
import { resolve } from 'node:path'
import { cardUrl, type ClassFile } from '../class/class.js'
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
import { placeSeats, refuseSameHost, shownHost, thisHost } from '../class/placing.js'
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
    hint: `add ${missing} to ${file} again, with its address and user; if it is gone for good: lab class drop ${missing}`,
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

/** Whether another host does not know yet until when the class continues. */
export const isBehind = async ({ lab, until }: ClassFile): Promise<boolean> =>
  ((await readRoster(lab))?.elsewhere ?? []).some((part) => part.class.until !== until)

/**
 * Tells the other hosts until when the class continues. Those that could not be told keep their time in the roster, so
 * that only they are told the next time.
 * @throws LabError `not-extended` with the reason for each
 */
export const extendElsewhere = async (here: ClassFile, io: Io): Promise<void> => {
  const { lab, until } = here
  const roster = await readRoster(lab)
  const behind = (roster?.elsewhere ?? []).filter((part) => part.class.until !== until)
  if (!roster || behind.length === 0) return
  const failed = await withEachPart({ ...roster, elsewhere: behind }, io, async (other, part) => {
    await joinAt(other, { ...part.class, until }, [], io.signal)
  })
  const elsewhere = roster.elsewhere.map((part) =>
    failed.has(part.name) ? part : { ...part, class: { ...part.class, until } },
  )
  await writeRoster(lab, { ...roster, elsewhere })
  await reloadGateway(here, io.signal)
  const [first] = failed.keys()
  if (first === undefined) return
  throw new LabError(
    'not-extended',
    [`${lab}: it continues until ${until}, but not on these hosts:`, ...reasonsOf(failed)].join('\n'),
    {
      hint: `the same command again adds nothing, and tells only them; if ${first} is gone for good: lab class drop ${first}`,
      exitCode: exitCodes.host,
    },
  )
}

/** What became of the seats of a host that is no longer part of a class. */
export interface Dropped {
  readonly part: Elsewhere
  /** Why they could not be ended; undefined: nothing of them is left. */
  readonly reason: string | undefined
  /** The hosts.yaml. */
  readonly hosts: string
  /** The seats that the class still has, by the name of their host. */
  readonly left: ReadonlyMap<string, readonly string[]>
}

/**
 * Takes a host out of a class. Its seats are ended if it answers; otherwise they are given up.
 * @throws LabError `no-host` if it has no seats of the class
 */
export const dropHost = async (here: ClassFile, name: string, io: Io): Promise<Dropped> => {
  const roster = await readRoster(here.lab)
  const part = roster?.elsewhere.find((other) => other.name === name)
  if (!roster || !part) {
    const names = (roster?.elsewhere ?? []).map((other) => other.name).join(', ')
    throw new LabError('no-host', `${here.lab} has no seats on another host called ${name}`, {
      hint: names === '' ? 'all its seats are on this host: lab class status' : `it has seats on ${names}`,
      exitCode: exitCodes.usage,
    })
  }
  let reason: string | undefined
  try {
    await withOthers(roster.hosts, [name], io, (others) =>
      leaveAt(otherOf(others, part), part.class, io.signal),
    )
  } catch (error) {
    io.signal.throwIfAborted()
    reason = messageOf(error)
  }
  const elsewhere = roster.elsewhere.filter((other) => other !== part)
  await writeRoster(here.lab, { ...roster, elsewhere })
  await writeCards(here)
  await reloadGateway(here, io.signal)
  const idsOf = ({ seats }: ClassFile): readonly string[] => seats.map(({ id }) => id)
  const left = new Map([[thisHost, idsOf(here)], ...elsewhere.map((o) => [o.name, idsOf(o.class)] as const)])
  return { part, reason, hosts: roster.hosts, left }
}

/** What is given up, what is left, and what to type next. */
export const droppedText = ({ lab }: ClassFile, { part, reason, hosts, left }: Dropped): string => {
  const { name } = part
  const gone = part.class.seats.map(({ id }) => id)
  const all = [...left.values(), gone].flat().sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))
  return [
    `${name} is no longer a host of the class ${lab}`,
    ...(reason === undefined
      ? [`  ended there: seats ${gone.join(', ')}; nothing of them is left`]
      : [
          `  given up: seats ${gone.join(', ')}, their labs, and what students did there`,
          `  because: ${reason}`,
          `  if ${name} comes back, they still run there until this is typed on it: lab class down --lab ${lab}`,
        ]),
    ...[...left].flatMap(([host, ids]) =>
      ids.length === 0 ? [] : [`  left on ${shownHost(host)}: seats ${ids.join(', ')}`],
    ),
    '',
    'Try next',
    '  lab class verify      checks every seat that is left, the way a student reaches it',
    `  lab class up ${lab} --count ${String(Number(all.at(-1) ?? 1))}`,
    `                        makes seats ${gone.join(', ')} anew, with new cards; first remove ${name} from ${hosts}`,
    '',
  ].join('\n')
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
  const [first] = failed.keys()
  if (first !== undefined)
    throw new LabError(
      'left-over',
      [`${lab}: seats on these hosts could not be ended:`, ...reasonsOf(failed)].join('\n'),
      {
        hint: `lab class down --lab ${lab} when they answer again; if ${first} is gone for good, first: lab class drop ${first} --lab ${lab}`,
        exitCode: exitCodes.host,
      },
    )
  return roster.elsewhere.reduce((sum, part) => sum + part.class.seats.length, 0)
}
