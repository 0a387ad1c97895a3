/** Commands that reach into a running lab: ssh, exec, cp, kubectl, forward. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { exitCodes, LabError } from '../error.js'
import { imagesOf } from '../lab/images.js'
import type { Lab, MachineSpec } from '../lab/lab.js'
import { quote } from '../machine/sh.js'
import { pathsOf } from '../state.js'
import { type Io, loadRunning, type Options, printJson, providerOf, sessionFor } from './common.js'

const roles = ['control-plane', 'worker', 'target', 'initiator', 'nfs']

/** One machine, a role, or all. */
const select = (lab: Lab, who: string): readonly MachineSpec[] => {
  const found = lab.machines.filter(({ name, role }) => who === 'all' || name === who || role === who)
  if (found.length === 0)
    throw new LabError('no-machine', `${lab.name} has no machine and no role ${who}`, {
      hint: `one of: ${[...new Set([...lab.machines.map(({ name }) => name), ...roles, 'all'])].join(', ')}`,
      exitCode: exitCodes.usage,
    })
  return found
}

/** @throws LabError `no-machine`, with those there are. */
const machineOf = (lab: Lab, name: string): MachineSpec => {
  const machine = lab.machines.find((candidate) => candidate.name === name)
  if (machine) return machine
  throw new LabError('no-machine', `${lab.name} has no machine ${name}`, {
    hint: `one of: ${lab.machines.map((each) => each.name).join(', ')}`,
    exitCode: exitCodes.usage,
  })
}

/** Runs a program of this host with our terminal; its exit code is ours. */
const handOver = async (program: string, args: readonly string[], hint: string, io: Io): Promise<number> => {
  const child = spawn(program, args, { stdio: 'inherit' })
  // Of Ctrl-C it hears by itself; where only we were told to end, it ends with us.
  io.signal.addEventListener('abort', () => child.kill('SIGTERM'), { once: true })
  try {
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]
    return code ?? (signal === 'SIGINT' || io.signal.aborted ? exitCodes.interrupted : exitCodes.failed)
  } catch (error) {
    throw new LabError('no-program', `${program} does not start: ${(error as Error).message}`, {
      hint,
      exitCode: exitCodes.host,
    })
  }
}

const sshArgs = (lab: Lab): readonly string[] => ['-F', pathsOf(lab.name).sshConfig]

/** A shell on a machine, or one command with the terminal's input. ssh itself would not know a role. */
export const ssh = async (
  nameOrPath: string,
  machine: string,
  command: readonly string[],
  io: Io,
): Promise<number> => {
  const lab = await loadRunning(nameOrPath)
  await providerOf(lab)
  machineOf(lab, machine)
  return handOver(
    'ssh',
    [...sshArgs(lab), machine, ...(command.length === 0 ? [] : ['--', command.map(quote).join(' ')])],
    'apt-get install -y openssh-client',
    io,
  )
}

/** A command on one machine, a role or all, at the same time; each line with the machine's name before it. */
export const exec = async (
  nameOrPath: string,
  who: string,
  command: readonly string[],
  options: Options,
  io: Io,
): Promise<number> => {
  const lab = await loadRunning(nameOrPath)
  const machines = select(lab, who)
  if (command.length === 0)
    throw new LabError('no-command', `no command for ${who}`, {
      hint: `lab exec ${lab.name} ${who} -- uptime`,
      exitCode: exitCodes.usage,
    })
  const session = await sessionFor(lab, await providerOf(lab), io.signal)
  const text = command.map(quote).join(' ')
  try {
    const results = await Promise.all(
      machines.map(async ({ name }) => ({
        machine: name,
        ...(await session.machine(name).try({ text, shown: text }, { signal: io.signal, timeout: 3600 })),
      })),
    )
    if (options.output === 'json') printJson(io, 'lab.exec/v1', { name: lab.name, command: text, results })
    else {
      const width = Math.max(...machines.map(({ name }) => name.length))
      const prefix = (name: string, output: string): string =>
        machines.length === 1 ? output : output.replace(/^(?=.)/gm, `${name.padEnd(width)} | `)
      for (const { machine, stdout, stderr } of results) {
        io.stdout.write(prefix(machine, stdout))
        io.stderr.write(prefix(machine, stderr))
      }
    }
    return results.find(({ exitCode }) => exitCode !== 0)?.exitCode ?? exitCodes.ok
  } finally {
    await session.close()
  }
}

/** scp with the lab's keys: `MACHINE:PATH` on either side. */
export const cp = async (nameOrPath: string, paths: readonly string[], io: Io): Promise<number> => {
  const lab = await loadRunning(nameOrPath)
  await providerOf(lab)
  const remote = paths.filter((path) => /^[a-z0-9-]+:/.test(path))
  if (paths.length < 2 || remote.length === 0)
    throw new LabError(
      'no-machine',
      paths.length < 2 ? 'two paths are wanted: from, to' : 'no path is on a machine',
      {
        hint: `lab cp ${lab.name} ./file ${lab.machines[0]?.name ?? 'machine'}:/root/`,
        exitCode: exitCodes.usage,
      },
    )
  for (const path of remote) machineOf(lab, path.slice(0, path.indexOf(':')))
  return handOver('scp', [...sshArgs(lab), '-r', ...paths], 'apt-get install -y openssh-client', io)
}

export const kubectl = async (nameOrPath: string, args: readonly string[], io: Io): Promise<number> => {
  const lab = await loadRunning(nameOrPath)
  await providerOf(lab)
  if (!lab.kubernetes)
    throw new LabError('no-kubernetes', `${lab.name} has no Kubernetes`, { exitCode: exitCodes.usage })
  const { preparedParts } = await import('../parts/parts.js')
  const parts = await preparedParts({ images: imagesOf(lab) })
  const program = 'missing' in parts ? 'kubectl' : parts.kubectl
  return handOver(
    program,
    ['--kubeconfig', pathsOf(lab.name).kubeconfig, ...args],
    `lab prepare ${lab.name}`,
    io,
  )
}

const isPort = (text: string): boolean => /^\d{1,5}$/.test(text) && Number(text) < 65_536

/** A port of the lab on this host's 127.0.0.1, until Ctrl-C. */
export const forward = async (
  nameOrPath: string,
  where: string,
  options: Options & { readonly port?: string },
  io: Io,
): Promise<number> => {
  const lab = await loadRunning(nameOrPath)
  const provider = await providerOf(lab)
  const [, name = '', port = ''] = /^([^:]+):(\d+)$/.exec(where) ?? []
  if (name === '' || !isPort(port) || port === '0')
    throw new LabError('bad-port', `${where} is not MACHINE:PORT`, {
      hint: `lab forward ${lab.name} ${lab.machines[0]?.name ?? 'machine'}:22`,
      exitCode: exitCodes.usage,
    })
  const { address } = machineOf(lab, name)
  const wanted = options.port ?? port
  if (!isPort(wanted))
    throw new LabError('bad-port', `--port ${wanted}: wanted 0 to 65535; 0: any that is free`, {
      exitCode: exitCodes.usage,
    })
  const server = createServer((near) => {
    provider.dial(lab, address, Number(port)).then(
      (far) => {
        near.pipe(far).pipe(near)
        near.on('error', () => far.destroy())
        far.on('error', () => near.destroy())
      },
      (error: unknown) => {
        io.stderr.write(`${where}: ${error instanceof Error ? error.message : String(error)}\n`)
        near.destroy()
      },
    )
  })
  try {
    server.listen(Number(wanted), '127.0.0.1')
    await once(server, 'listening')
  } catch (error) {
    throw new LabError('port-taken', `127.0.0.1:${wanted}: ${(error as Error).message}`, {
      hint: `another one: lab forward ${lab.name} ${where} --port 0`,
    })
  }
  const at = server.address()
  const shown = at !== null && typeof at === 'object' ? `127.0.0.1:${String(at.port)}` : ''
  if (options.output === 'json') printJson(io, 'lab.forward/v1', { name: lab.name, listen: shown, to: where })
  else io.stdout.write(`${shown} leads to ${where} in ${lab.name}; Ctrl-C ends it\n`)
  await new Promise<void>((resolve) => {
    io.signal.addEventListener('abort', () => {
      resolve()
    })
  })
  server.close()
  return exitCodes.ok
}
