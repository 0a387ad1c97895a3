import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { providerNames } from '../providers.js'
import { readyChecks } from '../ready/list.js'
import { projectRoot } from '../render.js'
import { isPrivate, parseAddress, parseSubnet, subnetText } from './address.js'
import { anyOf } from './suggest.js'

/**
 * The fields of a lab file, one by one; rules that need two of them are in `rules.ts`.
 *
 * Every field carries a phrase that says what is wanted, which `load.ts` puts behind what it found. A problem
 * found by a function here is a whole sentence. Nothing is transformed, so that the rules and the JSON
 * Schema speak of the file as its author wrote it.
 */

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

/** A text field whose form a function judges. The pattern, if any, is only for editors. */
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

const whole = (wanted: string, min: number, max: number, meta: Meta) =>
  z.number({ error: wanted }).int(wanted).min(min, wanted).max(max, wanted).meta(meta)

export const list = <T extends z.ZodType>(item: T, wanted: string) => z.array(item, { error: wanted })

const mapping = <T extends z.ZodRawShape>(shape: T, wanted: string) =>
  z.strictObject(shape, { error: wanted })

/** How a value looks inside a message: quoted, on one line, and never long. */
export const shown = (value: string): string => {
  const quoted = JSON.stringify(value).replace(
    /[\u007f-\u009f\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
  return quoted.length > 62 ? `${quoted.slice(0, 60)}…"` : quoted
}

const binary = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4 } as const

const sizePattern = /^([1-9]\d{0,8})(KiB|MiB|GiB|TiB)$/

/** Bytes of `512MiB`; undefined for text of any other form. */
export const bytesOf = (size: string): number | undefined => {
  const [, count, unit] = sizePattern.exec(size) ?? []
  return count && unit ? Number(count) * binary[unit as keyof typeof binary] : undefined
}

/** 1610612736 to `1536MiB`: the largest unit that leaves a whole number. */
export const sizeText = (bytes: number): string => {
  const unit = (['TiB', 'GiB', 'MiB'] as const).find((candidate) => bytes % binary[candidate] === 0) ?? 'KiB'
  return `${String(Math.ceil(bytes / binary[unit]))}${unit}`
}

const sizeProblem = (value: string): string | undefined => {
  if (bytesOf(value) !== undefined) return undefined
  const [, count = '', letter = ''] = /^\s*(\d{1,6}(?:\.\d{1,3})?)\s*([kmgt]?)i?b?\s*$/i.exec(value) ?? []
  const unit = `${(letter || 'm').toUpperCase()}iB` as keyof typeof binary
  // A fraction is written in the next smaller unit: 1.5GiB is 1536MiB.
  const bytes = Math.round(Number(count) * binary[unit])
  return bytes > 0
    ? `${shown(value)}: write ${sizeText(bytes)} (units are KiB, MiB, GiB and TiB)`
    : `${shown(value)}: wanted a size in KiB, MiB, GiB or TiB, such as 512MiB`
}

const milliseconds = { ms: 1, s: 1000, min: 60_000, h: 3_600_000 } as const

const durationPattern = /^([1-9]\d{0,6})(ms|s|min|h)$/

/** Milliseconds of `10s`; undefined for text of any other form. */
export const durationOf = (duration: string): number | undefined => {
  const [, count, unit] = durationPattern.exec(duration) ?? []
  return count && unit ? Number(count) * milliseconds[unit as keyof typeof milliseconds] : undefined
}

/** 90000 to `90s`: the largest unit that leaves a whole number. */
export const durationText = (ms: number): string => {
  const unit = (['h', 'min', 's'] as const).find((candidate) => ms % milliseconds[candidate] === 0) ?? 'ms'
  return `${String(Math.ceil(ms / milliseconds[unit]))}${unit}`
}

const durationProblem = (value: string): string | undefined =>
  durationOf(value) === undefined
    ? `${shown(value)}: wanted a whole number of ms, s, min or h, such as 10s`
    : undefined

export const duration = (what: string, description: string) =>
  text(`${what} with its unit, such as 500ms, 10s or 2min`, durationProblem, {
    description: `${description} A whole number of ms, s, min or h.`,
    pattern: durationPattern.source,
    examples: ['10s', '2min'],
  })

export const skewPattern = /^([+-])([1-9]\d{0,6}(?:ms|s|min|h))$/

/** Milliseconds of `-5min`, positive where the clock goes ahead; undefined for text of any other form. */
export const skewOf = (skew: string): number | undefined => {
  const [, sign, size = ''] = skewPattern.exec(skew) ?? []
  const ms = durationOf(size)
  return ms === undefined ? undefined : sign === '-' ? -ms : ms
}

export const percentPattern = /^([1-9]\d?|100)%$/

/** 30 of `30%`; undefined for text of any other form. */
export const percentOf = (percent: string): number | undefined => {
  const [, number] = percentPattern.exec(percent) ?? []
  return number === undefined ? undefined : Number(number)
}

const size = (what: string, description: string) =>
  text(`${what} with its unit, such as 512MiB or 4GiB`, sizeProblem, {
    description: `${description} A whole number of KiB, MiB, GiB or TiB.`,
    pattern: sizePattern.source,
    examples: ['512MiB', '4GiB'],
  })

const labelPattern = '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'

/** A problem with an RFC 1123 label of at most `longest` characters. */
const labelProblem = (value: string, longest: number): string | undefined => {
  if (!new RegExp(labelPattern).test(value)) {
    return `${shown(value)}: wanted small letters, digits and hyphens, with a letter or digit at both ends`
  }
  if (value.length > longest) {
    return `${shown(value)} has ${String(value.length)} characters; at most ${String(longest)} fit`
  }
  return value === 'localhost'
    ? "localhost is every machine's name for itself; wanted another name"
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
  // A month of 13 or a capital letter is a typing slip that the general sentence would hide.
  if (Buffer.byteLength(value) > 223) {
    return `${name} has ${String(Buffer.byteLength(value))} bytes; an iSCSI name has at most 223`
  }
  if (/^(iqn|eui|naa)\./i.test(value) && !value.startsWith('eui.') && !value.startsWith('naa.')) {
    if (value !== value.toLowerCase())
      return `${name}: write it in small letters, ${shown(value.toLowerCase())}`
    const month = /^iqn\.\d{4}-(\d\d)\./.exec(value)?.[1]
    if (month !== undefined && !(Number(month) >= 1 && Number(month) <= 12)) {
      return `${name}: ${month} is not a month; wanted iqn.yyyy-mm with a month from 01 to 12`
    }
    if (iqnPattern.test(value)) return undefined
    const tail = value.includes(':') ? value.slice(value.indexOf(':') + 1) : undefined
    if (tail === '')
      return `${name} ends in a colon; wanted a name behind it, such as ${shown(`${value}target00`)}`
    const odd = /[^a-z0-9.:-]/.exec(value)?.[0]
    if (odd !== undefined) {
      return `${name}: ${shown(odd)} is not allowed in an iSCSI name; wanted small letters, digits, ".", "-" and ":"`
    }
  }
  if (/^eui\.[0-9A-Fa-f]{16}$/.test(value) || /^naa\.(?:[0-9A-Fa-f]{16}|[0-9A-Fa-f]{32})$/.test(value))
    return undefined
  if (value.startsWith('eui.')) return `${name}: wanted eui. and 16 hexadecimal digits`
  if (value.startsWith('naa.')) return `${name}: wanted naa. and 16 or 32 hexadecimal digits`
  return `${name}: wanted iqn.yyyy-mm.reversed.domain:name, such as iqn.2016-04.world.srv:target00`
}

const iqn = (description: string) =>
  text('an iSCSI name, such as iqn.2016-04.world.srv:target00', iqnProblem, {
    description,
    pattern: '^(iqn|eui|naa)\\.',
    examples: ['iqn.2016-04.world.srv:target00'],
  })

/** Characters that would end a line, or that no UTF-8 file can hold, wherever the text ends up. */
const unprintable = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/u

const secretProblem = (value: string): string | undefined => {
  // The value itself stays out of messages: they end up in terminals, logs and bug reports.
  const bytes = Buffer.byteLength(value)
  if (bytes === 0) return 'is empty text; wanted 1 to 255 bytes'
  if (bytes > 255) return `has ${String(bytes)} bytes in UTF-8; wanted 1 to 255`
  if (unprintable.test(value))
    return 'holds a line break or another control character, which has no place in a configuration line'
  return undefined
}

/** What LIO and open-iscsi read as it was written: tried value by value in test/e2e/chap.test.ts. */
const chapProblem = (value: string): string | undefined =>
  secretProblem(value) ??
  (value.trim() !== value
    ? 'begins or ends with a space; open-iscsi strips it when it reads the value, and the login would then fail'
    : value.startsWith('NULL')
      ? "begins with NULL, which the kernel's target (LIO) takes for none at all, and the login would then fail"
      : undefined)

/** A name goes over the wire among other keys, and LIO looks for those wherever they stand. */
const chapNameProblem = (value: string): string | undefined =>
  chapProblem(value) ??
  (value.includes(';')
    ? 'holds ";", where the kernel\'s target (LIO) ends a name, and the login would then fail; wanted another character'
    : /^0[xb]/i.test(value)
      ? `begins with ${value.slice(0, 2)}, which the kernel's target (LIO) takes for the mark of an encoded number, and the login would then fail; wanted another beginning`
      : /CHAP_[RIC]/.test(value)
        ? `holds ${/CHAP_[RIC]/.exec(value)?.[0] ?? ''}, a key of the login itself, which the kernel's target (LIO) would find in the name; wanted another name`
        : undefined)

const chapText = (description: string, problem = chapProblem, meta: object = {}) =>
  text('text of 1 to 255 bytes', problem, { description, minLength: 1, maxLength: 255, ...meta })

/** `writeOnly` is JSON Schema's mark of a password: messages do not quote its value. */
const passwordText = (description: string) =>
  text('text of 1 to 255 bytes', secretProblem, {
    description,
    minLength: 1,
    maxLength: 255,
    writeOnly: true,
  })

/** A subnet in canonical CIDR notation, with a prefix length between the two given, on a private range. */
const subnet = (wanted: string, shortest: number, longest: number, meta: Meta) =>
  text(
    wanted,
    (value) => {
      const parsed = parseSubnet(value)
      if (!parsed) return `${shown(value)}: wanted ${wanted}`
      if (parsed.prefix < shortest || parsed.prefix > longest) {
        return `${value}: wanted a prefix length from /${String(shortest)} to /${String(longest)}`
      }
      if (subnetText(parsed) !== value) {
        return `${value} is an address in a subnet; write the subnet itself, ${subnetText(parsed)}`
      }
      if (!isPrivate(parsed)) {
        return `${value} is not a private subnet; wanted one in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16`
      }
      return undefined
    },
    meta,
  )

const descriptionProblem = (value: string): string | undefined =>
  value.length > 400
    ? 'has more than 400 characters'
    : unprintable.test(value.replaceAll('\n', ' '))
      ? 'holds a control character'
      : undefined

const domainProblem = (value: string): string | undefined =>
  value.length <= 253 &&
  value.split('.').every((part) => new RegExp(labelPattern).test(part) && part.length <= 63)
    ? undefined
    : `${shown(value)}: wanted a domain in small letters, such as cluster.local`

/** Names that MariaDB keeps for itself. */
const systemDatabases = new Set(['mysql', 'sys', 'information_schema', 'performance_schema'])

const identifierProblem = (value: string): string | undefined =>
  /^[A-Za-z_][A-Za-z0-9_]{0,63}$/.test(value)
    ? undefined
    : `${shown(value)}: wanted at most 64 letters, digits and underscores, not beginning with a digit`

const identifierPattern = '^[A-Za-z_][A-Za-z0-9_]{0,63}$'

const version = text(
  'a version of three numbers, such as 1.36.3',
  (value) =>
    /^v\d/.test(value)
      ? `${shown(value)}: write ${value.slice(1)}, without the v`
      : /^(0|[1-9]\d?)\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/.test(value)
        ? undefined
        : `${shown(value)}: wanted a version of three numbers, such as 1.36.3`,
  {
    description: 'Version of Kubernetes, without a leading v.',
    pattern: '^\\d+\\.\\d+\\.\\d+$',
    examples: ['1.36.3'],
  },
)

const flags = (component: string) =>
  z
    .record(
      z
        .string()
        .regex(
          /^[a-z][a-z0-9-]*$/,
          'not the name of a flag; write it in small letters and without the leading --',
        ),
      z.string({ error: 'text' }).meta({ description: 'Value of the flag.' }),
      { error: 'a mapping of flags to values' },
    )
    .default({})
    .meta({ description: `Extra command line flags of ${component}, written without the leading --.` })

const machine = mapping(
  {
    name: text(
      'a machine name, such as worker1',
      (value) =>
        value === 'all'
          ? 'all means every machine in commands such as lab exec; wanted another name'
          : labelProblem(value, 32),
      {
        description:
          'Host name of the machine, and its name in every command: an RFC 1123 label, at most 32 characters.',
        pattern: labelPattern,
        maxLength: 32,
      },
    ),
    role: z
      .enum(['control-plane', 'worker', 'target', 'initiator', 'nfs'], {
        error: 'control-plane, worker, target, initiator or nfs',
      })
      .meta({
        description:
          'control-plane and worker are Kubernetes nodes, target serves LUNs, initiator logs in to targets outside Kubernetes, nfs serves a file system to all nodes.',
      }),
    address: text(
      'an IPv4 address, such as 192.168.56.11',
      (value) =>
        parseAddress(value) === undefined
          ? `${shown(value)}: wanted an IPv4 address, such as 192.168.56.11`
          : undefined,
      { description: 'IPv4 address of the machine in the lab subnet.', format: 'ipv4' },
    ),
    cpus: whole('a whole number of processors, 1 to 64', 1, 64, {
      description: 'Number of virtual processors.',
    }).default(1),
    memory: size('a size of memory', 'Memory of the machine.'),
    iqn: iqn(
      'Initiator name. Without it: the naming authority of the first target, then the machine name.',
    ).optional(),
  },
  'a machine: name, role, address, memory',
)

const lun = mapping(
  {
    lun: whole('a logical unit number, 0 to 255', 0, 255, { description: 'Logical unit number.' }),
    size: size('a size of a disk', 'Size of the disk that is served. It may grow later, and never shrinks.'),
    initiators: list(
      z
        .string({ error: 'the name of a machine with the role initiator or worker' })
        .meta({ description: 'Name of a machine with the role initiator or worker.' }),
      'a list of machines',
    )
      .min(1, 'at least one machine; without the field, whoever uses the LUN sees it')
      .max(64, 'at most 64 machines')
      .optional()
      .meta({
        description:
          "The machines that see it. Without it: all workers, if it is the database's; who has a file system on it; if nobody has, all workers, or in a lab without workers every initiator.",
      }),
  },
  'a LUN: lun, size',
)

const target = mapping(
  {
    machine: z
      .string({ error: 'the name of a machine with the role target' })
      .meta({ description: 'Name of the machine that serves it; its role is target.' }),
    iqn: iqn('Name of the target.'),
    port: whole('a TCP port, 1 to 65535', 1, 65535, { description: 'TCP port of the portal.' }).default(
      defaults.port,
    ),
    chap: mapping(
      {
        username: chapText('User name that initiators log in with.', chapNameProblem),
        password: chapText('Password that initiators log in with.', chapProblem, { writeOnly: true }),
        mutual: mapping(
          {
            username: chapText('User name that the target answers with.'),
            password: chapText(
              'Password that the target answers with; another than initiators log in with.',
              chapProblem,
              {
                writeOnly: true,
              },
            ),
          },
          'a mapping: username, password',
        )
          .optional()
          .meta({ description: 'Mutual CHAP: what the target must know in return.' }),
      },
      'a mapping: username, password',
    ).meta({
      description:
        'CHAP: what initiators must know to log in, to discover as well as to use. Several targets of one machine are discovered with the CHAP of the first of them.',
    }),
    luns: list(lun, 'a list of LUNs')
      .min(1, 'at least one LUN')
      .max(256, 'at most 256 LUNs')
      .meta({ description: 'The disks that it serves.' }),
  },
  'a target: machine, iqn, chap, luns',
)

const filesystem = mapping(
  {
    initiator: z
      .string({ error: 'the name of a machine with the role initiator' })
      .meta({ description: 'Name of the machine that logs in and mounts it; its role is initiator.' }),
    target: iqn('Name of the target; not needed when the lab has only one.').optional(),
    lun: whole('a logical unit number, 0 to 255', 0, 255, {
      description: 'The LUN that holds the file system.',
    }),
    type: z.literal('ext4', { error: 'ext4' }).default('ext4').meta({ description: 'Kind of file system.' }),
    directory: text(
      'the name of a directory, such as mysql-data',
      (value) =>
        /^[A-Za-z0-9_.-]{1,64}$/.test(value) && !/^[.-]/.test(value)
          ? undefined
          : `${shown(value)}: wanted the name of one directory: letters, digits, "_", "-" and ".", at most 64`,
      {
        description: 'Name of a directory that is made at the top of the file system.',
        examples: ['mysql-data'],
      },
    ),
    mode: text(
      'four octal digits in quotes, such as "0777"',
      (value) =>
        /^[0-7]{4}$/.test(value)
          ? undefined
          : `${shown(value)}: wanted four octal digits in quotes, such as "0777"`,
      {
        description: 'Mode of the directory: four octal digits, in quotes.',
        pattern: '^[0-7]{4}$',
        examples: ['0777'],
      },
    ),
  },
  'a file system: initiator, lun, directory, mode',
)

const kubernetes = mapping(
  {
    version,
    podSubnet: subnet('a subnet such as 10.244.0.0/16', 8, 24, {
      description: 'Subnet of the pods. The node with host number n gets its n-th /24.',
    }).default(defaults.podSubnet),
    // The API server refuses a service subnet that is larger than /12; kubeadm wants ten addresses at least.
    serviceSubnet: subnet('a subnet such as 10.96.0.0/12', 12, 28, {
      description: 'Subnet of the cluster IPs of Services.',
    }).default(defaults.serviceSubnet),
    dnsDomain: text('a domain such as cluster.local', domainProblem, {
      description: 'DNS domain of the Services.',
    }).default(defaults.dnsDomain),
    kubelet: z
      .record(z.string(), z.unknown(), { error: 'a mapping of fields of KubeletConfiguration' })
      .check((context) => {
        for (const key of ['apiVersion', 'kind'].filter((name) => name in context.value)) {
          context.issues.push({
            code: 'custom',
            message: 'is set by lab; remove it',
            path: [key],
            input: context.value,
          })
        }
      })
      .default({})
      .meta({ description: 'Fields of KubeletConfiguration, for the kubelet of every node.' }),
    apiServer: flags('kube-apiserver'),
    controllerManager: flags('kube-controller-manager'),
    scheduler: flags('kube-scheduler'),
    etcd: flags('etcd'),
  },
  'a mapping with at least a version',
)

const database = mapping(
  {
    name: text(
      'a Service name, such as mysql',
      (value) =>
        /^[0-9]/.test(value)
          ? `${shown(value)}: a Service name begins with a letter`
          : value === 'kubernetes'
            ? 'kubernetes is the Service of the API server, which the database would take over; wanted another name'
            : labelProblem(value, 40),
      {
        description: 'Name of the Service, and first part of the name of the Deployment.',
        pattern: '^[a-z]([a-z0-9-]*[a-z0-9])?$',
        maxLength: 40,
      },
    ).default('mysql'),
    target: iqn('Name of the target; not needed when the lab has only one.').optional(),
    lun: whole('a logical unit number, 0 to 255', 0, 255, {
      description: 'The LUN that holds the data. Either this or storage.',
    }).optional(),
    storage: text('a class of storage, such as shared', (value) => labelProblem(value, 40), {
      description: 'The storage class, of the kind nfs, whose volume holds the data. Either this or lun.',
      pattern: labelPattern,
      maxLength: 40,
    }).optional(),
    nodePort: whole('a port from 30000 to 32767', 30000, lastNodePort, {
      description: 'Port on every node at which the database answers.',
    }).default(defaults.nodePort),
    ledgerPort: whole('a port from 30000 to 32767', 30000, lastNodePort, {
      description:
        'Port on every node at which scenarios write a plain file on the same volume. Without it: the one after nodePort.',
    }).optional(),
    database: text(
      'the name of a database, such as test',
      (value) =>
        identifierProblem(value) ??
        (systemDatabases.has(value.toLowerCase())
          ? `${shown(value)} is a database that MariaDB keeps for itself; wanted another name`
          : undefined),
      { description: 'Name of the database that is made.', pattern: identifierPattern },
    ),
    user: text(
      'the name of a user, such as dev',
      (value) =>
        identifierProblem(value) ??
        (value.toLowerCase() === 'root'
          ? 'root is there already, with rootPassword; wanted another user'
          : undefined),
      { description: 'User who owns that database.', pattern: identifierPattern },
    ),
    password: passwordText('Password of that user.'),
    rootPassword: passwordText('Password of root.'),
  },
  'a mapping: lun or storage, database, user, password, rootPassword',
)

/** What the schema must know of a fault: its fields beside `fault`, in the order in which editors offer them. */
export interface FaultFields {
  readonly name: string
  /** What it does, and how it is healed. */
  readonly description: string
  readonly fields: z.ZodRawShape
}

/** An experiment as a lab file names it, and what it shows, in a sentence. */
export interface ExperimentWords {
  readonly name: string
  readonly description: string
}

/** The words of a lab file whose meaning lives elsewhere. */
export interface Words {
  readonly faults: readonly FaultFields[]
  readonly experiments: readonly ExperimentWords[]
}

/** A fault as it is written: the fields are those of its record. */
export interface WrittenFault {
  readonly fault: string
  readonly for?: string | undefined
  readonly [field: string]: unknown
}

/** Each fault heals by its undo; what a provider cannot do is refused before the scenario starts. */
const faultOf = (faults: readonly FaultFields[]): z.ZodType<WrittenFault, WrittenFault> => {
  const [first, ...others] = faults.map(({ name, description, fields }) =>
    z
      .strictObject({ fault: z.literal(name).meta({ description }), ...fields }, { error: 'a fault' })
      .meta({ description }),
  )
  if (!first) throw new Error('a lab file without any fault to name')
  // Which fields a fault has, only its record knows.
  return z.discriminatedUnion('fault', [first, ...others], {
    error: `a fault: ${faults.map(({ name }) => name).join(', ')}`,
  })
}

const budgets = {
  writeGap: duration('a budget', 'Longest time between two acknowledged writes.').optional(),
  readGap: duration('a budget', 'Longest time between two answered reads.').optional(),
  notReady: duration('a budget', 'From the fault until Kubernetes calls the node NotReady.').optional(),
  takeover: duration(
    'a budget',
    'From the fault until another server than before acknowledges a write.',
  ).optional(),
}

const scenarioOf = (faults: readonly FaultFields[]) =>
  mapping(
    {
      name: text('a name for the scenario, such as power-cut', (value) => labelProblem(value, 40), {
        description: 'Name of the scenario: small letters, digits and hyphens, at most 40 characters.',
        pattern: labelPattern,
        maxLength: 40,
      }),
      description: text('a sentence', descriptionProblem, {
        description: 'What it shows, in a sentence.',
        maxLength: 400,
      }).default(''),
      inject: list(faultOf(faults), 'a list of faults')
        .min(1, 'at least one fault')
        .max(16, 'at most 16 faults')
        .meta({ description: 'The faults, injected one after the other.' }),
      expect: mapping(budgets, `a mapping of ${Object.keys(budgets).join(', ')}`)
        .prefault({})
        .meta({
          description: 'Budgets: the longest times that are good enough. Others are measured all the same.',
        }),
      heal: z.enum(['recovery', 'deadline'], { error: 'recovery or deadline' }).default('recovery').meta({
        description:
          'When the faults are undone: `recovery`, as soon as the database writes again; `deadline`, not before, to see what happens while they last.',
      }),
      deadline: duration(
        'a deadline',
        'Longest time from the first fault until the scenario heals, whatever has happened.',
      ).default(defaults.deadline),
    },
    'a scenario: name, inject',
  )

const storageClass = mapping(
  {
    class: text('a name for the class, such as standard', (value) => labelProblem(value, 40), {
      description: 'Name of the StorageClass.',
      pattern: labelPattern,
      maxLength: 40,
    }),
    kind: z.enum(['local', 'nfs'], { error: 'local or nfs' }).meta({
      description:
        'Where a volume is: `local`, a folder of the node whose pod first asks for it, and nowhere else; `nfs`, a folder of the machine with the role nfs, which every node reaches.',
    }),
    default: z
      .boolean({ error: 'true or false' })
      .default(false)
      .meta({ description: 'Whether claims that name no class are given this one.' }),
  },
  'a storage class: class, kind',
)

const filePattern = '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$'

const fileName = (wanted: string, description: string) =>
  text(
    wanted,
    (value) =>
      new RegExp(filePattern).test(value)
        ? undefined
        : `${shown(value)}: wanted ${wanted}: letters, digits, "_", "-" and ".", at most 64, without a path`,
    { description, pattern: filePattern },
  )

const readyKinds = Object.keys(readyChecks)

export const workload = mapping(
  {
    manifest: fileName(
      'the name of a file, such as cassandra.yaml',
      'A file of the manifests folder; or a folder in it with a kustomization.yaml.',
    ),
    ready: list(
      text(
        'a kind and a name, such as statefulset/cassandra',
        (value) =>
          new RegExp(`^(${readyKinds.join('|')})/[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`).test(value)
            ? undefined
            : `${shown(value)}: wanted ${anyOf(readyKinds.map((kind) => `${kind}/`))} and a name`,
        { description: 'Kind and name.', examples: ['statefulset/cassandra'] },
      ),
      'a list of what must be ready',
    )
      .min(1, 'at least one, or nobody could tell whether it is there')
      .meta({ description: 'What of it must have all its pods, in their latest form and ready.' }),
    within: duration('a deadline', 'Longest time until it is ready.').default('5min'),
  },
  'a workload: manifest, ready',
)

const experimentOf = (experiments: readonly ExperimentWords[]): z.ZodType<string, string> => {
  const names = experiments.map(({ name }) => name)
  return z.enum(names, { error: `an experiment: ${names.join(', ')}` })
}

const buildSchema = ({ faults, experiments }: Words) =>
  mapping(
    {
      apiVersion: z
        .literal('lab/v1', { error: 'lab/v1' })
        .meta({ description: 'Version of this format: lab/v1.' }),
      name: text('a name for the lab, such as my-lab', labNameProblem, {
        description: 'Name of the lab: an RFC 1123 label, at most 24 characters.',
        pattern: labelPattern,
        maxLength: longestLabName,
      }),
      description: text('a sentence', descriptionProblem, {
        description: 'What the lab shows, in a sentence.',
        maxLength: 400,
      }).default(''),
      provider: z
        .enum(providerNames, { error: anyOf(providerNames) })
        .optional()
        .meta({ description: 'What runs the machines. Without it: the first that works on this host.' }),
      network: mapping(
        {
          subnet: subnet('a subnet such as 192.168.56.0/24', 8, 28, {
            description: 'Private IPv4 subnet of the machines. Its first address belongs to the host.',
          }).default(defaults.subnet),
        },
        'a mapping: subnet',
      )
        .prefault({})
        .meta({ description: 'The network that joins the machines.' }),
      machines: list(machine, 'a list of machines')
        .min(1, 'at least one machine')
        .max(64, 'at most 64 machines')
        .meta({ description: 'The machines of the lab.' }),
      iscsi: mapping(
        {
          targets: list(target, 'a list of targets')
            .min(1, 'at least one target')
            .max(64, 'at most 64 targets')
            .meta({ description: 'The targets of the lab.' }),
        },
        'a mapping: targets',
      )
        .optional()
        .meta({ description: 'iSCSI: disks that machines reach over the network.' }),
      filesystems: list(filesystem, 'a list of file systems')
        .max(256, 'at most 256 file systems')
        .default([])
        .meta({ description: 'LUNs that a machine with the role initiator formats, mounts and unmounts.' }),
      kubernetes: kubernetes
        .optional()
        .meta({ description: 'The cluster that the nodes form, made by kubeadm.' }),
      database: database.optional().meta({
        description: 'A database in the cluster, with its data on a LUN, or on a volume of a storage class.',
      }),
      failover: z.enum(['default', 'fast'], { error: 'default or fast' }).default('default').meta({
        description:
          'How soon Kubernetes gives a lost node up: `default` as it comes, after minutes; `fast` with shorter leases, grace periods and tolerations, after seconds.',
      }),
      fencing: z
        .enum(['none', 'storage', 'power'], { error: 'none, storage or power' })
        .default('none')
        .meta({
          description:
            'What makes sure that a lost node no longer writes before another takes over: `storage`, the target throws it out; `power`, it is switched off; `none`, nothing does.',
        }),
      images: list(
        z.string({ error: 'the name of an image, such as nginx:1.26' }).meta({
          description: 'Its name with its version, as a manifest writes {{image "nginx:1.26"}}.',
          examples: ['nginx:1.26', 'cassandra:5.0'],
        }),
        'a list of images',
      )
        .max(64, 'at most 64 images')
        .default([])
        .meta({
          description:
            'Images that the nodes have beside those of Kubernetes and the database: nothing is pulled in a lab.',
        }),
      storage: list(storageClass, 'a list of storage classes')
        .max(8, 'at most 8 storage classes')
        .default([])
        .meta({ description: 'Storage classes, whose volumes local-path-provisioner makes.' }),
      manifests: text(
        'the name of a folder, such as my-lab',
        (value) =>
          !new RegExp(filePattern).test(value)
            ? `${shown(value)}: wanted the name of a folder: letters, digits, "_", "-" and ".", without a path`
            : // `up` keeps a copy beside its copy of the lab file.
              ['machines', 'rendered', 'runs', 'ssh'].includes(value)
              ? `${shown(value)} is a name that lab keeps for itself; wanted another`
              : undefined,
        {
          description: 'Folder beside the lab file with the manifests of its workloads and experiments.',
          pattern: filePattern,
        },
      ).optional(),
      workloads: list(workload, 'a list of workloads')
        .max(32, 'at most 32 workloads')
        .default([])
        .meta({ description: 'What `lab up` applies to the cluster, one after the other.' }),
      experiments: list(experimentOf(experiments), 'a list of experiments')
        .max(64, 'at most 64 experiments')
        .default([])
        .meta({ description: 'What `lab run` can do to the cluster, and watch.' }),
      scenarios: list(scenarioOf(faults), 'a list of scenarios')
        .max(64, 'at most 64 scenarios')
        .default([])
        .meta({ description: 'Ways to break the lab on purpose, and what it should stand.' }),
    },
    'a mapping that begins with apiVersion: lab/v1',
  )

const built = new WeakMap<Words, ReturnType<typeof buildSchema>>()

/**
 * The schema of a lab file that may name these faults and experiments. It is built once: that takes longer than to
 * parse a lab file with it.
 */
export const labSchemaOf = (words: Words): ReturnType<typeof buildSchema> => {
  const schema = built.get(words) ?? buildSchema(words)
  built.set(words, schema)
  return schema
}

/** The lab file as its author wrote it. */
export type LabFile = z.input<ReturnType<typeof labSchemaOf>>
/** The same with the defaults filled in; sizes are still text. */
export type CompleteLabFile = z.output<ReturnType<typeof labSchemaOf>>

/** The JSON Schema of the lab file, for editors. */
export const jsonSchema = (words: Words): object => ({
  ...z.toJSONSchema(labSchemaOf(words), { io: 'input', target: 'draft-7' }),
  title: 'A lab file of lab',
})

export const schemaFile = join(projectRoot, 'labs', 'lab.schema.json')

/** Writes `labs/lab.schema.json`, for `npm run generate`. */
export const writeSchema = (words: Words): void => {
  writeFileSync(schemaFile, `${JSON.stringify(jsonSchema(words), null, 2)}\n`)
}
