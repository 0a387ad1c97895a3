/** Whether this host can run machines, found by trying, and whether it has room for those of a lab. */
import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { execa } from 'execa'
import { diskSizeOf, type Lab, type MachineSpec, nodesOf, serversOf } from '../../lab/lab.js'
import { cacheRoot, noexecMountOf, preparedParts, trialBoot, trialEnd } from '../../parts/parts.js'
import { disksProblem } from '../../lab/iscsi-rules.js'
import { sizeText } from '../../lab/units.js'
import { freeSpace, pathsOf } from '../../state.js'
import type { Problem, Usability } from '../provider.js'
import { lunsOf } from './machine.js'
import { availableMemory, taskLimits } from './limits.js'

const isRoot = (): boolean => process.getuid?.() === 0

const textOf = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

/** The bit of CAP_SYS_ADMIN, which is required for making namespaces. */
const sysAdmin = 21n

/**
 * Why namespaces cannot be made here, and what to type, according to the kernel's data about this process: a
 * container has fewer privileges than root on the host, and a system call filter.
 */
export const whyNoNamespaces = (
  status: string,
  root: boolean,
  programs: boolean,
): { readonly why: string; readonly remedy: string } => {
  const [, capabilities = '0'] = /^CapEff:\s*([0-9a-f]+)/m.exec(status) ?? []
  const may = (BigInt(`0x${capabilities}`) >> sysAdmin) & 1n
  const filtered = /^Seccomp:\s*2/m.test(status)
  const container =
    'docker run --privileged …, or: docker run --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined …'
  if (!programs) return { why: '', remedy: 'apt-get install -y iproute2 util-linux mount' }
  if (root && may === 0n)
    return { why: ' (this root lacks CAP_SYS_ADMIN, as in a container)', remedy: container }
  if (filtered)
    return {
      why: ' (system calls of this process are filtered by seccomp, as in a container)',
      remedy: container,
    }
  return {
    why: '',
    remedy: root
      ? 'apt-get install -y iproute2 util-linux mount; in a container: docker run --privileged …'
      : 'sudo sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0, or run lab as root',
  }
}

/** Tries to run a command inside the namespaces in which machines would run. */
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
  if (attempt.exitCode !== 0) {
    const said = attempt.stderr.trim() || (attempt.originalMessage ?? 'failed')
    const { why, remedy } = whyNoNamespaces(
      textOf('/proc/self/status') ?? '',
      isRoot(),
      attempt.code !== 'ENOENT' && attempt.exitCode !== 127,
    )
    return { usable: false, evidence: `could not make a bridge in new namespaces: ${said}${why}`, remedy }
  }
  const namespaces = `namespaces, bridge and veth work as ${isRoot() ? 'root' : 'this user'}`
  const noexec = noexecMountOf(cacheRoot())
  if (noexec !== undefined)
    return {
      usable: false,
      evidence: `${namespaces}, but no program can be started from ${cacheRoot()}, because ${noexec} is mounted noexec`,
      remedy: `mount -o remount,exec ${noexec}, or another folder: LAB_CACHE=$HOME/.lab-cache lab …`,
    }
  const parts = await preparedParts()
  if ('missing' in parts)
    return { usable: true, evidence: `${namespaces}; the kernel is not built yet, so it could not be booted` }
  const boot = await execa(parts.kernel, trialBoot, {
    reject: false,
    cancelSignal: signal,
    timeout: 10_000,
    stdin: 'ignore',
    env: { TMPDIR: '/dev/shm' },
  })
  const said = `${boot.stdout}\n${boot.stderr}`
  const version = /Linux version (\S+)/.exec(said)?.[1]
  if (version !== undefined && said.includes(trialEnd))
    return { usable: true, evidence: `${namespaces}; a kernel ${version} booted` }
  const last = /Kernel panic.*/.exec(said)?.[0] ?? said.trim().split('\n').at(-1) ?? ''
  // A command that could not be started printed nothing: then the system error says why.
  const why = last || (boot.originalMessage ?? boot.shortMessage ?? 'it ended without any output')
  return {
    usable: false,
    evidence: `${namespaces}, but the kernel does not boot: ${why}`,
    remedy:
      boot.code === 'EACCES'
        ? `ls -l ${parts.kernel}; it must be a program that you may execute`
        : `${parts.kernel} ${trialBoot.join(' ')} shows its output; df -h /dev/shm`,
  }
}

/**
 * The space in bytes that a root disk takes after `lab up` and a day of logs and images. 0.75 MiB were measured for
 * an iSCSI machine; the value for a node is an estimate.
 */
const rootGrowth = (lab: Lab, machine: MachineSpec): number =>
  (nodesOf(lab).includes(machine) ? 768 : 32) * 1024 ** 2

/**
 * Bytes of a LUN that its first file system writes: 68 MiB were measured for ext4 on 4 GiB, including a journal of 64
 * MiB.
 */
const lunAtOnce = (size: number): number => Math.min(size, 64 * 1024 ** 2 + size * 0.02)

/**
 * Processes and threads of this host per machine: 18 were measured for two iSCSI machines; the value for a node is an
 * estimate.
 */
const tasksOf = (lab: Lab, machine: MachineSpec): number => (nodesOf(lab).includes(machine) ? 300 : 40)

/** Those of the supervisor and of lab itself. */
const ownTasks = 40

const sum = (numbers: readonly number[]): number => numbers.reduce((all, each) => all + each, 0)
const gib = (bytes: number): string => (bytes / 1024 ** 3).toFixed(1)

/** The nearest existing folder, on whose file system the path would be made. */
const nearest = (path: string): string => {
  let at = path
  while (!existsSync(at) && at !== '/') at = dirname(at)
  return at
}

/** The bytes of a lab's disks that are already on disk. */
const written = (folder: string): number => {
  try {
    return sum(
      readdirSync(folder, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map(({ parentPath, name }) => lstatSync(join(parentPath, name)).blocks * 512),
    )
  } catch {
    return 0
  }
}

/** The resources that a lab needs of a host. */
export interface LabNeeds {
  /** Bytes: the most that its machines can use. */
  readonly memory: number
  /** Processes and threads. */
  readonly tasks: number
  /** Bytes on disk after `lab up`, and if its LUNs get full. */
  readonly diskAtOnce: number
  readonly diskAtMost: number
}

/** Bytes of every disk behind a LUN; both copies for a pair. */
const diskSizesOf = (lab: Lab): readonly number[] =>
  lab.targets.flatMap((target) =>
    serversOf(target).flatMap(() => target.luns.map((lun) => diskSizeOf(target, lun))),
  )

export const labNeeds = (lab: Lab): LabNeeds => {
  const disks = sum(lab.machines.map((machine) => rootGrowth(lab, machine)))
  const sizes = diskSizesOf(lab)
  return {
    memory: sum(lab.machines.map(({ memory }) => memory)),
    tasks: sum(lab.machines.map((machine) => tasksOf(lab, machine))) + ownTasks,
    diskAtOnce: disks + sum(sizes.map(lunAtOnce)),
    diskAtMost: disks + sum(sizes),
  }
}

/** @param running whether machines of the lab already run and have the resources they need */
export const preflight = async (lab: Lab, running: boolean): Promise<readonly Problem[]> => {
  const problems: Problem[] = []
  const noexec = noexecMountOf(cacheRoot())
  if (noexec !== undefined)
    problems.push({
      problem: `no program can be started from ${cacheRoot()}, because ${noexec} is mounted noexec`,
      hint: `mount -o remount,exec ${noexec}, or another folder: LAB_CACHE=$HOME/.lab-cache lab …`,
    })
  if (running) return problems

  const wanted = sum(lab.machines.map(({ memory }) => memory))
  const memory = availableMemory()
  if (wanted > memory.bytes)
    problems.push({
      problem: `the machines of ${lab.name} need ${gib(wanted)} GiB of memory, but only ${gib(memory.bytes)} GiB are free${memory.limit === undefined ? '' : `: a control group has its own limit (${memory.limit})`}`,
      hint: `reduce memory: of some machines in ${lab.file}, or stop another lab: lab list${memory.limit === undefined ? '' : '; or give the container or slice more: docker run --memory, MemoryMax='}`,
    })

  const tasks = sum(lab.machines.map((machine) => tasksOf(lab, machine))) + ownTasks
  for (const { bound, free, hint } of taskLimits())
    if (free < tasks)
      problems.push({
        problem: `${lab.name} needs about ${String(tasks)} processes, but only ${String(Math.max(0, free))} more can be started here (${bound})`,
        hint,
      })

  const { root } = pathsOf(lab)
  const place = nearest(root)
  const free = await freeSpace(place)
  const there = written(join(root, 'machines'))
  const disks = sum(lab.machines.map((machine) => rootGrowth(lab, machine)))
  const sizes = diskSizesOf(lab)
  const luns = sum(sizes)
  const certain = Math.max(0, disks + sum(sizes.map(lunAtOnce)) - there)
  const atMost = Math.max(0, disks + luns - there)
  const remedy = `df -h ${place}; lab prepare --prune removes what earlier versions built; or another disk: LAB_STATE=/path/to/folder`
  if (free < certain)
    problems.push({
      problem: `${place}: ${gib(free)} GiB of disk are free; ${lab.name} needs ${gib(certain)} GiB at once${luns > 0 ? `, and its LUNs may grow to ${gib(luns)} GiB` : ''}`,
      hint: remedy,
    })
  else if (free < atMost)
    problems.push({
      problem: `${place}: ${gib(free)} GiB of disk are free; ${lab.name} needs ${gib(certain)} GiB at once, but its LUNs may grow to ${gib(luns)} GiB, and on a full disk its machines lose what they write`,
      hint: `reduce luns: in ${lab.file}; or ${remedy}; or, if they stay small enough: lab up ${lab.name} --yes`,
      may: true,
    })
  return problems
}

/** Problems with the LUNs of a lab before anything is made: too many for a machine, or made smaller. */
export const lunProblems = async (lab: Lab): Promise<readonly Problem[]> => {
  const problems: Problem[] = []
  for (const machine of lab.machines) {
    const luns = lunsOf(lab, machine)
    const tooMany = disksProblem(machine.name, luns.length, 'uml')
    if (tooMany !== undefined)
      problems.push({ problem: tooMany, hint: `use another machine with the role target in ${lab.file}` })
    for (const { path, size, target, lun } of luns) {
      const has = (await stat(path).catch(() => undefined))?.size ?? 0
      if (has > size)
        problems.push({
          problem: `LUN ${String(lun)} of ${target} has ${sizeText(has)}, but the lab file says ${sizeText(size)}: a disk that shrinks loses the data at its end`,
          hint: `write size: ${sizeText(has)} in ${lab.file}; or remove the lab with all its data: lab down ${lab.name}`,
        })
    }
  }
  return problems
}
