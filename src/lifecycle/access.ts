/** The files with which a user's own ssh and kubectl reach a lab. */
import type { Lab } from '../lab/lab.js'
import { quote } from '../machine/sh.js'
import { labKeys, machineKeys } from '../machine/keys.js'
import type { Provider } from '../provider/provider.js'
import { pathsOf, writePrivate } from '../state.js'

/**
 * Quotes a path as one word of an ssh_config, which has its own rules: a backslash counts within either kind of
 * quotes, and `%` starts a token that ssh replaces.
 */
const word = (path: string): string => `"${path.replaceAll(/["\\]/g, '\\$&').replaceAll('%', '%%')}"`

/** Writes ssh_config and known_hosts: `ssh -F …/ssh_config worker1` connects, and only to the right machine. */
export const writeAccess = async (lab: Lab, provider: Provider): Promise<void> => {
  const paths = pathsOf(lab)
  await labKeys(lab)
  const known: string[] = []
  const hosts: string[] = []
  for (const { name, address } of lab.machines) {
    const server = await provider.sshServer?.(lab, name)
    const hostKey = server?.hostKey ?? (await machineKeys(lab, name)).publicKey
    const port = server?.port ?? 22
    const at = server?.address ?? address
    known.push(
      `${name},${port === 22 ? at : `[${at}]:${String(port)}`} ${hostKey.split(' ').slice(0, 2).join(' ')}`,
    )
    hosts.push(
      `Host ${name}\n  HostName ${at}${port === 22 ? '' : `\n  Port ${String(port)}`}${server?.proxyCommand === undefined ? '' : `\n  ProxyCommand ${server.proxyCommand}`}`,
    )
  }
  await writePrivate(paths.knownHosts, `${known.join('\n')}\n`)
  const proxy = provider.network?.proxyCommand?.(lab)
  const config = [
    `# Written by lab: ssh -F ${quote(paths.sshConfig)} NAME`,
    ...hosts,
    'Host *',
    '  User root',
    `  IdentityFile ${word(paths.privateKey)}`,
    '  IdentitiesOnly yes',
    `  UserKnownHostsFile ${word(paths.knownHosts)}`,
    '  StrictHostKeyChecking yes',
    ...(proxy === undefined ? [] : [`  ProxyCommand ${proxy}`]),
    '',
  ]
  await writePrivate(paths.sshConfig, config.join('\n'))
}
