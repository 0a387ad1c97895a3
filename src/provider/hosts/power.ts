/**
 * Power switches of real machines: Debian's fence-agents, which drive PDUs, BMCs, hypervisors and smart plugs. All of
 * them read `name=value` lines from standard input, and have the same actions and exit codes (fence-agents' API).
 */
import { execa } from 'execa'
import { exitCodes, LabError } from '../../error.js'
import type { HostSpec } from '../../lab/hosts-file.js'
import type { PowerSpec } from '../../lab/power-switch.js'
import type { Logins } from './login.js'

/** Seconds: a BMC takes its time, and the agents wait until the switch has acted. */
const deadline = 120

/** The exit code of `status`: 0 on, 2 off; everything else is a failure. */
const isOffCode = 2

/**
 * Runs the agent of a host.
 * @returns whether its power is on, for `status`; true for actions that succeeded
 * @throws LabError `no-program` if the agent is not installed, `power-failed` with the end of its output
 */
export const runAgent = async (
  { name }: Pick<HostSpec, 'name'>,
  { agent, options, secrets }: PowerSpec,
  action: 'on' | 'off' | 'status',
  logins: Pick<Logins, 'secret'>,
): Promise<boolean> => {
  const lines = [`action=${action}`, ...Object.entries(options).map(([key, value]) => `${key}=${value}`)]
  for (const [key, source] of Object.entries(secrets))
    lines.push(`${key}=${await logins.secret(source, `${key} of the power switch of ${name}`)}`)
  const result = await execa(agent, {
    input: `${lines.join('\n')}\n`,
    reject: false,
    timeout: deadline * 1000,
    // Agents are in /usr/sbin, which may be missing in a user's PATH.
    env: { PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
  })
  if (result.code === 'ENOENT')
    throw new LabError(
      'no-program',
      `${agent}: not found on this host, but it is the power switch of ${name}`,
      {
        hint: 'sudo apt-get install fence-agents',
        exitCode: exitCodes.host,
      },
    )
  if (result.exitCode === 0) return true
  if (action === 'status' && result.exitCode === isOffCode) return false
  const said = `${result.stderr}\n${result.stdout}`.trim().split('\n').slice(-2).join(' | ')
  throw new LabError(
    'power-failed',
    `${name}: ${agent} ${action}: ${result.timedOut ? `no answer within ${String(deadline)} s` : said || 'it failed without any output'}`,
    { hint: `echo action=status | ${agent} …, with the options of ${name} in hosts.yaml` },
  )
}
