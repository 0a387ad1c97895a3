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

/** Seconds to wait for an agent that another process of `lab` has started for the same host. */
const patience = deadline + 30

/** Exit codes of the script below: the last is that of timeout(1). */
const [busyCode, missingCode, lateCode] = [75, 127, 124]

/**
 * Runs an agent, which holds a lock itself: also if the process that started it has given up or was killed, its action
 * is over before the next one begins. So a fence whose switch takes long never acts after its undo.
 */
const script = `[ -z "$1" ] || { exec 9>>"$1"; flock -w ${String(patience)} 9 || exit ${String(busyCode)}; }
command -v "$2" >/dev/null || exit ${String(missingCode)}
exec timeout --foreground ${String(deadline)} "$2"`

/**
 * Runs the agent of a host.
 * @param lock a file that only one agent at a time can hold; default: none, for a question before there is a lab
 * @returns whether its power is on, for `status`; true for actions that succeeded
 * @throws LabError `no-program` if the agent is not installed, `power-failed` with the end of its output
 */
export const runAgent = async (
  { name }: Pick<HostSpec, 'name'>,
  { agent, options, secrets }: PowerSpec,
  action: 'on' | 'off' | 'status',
  logins: Pick<Logins, 'secret'>,
  lock = '',
): Promise<boolean> => {
  const lines = [`action=${action}`, ...Object.entries(options).map(([key, value]) => `${key}=${value}`)]
  for (const [key, source] of Object.entries(secrets))
    lines.push(`${key}=${await logins.secret(source, `${key} of the power switch of ${name}`)}`)
  const result = await execa('sh', ['-c', script, 'lab', lock, agent], {
    input: `${lines.join('\n')}\n`,
    reject: false,
    // The script bounds each of its two parts.
    timeout: (deadline + patience + 10) * 1000,
    // Agents are in /usr/sbin, which may be missing in a user's PATH.
    env: { PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
  })
  if (result.exitCode === missingCode)
    throw new LabError(
      'no-program',
      `${agent}: not found on this host, but it is the power switch of ${name}`,
      {
        hint: 'sudo apt-get install fence-agents',
        exitCode: exitCodes.host,
      },
    )
  if (result.exitCode === 0) return true
  // Agents also end with 2 for options that they do not understand, and say so.
  const silent = `${result.stdout}${result.stderr}`.trim() === ''
  if (action === 'status' && result.exitCode === isOffCode && (silent || /\boff\b/i.test(result.stdout)))
    return false
  if (result.exitCode === busyCode)
    throw new LabError(
      'power-failed',
      `${name}: ${agent} ${action}: an earlier ${agent} for it has not ended for ${String(patience)} s`,
      { hint: `pgrep -a ${agent}` },
    )
  const said = `${result.stderr}\n${result.stdout}`.trim().split('\n').slice(-2).join(' | ')
  throw new LabError(
    'power-failed',
    `${name}: ${agent} ${action}: ${result.timedOut || result.exitCode === lateCode ? `no answer within ${String(deadline)} s` : said || 'it failed without any output'}`,
    { hint: `echo action=status | ${agent} …, with the options of ${name} in hosts.yaml` },
  )
}
