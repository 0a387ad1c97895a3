/**
 * Machines that somebody else made, for tests: User-Mode Linux with plain Debian, in their own network namespace,
 * reached over SSH alone. `lab` runs in that namespace, like on a computer in the machines' network. Needs root.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync } from 'node:fs'
import { chown, mkdir, open, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import { makeKeyPair } from '../../src/machine/keys.js'
import { cacheRoot, preparedParts } from '../../src/parts/parts.js'
import { selfSigned } from '../../src/provider/uml/certificate.js'
import { machineUser } from '../../src/provider/uml/confine.js'
import type { RunningMachine, StartRequest } from '../../src/provider/uml/requests.js'
import { callSupervisor } from '../../src/provider/uml/tunnel.js'
import { cli } from '../e2e/lab.js'

/** The network of the machines, which no lab file names. */
export const subnet = '10.20.30.0/24'
const gateway = '10.20.30.1'

/** Where a Raspberry Pi has its boot line. */
export const bootLineFile = '/boot/firmware/cmdline.txt'

/** The user that can log in to every machine, and become root with the same password. */
export const user = 'pi'
export const password = 'raspberry'

export interface ForeignMachine {
  readonly name: string
  /** In `subnet`. */
  readonly address: string
  /** Mebibytes. */
  readonly memory: number
  /**
   * The line in its /boot/firmware/cmdline.txt, as on a Raspberry Pi: its firmware, which is played here, adds the words
   * to the kernel's command line at each start. Default: it has no such file.
   */
  readonly bootLine?: string
  /** A host key that another machine has as well, as cloned cards have. Default: a key of its own. */
  readonly hostKey?: { readonly privateKey: string; readonly publicKey: string }
}

const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

/** The disk that all machines start from: made once, and kept with the parts under the hash of its inputs. */
const foreignDisk = async (): Promise<string> => {
  const script = here('foreign-disk.sh')
  const hash = createHash('sha256').update(readFileSync(script)).digest('hex').slice(0, 12)
  const disk = join(cacheRoot(), 'test-tools', `foreign-${hash}.ext4`)
  if (existsSync(disk)) return disk
  await mkdir(dirname(disk), { recursive: true })
  const mirror = process.env['LAB_DEBIAN_MIRROR'] ?? 'http://deb.debian.org/debian'
  await execa('unshare', ['--mount', 'bash', script, mirror, disk])
  return disk
}

const links = (pid: number): string => `/proc/${String(pid)}/ns/net`

export class World {
  readonly folder = mkdtempSync('/var/tmp/lab-hosts-')
  readonly env = { LAB_STATE: join(this.folder, 'state'), NO_COLOR: '1' }
  readonly #machines = new Map<string, StartRequest>()
  readonly #processes: ChildProcess[] = []
  /** The disks of the machines with a boot line. */
  readonly #withFirmware = new Map<string, string>()
  #closed = false
  /** How often the played firmware has started a machine again. */
  restarts = 0
  #supervisor = 0
  #kernel = ''

  readonly #socket = join(this.folder, 'supervisor.sock')

  /** Makes the network, the access to a package mirror, and the machines; returns once all of them answer SSH. */
  static async start(machines: readonly ForeignMachine[]): Promise<World> {
    const world = new World()
    try {
      await world.#makeNetwork()
      for (const machine of machines) await world.#make(machine)
      await Promise.all(machines.map(({ name, address }) => world.#answers(name, address)))
      return world
    } catch (error) {
      await world.close()
      throw error
    }
  }

  async #process(command: readonly [string, ...string[]]): Promise<void> {
    const [program, ...words] = command
    const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'inherit'] })
    this.#processes.push(child)
    // It prints a line when it is ready.
    await once(child.stdout, 'data')
  }

  async #makeNetwork(): Promise<void> {
    const parts = await preparedParts()
    if ('missing' in parts) throw new Error(`parts are missing: ${parts.missing.join(', ')}`)
    this.#kernel = parts.kernel
    const listener = createServer()
    listener.listen(0, '127.0.0.1')
    await once(listener, 'listening')
    const log = join(this.folder, 'supervisor.log')
    const output = await open(log, 'a')
    const child = spawn(
      'unshare',
      [
        ...['--net', '--pid', '--mount', '--fork', '--kill-child=SIGKILL', '--mount-proc', 'sh', '-c'],
        'mount -t tmpfs -o mode=1777,size=100% lab /dev/shm && exec "$@"',
        ...['lab', process.execPath, join(dirname(cli), 'provider', 'uml', 'supervisor.js')],
        ...[this.#socket, `${gateway}/24`, log],
      ],
      { stdio: ['ignore', output.fd, output.fd, 'ipc'], cwd: '/' },
    )
    child.send('listener', listener)
    this.#processes.push(child)
    for (const until = Date.now() + 60_000; ;) {
      try {
        await callSupervisor(this.#socket, 'GET', '/version')
        break
      } catch (error) {
        if (Date.now() > until) throw error
        await delay(50)
      }
    }
    listener.close()
    await output.close()
    const unshare = String(child.pid)
    this.#supervisor = Number(await readFile(`/proc/${unshare}/task/${unshare}/children`, 'utf8'))
    const mirror = join(this.folder, 'mirror.sock')
    const kept = join(cacheRoot(), 'test-tools', 'packages')
    await this.#process([process.execPath, here('mirror.mjs'), 'outside', mirror, kept])
    await this.#process([
      ...this.inside(),
      ...([process.execPath, here('mirror.mjs'), 'inside', mirror, gateway] as const),
    ])
  }

  /** Words before a command that should run in the machines' network. */
  inside(): readonly [string, ...string[]] {
    return ['nsenter', `--net=${links(this.#supervisor)}`, '--']
  }

  async #make({ name, address, memory, hostKey, bootLine }: ForeignMachine): Promise<void> {
    const disk = join(this.folder, `${name}.ext4`)
    await execa('cp', ['--sparse=always', await foreignDisk(), disk])
    const keys = hostKey ?? makeKeyPair(name)
    const files: Readonly<Record<string, string>> = {
      '/etc/hostname': `${name}\n`,
      '/etc/hosts': `127.0.0.1 localhost\n127.0.1.1 ${name}\n`,
      '/etc/machine-id': `${createHash('md5').update(name).digest('hex')}\n`,
      '/etc/ssh/ssh_host_ed25519_key': keys.privateKey,
      '/etc/ssh/ssh_host_ed25519_key.pub': `${keys.publicKey}\n`,
      '/etc/apt/apt.conf.d/01proxy': `Acquire::http::Proxy "http://${gateway}:3142";\n`,
      '/etc/systemd/network/10-lan.network': `[Match]\nName=vec0\n[Network]\nAddress=${address}/24\nGateway=${gateway}\n`,
    }
    const script: string[] = []
    for (const [index, [path, content]] of Object.entries(files).entries()) {
      const from = join(this.folder, `${name}.${String(index)}`)
      await writeFile(from, content)
      script.push(`rm ${path}`, `write ${from} ${path}`)
      script.push(`set_inode_field ${path} mode 0100${path.endsWith('_key') ? '600' : '644'}`)
    }
    if (bootLine !== undefined) {
      const from = join(this.folder, `${name}.line`)
      await writeFile(from, `${bootLine}\n`)
      script.push('mkdir /boot/firmware', `write ${from} ${bootLineFile}`)
      script.push(`set_inode_field ${bootLineFile} mode 0100644`)
      // A restart is a power cycle, since a User-Mode Linux that restarts by itself keeps its command line.
      script.push('symlink /etc/systemd/system/reboot.target /usr/lib/systemd/system/poweroff.target')
      this.#withFirmware.set(name, disk)
    }
    await execa('debugfs', ['-w', '-f', '-', disk], { input: `${script.join('\n')}\n` })
    const owner = machineUser(createHash('sha256').update(disk).digest().readUInt32BE(0))
    if (owner !== undefined) await chown(disk, owner, owner)
    const number = address.split('.').at(-1) ?? ''
    const mac = ['02', '77', ...address.split('.')]
      .map((part, index) => (index < 2 ? part : Number(part).toString(16).padStart(2, '0')))
      .join(':')
    this.#machines.set(name, {
      argv: [
        ...['/linux', `mem=${String(memory)}M`, `umid=${name}`, 'uml_dir=/run/', 'seccomp=auto'],
        ...['ubd0=/disk', 'root=/dev/ubda', 'rw', 'con=null', 'con0=null,fd:1', 'panic=-1'],
      ],
      cpu: this.#machines.size % 2,
      console: join(this.folder, `${name}.log`),
      link: [`b${number}`, `v${number}`, mac],
      binds: [
        { from: this.#kernel, to: '/linux' },
        { from: disk, to: '/disk', writable: true },
      ],
      ...(owner === undefined ? {} : { user: owner }),
    })
    await this.switchOn(name)
  }

  async #answers(name: string, address: string): Promise<void> {
    const look = `exec 3<>/dev/tcp/${address}/22 && read -t 5 -r line <&3 && echo "$line"`
    for (const until = Date.now() + 180_000; ;) {
      const { stdout } = await execa('nsenter', [...this.inside().slice(1), 'bash', '-c', look], {
        reject: false,
      })
      if (stdout.startsWith('SSH-')) return
      if (Date.now() > until)
        throw new Error(
          `${name} does not answer: ${await readFile(join(this.folder, `${name}.log`), 'utf8')}`,
        )
      await delay(300)
    }
  }

  async switchOn(name: string): Promise<void> {
    const request = this.#machines.get(name)
    const disk = this.#withFirmware.get(name)
    if (!request || disk === undefined) {
      await callSupervisor(this.#socket, 'PUT', `/machines/${name}`, request)
      return
    }
    const { stdout } = await execa('debugfs', ['-R', `cat ${bootLineFile}`, disk])
    const [line = ''] = stdout.split('\n')
    const words = line.split(/\s+/).filter((word) => word !== '' && !word.startsWith('root='))
    await callSupervisor(this.#socket, 'PUT', `/machines/${name}`, {
      ...request,
      argv: [...request.argv, ...words],
    })
  }

  /** Switches machines with a firmware on again whenever they have switched themselves off, until the world ends. */
  async playFirmware(): Promise<void> {
    while (!this.#closed) {
      await delay(1000)
      const running = await this.running().catch(() => undefined)
      for (const name of this.#withFirmware.keys())
        if (running && !running.includes(name)) {
          this.restarts++
          await this.switchOn(name)
        }
    }
  }

  /** Switches it off without warning. */
  async cut(name: string): Promise<void> {
    await callSupervisor(this.#socket, 'DELETE', `/machines/${name}`)
  }

  /** Switches it off and on again; returns when it answers. */
  async reboot(name: string, address: string): Promise<void> {
    await this.cut(name)
    await this.switchOn(name)
    await this.#answers(name, address)
  }

  /**
   * Offers the machines' power switches as Redfish, as management controllers do.
   * @returns the options of Debian's fence_redfish for one of them, as in a hosts.yaml; `$BMC_PASSWORD` is `password`
   */
  async offerPower(): Promise<(name: string) => string> {
    if ((await execa('sh', ['-c', 'command -v fence_redfish'], { reject: false })).exitCode !== 0)
      throw new Error('These tests switch machines with fence_redfish: apt-get install fence-agents')
    await callSupervisor(this.#socket, 'PUT', '/redfish', {
      username: 'admin',
      password,
      ...selfSigned('power switches', gateway),
    })
    return (name) =>
      `{ agent: fence_redfish, ip: ${gateway}, username: admin, password: $BMC_PASSWORD, redfish-uri: /redfish/v1, systems-uri: /redfish/v1/Systems/${name}, ssl-insecure: 1 }`
  }

  async running(): Promise<readonly string[]> {
    const machines = await callSupervisor<RunningMachine[]>(this.#socket, 'GET', '/machines')
    return machines.filter(({ running }) => running).map(({ name }) => name)
  }

  /** Starts `lab` in the machines' network. @param env variables in addition to those of every command */
  begin(args: readonly string[], env: NodeJS.ProcessEnv = {}, input = '') {
    const [program, ...before] = this.inside()
    return execa(program, [...before, process.execPath, cli, ...args], {
      env: { ...this.env, ...env },
      cwd: this.folder,
      reject: false,
      input,
    })
  }

  /** Runs a command as root on a machine, with the password, as its owner would. */
  async owner(address: string, command: string): Promise<string> {
    const askpass = join(this.folder, 'askpass')
    await writeFile(askpass, `#!/bin/sh\necho ${password}\n`, { mode: 0o700 })
    const { stdout } = await execa(
      'nsenter',
      [
        ...this.inside().slice(1),
        ...['ssh', '-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null'],
        ...['-o', 'LogLevel=ERROR', '-o', 'PreferredAuthentications=password', `${user}@${address}`],
        `sudo -S -p '' sh -c '${command.replaceAll("'", `'\\''`)}'`,
      ],
      { input: `${password}\n`, env: { SSH_ASKPASS: askpass, SSH_ASKPASS_REQUIRE: 'force' } },
    )
    return stdout
  }

  async close(): Promise<void> {
    this.#closed = true
    await callSupervisor(this.#socket, 'DELETE', '/').catch(() => undefined)
    for (const child of this.#processes) child.kill('SIGKILL')
    await rm(this.folder, { recursive: true, force: true })
  }
}
