/**
 * hosts.yaml: which real machine is which machine of a lab file, and how to log in to it. It contains no secret: a
 * password is typed, or is in an environment variable.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { parseDocument } from 'yaml'
import { z } from 'zod'
import { exitCodes, LabError, messageOf } from '../error.js'
import { quote } from '../machine/sh.js'
import { addressText, parseAddress } from './address.js'
import { pathText, type Path } from './draft.js'
import { explain } from './explain.js'
import { labelProblem, mapping, text, whole } from './fields.js'
import { LabFileError, type LabFileProblem } from './parse.js'
import { readSource } from './source.js'
import {
  power,
  powerOf,
  type PowerSpec,
  type PasswordSource,
  passwordPattern,
  sourceOf,
} from './power-switch.js'
import { shown } from './suggest.js'

/** How to log in to a host. */
export interface LoginSpec {
  /** IPv4 address or name. */
  readonly address: string
  readonly port: number
  readonly user: string
  /** Absolute path of a private key. Without it and `password`: the agent's keys, or the user's own. */
  readonly key?: string | undefined
  readonly password?: PasswordSource | undefined
  /** `ssh-ed25519 AAAA…`: the only host key that is accepted. Undefined: none was confirmed yet. */
  readonly hostKey?: string | undefined
}

export interface HostSpec extends LoginSpec {
  /** Name of the machine in lab files. */
  readonly name: string
  /** For sudo. Default: the login's password if there is one; otherwise sudo must not ask. */
  readonly sudoPassword?: PasswordSource | undefined
  /** Name of the jump host that the connection goes through. */
  readonly via?: string | undefined
  /** The network interface with the machine's address in the lab. Default: the one with the address that SSH uses. */
  readonly interface?: string | undefined
  /** Absent: the machine can only be forced to reboot. */
  readonly power?: PowerSpec | undefined
}

export interface JumpHostSpec extends LoginSpec {
  readonly name: string
}

export interface HostsFile {
  /** Its path as the user typed it. */
  readonly file: string
  readonly hosts: readonly HostSpec[]
  readonly jumpHosts: readonly JumpHostSpec[]
}

const addressProblem = (value: string): string | undefined => {
  if (/^[\d.]+$/.test(value) && parseAddress(value) === undefined)
    return `${shown(value)}: expected four numbers up to 255, such as 10.0.0.11`
  return /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(value)
    ? undefined
    : `${shown(value)}: expected an IPv4 address or a host name, such as 10.0.0.11 or pi1.local`
}

const password = (description: string) =>
  text(
    '`ask`, or the name of an environment variable with a leading `$`, such as $PI_PASSWORD',
    (value) =>
      passwordPattern.test(value)
        ? undefined
        : // The value may be the password itself.
          'a password does not belong in this file; write `ask`, or the name of an environment variable with a leading `$`, such as $PI_PASSWORD',
    { description, pattern: passwordPattern.source, writeOnly: true },
  )

const hostKeyPattern = /^(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) [A-Za-z0-9+/]{40,}={0,2}$/

const login = {
  port: whole('a port from 1 to 65535', 1, 65535, { description: 'Port of the SSH server.' }).optional(),
  user: text(
    'a user name, such as pi',
    (value) =>
      /^[a-z_][a-z0-9_.-]{0,31}$/i.test(value)
        ? undefined
        : `${shown(value)}: expected a user name, such as pi`,
    { description: 'The user who logs in: root, or a user who may use sudo.' },
  ).optional(),
  key: text(
    'the path of a private key',
    (value) => (value === '' ? 'is empty; expected a path' : undefined),
    {
      description:
        "Private key to log in with. Without `key` and `password`: the agent's keys, otherwise ~/.ssh/id_*.",
    },
  ).optional(),
  password: password('Password to log in with: `ask`, or a variable.').optional(),
}

const withAddress = {
  address: text('an IPv4 address or a host name', addressProblem, {
    description: 'Where the SSH server of the host answers.',
  }),
  ...login,
  hostKey: text(
    'a host key, such as ssh-ed25519 AAAA…',
    (value) =>
      hostKeyPattern.test(value)
        ? undefined
        : 'expected the kind and the key as in /etc/ssh/ssh_host_ed25519_key.pub, such as ssh-ed25519 AAAA…',
    {
      description:
        'The only host key that is accepted. `lab hosts check` asks for it once, and writes it here.',
    },
  ).optional(),
}

const host = mapping(
  {
    ...withAddress,
    sudoPassword: password("Password for sudo. Default: the login's password, if there is one.").optional(),
    via: text('the name of a jump host', () => undefined, {
      description: 'The jump host that the connection goes through.',
    }).optional(),
    power: power.optional(),
    interface: text(
      'a network interface, such as eth0',
      (value) =>
        /^[\w.@-]{1,15}$/.test(value) ? undefined : `${shown(value)}: expected a network interface`,
      { description: "Interface with the machine's address in the lab, if the host has several." },
    ).optional(),
  },
  'a host: address, user',
)

const names = (what: string) =>
  z.string().check((context) => {
    const problem = labelProblem(context.value, 32)
    if (problem) context.issues.push({ code: 'custom', message: `${what} ${problem}`, input: context.value })
  })

const schema = mapping(
  {
    apiVersion: z.literal('lab.hosts/v1', { error: 'lab.hosts/v1' }),
    defaults: mapping(
      { ...login, sudoPassword: host.shape.sudoPassword, via: host.shape.via },
      'a mapping of user, port, key, password, sudoPassword, via',
    )
      .meta({ description: 'Settings for every host that does not set its own.' })
      .optional(),
    hosts: z.record(names('the name of a machine:'), host, {
      error: 'a mapping from names of machines to hosts',
    }),
    jumpHosts: z
      .record(names('the name of a jump host:'), mapping(withAddress, 'a jump host: address, user'), {
        error: 'a mapping from names to jump hosts',
      })
      .optional(),
  },
  'a mapping of apiVersion and hosts',
)

type Written = z.infer<typeof schema>

const expanded = (path: string | undefined): string | undefined =>
  path === undefined ? undefined : path.startsWith('~/') ? join(homedir(), path.slice(2)) : path

interface Found {
  readonly path: Path
  readonly message: string
}

function* rulesOf({ hosts, jumpHosts, defaults }: Written): Generator<Found> {
  const known = Object.keys(jumpHosts ?? {})
  const taken = new Map<string, string>()
  if (Object.keys(hosts).length === 0)
    yield { path: ['hosts'], message: 'is empty; expected at least one host' }
  for (const [name, { address, port, user, via }] of Object.entries(hosts)) {
    const place = `${address}:${String(port ?? defaults?.port ?? 22)}`
    const first = taken.get(place)
    if (first !== undefined)
      yield {
        path: ['hosts', name, 'address'],
        message: `${place} is already ${first}; one host can be only one machine, because both would have its name and its ports`,
      }
    else taken.set(place, name)
    if ((user ?? defaults?.user) === undefined)
      yield { path: ['hosts', name], message: 'has no user; set user, here or in defaults' }
    if (via !== undefined && !known.includes(via))
      yield { path: ['hosts', name, 'via'], message: `${shown(via)} is not in jumpHosts` }
  }
  if (defaults?.via !== undefined && !known.includes(defaults.via))
    yield { path: ['defaults', 'via'], message: `${shown(defaults.via)} is not in jumpHosts` }
  for (const [name, { user }] of Object.entries(jumpHosts ?? {}))
    if ((user ?? defaults?.user) === undefined)
      yield { path: ['jumpHosts', name], message: 'has no user; set user, here or in defaults' }
}

/** @throws LabFileError with every problem, one per line */
export const parseHosts = (content: string, file: string): HostsFile => {
  const fail = (problems: readonly LabFileProblem[]): never => {
    throw new LabFileError(file, problems, `lab hosts check ${quote(file)}`)
  }
  const source = readSource(content)
  if (content.trim() === '')
    fail([{ field: '', message: 'is empty; lab hosts init USER@ADDRESS… writes such a file' }])
  if (source.broken) fail([{ field: '', ...source.broken }])
  const value = source.value()
  const parsed = schema.safeParse(value)
  const found: readonly Found[] = parsed.success
    ? [...rulesOf(parsed.data)]
    : parsed.error.issues.flatMap((issue) => explain(schema, issue, value, source))
  const problems = [
    ...source.problems.map((problem) => ({ field: '', ...problem })),
    ...found.map((problem) => ({
      ...source.place(problem.path, 'atKey' in problem && problem.atKey === true),
      field: pathText(problem.path),
      message: problem.message,
    })),
  ].sort((a, b) => a.line - b.line || a.column - b.column)
  if (!parsed.success || problems.length > 0) return fail(problems)
  const { hosts, jumpHosts = {}, defaults = {} } = parsed.data
  // One object per source: hosts that share it ask for the password once.
  const shared = { password: sourceOf(defaults.password), sudoPassword: sourceOf(defaults.sudoPassword) }
  const loginOf = (written: Written['hosts'][string]): LoginSpec => {
    // A host that has its own login uses all of it: a key of `defaults` is not tried together with the host's own
    // password.
    const own = written.key !== undefined || written.password !== undefined
    return {
      address: written.address,
      port: written.port ?? defaults.port ?? 22,
      user: written.user ?? defaults.user ?? '',
      key: expanded(own ? written.key : defaults.key),
      password: own ? sourceOf(written.password) : shared.password,
      hostKey: written.hostKey,
    }
  }
  return {
    file,
    hosts: Object.entries(hosts).map(([name, written]) => ({
      name,
      ...loginOf(written),
      sudoPassword: sourceOf(written.sudoPassword) ?? shared.sudoPassword,
      via: written.via ?? defaults.via,
      interface: written.interface,
      power: powerOf(written.power),
    })),
    jumpHosts: Object.entries(jumpHosts).map(([name, written]) => ({ name, ...loginOf(written) })),
  }
}

/** @throws LabFileError, also if the file does not exist */
export const loadHosts = (file: string): HostsFile => {
  let content: string
  try {
    content = readFileSync(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const message =
      code === 'ENOENT'
        ? 'there is no such file'
        : code === 'EISDIR'
          ? 'is a directory; expected a hosts.yaml'
          : `cannot be read: ${messageOf(error)}`
    throw new LabFileError(file, [{ field: '', message }], 'lab hosts init USER@ADDRESS… writes one')
  }
  return parseHosts(content, file)
}

/**
 * Writes missing host keys into a file; everything else in it stays, including comments.
 * @param keys by the name of the host, or of the jump host
 */
export const pinHostKeys = (file: string, keys: ReadonlyMap<string, string>): void => {
  const document = parseDocument(readFileSync(file, 'utf8'))
  for (const [name, key] of keys)
    for (const section of ['hosts', 'jumpHosts'])
      if (document.hasIn([section, name])) document.setIn([section, name, 'hostKey'], key)
  writeFileSync(file, document.toString({ lineWidth: 0 }))
}

/** `pi@10.0.0.[11-14]` as the logins that it stands for: the last number may be a range. */
export const expandLogins = (
  word: string,
): readonly { readonly user: string; readonly address: string }[] => {
  const bad = (why: string): LabError =>
    new LabError('bad-login', `${shown(word)}: ${why}`, {
      hint: 'lab hosts init pi@10.0.0.[11-14]',
      exitCode: exitCodes.usage,
    })
  const [, user, place] = /^([^@\s]+)@(\S+)$/.exec(word) ?? []
  if (user === undefined || place === undefined) throw bad('expected USER@ADDRESS, such as pi@10.0.0.[11-14]')
  const [, head = '', from, to, tail = ''] = /^(.*)\[(\d+)-(\d+)\](.*)$/.exec(place) ?? []
  const addresses =
    from === undefined || to === undefined
      ? [place]
      : Array.from(
          { length: Math.max(0, Math.min(256, Number(to) - Number(from) + 1)) },
          (_, index) => `${head}${String(Number(from) + index)}${tail}`,
        )
  if (addresses.length === 0) throw bad('the range is empty')
  for (const address of addresses) {
    const problem = addressProblem(address)
    if (problem !== undefined) throw bad(problem)
  }
  return addresses.map((address) => ({ user, address }))
}

/** The text of a new hosts.yaml. */
export const hostsText = (
  hosts: readonly { readonly name: string; readonly user: string; readonly address: string }[],
): string => {
  const users = [...new Set(hosts.map(({ user }) => user))]
  const [first = ''] = users
  const numeric = parseAddress(hosts[0]?.address ?? '')
  return [
    '# Which real machine is which machine of a lab file, and how to log in to it.',
    '#   lab hosts check FILE       checks all of them and changes nothing',
    'apiVersion: lab.hosts/v1',
    'defaults:',
    `  user: ${first}`,
    '  # key: ~/.ssh/id_ed25519      # default: the keys of the agent, otherwise ~/.ssh/id_*',
    '  # password: ask               # or $VARIABLE: never the password itself',
    '  # sudoPassword: ask           # default: the password of the login, if any',
    '  # via: bastion                # one of jumpHosts',
    'hosts:',
    ...hosts.map(
      ({ name, user, address }) =>
        `  ${name}: { address: ${address}${user === first ? '' : `, user: ${user}`} }`,
    ),
    '# jumpHosts:',
    `#   bastion: { address: ${numeric === undefined ? 'bastion.example.org' : addressText(numeric - (numeric % 256) + 1)} }`,
    '',
  ].join('\n')
}
