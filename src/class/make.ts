/** Makes and removes a class. The seats themselves are the work of the process that keeps it. */
import { chmod, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { forEachAtOnce } from '../concurrent.js'
import { exitCodes, LabError } from '../error.js'
import { imagesOf } from '../lab/images.js'
import type { Lab } from '../lab/lab.js'
import { holderOf } from '../lock.js'
import { forgetUse, neededParts, noteUse } from '../parts/parts.js'
import { writePrivate } from '../state.js'
import { cardsPage } from './cards.js'
import { certificateFor, fingerprintOf } from './certificate.js'
import { projectRoot } from '../package.js'
import { type ClassFile, classPaths, type ClassToEnd, writeClass } from './class.js'
import { endGateway, refuseTaken, reloadGateway } from './gateway-process.js'
import { whyNoLoop } from './home-disk.js'
import { mostDisk, mostMemory } from './needs.js'
import { readRoster } from './roster.js'
import { refuseTooMany } from './room.js'
import { leftOfSeat, removeSeat } from './seat.js'
import { smallLab } from './smaller-lab.js'

/** Seats that are removed at the same time. */
const removedAtOnce = 4

/** @throws LabError `own-lab-file`: seats can read only the lab files that come with lab */
export const refuseOwnFile = (name: string, { file }: Lab): void => {
  if (file.startsWith(join(projectRoot, 'labs'))) return
  throw new LabError('own-lab-file', `${name}: a class needs a shipped lab`, {
    hint: `lab list shows them; or put the file next to them: ${join(projectRoot, 'labs')}`,
    exitCode: exitCodes.usage,
  })
}

/** A file of each part that the seats need: that is how the use of a part is recorded. */
const filesOfParts = (lab: Lab): readonly string[] =>
  neededParts({ images: imagesOf(lab) }).map(({ path }) => join(path, 'x'))

/** The lab of a seat, and the text of its file if that is not the shipped one. */
export const labOfSize = async (
  full: Lab,
  size: ClassFile['size'],
  parse: (text: string, file: string) => Lab,
): Promise<{ readonly lab: Lab; readonly text?: string }> => {
  if (size === 'full') return { lab: full }
  const text = smallLab(await readFile(full.file, 'utf8'))
  return { lab: parse(text, full.file), text }
}

/** Writes the page with the cards of all seats whose gateway is known. */
export const writeCards = async (wanted: ClassFile): Promise<void> => {
  const { fingerprint } = await certificateFor(wanted.lab, wanted.address)
  const others = ((await readRoster(wanted.lab))?.elsewhere ?? []).flatMap(({ class: part, certificate }) =>
    certificate === undefined ? [] : { class: part, fingerprint: fingerprintOf(certificate) },
  )
  const page = cardsPage(wanted, [{ class: wanted, fingerprint }, ...others])
  await writePrivate(classPaths(wanted.lab).cards, page)
}

/** How a class is made, beyond what its file says. */
export interface Making {
  /** Reads the text of a lab file that is at the place of the shipped one. */
  readonly parse: (text: string, file: string) => Lab
  /** Builds or takes the parts that the seats need. */
  readonly prepare: () => Promise<void>
  readonly notice: (text: string) => void
  readonly signal: AbortSignal
}

/**
 * Writes the desired state of a class, and makes sure that the process which keeps it is running.
 * The caller holds the lock of the class.
 * @param full the shipped lab
 * @throws LabError before anything is made: `cannot-listen`, `no-room`, or an error of the preparation
 */
export const makeClass = async (
  full: Lab,
  wanted: ClassFile,
  { parse, prepare, notice, signal }: Making,
): Promise<void> => {
  const paths = classPaths(wanted.lab)
  if (!(await holderOf(paths.gatewayLock))) await refuseTaken(wanted)
  const { lab, text: small } = await labOfSize(full, wanted.size, parse)
  await refuseTooMany(lab, wanted, notice)
  await prepare()
  // Everything that can fail early has succeeded: only now is anything made.
  const noLoop = await whyNoLoop()
  if (noLoop !== undefined) notice(`nothing limits the disk space of a seat, because of ${noLoop}`)
  const limits = { seatMemory: mostMemory(lab), ...(noLoop === undefined ? { seatDisk: mostDisk(lab) } : {}) }
  await writeClass({ ...wanted, ...limits })
  if (small !== undefined) {
    await writePrivate(paths.labFile, small)
    // Seats read it, but it is in a folder that they cannot open.
    await chmod(paths.labFile, 0o644)
  }
  // Seats cannot write to the cache, so their use of parts is recorded here.
  await noteUse(paths.root, filesOfParts(full))
  await writeCards(wanted)
  await reloadGateway(wanted, signal)
}

/**
 * Ends the process that keeps the class, and removes every seat. The caller holds the lock of the class.
 * @throws LabError `left-over` with everything that still exists
 */
export const removeSeats = async (wanted: ClassToEnd): Promise<void> => {
  await endGateway(wanted)
  await forEachAtOnce(wanted.seats, removedAtOnce, ({ id }) => removeSeat({ class: wanted, id }))
  const found = (await Promise.all(wanted.seats.map(({ id }) => leftOfSeat({ class: wanted, id })))).flat()
  const holder = await holderOf(classPaths(wanted.lab).gatewayLock)
  if (holder) found.push(`the gateway, process ${String(holder.pid)}`)
  if (found.length > 0)
    throw new LabError(
      'left-over',
      [`${String(wanted.seats.length)} seats; this is left:`, ...found.map((what) => `  ${what}`)].join('\n'),
      { hint: `lab class down --lab ${wanted.lab}` },
    )
}

/** Removes the files of a class without seats. No machine of it needs its parts any more. */
export const removeClass = async (lab: Lab): Promise<void> => {
  const { root } = classPaths(lab.name)
  await forgetUse(root, filesOfParts(lab))
  await rm(root, { recursive: true, force: true })
}
