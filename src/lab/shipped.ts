/**
 * The lab files that come with lab, and their list. Parsing them all takes half a second, so `lab list` reads
 * labs/list.json; a file that has changed since the list was written is parsed.
 */
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Lab, runsOf } from './lab.js'

export const shippedFolder = fileURLToPath(new URL('../../labs', import.meta.url))

export const shippedNames = (): readonly string[] =>
  readdirSync(shippedFolder)
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => file.slice(0, -'.yaml'.length))
    .sort()

export const shippedFile = (name: string): string => join(shippedFolder, `${name}.yaml`)

export interface ShippedLab {
  readonly name: string
  /** Absolute path. */
  readonly file: string
  readonly description: string
  /** The scenarios and experiments that it can run. */
  readonly runs: ReturnType<typeof runsOf>
}

type Listed = Pick<ShippedLab, 'description' | 'runs'> & {
  /** SHA-256 of the lab file, in hexadecimal. */
  readonly digest: string
}

type Parse = (text: string, file: string) => Lab

export const listFile = join(shippedFolder, 'list.json')

/** The list by names of labs; empty if there is none. */
const listed = (): Readonly<Record<string, Listed>> => {
  try {
    return JSON.parse(readFileSync(listFile, 'utf8')) as Record<string, Listed>
  } catch {
    return {}
  }
}

const digestOf = (text: string): string => createHash('sha256').update(text).digest('hex')

/** @param parser loaded only if a lab file differs from the list */
export const shippedLabs = (
  parser: () => Promise<Parse>,
  list: Readonly<Record<string, Listed>> = listed(),
): Promise<readonly ShippedLab[]> =>
  Promise.all(
    shippedNames().map(async (name) => {
      const file = shippedFile(name)
      const text = readFileSync(file, 'utf8')
      const known = list[name]
      if (known?.digest === digestOf(text))
        return { name, file, description: known.description, runs: known.runs }
      const lab = (await parser())(text, file)
      return { name, file, description: lab.description, runs: runsOf(lab) }
    }),
  )

/** The content of `labs/list.json`. */
export const listOf = (parse: Parse): Readonly<Record<string, Listed>> =>
  Object.fromEntries(
    shippedNames().map((name) => {
      const text = readFileSync(shippedFile(name), 'utf8')
      const lab = parse(text, shippedFile(name))
      return [name, { digest: digestOf(text), description: lab.description, runs: runsOf(lab) }]
    }),
  )

/** Writes `labs/list.json`, for `npm run generate`. */
export const writeList = (parse: Parse): void => {
  writeFileSync(listFile, `${JSON.stringify(listOf(parse), null, 2)}\n`)
}
