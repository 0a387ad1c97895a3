#!/usr/bin/env node
/** `docs/lab-file-reference.md` from the schema of lab files; `npm run generate` runs it. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const code = (value) => `\`${typeof value === 'string' ? value : JSON.stringify(value)}\``
const cell = (text) => text.replaceAll('|', '\\|').replaceAll('\n', ' ')

/** Describes a value in a few words. */
const form = (schema) => {
  if (schema.const !== undefined) return code(schema.const)
  if (schema.enum) return schema.enum.map(code).join(', ')
  const several = schema.oneOf ?? schema.anyOf
  if (several) return [...new Set(several.map(form))].join(' or ')
  if (schema.type === 'array') return `list of ${schema.items ? form(schema.items) : 'anything'}`
  if (schema.type === 'object') return 'mapping'
  if (schema.type === 'string') return 'text'
  if (schema.type === 'integer' || schema.type === 'number') {
    const { minimum, maximum } = schema
    return minimum !== undefined && maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER
      ? `number from ${String(minimum)} to ${String(maximum)}`
      : 'number'
  }
  return schema.type ?? 'anything'
}

/** The mappings that a field contains: itself, the items of its list, or its alternatives. */
const parts = (schema) => {
  if (schema.properties) return [schema]
  if (schema.items) return parts(schema.items)
  return (schema.oneOf ?? schema.anyOf ?? []).flatMap(parts)
}

const table = ({ properties, required = [] }) => [
  '| field | value | default | meaning |',
  '|---|---|---|---|',
  ...Object.entries(properties).map(([name, schema]) => {
    const standard =
      schema.default === undefined || (schema.default === '' && schema.type === 'string')
        ? required.includes(name)
          ? 'required'
          : '–'
        : code(schema.default)
    const example = schema.examples ? ` For example ${schema.examples.map(code).join(', ')}.` : ''
    return `| ${code(name)} | ${cell(form(schema))} | ${cell(standard)} | ${cell(`${schema.description ?? ''}${example}`.trim())} |`
  }),
  '',
]

/** A chapter for each mapping, with the path that leads to it. */
const chapters = (path, schema) =>
  Object.entries(schema.properties).flatMap(([name, field]) =>
    parts(field).flatMap((part, _, all) => {
      const kind = Object.values(part.properties).find((each) => each.const !== undefined)?.const
      const title = `${path}${name}${field.type === 'array' ? '[]' : ''}`
      return [
        `## ${title}${all.length > 1 && kind !== undefined ? `: ${String(kind)}` : ''}`,
        '',
        ...(part.description ? [part.description, ''] : field.description ? [field.description, ''] : []),
        ...table(part),
        ...chapters(`${title}.`, part),
      ]
    }),
  )

/** @param schema the JSON Schema of lab files @returns Markdown */
export const reference = (schema) =>
  [
    '# Lab file reference',
    '',
    '<!-- Generated from the schema by `npm run generate`. -->',
    '',
    'Every field of a lab file. [Lab files](lab-files.md) has an example.',
    '',
    ...table(schema),
    ...chapters('', schema),
  ]
    .join('\n')
    .trimEnd()
    .concat('\n')

const here = import.meta.dirname
if (process.argv[1] === fileURLToPath(import.meta.url))
  writeFileSync(
    join(here, 'lab-file-reference.md'),
    reference(JSON.parse(readFileSync(join(here, '..', 'labs', 'lab.schema.json'), 'utf8'))),
  )
