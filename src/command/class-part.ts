/**
 * What a host does for a class that was made on another host. `lab class up` runs these verbs there over SSH, so their
 * output is JSON.
 */
import { dirname } from 'node:path'
import { text } from 'node:stream/consumers'
import { Option } from 'commander'
import { certificateFor } from '../class/certificate.js'
import { type ClassFile, classFile, classPaths, readClass } from '../class/class.js'
import { joinedAnswer, placeHere, roomAnswer } from '../class/elsewhere.js'
import { labOfSize, makeClass, refuseOwnFile, removeClass, removeSeats } from '../class/make.js'
import { spareSeats } from '../class/room.js'
import { needRoot } from '../class/seat.js'
import { line, type Io, type Options, type Verb, type VerbLine, withSource } from '../command-line/verb.js'
import { exitCodes, type ExitCode, LabError } from '../error.js'
import { loadLab } from '../lifecycle/load-lab.js'
import { prepareParts } from '../lifecycle/parts.js'
import { takeLock } from '../lock.js'
import { chooseProvider } from '../provider/load.js'
import { parseLab } from '../registry.js'
import { makeFolder } from '../trust.js'

/**
 * A class here that was not made by the one who asks is left alone.
 * @param secret of the part of the class here; empty if there is none yet
 */
const ownClass = async (lab: string, secret: string): Promise<ClassFile | undefined> => {
  const present = await readClass(lab)
  if (present && present.secret !== secret)
    throw new LabError('class-there', `there is a class ${lab} here that does not belong to that one`, {
      hint: `lab class down --lab ${lab}, or another host`,
      exitCode: exitCodes.host,
    })
  return present
}

/** How many more seats fit here, which version of lab this is, and which host. */
const room = async (
  name: string,
  { size }: { readonly size: ClassFile['size'] },
  io: Io,
): Promise<ExitCode> => {
  needRoot()
  const full = await loadLab(name)
  refuseOwnFile(name, full)
  const { lab } = await labOfSize(full, size, parseLab)
  const present = await ownClass(full.name, (await text(io.stdin)).trim())
  io.stdout.write(roomAnswer(await spareSeats(lab, present), await placeHere(full.name)))
  return exitCodes.ok
}

const locked = async <T>(lab: string, command: string, io: Io, act: () => Promise<T>): Promise<T> => {
  const { lock } = classPaths(lab)
  await makeFolder(dirname(lock), 0o755)
  const wait = (): void => undefined
  const release = await takeLock(lock, { command, purpose: 'change', wait, signal: io.signal })
  try {
    return await act()
  } finally {
    await release()
  }
}

const partIn = (given: string): ClassFile => {
  try {
    return classFile.parse(JSON.parse(given))
  } catch (error) {
    throw new LabError('bad-class', 'the class on standard input was not written by this version of lab', {
      hint: 'lab class up LAB --count N --hosts FILE, on the first host of the class, writes it',
      exitCode: exitCodes.usage,
      cause: error,
    })
  }
}

/** Makes the part of a class that standard input describes, or changes it to that. */
const join = async (options: Options, io: Io): Promise<ExitCode> => {
  needRoot()
  const part = partIn(await text(io.stdin))
  // First the lock: the one who asks may be interrupted, and ask for the end next, which must come second.
  await locked(part.lab, `lab class join ${part.lab}`, io, async () => {
    await ownClass(part.lab, part.secret)
    const lab = await loadLab(part.from)
    refuseOwnFile(part.from, lab)
    const provider = await chooseProvider('uml', lab, io.signal)
    const notice = (note: string): void => void io.stderr.write(`${note}\n`)
    const preparation = { signal: io.signal, notice, progress: () => undefined }
    const prepare = (): Promise<void> => prepareParts(lab, provider, options, preparation)
    await makeClass(lab, part, { parse: parseLab, prepare, notice, signal: io.signal })
  })
  io.stdout.write(joinedAnswer((await certificateFor(part.lab, part.address)).cert))
  return exitCodes.ok
}

/** Ends the part of the class here, if there is one. Its secret is on standard input. */
const leave = async ({ lab }: { readonly lab: string }, io: Io): Promise<ExitCode> => {
  needRoot()
  const secret = (await text(io.stdin)).trim()
  await locked(lab, `lab class leave ${lab}`, io, async () => {
    const present = await readClass(lab)
    if (present?.secret !== secret) return
    await removeSeats(present)
    await removeClass(await loadLab(lab))
  })
  return exitCodes.ok
}

const hidden = (usage: string, verb: Verb): VerbLine => line(usage, '', () => Promise.resolve({ verb }))

export const verbs: readonly VerbLine[] = [
  hidden('room [options] <lab>', {
    options: [new Option('--size <size>').choices(['full', 'small']).default('full')],
    run: room,
  }),
  hidden('join [options]', { options: withSource, run: join }),
  hidden('leave [options]', { options: [new Option('--lab <lab>').makeOptionMandatory()], run: leave }),
]
