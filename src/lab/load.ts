/** Reads lab files from disk: the shipped ones and those of users. */
import { readFileSync, statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { isAbsolute, join, relative } from 'node:path'
import { exitCodes, LabError, messageOf } from '../error.js'
import { render } from '../render.js'
import { labNameProblem } from './fields.js'
import type { Lab } from './lab.js'
import { LabFileError, parseLab, supported } from './parse.js'
import { shippedFile, shippedFolder, shippedNames } from './shipped.js'
import { didYouMean, shown } from './suggest.js'
import type { Vocabulary } from './vocabulary.js'

/** The largest file that is read, in bytes; a lab file has a few thousand. */
const largestFile = 1024 ** 2

/**
 * The text of a lab file.
 * @throws LabFileError when it cannot be read as one
 */
const readLabFile = async (path: string, named: string): Promise<string> => {
  const fail = (message: string): never => {
    throw new LabFileError(named, [{ field: '', message }], 'lab list shows the labs that come with lab')
  }
  let bytes: Buffer
  try {
    const stat = statSync(path)
    if (stat.isDirectory()) return fail('is a directory; expected a lab file')
    // A pipe or a device may never end.
    if (!stat.isFile()) return fail('is not an ordinary file; expected a lab file')
    if (stat.size > largestFile)
      return fail(`has ${String(stat.size)} bytes; the limit for a lab file is ${String(largestFile)}`)
    bytes = await readFile(path)
  } catch (error) {
    if (error instanceof LabFileError) throw error
    const reasons: Readonly<Record<string, string>> = {
      ENOENT: 'there is no such file',
      ENOTDIR: 'there is no such file',
      EACCES: 'you do not have permission to read it',
      ELOOP: 'its symbolic links form a loop',
    }
    return fail(`cannot be read: ${reasons[(error as NodeJS.ErrnoException).code ?? ''] ?? messageOf(error)}`)
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return fail('is not UTF-8 text')
  }
}

const noSuchLab = (name: string): LabError =>
  new LabError('no-such-lab', `no lab named ${shown(name).slice(1, -1)}${didYouMean(name, shippedNames())}`, {
    hint: 'lab list shows them',
    exitCode: exitCodes.usage,
  })

const isOrdinaryFile = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false

/** A path as people prefer it: relative if it is below the current folder. */
const shortPath = (path: string): string => {
  const short = relative('', path)
  return short.startsWith('..') || isAbsolute(short) ? path : short
}

/** A lab with the text that it was read from. */
export interface LabText {
  readonly lab: Lab
  readonly text: string
}

/**
 * The shipped lab with a name, such as `iscsi-ha`, or the lab of a file.
 * @throws LabFileError, or LabError for an unknown name
 */
export const readLab = async (nameOrPath: string, vocabulary: Vocabulary): Promise<LabText> => {
  const read = async (file: string, named: string): Promise<LabText> => {
    const text = await readLabFile(file, named)
    return { lab: parseLab(text, named, vocabulary), text }
  }
  const looksLikePath = /[/]|\.ya?ml$/i.test(nameOrPath)
  if (!looksLikePath && shippedNames().includes(nameOrPath)) {
    const file = shippedFile(nameOrPath)
    return read(file, shortPath(file))
  }
  if (looksLikePath || isOrdinaryFile(nameOrPath)) return read(nameOrPath, nameOrPath)
  throw noSuchLab(nameOrPath)
}

/**
 * The text of a new lab file.
 * @param from the shipped lab to start from instead of the commented template
 */
export const initLab = (name: string, from?: string): string => {
  const problem = labNameProblem(name)
  if (problem)
    throw new LabError('bad-lab-name', `a lab cannot have this name: ${problem}`, {
      hint: 'lab init my-lab',
      exitCode: exitCodes.usage,
    })
  const schema = join(shippedFolder, 'lab.schema.json')
  if (from === undefined) {
    return render('lab-file.yaml', { name, schema, version: supported().built ?? '1.36.3' })
  }
  if (!shippedNames().includes(from)) throw noSuchLab(from)
  return readFileSync(shippedFile(from), 'utf8')
    .replace(/\$schema=\S+/, () => `$schema=${schema}`)
    .replace(/^name: .*$/m, () => `name: '${name}'`)
    .replace(`lab up ${from}`, () => `lab up ${name}.yaml`)
}
