/** Checks all hosts of a hosts.yaml at once, and reports every problem. Changes nothing on them. */
import { LabError, messageOf } from '../../error.js'
import type { HostsFile, HostSpec } from '../../lab/hosts-file.js'
import type { Lab } from '../../lab/lab.js'
import type { Transport } from '../../machine/machine.js'
import { quote } from '../../machine/sh.js'
import { askFacts } from './facts.js'
import type { Logins } from './login.js'
import { runAgent } from './power.js'
import { type Asked, type Finding, interfaceOf } from './asked.js'
import { neededPorts } from './ports.js'
import { judgeHosts } from './preflight.js'

export interface Survey {
  readonly hosts: readonly Asked[]
  readonly findings: readonly Finding[]
}

/** What to do if a host could not be reached. */
const fixOf = (error: unknown, { address, port, user, via }: HostSpec, file: string): string => {
  const ssh = `ssh ${port === 22 ? '' : `-p ${String(port)} `}${via === undefined ? '' : `-J ${via} `}${user}@${address}`
  switch (error instanceof LabError ? error.code : '') {
    case 'host-key-changed':
      return `find out why: the machine was reinstalled, or another one answers. Then remove its hostKey from ${file}, and run lab hosts check ${quote(file)}`
    case 'login-refused':
      return `${ssh}; check key, password or user in ${file}`
    case 'ssh-closed':
      return `wait a minute, then ${ssh}`
    case 'ssh-unreachable':
      return ssh
    default:
      return (error instanceof LabError ? error.hint : undefined) ?? ssh
  }
}

/** Seconds for a connection between two hosts. */
const reachTime = 15

const none: NonNullable<Asked['shut']> = []

type Reached = Asked & { readonly root: Transport }

/** The address at which a host is for the others. */
const addressOf = (asked: Asked): string => interfaceOf(asked)?.address ?? asked.spec.address

/** The ports of a host on which another one must reach it. */
const portsAt = (to: Asked, all: readonly Asked[], lab: Lab): readonly number[] => [
  ...new Set(all.flatMap(({ spec }) => neededPorts(lab, spec.name, to.spec.name))),
]

/**
 * Tries the ports that the lab needs from each host to each: meanwhile each host listens on those that are free, since
 * a refused connection does not tell a closed port from a firewall.
 * @returns the ports that each host does not reach
 */
const tryPorts = async (
  all: readonly Reached[],
  lab: Lab,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, NonNullable<Asked['shut']>>> => {
  const listening = await Promise.all(
    all.map(async (host) => {
      const ports = portsAt(host, all, lab).filter((port) => !host.facts.ports.includes(port))
      if (ports.length === 0) return () => Promise.resolve()
      // Perl is a part of every Debian. It ends by itself, if nobody ends it.
      const program = 'my @all = map { IO::Socket::INET->new(Listen => 9, LocalPort => $_) } @ARGV; sleep 60'
      const { stdout } = await host.root.exec(
        `nohup perl -MIO::Socket::INET -e ${quote(program)} ${ports.join(' ')} </dev/null >/dev/null 2>&1 & echo $!; sleep 1`,
        { signal, timeout: 30 },
      )
      return async (): Promise<void> => {
        await host.root.exec(`kill ${stdout.trim()} 2>/dev/null; true`, { timeout: 30 })
      }
    }),
  )
  try {
    const found = await Promise.all(
      all.map(async (from) => {
        const wanted = all
          .filter((to) => to !== from && !from.unreached.includes(to.spec.name))
          .flatMap((to) => neededPorts(lab, from.spec.name, to.spec.name).map((port) => ({ to, port })))
        if (wanted.length === 0) return [from.spec.name, none] as const
        const tests = wanted.map(({ to, port }) => {
          const connect = `exec 3<>/dev/tcp/${addressOf(to)}/${String(port)}`
          return `{ timeout ${String(reachTime)} bash -c ${quote(connect)} 2>/dev/null || echo ${to.spec.name} ${String(port)}; } &`
        })
        const { stdout } = await from.root.exec(`${tests.join('\n')}\nwait`, { signal, timeout: 60 })
        const shut = stdout
          .split('\n')
          .filter(Boolean)
          .map((line) => {
            const [host = '', port] = line.split(' ')
            return { host, port: Number(port) }
          })
        return [from.spec.name, shut] as const
      }),
    )
    return new Map(found)
  } finally {
    await Promise.all(listening.map((end) => end().catch(() => undefined)))
  }
}

/** Which of the other hosts a host cannot reach. */
const reachOthers = async (from: Reached, all: readonly Reached[], signal: AbortSignal): Promise<Reached> => {
  const { root } = from
  const others = all.filter(({ spec }) => spec !== from.spec)
  const tests = others.map((other) => {
    // Its own SSH server listens at the address that this computer uses, unless there is a router in between.
    const port = other.facts.ports.includes(other.spec.port) ? other.spec.port : 22
    return `timeout ${String(reachTime)} bash -c ${quote(`exec 3<>/dev/tcp/${addressOf(other)}/${String(port)}`)} 2>/dev/null || echo ${other.spec.name}`
  })
  if (tests.length === 0) return from
  const { stdout } = await root.exec(tests.map((test) => `{ ${test}; } &`).join('\n') + '\nwait', {
    signal,
    timeout: 60,
  })
  return { ...from, unreached: stdout.split('\n').filter(Boolean) }
}

/** The machines of a lab for which the file has no host. */
const missingIn = (file: HostsFile, lab: Lab | undefined): readonly Finding[] =>
  (lab?.machines ?? [])
    .filter(({ name }) => !file.hosts.some((host) => host.name === name))
    .map(({ name }): Finding => ({
      host: name,
      what: 'host',
      level: 'refuse',
      saw: `${file.file} has no host for it`,
      fix: `${name}: { address: … } below hosts in ${file.file}`,
    }))

/** @param lab whose machines they will be; undefined: any lab */
export const surveyHosts = async (
  file: HostsFile,
  logins: Logins,
  lab: Lab | undefined,
  signal: AbortSignal,
): Promise<Survey> => {
  const wanted = lab
    ? file.hosts.filter(({ name }) => lab.machines.some((machine) => machine.name === name))
    : file.hosts
  const open: Transport[] = []
  const failed: Finding[] = []
  const switches: Finding[] = []
  const asked: Reached[] = []
  const ask = async (spec: HostSpec): Promise<void> => {
    try {
      const user = await logins.asUser(spec)
      open.push(user)
      const root = await logins.asRoot(spec, user)
      const before = Date.now()
      const facts = await askFacts(root, signal)
      // The host was asked at some time between the two, and reports its time at the end of a script of about a
      // second.
      const skew = facts.time - (before + Date.now()) / 2000
      asked.push({ spec, facts, skew, unreached: [], root })
      if (spec.power) {
        const on = await runAgent(spec, spec.power, 'status', logins)
        switches.push({
          host: spec.name,
          what: 'power switch',
          level: 'ok',
          saw: `${spec.power.agent} reports it as ${on ? 'on' : 'off'}`,
        })
      }
    } catch (error) {
      signal.throwIfAborted()
      failed.push({
        host: spec.name,
        what:
          error instanceof LabError && ['power-failed', 'no-program'].includes(error.code)
            ? 'power switch'
            : 'login',
        level: 'refuse',
        saw: messageOf(error),
        fix: fixOf(error, spec, file.file),
      })
    }
  }
  try {
    await Promise.all(wanted.map(ask))
    const reached = await Promise.all(asked.map((from) => reachOthers(from, asked, signal)))
    const shut = lab ? await tryPorts(reached, lab, signal) : undefined
    const hosts = reached.map(({ root: _root, ...from }): Asked => ({
      ...from,
      shut: shut?.get(from.spec.name) ?? [],
    }))
    const inOrder = wanted.flatMap(({ name }) => hosts.filter(({ spec }) => spec.name === name))
    const findings = [...missingIn(file, lab), ...failed, ...judgeHosts(inOrder, lab), ...switches]
    const order = (lab?.machines ?? wanted).map(({ name }) => name)
    return { hosts: inOrder, findings: order.flatMap((name) => findings.filter(({ host }) => host === name)) }
  } finally {
    await Promise.all(open.map((transport) => transport.close()))
  }
}

/** Hosts, and the jump hosts on the way to them, whose keys are not confirmed yet. */
export const unpinned = (file: HostsFile): readonly (HostSpec | HostsFile['jumpHosts'][number])[] =>
  [...file.jumpHosts, ...file.hosts].filter(({ hostKey }) => hostKey === undefined)
