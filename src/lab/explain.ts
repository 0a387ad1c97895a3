/** Explains what the schema found wrong with a lab file. */
import type { z } from 'zod'
import type { Path, Problem } from './draft.js'
import type { Source } from './source.js'
import { didYouMean, shown } from './suggest.js'

type Issue = z.core.$ZodIssue
type Schema = z.core.$ZodType

export const valueAt = (value: unknown, path: Path): unknown =>
  path.reduce<unknown>(
    (owner, part) =>
      typeof owner === 'object' && owner !== null
        ? (owner as Record<string | number, unknown>)[part]
        : undefined,
    value,
  )

/** A schema without its optional and default wrappers and conversions; for a union, the member that the value selects. */
const bare = (schema: Schema | undefined, value: unknown): z.core.$ZodTypes | undefined => {
  const type = schema as z.core.$ZodTypes | undefined
  if (type && 'innerType' in type._zod.def) return bare(type._zod.def.innerType, value)
  if (type?._zod.def.type === 'pipe') return bare(type._zod.def.in, value)
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

/** What the author wrote, as the beginning of a sentence. */
const seen = (value: unknown, written: string | undefined, textExpected: boolean): string => {
  if (typeof value === 'string') return `${shown(value)}:`
  if (typeof value === 'number' || typeof value === 'boolean') {
    return `${written ?? String(value)}${textExpected ? ` is a ${typeof value === 'number' ? 'number' : 'truth value'};` : ':'}`
  }
  if (Array.isArray(value))
    return value.length === 0 ? 'is an empty list;' : `is a list of ${String(value.length)};`
  return 'is a mapping;'
}

/** The allowed values of a discriminator such as `fault`. */
const marksOf = (schema: Schema, issue: Issue, file: unknown): readonly string[] => {
  if (issue.code !== 'invalid_union' || !('discriminator' in issue)) return []
  const path = issue.path as Path
  const owner = schemaAt(schema, path.slice(0, -2), file) as z.core.$ZodTypes | undefined
  const union = (owner as z.core.$ZodArray | undefined)?._zod.def.element as z.core.$ZodTypes | undefined
  const options = (union?._zod.def as z.core.$ZodUnionDef | undefined)?.options ?? []
  return options.flatMap((option) => [...(option._zod.propValues?.[String(path.at(-1))] ?? [])].map(String))
}

/** Explains an issue of the schema: what was found and what is expected. */
export const explain = (schema: Schema, issue: Issue, file: unknown, source: Source): Problem[] => {
  const path = issue.path as Path
  if (issue.code === 'unrecognized_keys') {
    const fields = fieldsAt(schema, path, file)
    const present = valueAt(file, path) as object
    return issue.keys.map((key) => {
      const free = fields.filter((field) => !(field in present))
      const guess = didYouMean(key, free) || `; expected one of ${fields.join(', ')}`
      return { path: [...path, key], message: `unknown field${guess}`, atKey: true }
    })
  }
  if (issue.code === 'invalid_key') {
    const message = issue.issues[0]?.message ?? issue.message
    return [{ path, message, atKey: true }]
  }
  if (issue.code === 'custom') return [{ path, message: issue.message }]

  const value = valueAt(file, path)
  const wanted = `expected ${issue.message}`
  if (value === undefined) return [{ path, message: `missing; ${wanted}` }]
  if (value === null) return [{ path, message: `is empty; ${wanted}` }]
  const secret = (schemaAt(schema, path, file) as z.ZodType | undefined)?.meta()?.writeOnly === true
  const written = source.written(path)
  const textExpected = issue.code === 'invalid_type' && issue.expected === 'string'
  // YAML read digits or `true` as another type: quotes help if the text is otherwise valid.
  if (textExpected && written !== undefined && isGood(schema, path, file, written)) {
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
  return [{ path, message: `${seen(value, written, textExpected)} ${wanted}${guess}` }]
}
