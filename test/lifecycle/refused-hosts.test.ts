/**
 * Hosts that a lab cannot use: `lab up --hosts` refuses them with one error each, which names the place, the reason and
 * the next thing to type, and touches nothing. The hosts are real SSH servers on the loopback, without a shell.
 */
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import ssh2 from 'ssh2'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { LabError } from '../../src/error.js'
import { labOnHosts } from '../../src/lifecycle/existing-hosts.js'
import { makeKeyPair } from '../../src/machine/keys.js'
import { loadLab } from '../../src/registry.js'
import { pathsOf } from '../../src/state.js'
import { temporaryFolder } from '../helpers/folder.js'

vi.setConfig({ testTimeout: 120_000 })

const password = 'raspberry'
const keys = makeKeyPair('host')
const otherKeys = makeKeyPair('other')
const pinned = (publicKey: string): string => publicKey.split(' ').slice(0, 2).join(' ')

interface Answer {
  readonly stdout?: string
  readonly stderr?: string
  readonly exitCode?: number
}

let folder: string
/** What the host was told to run. */
let commands: string[]
let answer: (command: string) => Answer
let port: number
let end: () => Promise<void>

beforeEach(async () => {
  folder = await temporaryFolder()
  vi.stubEnv('LAB_STATE', join(folder, 'state'))
  vi.stubEnv('PI_PASSWORD', password)
  commands = []
  answer = () => ({})
  const server = new ssh2.Server({ hostKeys: [keys.privateKey] }, (client) => {
    client.on('error', () => undefined)
    client.on('authentication', (context) => {
      if (context.method === 'password' && context.username === 'pi' && context.password === password)
        context.accept()
      else context.reject(['password'])
    })
    client.on('session', (accept) => {
      accept().on('exec', (acceptExec, _reject, { command }) => {
        commands.push(command)
        const { stdout = '', stderr = '', exitCode = 0 } = answer(command)
        const channel = acceptExec()
        channel.resume()
        channel.stderr.write(stderr)
        channel.write(stdout)
        channel.exit(exitCode)
        channel.end()
      })
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  port = (server.address() as AddressInfo).port
  end = async () => {
    server.close()
    await once(server, 'close')
  }
})
afterEach(async () => {
  await end()
  vi.unstubAllEnvs()
})

/** A port at which nothing listens. */
const closedPort = async (): Promise<number> => {
  const listener = createServer().listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port: free } = listener.address() as AddressInfo
  listener.close()
  await once(listener, 'close')
  return free
}

/** What `lab up --hosts` says about a host for one machine of a lab that has no others. */
const refusalOf = async (
  host: string,
  { more = '', name = 'iscsi', machine = 'target' } = {},
): Promise<LabError> => {
  const file = join(folder, 'hosts.yaml')
  await writeFile(
    file,
    `apiVersion: lab.hosts/v1\ndefaults: { user: pi, password: $PI_PASSWORD }\nhosts:\n  ${machine}: ${host}\n${more}`,
  )
  const lab = await loadLab(name)
  const machines = lab.machines.filter((each) => each.name === machine)
  const notices: string[] = []
  const operator = { signal: new AbortController().signal, stderr: { write: () => true } }
  const error = await labOnHosts({ ...lab, machines }, { hosts: file }, operator, (text) =>
    notices.push(text),
  ).then(
    () => new Error('it was accepted'),
    (reason: unknown) => reason,
  )
  expect(notices).toEqual([])
  // Nothing is kept here, and nothing was written there: a host was asked at most how to become root, and what it is.
  expect(existsSync(pathsOf(lab).root)).toBe(false)
  for (const command of commands) expect(command).toMatch(/command -v sudo|id -u|say machine/)
  return error as LabError
}

const here = (): string => `{ address: 127.0.0.1, port: ${String(port)}, hostKey: ${pinned(keys.publicKey)} }`

describe('lab up --hosts refuses a host, and touches nothing', () => {
  test('a wrong password is refused with the login to try, and is not shown', async () => {
    vi.stubEnv('PI_PASSWORD', 'wrong-one')
    const { code, message, hint, exitCode } = await refusalOf(here())
    expect([code, exitCode]).toEqual(['preflight', 3])
    expect(message).toMatch(
      new RegExp(`^target: login: 127\\.0\\.0\\.1:${String(port)}: .*cannot log in as pi[^\\n]*$`),
    )
    expect(hint).toBe(
      `ssh -p ${String(port)} pi@127.0.0.1; check key, password or user in ${join(folder, 'hosts.yaml')}`,
    )
    expect(`${message}${hint ?? ''}`).not.toContain('wrong-one')
    expect(commands).toEqual([])
  })

  test('a password whose variable is not set is refused with the command that sets it', async () => {
    vi.stubEnv('PI_PASSWORD', undefined)
    const { message, hint } = await refusalOf(here())
    expect(message).toBe(
      'target: login: the password should be in the environment variable PI_PASSWORD, which is not set',
    )
    expect(hint).toBe('read -rs PI_PASSWORD && export PI_PASSWORD')
    expect(commands).toEqual([])
  })

  test('a changed host key is refused before any password is sent, with what to find out', async () => {
    const { message, hint } = await refusalOf(
      `{ address: 127.0.0.1, port: ${String(port)}, hostKey: ${pinned(otherKeys.publicKey)} }`,
    )
    expect(message).toBe(`target: login: 127.0.0.1:${String(port)}: the host key differs from the pinned one`)
    expect(hint).toMatch(/^find out why: .* remove its hostKey from \S+, and run lab hosts check \S+$/)
    expect(commands).toEqual([])
  })

  test.each<[string, (command: string) => Answer, RegExp]>([
    ['no sudo', () => ({ stdout: 'none\n' }), /there is no sudo$/],
    [
      'a user that may not use sudo',
      (command) =>
        command.includes('command -v sudo')
          ? { stdout: 'sudo: a password is required\n' }
          : { stderr: 'pi is not in the sudoers file.\n', exitCode: 1 },
      /not allowed to use sudo \(pi is not in the sudoers file\.\)$/,
    ],
    [
      'another password for sudo',
      (command) =>
        command.includes('command -v sudo')
          ? { stdout: 'sudo: a password is required\n' }
          : { stderr: 'sudo: 1 incorrect password attempt\n', exitCode: 1 },
      /sudo refuses the password/,
    ],
    [
      'a sudo that needs a terminal',
      (command) =>
        command.includes('command -v sudo')
          ? { stdout: 'sudo: a password is required\n' }
          : { stderr: 'sudo: sorry, you must have a tty to run sudo\n', exitCode: 1 },
      /sudo requires a terminal/,
    ],
  ])('a host with %s is refused with what to type there', async (_, answers, why) => {
    answer = answers
    const { message, hint } = await refusalOf(here())
    expect(message).toMatch(/^target: login: 127\.0\.0\.1:\d+: pi cannot become root: [^\n]+$/)
    expect(message).toMatch(why)
    expect(hint).toContain("su -c 'apt-get install sudo; usermod -aG sudo pi'")
  })

  test('a jump host that cannot be reached is refused with its own address, and the login to try', async () => {
    const gate = String(await closedPort())
    const { message, hint } = await refusalOf(
      `{ address: 10.0.0.11, hostKey: ${pinned(keys.publicKey)}, via: gate }`,
      {
        more: `jumpHosts:\n  gate: { address: 127.0.0.1, port: ${gate}, hostKey: ${pinned(keys.publicKey)} }\n`,
      },
    )
    expect(message).toMatch(new RegExp(`^target: login: .*127\\.0\\.0\\.1:${gate}[^\\n]*$`))
    expect(hint).toBe('ssh -J gate pi@10.0.0.11')
  })

  test.each<[string, string, RegExp]>([
    ['a processor that is neither amd64 nor arm64', 'riscv64', /riscv64/],
    ['32-bit programs', 'armhf', /no 32-bit arm/],
  ])('a node with %s, for which there are no parts, is refused', async (_, architecture, why) => {
    const facts = [
      ...[
        `machine\t${architecture === 'armhf' ? 'aarch64' : architecture}`,
        `architecture\t${architecture}`,
        'page\t4096',
        'id\tdebian',
        'version\t13',
      ],
      ...[
        'pretty\tDebian',
        'kernel\t6.12',
        'memory\t8000000',
        'free\t40000000',
        'root\trw',
        'machineId\tone',
      ],
      ...['hostname\tpi', 'interface\teth0 127.0.0.1/8 02:00:00:00:00:01 1500 no no', 'default\teth0'],
      ...[
        `time\t${String(Date.now() / 1000)}`,
        'controllers\tcpu memory pids',
        'knowsItself\tyes',
        'port\t22',
      ],
      ...['iscsi_tcp', 'overlay', 'br_netfilter', 'nf_tables', 'loop'].map((name) => `feature\t${name}`),
    ]
    answer = (command) => ({
      stdout: command.includes('command -v sudo')
        ? 'free\n'
        : command.includes('say machine')
          ? facts.join('\n')
          : '',
    })
    const { code, message, hint } = await refusalOf(here(), { name: 'iscsi-ha', machine: 'worker1' })
    expect(code).toBe('preflight')
    expect(message).toMatch(/^worker1: architecture: [^\n]+$/)
    expect(message).toMatch(why)
    expect(hint).toBeTruthy()
  })
})
