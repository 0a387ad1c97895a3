/**
 * A class: one lab, and many seats. One file, which only root can read, has the desired state. The actual state is
 * observed, never stored.
 *
 *   LAB_CLASSES/NAME/            belongs to root; other users cannot read it
 *     class.json                 ClassFile: the seats with their tokens
 *     roster.json                the parts of the class on other hosts, if there are any
 *     names.csv                  the students' names, if the teacher writes them down; `lab class forget` removes it
 *     seats/07/home              the seat's home folder with its lab's state; belongs to the seat's user
 *     seats/07/home.ext4         the file system that is mounted there, if this host can mount files
 *     seats/07/up.log, pid       output of the last attempt to bring the seat up; the first process of its namespaces
 */
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { exitCodes, LabError, messageOf } from '../error.js'
import { folderFrom, readIfThere, writePrivate } from '../state.js'
import { makeFolder, refuseForeign } from '../trust.js'
import { newToken } from './tokens.js'

const seatId = /^\d{2,3}$/

const seat = z.strictObject({
  /** `07` */
  id: z.string().regex(seatId),
  token: z.string(),
})

export const classFile = z.strictObject({
  schema: z.literal('lab.class/v1'),
  /** The lab's name, which is also the name of the class. */
  lab: z.string().regex(/^[a-z0-9-]+$/),
  /** The argument of `lab up` at each seat: the name of a shipped lab. */
  from: z.string(),
  size: z.enum(['full', 'small']),
  language: z.enum(['en', 'ja']),
  /** Limit of a seat's memory in bytes, if systemd can enforce it. */
  seatMemory: z.int().positive().optional(),
  /** Size of a seat's disk in bytes; absent: its home folder is on the host's. */
  seatDisk: z.int().positive().optional(),
  seats: z.array(seat),
  teacher: z.string(),
  /** The key that signs cookies; 32 bytes in hexadecimal. */
  secret: z.string().regex(/^[0-9a-f]{64}$/),
  host: z.string(),
  port: z.int().min(1).max(65_535),
  /** The address on the cards: a name or an address of this host. */
  address: z.string(),
  /** After this time no token is valid. */
  until: z.iso.datetime(),
})

export type ClassFile = z.infer<typeof classFile>
export type Seat = z.infer<typeof seat>

/** As much of a class as is needed to end it. */
export interface ClassToEnd {
  readonly lab: string
  readonly seats: readonly Pick<Seat, 'id'>[]
}

/** The most seats of a class: numbers on the cards have two digits. */
export const mostSeats = 99

/** Where classes are kept: LAB_CLASSES, else /var/lib/lab/classes. */
const classesRoot = (): string => {
  const root = process.env['LAB_CLASSES']
    ? folderFrom('LAB_CLASSES', 'XDG_STATE_HOME')
    : '/var/lib/lab/classes'
  refuseForeign(
    root,
    { variable: 'LAB_CLASSES', danger: 'it decides what lab does as root' },
    'ours-or-root',
    'folder',
  )
  return root
}

export interface ClassPaths {
  readonly root: string
  readonly file: string
  /** The parts of the class on other hosts. */
  readonly roster: string
  readonly names: string
  /** Held by the command that changes the class. */
  readonly lock: string
  /** Held by the gateway. */
  readonly gatewayLock: string
  readonly gatewayLog: string
  /** The socket through which commands talk to the gateway. */
  readonly socket: string
  readonly certificate: string
  readonly key: string
  readonly cards: string
  /** The lab file that replaces the shipped one at the seats; only for a class with another size. */
  readonly labFile: string
  seat(id: string): {
    readonly root: string
    readonly home: string
    /** The file system of the home folder, if it is limited. */
    readonly disk: string
    /** Empty on the host; the root folder at the seat. */
    readonly emptyRoot: string
    readonly pid: string
    readonly log: string
    /** Exists while the seat's lab must still be rebuilt. */
    readonly reset: string
  }
}

export const classPaths = (name: string): ClassPaths => {
  const root = join(classesRoot(), name)
  return {
    root,
    file: join(root, 'class.json'),
    roster: join(root, 'roster.json'),
    names: join(root, 'names.csv'),
    lock: join(classesRoot(), `.${name}.lock`),
    gatewayLock: join(root, 'gateway.lock'),
    gatewayLog: join(root, 'gateway.log'),
    socket: join(root, 'gateway.sock'),
    certificate: join(root, 'certificate.pem'),
    key: join(root, 'key.pem'),
    cards: join(root, 'cards.html'),
    labFile: join(root, 'lab.yaml'),
    seat: (id) => {
      const folder = join(root, 'seats', id)
      return {
        root: folder,
        home: join(folder, 'home'),
        disk: join(folder, 'home.ext4'),
        emptyRoot: join(folder, 'root'),
        pid: join(folder, 'pid'),
        log: join(folder, 'up.log'),
        reset: join(folder, 'reset'),
      }
    },
  }
}

/** Why a file of a class cannot be read. Its text is left out, since that has tokens. */
export const whyDamaged = (error: unknown): string => {
  if (error instanceof z.ZodError) {
    const { path = [], message = '' } = error.issues[0] ?? {}
    return `${path.length === 0 ? 'as a whole' : path.join('.')}: ${message}`
  }
  const [place = ''] = / at position \d+/.exec(messageOf(error)) ?? []
  return error instanceof SyntaxError ? `not valid JSON${place}` : messageOf(error)
}

/** @throws LabError `bad-class` for a file that this version cannot read */
export const readClass = async (name: string): Promise<ClassFile | undefined> => {
  const { file } = classPaths(name)
  const text = await readIfThere(file)
  if (text === undefined) return undefined
  try {
    return classFile.parse(JSON.parse(text))
  } catch (error) {
    throw new LabError('bad-class', `${file} cannot be used: ${whyDamaged(error)}`, {
      hint: `correct the file, or end the class: lab class down --lab ${name}`,
      exitCode: exitCodes.host,
      cause: error,
    })
  }
}

export const writeClass = async (wanted: ClassFile): Promise<void> => {
  const { root, file } = classPaths(wanted.lab)
  await makeFolder(classesRoot(), 0o755)
  await makeFolder(root, 0o700)
  await writePrivate(file, `${JSON.stringify(wanted, null, 2)}\n`)
}

/** The classes of this host. */
export const classNames = async (): Promise<readonly string[]> =>
  (await readdir(classesRoot(), { withFileTypes: true }).catch(() => []))
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)

const hasFile = (name: string): boolean => existsSync(classPaths(name).file)

/** Of a class whose file somebody has removed, or of one that was removed only in part. */
const hasSeats = (name: string): boolean => existsSync(join(classPaths(name).root, 'seats'))

/** The name of the class that is meant. @throws LabError `no-class`, `which-class` */
const nameOfClass = async (
  named: string | undefined,
  isThere: (name: string) => boolean = hasFile,
): Promise<string> => {
  const names = await classNames()
  const [only] = names
  const name = named ?? (names.length === 1 ? only : undefined)
  if (name === undefined && names.length > 1)
    throw new LabError('which-class', `there are several classes: ${names.join(', ')}`, {
      hint: `--lab ${only ?? ''}`,
      exitCode: exitCodes.usage,
    })
  if (name === undefined || !isThere(name))
    throw new LabError(
      'no-class',
      name === undefined ? 'there is no class here' : `there is no class ${name}`,
      {
        hint: 'lab class up iscsi --count 10',
        exitCode: exitCodes.usage,
      },
    )
  return name
}

/** The class that is meant. @throws LabError `no-class`, `which-class`, `bad-class` */
export const theClass = async (named: string | undefined): Promise<ClassFile> => {
  const name = await nameOfClass(named)
  const found = await readClass(name)
  if (!found) throw new Error(`the class ${name} has just ended`)
  return found
}

/**
 * The class that should end, also if this version cannot read its file, or somebody has removed that: then its seats are
 * those that have folders.
 */
export const classToEnd = async (named: string | undefined): Promise<ClassToEnd> => {
  const lab = await nameOfClass(named, (name) => hasFile(name) || hasSeats(name))
  const found = await readClass(lab).catch((error: unknown) => {
    if (!(error instanceof LabError) || error.code !== 'bad-class') throw error
    return undefined
  })
  if (found) return found
  const ids = await readdir(join(classPaths(lab).root, 'seats')).catch(() => [])
  return { lab, seats: ids.filter((id) => seatId.test(id)).map((id) => ({ id })) }
}

/** Seats 01 to N; those of `before` keep their tokens. */
export const seatsOf = (count: number, before: readonly Seat[] = []): readonly Seat[] =>
  Array.from({ length: count }, (_, index) => {
    const id = String(index + 1).padStart(2, '0')
    return before.find((seat) => seat.id === id) ?? { id, token: newToken() }
  })

export const newSecret = (): string => randomBytes(32).toString('hex')

/** Longer than the token of a seat: it opens all of them. */
export const newTeacher = (): string =>
  `${newToken(6)}-${randomBytes(4).toString('hex').replaceAll(/\d/g, 'x')}`

/** The address on a card, which logs in. */
export const cardUrl = ({ address, port }: ClassFile, token: string): string =>
  `https://${address.includes(':') ? `[${address}]` : address}:${String(port)}/${token}`
