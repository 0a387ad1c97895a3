/** Whether this host can run machines, found by trying, and whether it has room for those of a lab. */
import { existsSync, readFileSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { freemem } from 'node:os'
import { execa } from 'execa'
import type { Lab } from '../../lab/lab.js'
import { preparedParts } from '../../parts/parts.js'
import { pathsOf } from '../../state.js'
import type { Usability } from '../provider.js'

interface Problem {
  readonly problem: string
  readonly hint: string
}

const isRoot = (): boolean => process.getuid?.() === 0

/** Tries it, by a command that runs another one where machines run: in namespaces of their own. */
export const probe = async (
  [program, ...enter]: readonly [string, ...string[]],
  signal: AbortSignal,
): Promise<Usability> => {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return {
      usable: false,
      evidence: `this is ${process.platform} on ${process.arch}; User-Mode Linux needs Linux on x64`,
      remedy: 'use a provider with virtual machines: --provider virtualbox',
    }
  const attempt = await execa(
    program,
    [
      ...enter,
      'sh',
      '-c',
      'ip link add lab0 type bridge && ip link add b1 type veth peer name v1 && ip link set b1 master lab0',
    ],
    { reject: false, cancelSignal: signal, timeout: 10_000, stdin: 'ignore' },
  )
  if (attempt.exitCode !== 0)
    return {
      usable: false,
      evidence: `a bridge in namespaces of our own: ${attempt.stderr.trim() || (attempt.originalMessage ?? 'failed')}`,
      remedy: isRoot()
        ? 'apt-get install -y iproute2 util-linux mount'
        : 'sudo sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0, or run lab as root',
    }
  const parts = await preparedParts()
  const namespaces = `namespaces, bridge and veth work as ${isRoot() ? 'root' : 'this user'}`
  if ('missing' in parts)
    return { usable: true, evidence: `${namespaces}; the kernel is not built yet, so it could not be booted` }
  const boot = await execa(
    parts.kernel,
    ['mem=64M', 'con=null', 'con0=null,fd:1', 'panic=-1', 'seccomp=auto'],
    {
      reject: false,
      cancelSignal: signal,
      timeout: 10_000,
      stdin: 'ignore',
      env: { TMPDIR: '/dev/shm' },
    },
  )
  const said = `${boot.stdout}\n${boot.stderr}`
  const version = /Linux version (\S+)/.exec(said)?.[1]
  return version === undefined
    ? {
        usable: false,
        evidence: `${namespaces}, but the kernel does not boot: ${said.trim().split('\n').at(-1) ?? ''}`,
      }
    : { usable: true, evidence: `${namespaces}; a kernel ${version} booted` }
}

/** @param running whether the lab has machines that run: they have what they need */
export const preflight = async (lab: Lab, running: boolean): Promise<readonly Problem[]> => {
  const problems: Problem[] = []
  const wanted = lab.machines.reduce((sum, machine) => sum + machine.memory, 0)
  const available = availableMemory()
  const gib = (bytes: number): string => (bytes / 1024 ** 3).toFixed(1)
  if (!running && wanted > available)
    problems.push({
      problem: `the machines of ${lab.name} want ${gib(wanted)} GiB of memory, ${gib(available)} GiB are free`,
      hint: `make memory: of some machines smaller in ${lab.file}, or stop another lab: lab list`,
    })
  const disk = await statfs(existsSync(pathsOf(lab.name).root) ? pathsOf(lab.name).root : '/var/tmp')
  const free = disk.bavail * disk.bsize
  const needed = 2 * 1024 ** 3 * lab.machines.length * 0.5
  if (!running && free < needed)
    problems.push({
      problem: `${gib(free)} GiB of disk are free, ${gib(needed)} GiB are needed`,
      hint: 'df -h; lab prepare --prune removes what earlier versions built',
    })
  return problems
}

/** Bytes that can be used without swapping, as the kernel reckons. */
const availableMemory = (): number => {
  const found = /MemAvailable:\s+(\d+) kB/.exec(readFileSync('/proc/meminfo', 'utf8'))
  return found ? Number(found[1]) * 1024 : freemem()
}
