import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname, isAbsolute, join, relative, resolve } from 'node:path'
import { parse } from 'yaml'
import type { z } from 'zod'
import { exitCodes, LabError, messageOf } from '../error.js'
import { quote } from '../machine/sh.js'
import { projectRoot, render } from '../render.js'
import { pathText, type Path, type Problem } from './draft.js'
import { optionalImages } from './images.js'
import { type DatabaseSpec, type FaultSpec, type Lab, runsOf, type TargetSpec } from './lab.js'
import { crossCheck, initiatorName, type Supported } from './rules.js'
import {
  bytesOf,
  durationOf,
  labNameProblem,
  labSchemaOf,
  shown,
  type CompleteLabFile,
  type WrittenFault,
} from './schema.js'
import { readSource, type Source } from './source.js'
import { didYouMean } from './suggest.js'
import type { Vocabulary } from './vocabulary.js'

export interface LabFileProblem {
  /** Both count from 1; absent when the file as a whole is meant. */
  readonly line?: number | undefined
  readonly column?: number | undefined
  /** Such as `machines[0].cpu`; empty for the file as a whole. */
  readonly field: string
  readonly message: string
  /** The line of a syntax error with a `^` below it. */
  readonly excerpt?: string | undefined
}

const problemText = (file: string, problem: LabFileProblem): string => {
  const place =
    problem.line === undefined ? file : `${file}:${String(problem.line)}:${String(problem.column)}`
  const field = problem.field === '' ? '' : `${problem.field}: `
  return `${place}  ${field}${problem.message}${problem.excerpt === undefined ? '' : `\n${problem.excerpt}`}`
}

/** Everything that is wrong with a lab file, one problem a line, in the order of the file. */
export class LabFileError extends LabError {
  /** The file as its user named it. */
  readonly file: string
  readonly problems: readonly LabFileProblem[]

  constructor(file: string, problems: readonly LabFileProblem[], hint = `lab validate ${quote(file)}`) {
    super('bad-lab-file', problems.map((problem) => problemText(file, problem)).join('\n'), {
      exitCode: exitCodes.usage,
      hint,
    })
    this.name = 'LabFileError'
    this.file = file
    this.problems = problems
  }
}

/** The largest file that is read, in bytes: a lab file has a few thousand. */
const largestFile = 1024 ** 2

/** A file with more problems is another kind of file, and nobody reads on. */
const mostProblems = 200

let known: Supported | undefined

/** What this build can bring up, as `parts/parts.yaml` says; it does not change under a running program. */
export const supported = (): Supported => (known ??= readSupported())

const readSupported = (): Supported => {
  const minors = ['1.35', '1.36', '1.37']
  const file = join(projectRoot, 'parts', 'parts.yaml')
  if (!existsSync(file)) return { built: undefined, minors }
  const parts = parse(readFileSync(file, 'utf8')) as {
    modules?: { kubernetes?: { version?: unknown } }
  } | null
  const built = parts?.modules?.kubernetes?.version
  return {
    built: typeof built === 'string' ? built.replace(/^v/, '') : undefined,
    minors,
    images: optionalImages(),
  }
}

type Issue = z.core.$ZodIssue
type Schema = z.core.$ZodType

const valueAt = (value: unknown, path: Path): unknown =>
  path.reduce<unknown>(
    (owner, part) =>
      typeof owner === 'object' && owner !== null
        ? (owner as Record<string | number, unknown>)[part]
        : undefined,
    value,
  )

/** A schema without its wrappings (optional, default); of several, the one whose mark the value bears. */
const bare = (schema: Schema | undefined, value: unknown): z.core.$ZodTypes | undefined => {
  const type = schema as z.core.$ZodTypes | undefined
  if (type && 'innerType' in type._zod.def) return bare(type._zod.def.innerType, value)
  const mark = type?._zod.def.type === 'union' && (type._zod.def as { discriminator?: string }).discriminator
  if (!type || !mark) return type
  const given = valueAt(value, [mark])
  const options = (type._zod.def as z.core.$ZodUnionDef).options as readonly z.core.$ZodTypes[]
  return options.find((option) => option._zod.propValues?.[mark]?.has(given as z.core.util.Primitive))
}

/** The schema at a path of a file. */
const schemaAt = (whole: Schema, path: Path, file: unknown): Schema | undefined => {
  let schema = bare(whole, file)
  for (const [depth, part] of path.entries()) {
    const def = schema?._zod.def
    const value = valueAt(file, path.slice(0, depth + 1))
    if (def?.type === 'object') schema = bare(def.shape[part], value)
    else if (def?.type === 'array') schema = bare(def.element, value)
    else if (def?.type === 'tuple') schema = bare(def.items[Number(part)], value)
    else if (def?.type === 'record') schema = bare(def.valueType, value)
    else return undefined
  }
  return schema
}

const fieldsAt = (schema: Schema, path: Path, file: unknown): readonly string[] => {
  const def = (schemaAt(schema, path, file) as z.core.$ZodTypes | undefined)?._zod.def
  return def?.type === 'object' ? Object.keys(def.shape) : []
}

const isGood = (schema: Schema, path: Path, file: unknown, text: string): boolean =>
  (schemaAt(schema, path, file) as z.ZodType | undefined)?.safeParse(text).success === true

/** What the author wrote, as a sentence begins with it. */
const seen = (value: unknown, written: string | undefined, textWanted: boolean): string => {
  if (typeof value === 'string') return `${shown(value)}:`
  if (typeof value === 'number' || typeof value === 'boolean') {
    return `${written ?? String(value)}${textWanted ? ` is a ${typeof value === 'number' ? 'number' : 'truth value'};` : ':'}`
  }
  if (Array.isArray(value))
    return value.length === 0 ? 'is an empty list;' : `is a list of ${String(value.length)};`
  return 'is a mapping;'
}

/** What could stand at the mark that says which of several forms a mapping has, such as `fault`. */
const marksOf = (schema: Schema, issue: Issue, file: unknown): readonly string[] => {
  if (issue.code !== 'invalid_union' || !('discriminator' in issue)) return []
  const path = issue.path as Path
  const owner = schemaAt(schema, path.slice(0, -2), file) as z.core.$ZodTypes | undefined
  const union = (owner as z.core.$ZodArray | undefined)?._zod.def.element as z.core.$ZodTypes | undefined
  const options = (union?._zod.def as z.core.$ZodUnionDef | undefined)?.options ?? []
  return options.flatMap((option) => [...(option._zod.propValues?.[String(path.at(-1))] ?? [])].map(String))
}

/** An issue of the schema in words: what was found, what was wanted. */
const explain = (schema: Schema, issue: Issue, file: unknown, source: Source): Problem[] => {
  const path = issue.path as Path
  if (issue.code === 'unrecognized_keys') {
    const fields = fieldsAt(schema, path, file)
    const present = valueAt(file, path) as object
    return issue.keys.map((key) => {
      const free = fields.filter((field) => !(field in present))
      const guess = didYouMean(key, free) || `; wanted one of ${fields.join(', ')}`
      return { path: [...path, key], message: `unknown field${guess}`, atKey: true }
    })
  }
  if (issue.code === 'invalid_key') {
    const message = issue.issues[0]?.message ?? issue.message
    return [{ path, message, atKey: true }]
  }
  if (issue.code === 'custom') return [{ path, message: issue.message }]

  const value = valueAt(file, path)
  const wanted = `wanted ${issue.message}`
  if (value === undefined) return [{ path, message: `missing; ${wanted}` }]
  if (value === null) return [{ path, message: `is empty; ${wanted}` }]
  const secret = (schemaAt(schema, path, file) as z.ZodType | undefined)?.meta()?.writeOnly === true
  const written = source.written(path)
  const textWanted = issue.code === 'invalid_type' && issue.expected === 'string'
  // YAML took digits or true for something else: quotes help, if the text is otherwise good.
  if (textWanted && written !== undefined && isGood(schema, path, file, written)) {
    const kind = typeof value === 'number' ? 'a number' : 'a truth value'
    return [
      {
        path,
        message: secret
          ? `YAML reads it as ${kind}; put it in quotes`
          : `YAML reads ${written} as ${kind}; put it in quotes: '${written}'`,
      },
    ]
  }
  const choices =
    issue.code === 'invalid_value' && issue.values.length > 1
      ? issue.values.map(String)
      : marksOf(schema, issue, file)
  const guess = typeof value === 'string' ? didYouMean(value, choices) : ''
  return [{ path, message: `${seen(value, written, textWanted)} ${wanted}${guess}` }]
}

/** Marks a value as bad: rules that need it stay silent. Keys stay, so that it does not count as missing. */
const blank = (file: unknown, path: Path): void => {
  const owner = valueAt(file, path.slice(0, -1))
  const last = path.at(-1)
  if (typeof owner === 'object' && owner !== null && last !== undefined && last in owner) {
    ;(owner as Record<string | number, unknown>)[last] = undefined
  }
}

/** Whether a value contains itself, which an alias inside its own anchor makes. */
const cyclic = (value: unknown, above: ReadonlySet<unknown> = new Set()): boolean => {
  if (typeof value !== 'object' || value === null) return false
  if (above.has(value)) return true
  const here = new Set(above).add(value)
  return Object.values(value).some((inner) => cyclic(inner, here))
}

const oneLine = (text: string): string => text.replace(/\s+/g, ' ').trim()

/** Only durations look different in the file, and what the fault's own form says. */
const completeFault = ({ faults }: Vocabulary, { for: lasts, ...written }: WrittenFault): FaultSpec => ({
  ...(faults.find(({ name }) => name === written.fault)?.complete(written) ?? {}),
  fault: written.fault,
  ...(lasts === undefined ? {} : { for: durationOf(lasts) ?? 0 }),
})

const completeDatabase = (
  { target: _, lun, storage, ledgerPort, ...database }: NonNullable<CompleteLabFile['database']>,
  target: string,
): DatabaseSpec => ({
  ...database,
  volume: storage === undefined ? { kind: 'lun', target, lun: lun ?? 0 } : { kind: 'claim', class: storage },
  ledgerPort: ledgerPort ?? database.nodePort + 1,
})

/** LIO knows initiators by their names in small letters, and hexadecimal digits may be written in either. */
const canonicalName = (iqn: string): string => (/^(?:eui|naa)\./.test(iqn) ? iqn.toLowerCase() : iqn)

const complete = (file: CompleteLabFile, path: string, vocabulary: Vocabulary): Lab => {
  const targets: TargetSpec[] = (file.iscsi?.targets ?? []).map(({ luns, ...target }) => ({
    ...target,
    luns: luns.map(({ size, ...lun }) => ({ ...lun, size: bytesOf(size) ?? 0 })),
  }))
  const [first] = targets
  const targetOf = (user: { readonly target?: string | undefined }): string => user.target ?? first?.iqn ?? ''
  return {
    name: file.name,
    description: oneLine(file.description),
    file: path,
    provider: file.provider,
    network: file.network,
    machines: file.machines.map(({ iqn, memory, ...machine }) => ({
      ...machine,
      memory: bytesOf(memory) ?? 0,
      ...(first && (machine.role === 'initiator' || machine.role === 'worker')
        ? { iqn: canonicalName(iqn ?? initiatorName(first.iqn, machine.name)) }
        : {}),
    })),
    targets,
    filesystems: file.filesystems.map((filesystem) => ({ ...filesystem, target: targetOf(filesystem) })),
    kubernetes: file.kubernetes,
    database: file.database && completeDatabase(file.database, targetOf(file.database)),
    failover: file.failover,
    fencing: file.fencing,
    images: file.images,
    storage: file.storage,
    manifests: file.manifests === undefined ? undefined : join(dirname(path), file.manifests),
    workloads: file.workloads.map(({ within, ...workload }) => ({
      ...workload,
      within: durationOf(within) ?? 0,
    })),
    experiments: file.experiments.map((name) => ({
      name,
      description: vocabulary.experiments.find((known) => known.name === name)?.description ?? '',
    })),
    scenarios: file.scenarios.map(({ inject, expect, deadline, ...scenario }) => ({
      ...scenario,
      description: oneLine(scenario.description),
      inject: inject.map((fault) => completeFault(vocabulary, fault)),
      expect: Object.fromEntries(
        Object.entries(expect).map(([budget, wanted]) => [budget, durationOf(wanted ?? '')]),
      ),
      deadline: durationOf(deadline) ?? 0,
    })),
  }
}

/**
 * The lab that a text describes, complete and checked.
 * @param file the file it is from, as its user named it: messages say it like that.
 * @throws LabFileError with everything that is wrong.
 */
export const parseLab = (
  text: string,
  file: string,
  vocabulary: Vocabulary,
  versions: Supported = supported(),
): Lab => {
  const schema = labSchemaOf(vocabulary)
  const fail = (problems: readonly LabFileProblem[]): never => {
    throw new LabFileError(file, problems)
  }
  if (text.trim() === '')
    fail([{ field: '', message: 'is empty; lab init NAME writes a file to begin with' }])
  const source = readSource(text)
  if (source.broken) fail([{ field: '', ...source.broken }])

  let value: unknown
  try {
    value = source.value()
  } catch (error) {
    // The parser's only complaint by now, and it has no position.
    if (!(error instanceof ReferenceError)) throw error
    fail([
      {
        field: '',
        message: 'its aliases (*name) multiply into far too many values; write the values themselves',
      },
    ])
  }
  if (cyclic(value))
    fail([
      { field: '', message: 'an alias (*name) stands inside its own anchor (&name); write the value itself' },
    ])
  if (value === null || value === undefined) {
    fail([{ field: '', message: 'holds only comments; lab init NAME writes a file to begin with' }])
  }

  const parsed = schema.safeParse(value)
  const issues = parsed.error?.issues ?? []
  const problems = issues.flatMap((issue) => explain(schema, issue, value, source))
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    // Explained first: blanking takes away what the explanations quote.
    for (const issue of issues) if (issue.code !== 'unrecognized_keys') blank(value, issue.path as Path)
    problems.push(...crossCheck(value, versions, vocabulary))
  }
  if (!parsed.success || problems.length + source.problems.length > 0) {
    const placed = [
      ...source.problems.map((problem) => ({ field: '', ...problem })),
      ...problems.slice(0, mostProblems).map(({ path, message, atKey }) => ({
        ...source.place(path, atKey),
        field: pathText(path),
        message,
      })),
    ]
    const inOrder = placed.sort((a, b) => a.line - b.line || a.column - b.column).slice(0, mostProblems)
    const hidden = problems.length + source.problems.length - inOrder.length
    const more = hidden > 0 ? [{ field: '', message: `and ${String(hidden)} more problems` }] : []
    return fail([...inOrder, ...more])
  }
  return complete(parsed.data, resolve(file), vocabulary)
}

/** A lab file's text. @throws LabFileError when it cannot be read as one. */
const readLabFile = async (path: string, named: string): Promise<string> => {
  const fail = (message: string): never => {
    throw new LabFileError(named, [{ field: '', message }], 'lab list shows the labs that come with lab')
  }
  let bytes: Buffer
  try {
    const stat = statSync(path)
    if (stat.isDirectory()) return fail('is a directory; wanted a lab file')
    // A pipe or a device may never end.
    if (!stat.isFile()) return fail('is not an ordinary file; wanted a lab file')
    if (stat.size > largestFile)
      return fail(`has ${String(stat.size)} bytes; a lab file has at most ${String(largestFile)}`)
    bytes = await readFile(path)
  } catch (error) {
    if (error instanceof LabFileError) throw error
    const reasons: Readonly<Record<string, string>> = {
      ENOENT: 'there is no such file',
      ENOTDIR: 'there is no such file',
      EACCES: 'you may not read it',
      ELOOP: 'its symbolic links go round in a circle',
    }
    return fail(`cannot be read: ${reasons[(error as NodeJS.ErrnoException).code ?? ''] ?? messageOf(error)}`)
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return fail('is not UTF-8 text')
  }
}

const shippedFolder = join(projectRoot, 'labs')

const shippedNames = (): readonly string[] =>
  readdirSync(shippedFolder)
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => file.slice(0, -'.yaml'.length))
    .sort()

const shippedFile = (name: string): string => join(shippedFolder, `${name}.yaml`)

export interface ShippedLab {
  readonly name: string
  /** Absolute path. */
  readonly file: string
  readonly description: string
  /** What can be run on it. */
  readonly runs: ReturnType<typeof runsOf>
}

/** The labs that come with this program. */
export const shippedLabs = (vocabulary: Vocabulary): readonly ShippedLab[] =>
  shippedNames().map((name) => {
    const file = shippedFile(name)
    const lab = parseLab(readFileSync(file, 'utf8'), file, vocabulary)
    return { name, file, description: lab.description, runs: runsOf(lab) }
  })

const noSuchLab = (name: string): LabError =>
  new LabError('no-such-lab', `no lab named ${shown(name).slice(1, -1)}${didYouMean(name, shippedNames())}`, {
    hint: 'lab list shows them',
    exitCode: exitCodes.usage,
  })

const isOrdinaryFile = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false

/** A path as it is best shown: from the current folder when it is in there. */
const shortPath = (path: string): string => {
  const short = relative('', path)
  return short.startsWith('..') || isAbsolute(short) ? path : short
}

/**
 * The lab of a name that comes with this program, such as `iscsi-ha`, or of a file.
 * @throws LabFileError, or LabError for an unknown name.
 */
export const loadLab = async (nameOrPath: string, vocabulary: Vocabulary): Promise<Lab> => {
  const looksLikePath = /[/]|\.ya?ml$/i.test(nameOrPath)
  if (!looksLikePath && shippedNames().includes(nameOrPath)) {
    const file = shippedFile(nameOrPath)
    return parseLab(await readLabFile(file, shortPath(file)), shortPath(file), vocabulary)
  }
  if (looksLikePath || isOrdinaryFile(nameOrPath)) {
    return parseLab(await readLabFile(nameOrPath, nameOrPath), nameOrPath, vocabulary)
  }
  throw noSuchLab(nameOrPath)
}

/**
 * The text of a new lab file.
 * @param from a lab that comes with this program, to begin with instead of the commented template.
 */
export const initLab = (name: string, from?: string): string => {
  const problem = labNameProblem(name)
  if (problem)
    throw new LabError('bad-lab-name', `a lab cannot have this name: ${problem}`, {
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
