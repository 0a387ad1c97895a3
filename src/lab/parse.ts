/** Parses the text of a lab file into a lab, or into a list of everything that is wrong with it. */
import { dirname, join, resolve } from 'node:path'
import { exitCodes, LabError } from '../error.js'
import { quote } from '../machine/sh.js'
import type { Supported } from './cluster-rules.js'
import { pathText, type Path } from './draft.js'
import { optionalImages, parts } from './images.js'
import { initiatorName } from './iscsi-rules.js'
import { defaultQuorum } from './pair-rules.js'
import type { DatabaseSpec, Lab, TargetSpec } from './lab.js'
import { explain, valueAt } from './explain.js'
import { crossCheck } from './rules.js'
import { labSchemaOf, type CompleteLabFile } from './schema.js'
import { readSource } from './source.js'
import { freeAddress } from './subnets.js'
import type { Vocabulary } from './vocabulary.js'

export interface LabFileProblem {
  /** Both count from 1; absent for a problem with the file as a whole. */
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

/** Everything that is wrong with a lab file, one problem per line, in the order of the file. */
export class LabFileError extends LabError {
  /** The file as the user named it. */
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

/** A file with more problems is probably not a lab file, and such a list would not be read. */
const mostProblems = 200

let known: Supported | undefined

/** What this build supports according to `parts/parts.yaml`, which does not change while the program runs. */
export const supported = (): Supported => (known ??= readSupported())

const readSupported = (): Supported => {
  const minors = ['1.35', '1.36', '1.37']
  const pinned = parts()
  if (!pinned) return { built: undefined, minors }
  const built = pinned.modules?.kubernetes?.version
  return {
    built: typeof built === 'string' ? built.replace(/^v/, '') : undefined,
    minors,
    images: optionalImages(),
  }
}

/**
 * Marks a value as invalid, so that rules that need it are skipped. The key stays, so that the value does not count
 * as missing.
 */
const blank = (file: unknown, path: Path): void => {
  const owner = valueAt(file, path.slice(0, -1))
  const last = path.at(-1)
  if (typeof owner === 'object' && owner !== null && last !== undefined && last in owner) {
    ;(owner as Record<string | number, unknown>)[last] = undefined
  }
}

/** Whether a value contains itself, as with an alias inside its own anchor. */
const cyclic = (value: unknown, above: ReadonlySet<unknown> = new Set()): boolean => {
  if (typeof value !== 'object' || value === null) return false
  if (above.has(value)) return true
  const here = new Set(above).add(value)
  return Object.values(value).some((inner) => cyclic(inner, here))
}

const completeDatabase = (
  { target: _, lun, storage, ledgerPort, ...database }: NonNullable<CompleteLabFile['database']>,
  target: string,
): DatabaseSpec => ({
  ...database,
  volume: storage === undefined ? { kind: 'lun', target, lun: lun ?? 0 } : { kind: 'claim', class: storage },
  ledgerPort: ledgerPort ?? database.nodePort + 1,
})

/** LIO knows initiators by lower-case names, and hexadecimal digits may be written in either case. */
const canonicalName = (iqn: string): string => (/^(?:eui|naa)\./.test(iqn) ? iqn.toLowerCase() : iqn)

/** The endpoint of the lab file, or else, with several control planes, an address that no machine has. */
const endpointOf = ({
  kubernetes,
  machines,
  network,
  iscsi,
}: Pick<CompleteLabFile, 'kubernetes' | 'machines' | 'network' | 'iscsi'>): {
  readonly endpoint?: string
} => {
  if (kubernetes?.endpoint !== undefined) return { endpoint: kubernetes.endpoint }
  const endpoint = freeAddress(network.subnet, [
    ...machines.map(({ address }) => address),
    ...(iscsi?.targets ?? []).flatMap(({ address }) => address ?? []),
  ])
  const several = machines.filter(({ role }) => role === 'control-plane').length > 1
  return several && endpoint !== undefined ? { endpoint } : {}
}

/** Fills in fields that depend on other parts of the file. */
const complete = ({ apiVersion: _, iscsi, ...file }: CompleteLabFile, path: string): Lab => {
  const targets: TargetSpec[] = (iscsi?.targets ?? []).map(
    ({ machine, machines, address, quorum, ...target }) => ({
      // The rules have made sure that one of them is set.
      machine: machines?.[0] ?? machine ?? '',
      ...(machines && {
        pair: {
          machines,
          address: address ?? '',
          quorum: quorum ?? defaultQuorum(file.machines, machines) ?? '',
        },
      }),
      ...target,
    }),
  )
  const [first] = targets
  const targetOf = (user: { readonly target?: string | undefined }): string => user.target ?? first?.iqn ?? ''
  return {
    ...file,
    file: path,
    machines: file.machines.map(({ iqn, ...machine }) => ({
      ...machine,
      ...(first && (machine.role === 'initiator' || machine.role === 'worker')
        ? { iqn: canonicalName(iqn ?? initiatorName(first.iqn, machine.name)) }
        : {}),
    })),
    targets,
    filesystems: file.filesystems.map((filesystem) => ({ ...filesystem, target: targetOf(filesystem) })),
    kubernetes: file.kubernetes && { ...file.kubernetes, ...endpointOf({ ...file, iscsi }) },
    database: file.database && completeDatabase(file.database, targetOf(file.database)),
    manifests: file.manifests === undefined ? undefined : join(dirname(path), file.manifests),
  }
}

/**
 * The lab that a text describes, complete and validated.
 * @param file the file's name as the user gave it, for messages
 * @throws LabFileError with everything that is wrong
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
    fail([{ field: '', message: 'is empty; lab init NAME writes a file to start from' }])
  const source = readSource(text)
  if (source.broken) fail([{ field: '', ...source.broken }])

  let value: unknown
  try {
    value = source.value()
  } catch (error) {
    // The only error that the parser can still throw, and it has no position.
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
      { field: '', message: 'an alias (*name) is inside its own anchor (&name); write the value itself' },
    ])
  if (value === null || value === undefined) {
    fail([{ field: '', message: 'contains only comments; lab init NAME writes a file to start from' }])
  }

  const parsed = schema.safeParse(value)
  const issues = parsed.error?.issues ?? []
  const problems = issues.flatMap((issue) => explain(schema, issue, value, source))
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    // Explained first, since blanking removes what the explanations quote.
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
  return complete(parsed.data, resolve(file))
}
