/**
 * The first process of a lab's namespaces (network, PID, mount; user where not root). It makes the lab's
 * bridge, starts and ends the machines, and carries TCP connections from the host into the lab's network.
 * Because it is PID 1 there, its end is the end of every machine: nothing can be left behind.
 *
 * Standard library only: it must start fast and stay small.
 *
 * Arguments: socket path, bridge address (CIDR). Descriptor 3 is a socket that listens on the *host's*
 * 127.0.0.1: it was opened before the namespaces were, and leads to the address given by `PUT /forward`.
 *
 * HTTP on the socket:
 *   GET /machines              Machine[]
 *   PUT /machines/NAME         StartRequest: starts it unless it runs
 *   DELETE /machines/NAME      ends it at once (a power cut); answers when it is gone
 *   PUT /paused/NAME           stops all its processes where they are
 *   DELETE /paused/NAME        lets them go on
 *   PUT /forward               {host, port}
 *   DELETE /                   ends everything
 *   CONNECT host:port          a tunnel into the lab's network
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect, createServer as createTcpServer, type Socket } from 'node:net'
import { constants } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'

export interface StartRequest {
  /** The program and its arguments. */
  readonly argv: readonly string[]
  /** The CPU of the host that it runs on. */
  readonly cpu: number
  /** Console output is appended to this file. */
  readonly console: string
  /** The bridge end and the machine end of a veth pair, made anew for every start. */
  readonly link: readonly [bridgeEnd: string, machineEnd: string]
}

export interface RunningMachine {
  readonly name: string
  readonly running: boolean
  readonly argv: readonly string[]
  /** Milliseconds since the epoch. */
  readonly started: number
  /** How it ended: `exit code 1`, `SIGKILL`. */
  readonly ended?: string
  /** It was stopped where it is. */
  readonly paused?: boolean
}

interface Entry extends StartRequest {
  readonly child: ChildProcess
  readonly started: number
  ended?: string
}

const bridge = 'lab0'
/** Milliseconds to wait for a TCP answer of a machine that may be down: nobody sends a RST for it. */
const dialTimeout = 3000

const ip = (...args: readonly string[]): void => {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

/** A shell's exit code in words: beyond 128 it stands for the signal that ended the program. */
const endingOf = (code: number): string =>
  Object.entries(constants.signals).find(([, number]) => number === code - 128)?.[0] ??
  `exit code ${String(code)}`

const setUpNetwork = (address: string): void => {
  ip('link', 'set', 'lo', 'up')
  ip('link', 'add', bridge, 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0')
  ip('address', 'add', address, 'dev', bridge)
  ip('link', 'set', bridge, 'up')
}

/** A process and all that descend from it, as /proc has them now, itself first. */
const familyOf = (pid: number): readonly number[] => {
  const children = new Map<number, number[]>()
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'utf8')
      // The name, in brackets, may hold anything; behind it come the state and the parent.
      const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
      children.set(parent, [...(children.get(parent) ?? []), Number(entry)])
    } catch {
      // It ended while we looked.
    }
  }
  const below = (one: number): readonly number[] => [one, ...(children.get(one) ?? []).flatMap(below)]
  return below(pid)
}

const send = (pid: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(pid, signal)
  } catch {
    // It ended while we looked.
  }
}

/** One that has ended and that nobody collected yet has let go of all it held. */
const lives = (pid: number): boolean => {
  try {
    const stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8')
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2))
  } catch {
    return false
  }
}

/** Whether it was stopped where it is, by whomever. */
const standsStill = (pid: number | undefined): boolean => {
  try {
    const stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T')
  } catch {
    return false
  }
}

const main = (socketPath: string, address: string): void => {
  const machines = new Map<string, Entry>()
  let forwardTo: { host: string; port: number } | undefined

  setUpNetwork(address)

  const start = (name: string, request: StartRequest): void => {
    const known = machines.get(name)
    if (known && known.ended === undefined) return
    const [bridgeEnd, machineEnd] = request.link
    try {
      ip('link', 'delete', bridgeEnd)
    } catch {
      // It is not there on the first start.
    }
    ip('link', 'add', bridgeEnd, 'type', 'veth', 'peer', 'name', machineEnd)
    ip('link', 'set', bridgeEnd, 'master', bridge, 'up')
    ip('link', 'set', machineEnd, 'up')
    const log = openSync(request.console, 'a', 0o600)
    // A PID namespace per machine: its first process ends, and the kernel ends all its helpers with it. That is a
    // shell: a kernel that panics aborts, and the signal of that would pass the first process by.
    // And a CPU: its kernel and its programs are processes that hand over to each other at every system call,
    // and never work at once. On one CPU that takes 11 microseconds, across two 14 to 32, as busy as they are.
    const child = spawn(
      'taskset',
      [
        '--cpu-list',
        String(request.cpu),
        'unshare',
        '--pid',
        '--fork',
        '--kill-child=SIGKILL',
        '--',
        'sh',
        '-c',
        // What the shell itself has to say, `Killed`, is not the machine's console.
        'exec 3>&2 2>/dev/null; "$@" 2>&3 3>&-; exit $?',
        'sh',
      ].concat(request.argv),
      { stdio: ['ignore', log, log], detached: true },
    )
    closeSync(log)
    const entry: Entry = { ...request, child, started: Date.now() }
    child.on('error', (error) => {
      entry.ended = error.message
    })
    child.on('exit', (code, signal) => {
      entry.ended = signal ?? endingOf(code ?? 0)
    })
    machines.set(name, entry)
  }

  /** A machine's kernel makes processes all the time: it is asked again until no new one is found. */
  const signalAll = (name: string, signal: 'SIGSTOP' | 'SIGCONT'): readonly number[] => {
    const entry = machines.get(name)
    if (entry?.child.pid === undefined || entry.ended !== undefined) return []
    const done = new Set<number>()
    for (;;) {
      const fresh = familyOf(entry.child.pid).filter((pid) => !done.has(pid))
      if (fresh.length === 0) return [...done]
      for (const pid of fresh) {
        done.add(pid)
        send(pid, signal)
      }
    }
  }

  /**
   * Ends a machine, and returns when none of its processes lives: one of them holds the lock of its disks. They
   * are stopped first. One that is only just starting may not yet be in its PID namespace, and would outlive it.
   */
  const end = async (name: string): Promise<void> => {
    const entry = machines.get(name)
    const family = signalAll(name, 'SIGSTOP')
    for (const pid of family) send(pid, 'SIGKILL')
    while (family.some(lives)) await delay(5)
    if (machines.get(name) === entry) machines.delete(name)
  }

  const list = (): RunningMachine[] =>
    [...machines].map(([name, { argv, started, ended, child }]) => ({
      name,
      running: ended === undefined,
      argv,
      started,
      ...(ended === undefined && standsStill(child.pid) ? { paused: true } : {}),
      ...(ended === undefined ? {} : { ended }),
    }))

  const body = async (request: IncomingMessage): Promise<unknown> => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    return JSON.parse(Buffer.concat(chunks).toString('utf8'))
  }

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const [, what, name] = (request.url ?? '/').split('/').map(decodeURIComponent)
    const route = `${request.method ?? ''} ${what ?? ''}`
    if (route === 'GET machines') {
      response.end(JSON.stringify(list()))
    } else if (route === 'PUT machines' && name) {
      start(name, (await body(request)) as StartRequest)
      response.end('{}')
    } else if (route === 'DELETE machines' && name) {
      await end(name)
      response.end('{}')
    } else if (route === 'PUT paused' && name) {
      signalAll(name, 'SIGSTOP')
      response.end('{}')
    } else if (route === 'DELETE paused' && name) {
      signalAll(name, 'SIGCONT')
      response.end('{}')
    } else if (route === 'PUT forward') {
      forwardTo = (await body(request)) as typeof forwardTo
      response.end('{}')
    } else if (route === 'DELETE ') {
      response.end('{}', () => process.exit(0))
    } else {
      response.writeHead(404).end('{}')
    }
  }

  const server = createServer((request, response) => {
    handle(request, response).catch((error: unknown) => {
      const stderr = (error as { stderr?: Buffer }).stderr?.toString() ?? ''
      response.writeHead(500).end(JSON.stringify({ error: `${String(error)} ${stderr}`.trim() }))
    })
  })

  const dial = (host: string, port: number): Socket => {
    const socket = connect({ host, port, noDelay: true })
    socket.setTimeout(dialTimeout, () => socket.destroy(new Error('ETIMEDOUT')))
    socket.once('connect', () => socket.setTimeout(0))
    return socket
  }

  const join = (near: Socket, far: Socket): void => {
    near.on('error', () => far.destroy())
    far.on('error', () => near.destroy())
    near.on('close', () => far.destroy())
    far.on('close', () => near.destroy())
    near.pipe(far)
    far.pipe(near)
  }

  server.on('connect', (request: IncomingMessage, near: Socket, head: Buffer) => {
    const [host = '', port = '0'] = (request.url ?? '').split(':')
    const far = dial(host, Number(port))
    const refuse = (error: Error) => near.end(`HTTP/1.1 502 ${error.message}\r\n\r\n`)
    near.on('error', () => far.destroy())
    far.once('error', refuse)
    far.once('connect', () => {
      far.off('error', refuse)
      near.write('HTTP/1.1 200 OK\r\n\r\n')
      if (head.length > 0) far.write(head)
      join(near, far)
    })
  })

  server.listen(socketPath)
  createTcpServer((near) => {
    if (!forwardTo) near.destroy()
    else join(near, dial(forwardTo.host, forwardTo.port))
  }).listen({ fd: 3 })
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => process.exit(0))
}

const [socketPath, address] = process.argv.slice(2)
if (!socketPath || !address) throw new Error('usage: supervisor SOCKET ADDRESS/PREFIX')
main(socketPath, address)
