/**
 * The field types of a lab file. Each has a phrase for the expected value, which `explain.ts` appends to what the
 * author wrote. A problem found by a function of this file is a whole sentence.
 */
import { z } from 'zod'
import { isPrivate, parseAddress, parseSubnet, subnetText } from './address.js'
import { shown } from './suggest.js'
import {
  bytesOf,
  durationOf,
  durationPattern,
  durationProblem,
  percentOf,
  percentPattern,
  sizePattern,
  sizeProblem,
  skewOf,
  skewPattern,
} from './units.js'

export const defaults = {
  subnet: '192.168.56.0/24',
  podSubnet: '10.244.0.0/16',
  serviceSubnet: '10.96.0.0/12',
  dnsDomain: 'cluster.local',
  port: 3260,
  nodePort: 32306,
  deadline: '10min',
} as const

export const lastNodePort = 32767

/** A text field that a function validates. The pattern, if any, is only for editors. */
export const text = (wanted: string, problem: (value: string) => string | undefined, meta: Meta) =>
  z
    .string({ error: wanted })
    .check((context) => {
      const message = problem(context.value)
      if (message) context.issues.push({ code: 'custom', message, input: context.value })
    })
    .meta(meta)

export interface Meta {
  readonly description: string
  readonly pattern?: string
  readonly examples?: string[]
  readonly [key: string]: unknown
}

export const whole = (wanted: string, min: number, max: number, meta: Meta) =>
  z.number({ error: wanted }).int(wanted).min(min, wanted).max(max, wanted).meta(meta)

export const list = <T extends z.ZodType>(item: T, wanted: string) => z.array(item, { error: wanted })

export const mapping = <T extends z.ZodRawShape>(shape: T, wanted: string) =>
  z.strictObject(shape, { error: wanted })

/** A text that stands for a number; a check has let no other text pass. */
const numeric = (field: ReturnType<typeof text>, numberOf: (text: string) => number | undefined) =>
  field.transform((value) => numberOf(value) ?? NaN)

/** Read as milliseconds. */
export const duration = (what: string, description: string) =>
  numeric(
    text(`${what} with its unit, such as 500ms, 10s or 2min`, durationProblem, {
      description: `${description} A whole number of ms, s, min or h.`,
      pattern: durationPattern.source,
      examples: ['10s', '2min'],
    }),
    durationOf,
  )

/** Read as bytes. */
export const size = (what: string, description: string) =>
  numeric(
    text(`${what} with its unit, such as 512MiB or 4GiB`, sizeProblem, {
      description: `${description} A whole number of KiB, MiB, GiB or TiB.`,
      pattern: sizePattern.source,
      examples: ['512MiB', '4GiB'],
    }),
    bytesOf,
  )

/** Read as a number from 1 to 100. */
export const percentage = (description: string) =>
  numeric(
    text(
      'a percentage, such as 30%',
      (value) =>
        percentOf(value) === undefined ? `${shown(value)}: expected a percentage from 1% to 100%` : undefined,
      { description, pattern: percentPattern.source, examples: ['30%'] },
    ),
    percentOf,
  )

/** A duration with a sign, read as milliseconds. */
export const skew = (description: string) =>
  numeric(
    text(
      'a sign and a duration, such as +5min',
      (value) =>
        skewOf(value) === undefined
          ? `${shown(value)}: expected a sign and a whole number of ms, s, min or h, such as +5min`
          : undefined,
      { description, pattern: skewPattern.source, examples: ['+5min'] },
    ),
    skewOf,
  )

/** A sentence about something, on one line. */
export const sentence = (description: string) =>
  text('a sentence', descriptionProblem, { description, maxLength: 400 })
    .transform((value) => value.replace(/\s+/g, ' ').trim())
    .prefault('')

export const labelPattern = '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'

/** A problem with an RFC 1123 label of at most `longest` characters. */
export const labelProblem = (value: string, longest: number): string | undefined => {
  if (!new RegExp(labelPattern).test(value)) {
    return `${shown(value)}: expected lower-case letters, digits and hyphens, with a letter or digit at both ends`
  }
  if (value.length > longest) {
    return `${shown(value)} has ${String(value.length)} characters; the limit is ${String(longest)}`
  }
  return value === 'localhost'
    ? "localhost is every machine's name for itself; choose another name"
    : undefined
}

export const longestLabName = 24

/** What is wrong with a lab name, which becomes a part of interface and file names. */
export const labNameProblem = (value: string): string | undefined => labelProblem(value, longestLabName)

const iqnPattern =
  /^iqn\.\d{4}-(?:0[1-9]|1[0-2])\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*(?::[a-z0-9.:-]+)?$/

/** What is wrong with an iSCSI name (RFC 7143, 4.2.7; allowed characters RFC 3722). */
export const iqnProblem = (value: string): string | undefined => {
  const name = shown(value)
  // A month of 13 or a capital letter is a typing error, for which the general sentence would be no help.
  if (Buffer.byteLength(value) > 223) {
    return `${name} has ${String(Buffer.byteLength(value))} bytes; the limit for an iSCSI name is 223`
  }
  if (/^(iqn|eui|naa)\./i.test(value) && !value.startsWith('eui.') && !value.startsWith('naa.')) {
    if (value !== value.toLowerCase()) return `${name}: write it in lower case, ${shown(value.toLowerCase())}`
    const month = /^iqn\.\d{4}-(\d\d)\./.exec(value)?.[1]
    if (month !== undefined && !(Number(month) >= 1 && Number(month) <= 12)) {
      return `${name}: ${month} is not a month; expected iqn.yyyy-mm with a month from 01 to 12`
    }
    if (iqnPattern.test(value)) return undefined
    const tail = value.includes(':') ? value.slice(value.indexOf(':') + 1) : undefined
    if (tail === '')
      return `${name} ends in a colon; add a name after it, such as ${shown(`${value}target00`)}`
    const odd = /[^a-z0-9.:-]/.exec(value)?.[0]
    if (odd !== undefined) {
      return `${name}: ${shown(odd)} is not allowed in an iSCSI name; expected lower-case letters, digits, ".", "-" and ":"`
    }
  }
  if (/^eui\.[0-9A-Fa-f]{16}$/.test(value) || /^naa\.(?:[0-9A-Fa-f]{16}|[0-9A-Fa-f]{32})$/.test(value))
    return undefined
  if (value.startsWith('eui.')) return `${name}: expected eui. and 16 hexadecimal digits`
  if (value.startsWith('naa.')) return `${name}: expected naa. and 16 or 32 hexadecimal digits`
  return `${name}: expected iqn.yyyy-mm.reversed.domain:name, such as iqn.2016-04.world.srv:target00`
}

export const iqn = (description: string) =>
  text('an iSCSI name, such as iqn.2016-04.world.srv:target00', iqnProblem, {
    description,
    pattern: '^(iqn|eui|naa)\\.',
    examples: ['iqn.2016-04.world.srv:target00'],
  })

/** Characters that would end a line, or that no UTF-8 file can hold. */
const unprintable = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/u

const secretProblem = (value: string): string | undefined => {
  // The value itself stays out of messages, which end up in terminals, logs and bug reports.
  const bytes = Buffer.byteLength(value)
  if (bytes === 0) return 'is empty text; expected 1 to 255 bytes'
  if (bytes > 255) return `has ${String(bytes)} bytes in UTF-8; expected 1 to 255`
  if (unprintable.test(value))
    return 'contains a line break or another control character, which is not allowed in a configuration line'
  return undefined
}

/** What LIO and open-iscsi read unchanged: every case was tried in test/e2e/chap.test.ts. */
export const chapProblem = (value: string): string | undefined =>
  secretProblem(value) ??
  (value.trim() !== value
    ? 'begins or ends with a space; open-iscsi strips it when it reads the value, and the login would then fail'
    : value.startsWith('NULL')
      ? "begins with NULL, which the kernel's target (LIO) reads as no value at all, and the login would then fail"
      : undefined)

/** The name is sent among other keys, and LIO searches for those anywhere in the text. */
export const chapNameProblem = (value: string): string | undefined =>
  chapProblem(value) ??
  (value.includes(';')
    ? 'contains ";", at which the kernel\'s target (LIO) ends a name, and the login would then fail; choose another character'
    : /^0[xb]/i.test(value)
      ? `begins with ${value.slice(0, 2)}, which the kernel's target (LIO) reads as the prefix of an encoded number, and the login would then fail; choose another name`
      : /CHAP_[RIC]/.test(value)
        ? `contains ${/CHAP_[RIC]/.exec(value)?.[0] ?? ''}, a key of the login protocol, which the kernel's target (LIO) would find in the name; choose another name`
        : undefined)

export const chapText = (description: string, problem = chapProblem, meta: object = {}) =>
  text('text of 1 to 255 bytes', problem, { description, minLength: 1, maxLength: 255, ...meta })

/** `writeOnly` is JSON Schema's mark for a password: messages do not quote its value. */
export const passwordText = (description: string) =>
  text('text of 1 to 255 bytes', secretProblem, {
    description,
    minLength: 1,
    maxLength: 255,
    writeOnly: true,
  })

/** An IPv4 address. */
export const ipv4 = (example: string, description: string) =>
  text(
    `an IPv4 address, such as ${example}`,
    (value) =>
      parseAddress(value) === undefined
        ? `${shown(value)}: expected an IPv4 address, such as ${example}`
        : undefined,
    { description, format: 'ipv4' },
  )

/** A subnet in canonical CIDR notation, with a prefix length between the two given, on a private range. */
export const subnet = (wanted: string, shortest: number, longest: number, meta: Meta) =>
  text(
    wanted,
    (value) => {
      const parsed = parseSubnet(value)
      if (!parsed) return `${shown(value)}: expected ${wanted}`
      if (parsed.prefix < shortest || parsed.prefix > longest) {
        return `${value}: expected a prefix length from /${String(shortest)} to /${String(longest)}`
      }
      if (subnetText(parsed) !== value) {
        return `${value} is an address in a subnet; write the subnet itself, ${subnetText(parsed)}`
      }
      if (!isPrivate(parsed)) {
        return `${value} is not a private subnet; expected one in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16`
      }
      return undefined
    },
    meta,
  )

const descriptionProblem = (value: string): string | undefined =>
  value.length > 400
    ? 'has more than 400 characters'
    : unprintable.test(value.replaceAll('\n', ' '))
      ? 'contains a control character'
      : undefined

export const domainProblem = (value: string): string | undefined =>
  value.length <= 253 &&
  value.split('.').every((part) => new RegExp(labelPattern).test(part) && part.length <= 63)
    ? undefined
    : `${shown(value)}: expected a domain in lower case, such as cluster.local`

/** Names that MariaDB keeps for itself. */
export const systemDatabases = new Set(['mysql', 'sys', 'information_schema', 'performance_schema'])

export const identifierProblem = (value: string): string | undefined =>
  /^[A-Za-z_][A-Za-z0-9_]{0,63}$/.test(value)
    ? undefined
    : `${shown(value)}: expected at most 64 letters, digits and underscores, not beginning with a digit`

export const identifierPattern = '^[A-Za-z_][A-Za-z0-9_]{0,63}$'

export const version = text(
  'a version of three numbers, such as 1.36.3',
  (value) =>
    /^v\d/.test(value)
      ? `${shown(value)}: write ${value.slice(1)}, without the v`
      : /^(0|[1-9]\d?)\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/.test(value)
        ? undefined
        : `${shown(value)}: expected a version of three numbers, such as 1.36.3`,
  {
    description: 'Version of Kubernetes, without a leading v.',
    pattern: '^\\d+\\.\\d+\\.\\d+$',
    examples: ['1.36.3'],
  },
)

export const flags = (component: string) =>
  z
    .record(
      z
        .string()
        .regex(
          /^[a-z][a-z0-9-]*$/,
          'not the name of a flag; write it in lower case and without the leading --',
        ),
      z.string({ error: 'text' }).meta({ description: 'Value of the flag.' }),
      { error: 'a mapping of flags to values' },
    )
    .default({})
    .meta({ description: `Extra command line flags of ${component}, written without the leading --.` })
