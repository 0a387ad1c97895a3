/** Checks the hosts of a file: how to log in there, which host keys they have, and what a lab would change. */
import { createHash } from 'node:crypto'
import { exitCodes, LabError } from '../error.js'
import { type HostsFile, loadHosts, pinHostKeys } from '../lab/hosts-file.js'
import type { Lab } from '../lab/lab.js'
import { quote } from '../machine/sh.js'
import type { Logins } from '../provider/hosts/login.js'
import type { Finding } from '../provider/hosts/asked.js'
import type { Survey } from '../provider/hosts/survey.js'
import { keepSecret, maskKnown } from '../view/secrets.js'

/** The person at the terminal, if there is one. */
export interface Operator {
  readonly signal: AbortSignal
  readonly stderr: { write(text: string): unknown }
  /** Absent: there is no terminal. */
  readonly ask?: (question: string) => Promise<boolean>
  /** Asks for a line that is not shown while it is typed. */
  readonly askSecret?: (question: string) => Promise<string>
}

export interface Consent {
  /** All questions are answered with yes. */
  readonly yes?: boolean
}

/** In the form that `ssh-keygen -l` prints. */
const fingerprint = (hostKey: string): string => {
  const [kind = '', blob = ''] = hostKey.split(' ')
  const digest = createHash('sha256').update(Buffer.from(blob, 'base64')).digest('base64').replace(/=+$/, '')
  return `SHA256:${digest} (${kind.replace(/^ssh-|^ecdsa-sha2-/, '').toUpperCase()})`
}

/** The logins to the hosts of a file, for a command. */
export const loginsFor = async (file: HostsFile, operator: Operator): Promise<Logins> => {
  const { Logins } = await import('../provider/hosts/login.js')
  return new Logins(file, operator.askSecret, (password) => keepSecret([password]))
}

/**
 * The file with a pinned key for every host that answers. New keys are shown, confirmed by the user, and written into
 * the file.
 * @throws LabError `host-key-unknown` if they are not confirmed
 */
export const withPinnedKeys = async (
  file: HostsFile,
  { yes }: Consent,
  operator: Operator,
): Promise<HostsFile> => {
  const { unpinned } = await import('../provider/hosts/survey.js')
  const { placeOf } = await import('../provider/hosts/login.js')
  const { dialDirectly } = await import('../machine/dial.js')
  const { shownHostKey } = await import('../machine/ssh.js')
  let current = file
  // Jump hosts first, because the others are reached through them.
  for (const isJump of [true, false]) {
    const logins = await loginsFor(current, operator)
    const found = new Map<string, string>()
    const listed = unpinned(current).filter((login) => 'via' in login !== isJump)
    await Promise.all(
      listed.map(async (login) => {
        try {
          const dial = () => ('via' in login ? logins.dial(login) : dialDirectly(login.address, login.port))
          found.set(login.name, await shownHostKey(placeOf(login), dial))
        } catch {
          // The problem is reported with all others when the host is checked.
          operator.signal.throwIfAborted()
        }
      }),
    )
    if (found.size === 0) continue
    const lines = listed.flatMap((login) => {
      const key = found.get(login.name)
      return key === undefined ? [] : [`  ${login.name}  ${placeOf(login)}  ${fingerprint(key)}`]
    })
    operator.stderr.write(
      `Host keys that ${file.file} does not have yet. On each host, ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub prints its key:\n${lines.join('\n')}\n`,
    )
    const right =
      yes ?? (await operator.ask?.('Are these the right keys? If so, they are written into the file.'))
    if (right !== true)
      throw new LabError(
        'host-key-unknown',
        `${String(found.size)} host keys of ${file.file} are not pinned`,
        {
          hint: `compare them, then: lab hosts check ${quote(file.file)} --yes`,
          exitCode: exitCodes.host,
        },
      )
    pinHostKeys(file.file, found)
    current = loadHosts(file.file)
  }
  return current
}

/** A finding in one line. */
export const describe = ({ host, what, saw }: Finding): string => `${host}: ${what}: ${maskKnown(saw)}`

/** Pins the keys that are not pinned yet, and checks all hosts. */
export const survey = async (
  named: string,
  lab: Lab | undefined,
  consent: Consent,
  operator: Operator,
): Promise<Survey & { readonly file: HostsFile; readonly logins: Logins }> => {
  const file = await withPinnedKeys(loadHosts(named), consent, operator)
  const logins = await loginsFor(file, operator)
  const { surveyHosts } = await import('../provider/hosts/survey.js')
  return { file, logins, ...(await surveyHosts(file, logins, lab, operator.signal)) }
}
