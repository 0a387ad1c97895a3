/**
 * The rights of a lab's processes on the host, according to /proc, and what its supervisor withstands. Uses the built
 * program.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadLab } from '../../src/registry.js'
import type { Lab } from '../../src/lab/lab.js'
import type { Provider } from '../../src/provider/provider.js'
import { allProcesses, familyOf } from '../../src/processes.js'
import { processesOf } from '../../src/provider/uml/processes.js'
import { listedNumbers } from '../../src/provider/uml/confine.js'
import { dist } from '../helpers/cli.js'
import { Bench } from './lab.js'

const bench = new Bench()
const folder = join(bench.env.LAB_STATE, 'iscsi')
const socket = join(folder, 'supervisor.sock')
const before = process.env['LAB_STATE']
let lab: Lab
let provider: Provider
let bystander: ChildProcess | undefined

beforeAll(async () => {
  process.env['LAB_STATE'] = bench.env.LAB_STATE
  const built = (await import(pathToFileURL(join(dist, 'provider/uml/uml.js')).href)) as {
    umlProvider: Provider
  }
  provider = built.umlProvider
  lab = await loadLab('iscsi')
  await bench.up('iscsi')
})
afterAll(async () => {
  bystander?.kill('SIGKILL')
  await bench.close()
  if (before === undefined) Reflect.deleteProperty(process.env, 'LAB_STATE')
  else process.env['LAB_STATE'] = before
})

const supervisor = (): number => processesOf(socket)[0]!.pid
const namespace = (pid: number | 'self', kind: string): string =>
  readlinkSync(`/proc/${String(pid)}/ns/${kind}`)
/** All processes of all machines: those in PID namespaces of their own. */
const machineProcesses = (): readonly number[] => {
  const labs = namespace(supervisor(), 'pid')
  return familyOf(supervisor(), allProcesses())
    .filter(({ state }) => state !== 'Z')
    .map(({ pid }) => pid)
    .filter((pid) => {
      try {
        return namespace(pid, 'pid') !== labs
      } catch {
        // It ended in the meantime.
        return false
      }
    })
}
const field = (pid: number, name: string): string =>
  new RegExp(`^${name}:[ \\t]*(.*)$`, 'm').exec(readFileSync(`/proc/${String(pid)}/status`, 'utf8'))?.[1] ??
  ''

/** Each process of a machine that lives long enough to be examined. */
const eachProcess = (look: (pid: number) => void): number => {
  const seen = machineProcesses().filter((pid) => {
    try {
      look(pid)
      return true
    } catch (error) {
      if (
        (error as NodeJS.ErrnoException).code === 'ENOENT' ||
        (error as NodeJS.ErrnoException).code === 'ESRCH'
      )
        return false
      throw error
    }
  })
  // Two machines, each with a shell, a kernel and some programs.
  expect(seen.length).toBeGreaterThan(6)
  return seen.length
}

const isRoot = process.getuid?.() === 0

describe('the processes of a machine', () => {
  it('every machine runs as a user of its own that the host does not know', () => {
    const known = new Set(
      ['/etc/passwd', '/etc/group'].flatMap((path) => listedNumbers(readFileSync(path, 'utf8'))),
    )
    const users = new Set<number>()
    eachProcess((pid) => {
      for (const name of ['Uid', 'Gid']) {
        const numbers = new Set(field(pid, name).split(/\s+/).map(Number))
        expect(numbers.size).toBe(1)
        if (isRoot) expect([...numbers].some((number) => number === 0 || known.has(number))).toBe(false)
        else expect([...numbers]).toEqual([name === 'Uid' ? process.getuid?.() : process.getgid?.()])
        if (name === 'Uid') for (const number of numbers) users.add(number)
      }
      if (isRoot) expect(field(pid, 'Groups').trim()).toBe('')
    })
    if (isRoot) expect(users.size).toBe(2)
  })

  it('the processes of a machine have no capability and cannot gain one', () => {
    eachProcess((pid) => {
      expect(field(pid, 'NoNewPrivs')).toBe('1')
      for (const name of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']) {
        // Without a tap device, a machine needs raw sockets, in a network namespace of its own.
        const allowed = isRoot ? [0n] : [0n, 1n << 13n]
        expect(allowed).toContain(BigInt(`0x${field(pid, name)}`))
      }
    })
  })

  it('the processes of a machine share only the time and cgroup namespaces with the host', () => {
    eachProcess((pid) => {
      for (const kind of ['user', 'mnt', 'pid', 'net', 'ipc', 'uts'])
        expect(`${kind} ${namespace(pid, kind)}`).not.toBe(`${kind} ${namespace('self', kind)}`)
      expect(namespace(pid, 'user')).not.toBe(namespace(supervisor(), 'user'))
    })
  })

  it('the processes of a machine see nothing of the host but its kernel and its disks', () => {
    const seen = new Set<string>()
    eachProcess((pid) => {
      const root = `/proc/${String(pid)}/root`
      expect(readlinkSync(root)).not.toBe('/')
      for (const name of readdirSync(root)) seen.add(name)
      expect(readdirSync(`${root}/dev`).sort()).toEqual(expect.arrayContaining(['null', 'shm']))
      expect(readdirSync(`${root}/proc`)).toEqual(['cpuinfo'])
      // No path leads from there to the host's own root folder.
      const mounts = readFileSync(`/proc/${String(pid)}/mountinfo`, 'utf8')
      expect(
        mounts
          .split('\n')
          .filter((line) =>
            / \/(usr|root|etc|home|old)\b/.test(line.split(' - ')[0]!.split(' ').slice(4).join(' ')),
          ),
      ).toEqual([])
    })
    expect([...seen].sort()).toEqual(['base', 'dev', 'linux', 'lun-0', 'proc', 'root.cow', 'run', 'seed'])
  })

  it('the processes of a machine can write only to their own disks', () => {
    if (!isRoot) return
    for (const machine of ['target', 'initiator'])
      for (const name of readdirSync(join(folder, 'machines', machine))) {
        const { uid, mode } = statSync(join(folder, 'machines', machine, name))
        expect(mode & 0o077).toBe(0)
        const own = name === 'root.cow' || name === 'seed.tar' || name.startsWith('lun-')
        expect(`${name} ${String(uid !== 0)}`).toBe(`${name} ${String(own)}`)
      }
  })

  it("no disk argument of a machine's kernel contains a path of the host", () => {
    eachProcess((pid) => {
      const words = readFileSync(`/proc/${String(pid)}/cmdline`, 'utf8').split('\0')
      for (const word of words.filter((word) => word.startsWith('ubd'))) expect(word).not.toContain(folder)
    })
  })
})

interface Answer {
  readonly status: number
  readonly body: string
}

const askOnce = (method: string, path: string, body?: string): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const call = request({ socketPath: socket, method, path, agent: false }, (response) => {
      let text = ''
      response.on('data', (chunk: Buffer) => (text += String(chunk)))
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, body: text })
      })
    })
    call.on('connect', (response, tunnel) => {
      tunnel.destroy()
      resolve({ status: response.statusCode ?? 0, body: response.statusMessage ?? '' })
    })
    call.on('error', reject)
    call.end(body)
  })

/** As every client of the supervisor does, it waits for a place while the queue of new connections is full. */
const ask = async (method: string, path: string, body?: string): Promise<Answer> => {
  for (const until = Date.now() + 10_000; ;) {
    try {
      return await askOnce(method, path, body)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || Date.now() > until) throw error
      await delay(20)
    }
  }
}

/** A request to start a machine, which is right except for its link or its mounts. */
const requestOf = (link: string, binds = '[]'): string =>
  `{"argv":["/linux"],"cpu":0,"console":"/x","link":${link},"binds":${binds}}`

/** Sends raw bytes that no client would send. */
const say = async (bytes: string): Promise<string> => {
  const line = connect(socket)
  let text = ''
  line.on('data', (chunk: Buffer) => (text += String(chunk))).on('error', () => undefined)
  // The supervisor may hang up before it has read everything: `once` of node:events would take that for a failure.
  const closed = new Promise((resolve) => line.once('close', resolve))
  line.write(bytes)
  await Promise.race([closed, delay(1500)])
  line.destroy()
  return text
}

const alive = async (pid: number): Promise<void> => {
  expect(supervisor()).toBe(pid)
  const { status, body } = await ask('GET', '/machines')
  expect(status).toBe(200)
  expect((JSON.parse(body) as { running: boolean }[]).map(({ running }) => running)).toEqual([true, true])
}

describe('the supervisor of a lab', () => {
  it("only its owner can open the supervisor's socket", () => {
    expect(statSync(socket).mode & 0o777).toBe(0o600)
    expect(statSync(folder).mode & 0o777).toBe(0o700)
  })

  it.each([
    ['a tunnel to a port of five digits that is none', 'CONNECT', '192.168.56.70:70000'],
    ['a tunnel to a port that is not a number', 'CONNECT', '192.168.56.70:NaN'],
    ['a tunnel to a negative port', 'CONNECT', '192.168.56.70:-1'],
    ['a tunnel to port 0', 'CONNECT', '192.168.56.70:0'],
    ['a tunnel without a port', 'CONNECT', '192.168.56.70'],
    ['a tunnel without a host', 'CONNECT', ':22'],
    ['a tunnel to a host with a blank', 'CONNECT', 'a b:22'],
    ['a tunnel to a host of 5,000 letters', 'CONNECT', `${'x'.repeat(5000)}:22`],
    ['half an escape in the path', 'GET', '/machines/%'],
    ['an unknown path', 'GET', '/nothing'],
    ['a path that climbs', 'GET', '/machines/../x'],
    ['an unknown method', 'POST', '/machines/target'],
    ['a name with a zero byte', 'DELETE', '/machines/%00'],
    ['a run that is not a number', 'DELETE', '/machines/target?started=soon'],
    ['a path that is too deep', 'DELETE', '/machines/target/more'],
    ['a machine without a name', 'DELETE', '/machines'],
    ['a name with dots', 'PUT', '/machines/a..b', '{}'],
    ['a body that is not JSON', 'PUT', '/machines/new', 'no JSON'],
    ['an empty body', 'PUT', '/machines/new', ''],
    ['a body that is null', 'PUT', '/machines/new', 'null'],
    ['a command that is no list', 'PUT', '/machines/new', '{"argv":"/bin/sh"}'],
    ['a negative processor', 'PUT', '/machines/new', '{"argv":["/linux"],"cpu":-1}'],
    ['a link without an address', 'PUT', '/machines/new', requestOf('["b1","v1"]')],
    ['a link whose name is a command', 'PUT', '/machines/new', requestOf('["b1","lo;","02:4c:c0:a8:38:46"]')],
    [
      'a mount that climbs out of the root',
      'PUT',
      '/machines/new',
      requestOf('["b1","v1","02:4c:c0:a8:38:46"]', '[{"from":"/etc","to":"/../etc"}]'),
    ],
    ['a forward to a host that is a number', 'PUT', '/forward', '{"host":7,"port":"x"}'],
    ['a forward to an impossible port', 'PUT', '/forward', '{"host":"192.168.56.11","port":70000}'],
    ['a body of 2 MiB', 'PUT', '/machines/new', `"${'x'.repeat(2 * 1024 ** 2)}"`],
  ] as const)('the supervisor rejects %s, and keeps running', async (_, method, path, body?: string) => {
    const pid = supervisor()
    // If a request is too long, the client may see the connection close before it has sent everything.
    const { status } = await ask(method, path, body).catch(() => ({ status: 400 }))
    expect(status).toBeGreaterThanOrEqual(400)
    expect(status).toBeLessThan(500)
    await alive(pid)
  })

  it.each([
    ['no HTTP', 'SSH-2.0-x\r\n\r\n'],
    ['no path', 'GET\r\n\r\n'],
    ['a body that ends early', 'PUT /machines/new HTTP/1.1\r\nContent-Length: 10\r\n\r\n{'],
    ['a body with an impossible length', 'PUT /machines/new HTTP/1.1\r\nContent-Length: -1\r\n\r\n'],
    ['an upgrade', 'GET /machines HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n'],
    ['a CONNECT to nowhere', 'CONNECT  HTTP/1.1\r\n\r\n'],
    ['a CONNECT to a port of six digits', 'CONNECT 192.168.56.70:700000 HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['headers without end', `GET / HTTP/1.1\r\nx: ${'y'.repeat(100_000)}`],
    ['nothing but zeros', '\0'.repeat(1000)],
  ])('the supervisor survives %s', async (_, bytes) => {
    const pid = supervisor()
    expect(await say(bytes)).not.toMatch(/^HTTP\/1\.1 5/)
    await alive(pid)
  })

  it('the supervisor keeps answering while 10,000 idle connections are open', async () => {
    const pid = supervisor()
    const lines: Socket[] = []
    let open = 0
    for (let group = 0; group < 100; group++) {
      for (let each = 0; each < 100; each++) {
        const line = connect(socket)
        line.on('connect', () => open++).on('error', () => undefined)
        lines.push(line)
      }
      await delay(5)
      if (group % 20 === 0) await ask('GET', '/machines')
    }
    await alive(pid)
    expect(open).toBeGreaterThan(5000)
    for (const line of lines) line.destroy()
    await alive(pid)
  })

  it('the supervisor limits the number of tunnels and accepts new ones when old ones close', async () => {
    const pid = supervisor()
    const lines: Socket[] = []
    for (let group = 0; group < 30; group++) {
      for (let each = 0; each < 100; each++) {
        const line = connect(socket)
        line.on('error', () => undefined)
        line.write('CONNECT 192.168.56.70:22 HTTP/1.1\r\nHost: x\r\n\r\n')
        lines.push(line)
      }
      await delay(10)
    }
    for (const line of lines) line.destroy()
    // The SSH server of a small machine also has to recover from three thousand connections.
    let answered = ''
    for (const until = Date.now() + 60_000; answered === '' && Date.now() < until;) {
      answered = (await bench.lab('exec', 'iscsi', 'target', '--', 'hostname')).stdout
      await delay(200)
    }
    expect(answered).toContain('target')
    await alive(pid)
  })

  it('the supervisor reports a paused machine as paused, and refuses to pause a stopped one', async () => {
    const stateOf = async () => (await provider.states(lab)).find(({ name }) => name === 'initiator')
    expect(await stateOf()).not.toHaveProperty('paused')
    expect((await ask('PUT', '/paused/initiator')).status).toBe(200)
    expect(await stateOf()).toMatchObject({ status: 'running', paused: true })
    expect((await ask('DELETE', '/paused/initiator')).status).toBe(200)
    expect(await stateOf()).not.toHaveProperty('paused')
    expect((await ask('PUT', '/paused/nobody')).status).toBe(409)
    expect((await ask('DELETE', '/paused/nobody')).status).toBe(409)
  })

  it('the supervisor ends the requested run of a machine and leaves a later run alone', async () => {
    const detail = async () => (await provider.states(lab)).find(({ name }) => name === 'initiator')!
    const first = (await detail()).detail
    // A start that is requested while the machine is being stopped happens after the stop.
    const spec = lab.machines.find(({ name }) => name === 'initiator')!
    await Promise.all([
      provider.power!.cut(lab, 'initiator', { run: first }),
      delay(1).then(() => provider.machines!.start(lab, spec, [])),
    ])
    const second = await detail()
    expect(second.status).toBe('running')
    expect(second.detail).not.toBe(first)
    await provider.power!.cut(lab, 'initiator', { run: first })
    expect(await detail()).toEqual(second)
    await provider.power!.cut(lab, 'initiator', { run: second.detail })
    expect((await detail()).status).toBe('stopped')
    expect((await ask('PUT', '/paused/initiator')).status).toBe(409)
  })

  it("lab down spares processes whose arguments merely look like a supervisor's", async () => {
    const words = [
      `ubd0=${folder}/machines/target/root.cow`,
      'umid=target',
      join(dist, 'provider/uml/supervisor.js'),
      socket,
    ]
    bystander = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)', ...words], { stdio: 'ignore' })
    await delay(300)
    expect(processesOf(socket).map(({ pid }) => pid)).not.toContain(bystander.pid)
    expect(await bench.ok('down', 'iscsi')).toContain('nothing left')
    expect(bystander.exitCode).toBeNull()
    expect(bystander.signalCode).toBeNull()
  })
})
