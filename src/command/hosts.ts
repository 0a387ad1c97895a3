/** Machines that exist already: the file that says how to reach them, and whether a lab can use them. */
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { Option } from 'commander'
import { exitCodes, type ExitCode, LabError } from '../error.js'
import { expandLogins, hostsText, loadHosts } from '../lab/hosts-file.js'
import { quote } from '../machine/sh.js'
import { maskKnown } from '../view/secrets.js'
import type { Transport } from '../machine/machine.js'
import type { Holder } from '../provider/hosts/lock.js'
import type { Finding } from '../provider/hosts/asked.js'
import { loginsFor, survey, withPinnedKeys } from '../lifecycle/hosts-survey.js'
import { cannotWrite } from '../command-line/cannot-write.js'
import { printJson } from '../command-line/json.js'
import {
  asJson,
  type Io,
  line,
  type Options,
  type Verb,
  type VerbLine,
  withYes,
} from '../command-line/verb.js'

const signs: Readonly<Record<Finding['level'], string>> = { refuse: '✖', warn: '!', change: '→', ok: '✔' }

/** A table: one line per finding, and below it what to do. */
export const findingsTable = (findings: readonly Finding[]): string => {
  const width = (of: (finding: Finding) => string): number =>
    Math.max(0, ...findings.map((each) => of(each).length))
  const [host, what] = [width((each) => each.host), width((each) => each.what)]
  return findings
    .map(
      (each) =>
        `${each.host.padEnd(host)}  ${signs[each.level]} ${each.what.padEnd(what)}  ${maskKnown(each.saw)}\n${each.fix === undefined || each.level === 'ok' ? '' : `${' '.repeat(host + what + 6)}fix: ${each.fix}\n`}`,
    )
    .join('')
}

const check = async (
  named: string,
  options: Options & { readonly lab?: string },
  io: Io,
): Promise<ExitCode> => {
  const lab =
    options.lab === undefined
      ? undefined
      : await (await import('../lifecycle/load-lab.js')).loadLab(options.lab)
  const { hosts, findings } = await survey(named, lab, options, io)
  const refused = findings.filter(({ level }) => level === 'refuse')
  if (options.output === 'json')
    printJson(io, 'lab.hosts/v1', {
      file: named,
      lab: lab?.name ?? null,
      good: refused.length === 0,
      hosts: hosts.map(({ spec, facts }) => ({ name: spec.name, ...facts })),
      findings: findings.map((finding) => ({ fix: null, ...finding })),
    })
  else {
    io.stdout.write(findingsTable(findings))
    const count = (level: Finding['level'], one: string, many: string): string[] => {
      const found = findings.filter((finding) => finding.level === level).length
      return found === 0 ? [] : [`${String(found)} ${found === 1 ? one : many}`]
    }
    io.stdout.write(
      [
        ...count('refuse', 'problem that makes a lab impossible', 'problems that make a lab impossible'),
        ...count('warn', 'warning', 'warnings'),
        ...count('change', 'thing that lab up changes', 'things that lab up changes'),
      ].join(', ') || 'all is well',
    )
    io.stdout.write('\n')
  }
  return refused.length === 0 ? exitCodes.ok : exitCodes.host
}

const init = async (
  words: readonly string[],
  options: Options & { readonly lab?: string; readonly file: string; readonly force?: boolean },
  io: Io,
): Promise<ExitCode> => {
  const logins = words.flatMap(expandLogins)
  const machines =
    options.lab === undefined
      ? undefined
      : (await (await import('../lifecycle/load-lab.js')).loadLab(options.lab)).machines.map(
          ({ name }) => name,
        )
  if (machines && machines.length !== logins.length)
    throw new LabError(
      'wrong-number',
      `${options.lab ?? ''} has ${String(machines.length)} machines (${machines.join(', ')}), and ${words.join(' ')} is ${String(logins.length)} hosts`,
      { hint: 'name one host for each machine, in the same order', exitCode: exitCodes.usage },
    )
  const { file } = options
  if (existsSync(file) && !options.force)
    throw new LabError('file-exists', `${file} already exists`, {
      hint: `lab hosts check ${quote(file)}, or --force to replace it`,
      exitCode: exitCodes.usage,
    })
  const text = hostsText(
    logins.map((login, index) => ({ ...login, name: machines?.[index] ?? `machine${String(index + 1)}` })),
  )
  await writeFile(file, text).catch(cannotWrite(file))
  io.stdout.write(
    `${file} written with ${String(logins.length)} hosts${machines ? '' : '; give them the names of the machines of a lab'}. Then: lab hosts check ${quote(file)}\n`,
  )
  return exitCodes.ok
}

/** A host that a lab uses. */
interface Held {
  readonly name: string
  readonly root: Transport
  readonly holder: Holder
}

/** Whether a lab of this computer uses it, and can give it back itself. */
const isKnownHere = async (holder: Holder): Promise<string | undefined> => {
  const [{ madeLabs, pathsOf, readIfThere }, { wordOf }] = await Promise.all([
    import('../state.js'),
    import('../identity.js'),
  ])
  for (const lab of await madeLabs()) {
    if (wordOf(lab) !== holder.lab) continue
    const key = await readIfThere(`${pathsOf(lab).privateKey}.pub`)
    if (key?.split(' ')[1] === holder.key) return lab.name
  }
  return undefined
}

/**
 * Gives back hosts whose lab is lost: its folder was removed, or it was made on another computer. The record on each
 * host is enough.
 */
const release = async (
  named: string,
  names: readonly string[],
  options: Options,
  io: Io,
): Promise<ExitCode> => {
  const file = await withPinnedKeys(loadHosts(named), options, io)
  const unknown = names.find((name) => !file.hosts.some((host) => host.name === name))
  if (unknown !== undefined)
    throw new LabError('no-host', `${named} has no host ${unknown}`, {
      hint: `its hosts: ${file.hosts.map(({ name }) => name).join(', ')}`,
      exitCode: exitCodes.usage,
    })
  const logins = await loginsFor(file, io)
  const { handBack, readHolder } = await import('../provider/hosts/give-back.js')
  const { holderText } = await import('../provider/hosts/lock.js')
  const open: Transport[] = []
  try {
    const held: Held[] = []
    for (const spec of file.hosts.filter(({ name }) => names.length === 0 || names.includes(name))) {
      const user = await logins.asUser(spec)
      open.push(user)
      const root = await logins.asRoot(spec, user)
      const holder = await readHolder(root)
      if (!holder) io.stdout.write(`${spec.name}: no lab uses it\n`)
      else {
        const known = await isKnownHere(holder)
        if (known !== undefined)
          throw new LabError('lab-known', `${spec.name}: the lab ${known} of this computer uses it`, {
            hint: `lab down ${known}`,
            exitCode: exitCodes.usage,
          })
        held.push({ name: spec.name, root, holder })
      }
    }
    if (held.length === 0) return exitCodes.ok
    io.stderr.write(held.map(({ name, holder }) => `${name}: ${holderText(holder)}\n`).join(''))
    const agreed = options.yes ?? (await io.ask?.('Take them from their labs, and undo what was done?'))
    if (agreed !== true)
      throw new LabError('not-agreed', `${String(held.length)} hosts are in use: nothing was touched`, {
        hint: `lab hosts release ${quote(named)} --yes`,
        exitCode: exitCodes.host,
      })
    const all = await Promise.all(
      held.map(async ({ name, root, holder }) => {
        const different = await handBack(root, holder, () => undefined)
        io.stdout.write(
          different.length === 0
            ? `${name}: as it was before\n`
            : `${name}: different: ${different.join('; ')}\n`,
        )
        return different.length
      }),
    )
    return all.every((count) => count === 0) ? exitCodes.ok : exitCodes.failed
  } finally {
    await Promise.all(open.map((transport) => transport.close()))
  }
}

const releaseVerb: Verb = {
  words: { file: 'a hosts.yaml', hosts: 'names of hosts; default: all' },
  options: [withYes],
  run: release,
}

const withLabName = new Option('--lab <lab>', 'the lab that will use them')

const checkVerb: Verb = {
  words: { file: 'a hosts.yaml' },
  options: [withLabName, asJson, withYes],
  looks: true,
  run: check,
}

const initVerb: Verb = {
  words: { hosts: 'USER@ADDRESS; pi@10.0.0.[11-14] is four of them' },
  options: [
    withLabName,
    new Option('--file <file>', 'what to write').default('hosts.yaml'),
    new Option('--force', 'replace an existing file'),
  ],
  looks: true,
  run: init,
}

export const verbs: readonly VerbLine[] = [
  line('init [options] <hosts...>', 'write hosts.yaml for machines that exist already', () =>
    Promise.resolve({ verb: initVerb }),
  ),
  line(
    'release [options] <file> [hosts...]',
    'give back hosts whose lab is lost: undo the changes recorded on them',
    () => Promise.resolve({ verb: releaseVerb }),
  ),
  line('check [options] <file>', 'check all hosts of a file at once, without changing them', () =>
    Promise.resolve({ verb: checkVerb }),
  ),
]
