/** Logs in to a host as hosts.yaml says, and becomes root there. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { LabError, messageOf } from '../../error.js'
import type { HostsFile, HostSpec, LoginSpec } from '../../lab/hosts-file.js'
import type { PasswordSource } from '../../lab/power-switch.js'
import { dialDirectly } from '../../machine/dial.js'
import type { Transport } from '../../machine/machine.js'
import { dialThrough, type SshEndpoint, sshTransport, throughSudo } from '../../machine/ssh.js'

/** Asks at the terminal for a password, without showing it; undefined if there is no terminal. */
export type AskPassword = (question: string) => Promise<string>

export const placeOf = ({ address, port }: LoginSpec): string =>
  port === 22 ? address : `${address}:${String(port)}`

/** Keys that ssh would try as well, in this order. */
const ownKeys = ['id_ed25519', 'id_ecdsa', 'id_rsa'].map((name) => join(homedir(), '.ssh', name))

/**
 * Seconds for a server that refuses this computer after failed logins: the lab's own key is tried before it is
 * installed, and OpenSSH's penalties of several such attempts add up.
 */
export const patience = 45

const blobOf = (hostKey: string): string => hostKey.split(' ')[1] ?? ''

/** Logs in, and remembers the passwords: each is asked for once. */
export class Logins {
  readonly #file: HostsFile
  readonly #ask: AskPassword | undefined
  readonly #learned: (secret: string) => void
  /** Passwords by their source: hosts that share a line of the file share its password. */
  readonly #passwords = new Map<PasswordSource, Promise<string>>()
  /** One question at a time: two could not be told apart. */
  #asked: Promise<unknown> = Promise.resolve()

  /** @param learned called with every password, so that no output shows it */
  constructor(file: HostsFile, ask: AskPassword | undefined, learned: (secret: string) => void) {
    this.#file = file
    this.#ask = ask
    this.#learned = learned
  }

  #password(source: PasswordSource, what: string): Promise<string> {
    let password = this.#passwords.get(source)
    if (!password) {
      password = this.#find(source, what)
      this.#passwords.set(source, password)
    }
    return password
  }

  /** A secret other than a login: of a power switch. */
  secret(source: PasswordSource, what: string): Promise<string> {
    return this.#password(source, what)
  }

  /** The name of a password in a question, with its hosts if several share it. */
  #nameOf(source: PasswordSource, { user, address }: LoginSpec): string {
    const sharing = this.#file.hosts.filter((host) => [host.password, host.sudoPassword].includes(source))
    return `Password of ${user} at ${(sharing.length > 1 ? sharing.map((host) => host.address) : [address]).join(', ')}`
  }

  async #find(source: PasswordSource, what: string): Promise<string> {
    if (source.from === 'variable') {
      const value = process.env[source.name]
      if (value === undefined || value === '')
        throw new LabError(
          'no-password',
          `the password should be in the environment variable ${source.name}, which is not set`,
          {
            hint: `read -rs ${source.name} && export ${source.name}`,
          },
        )
      this.#learned(value)
      return value
    }
    const ask = this.#ask
    if (!ask)
      throw new LabError('no-password', `${what} must be typed, but there is no terminal`, {
        hint: `name an environment variable in ${this.#file.file}: password: $PI_PASSWORD`,
      })
    const answer = this.#asked.then(() => ask(`${what}: `))
    this.#asked = answer.catch(() => undefined)
    const value = await answer
    this.#learned(value)
    return value
  }

  async #proof(login: LoginSpec): Promise<Pick<SshEndpoint, 'privateKey' | 'password' | 'agent'>> {
    if (login.password)
      return { password: await this.#password(login.password, this.#nameOf(login.password, login)) }
    const agent = process.env['SSH_AUTH_SOCK']
    if (login.key === undefined && agent) return { agent }
    const path = login.key ?? ownKeys.find((each) => existsSync(each))
    if (path === undefined)
      throw new LabError(
        'no-key',
        `${placeOf(login)}: nothing to log in with: no agent is running, and ~/.ssh has no key`,
        {
          hint: `ssh-keygen -t ed25519 && ssh-copy-id ${login.user}@${login.address}, or password: ask in ${this.#file.file}`,
        },
      )
    try {
      const privateKey = await readFile(path, 'utf8')
      const { default: ssh2 } = await import('ssh2')
      const parsed = ssh2.utils.parseKey(privateKey)
      if (parsed instanceof Error) throw parsed
      return { privateKey }
    } catch (error) {
      throw new LabError('bad-key', `${path}: not a usable private key: ${messageOf(error)}`, {
        hint: messageOf(error).includes('ncrypted')
          ? `ssh-add ${path}`
          : `set key: PATH in ${this.#file.file}`,
        cause: error,
      })
    }
  }

  /** @throws LabError `host-key-unknown` if none is pinned */
  async #endpoint(login: LoginSpec, dial: () => Promise<Duplex>): Promise<SshEndpoint> {
    if (login.hostKey === undefined)
      throw new LabError('host-key-unknown', `${placeOf(login)}: its host key is not known yet`, {
        hint: `lab hosts check ${this.#file.file}`,
      })
    return {
      address: placeOf(login),
      user: login.user,
      ...(await this.#proof(login)),
      hostKey: blobOf(login.hostKey),
      patience,
      dial,
    }
  }

  /** A TCP connection to the host: direct, or through its jump host. */
  async dial(host: HostSpec, address = host.address, port = host.port): Promise<Duplex> {
    const jump = this.#file.jumpHosts.find(({ name }) => name === host.via)
    if (!jump) return dialDirectly(address, port)
    const endpoint = await this.#endpoint(jump, () => dialDirectly(jump.address, jump.port))
    return dialThrough(endpoint, address, port)
  }

  /** Runs commands as the user that logs in. The caller closes it. */
  async asUser(host: HostSpec): Promise<Transport> {
    return sshTransport(await this.#endpoint(host, () => this.dial(host)))
  }

  /**
   * Runs commands as root, over a connection of that user.
   * @throws LabError `no-sudo` if that user cannot become root
   */
  async asRoot(host: HostSpec, user: Transport): Promise<Transport> {
    if (host.user === 'root') return user
    const refuse = (why: string, hint: string): LabError =>
      new LabError('no-sudo', `${placeOf(host)}: ${host.user} cannot become root: ${why}`, { hint })
    const { stdout } = await user.exec(
      'command -v sudo >/dev/null || echo none; sudo -n true 2>&1 && echo free',
      {
        timeout: 20,
      },
    )
    const said = stdout.trim().split('\n')
    const hint = `on ${host.address}: su -c 'apt-get install sudo; usermod -aG sudo ${host.user}', or user: root in ${this.#file.file}`
    if (said[0] === 'none') throw refuse('there is no sudo', hint)
    if (said.at(-1) === 'free') return throughSudo(user)
    const source = host.sudoPassword ?? host.password
    if (!source)
      throw refuse(
        'sudo asks for a password',
        `set sudoPassword: ask, or sudoPassword: $VARIABLE, in ${this.#file.file}`,
      )
    const password = await this.#password(
      source,
      `${this.#nameOf(source, host)}${host.sudoPassword ? ' for sudo' : ''}`,
    )
    const root = throughSudo(user, password)
    const tried = await root.exec('id -u', { timeout: 20 })
    if (tried.stdout.trim() === '0') return root
    const why = tried.stderr.trim().split('\n').at(-1) ?? ''
    throw refuse(
      /not in the sudoers|not allowed/.test(tried.stderr)
        ? `the user is not allowed to use sudo (${why})`
        : /must have a tty|tty/.test(tried.stderr)
          ? `sudo requires a terminal (requiretty): ${why}`
          : `sudo refuses the password (${why})`,
      hint,
    )
  }
}
