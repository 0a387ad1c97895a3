/** Power switches of hosts: fence-agents, tested with a stand-in that keeps a switch in a file. */
import { chmod, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { parseHosts } from '../../../src/lab/hosts-file.js'
import { Logins } from '../../../src/provider/hosts/login.js'
import { runAgent } from '../../../src/provider/hosts/power.js'
import { temporaryFolder } from '../../helpers/folder.js'

const fileWith = (power: string) =>
  parseHosts(
    `apiVersion: lab.hosts/v1\nhosts:\n  worker1: { address: 10.0.0.11, user: pi, power: ${power} }\n`,
    'hosts.yaml',
  )

let folder: string
beforeEach(async () => {
  folder = await temporaryFolder()
  await writeFile(join(folder, 'switch'), 'on')
  // Like fence_redfish and the others: options on standard input, exit code 0 for on, 2 for off, 1 for everything
  // else.
  await writeFile(
    join(folder, 'fence_standin'),
    `#!/bin/sh
input=$(cat); echo "$input" > ${folder}/asked
case $input in *passwd=secret*) ;; *) echo 'Unable to connect/login to fencing device' >&2; exit 1 ;; esac
case $input in
  action=status*) [ "$(cat ${folder}/switch)" = on ] || exit 2 ;;
  action=off*) [ ! -e ${folder}/slow ] || sleep 1.5; echo off > ${folder}/switch ;;
  action=on*) echo on > ${folder}/switch ;;
esac
`,
  )
  await chmod(join(folder, 'fence_standin'), 0o755)
  vi.stubEnv('PATH', `${folder}:${process.env['PATH'] ?? ''}`)
})
afterEach(() => {
  vi.unstubAllEnvs()
})

const agentOf = (power: string) => {
  const file = fileWith(power)
  const [spec] = file.hosts
  if (!spec?.power) throw new Error('it has no switch')
  const { power: own } = spec
  const learned: string[] = []
  const logins = new Logins(file, undefined, (secret) => learned.push(secret))
  return {
    run: (action: 'on' | 'off' | 'status', lock?: string) => runAgent(spec, own, action, logins, lock),
    learned,
  }
}

describe('a power switch by a fence-agent', () => {
  test('a fence agent switches a machine off and on again, and reports which of the two it is', async () => {
    vi.stubEnv('BMC', 'secret')
    const { run, learned } = agentOf('{ agent: fence_standin, ip: 10.0.0.5, plug: 3, passwd: $BMC }')
    expect(await run('status')).toBe(true)
    await run('off')
    expect(await run('status')).toBe(false)
    await run('on')
    expect(await run('status')).toBe(true)
    expect(await readFile(join(folder, 'asked'), 'utf8')).toBe(
      'action=status\nip=10.0.0.5\nplug=3\npasswd=secret\n',
    )
    expect(learned).toEqual(['secret'])
  })

  test('a fence agent with a wrong password fails with its own message', async () => {
    vi.stubEnv('BMC', 'wrong')
    await expect(
      agentOf('{ agent: fence_standin, ip: 10.0.0.5, passwd: $BMC }').run('off'),
    ).rejects.toMatchObject({
      code: 'power-failed',
      message: 'worker1: fence_standin off: Unable to connect/login to fencing device',
    })
  })

  test('a switch that takes long has switched before the next action, also if nobody waits for it any more', async () => {
    vi.stubEnv('BMC', 'secret')
    await writeFile(join(folder, 'slow'), '')
    const { run } = agentOf('{ agent: fence_standin, ip: 10.0.0.5, passwd: $BMC }')
    const lock = join(folder, 'lock')
    const givenUp = run('off', lock)
    await delay(500)
    await run('on', lock)
    await givenUp
    expect(await readFile(join(folder, 'switch'), 'utf8')).toBe('on\n')
  })

  test('a machine counts as off only if its switch says so: agents also end with 2 for options that they do not know', async () => {
    await writeFile(
      join(folder, 'fence_standin'),
      `#!/bin/sh\necho "Parse error: Ignoring unknown option 'plugg=3'" >&2\nexit 2\n`,
    )
    await expect(agentOf('{ agent: fence_standin, plugg: 3 }').run('status')).rejects.toMatchObject({
      code: 'power-failed',
      message: expect.stringContaining('unknown option') as string,
    })
    await writeFile(join(folder, 'fence_standin'), `#!/bin/sh\necho Status: OFF\nexit 2\n`)
    expect(await agentOf('{ agent: fence_standin }').run('status')).toBe(false)
  })

  test('a fence agent that is not installed is reported with its package', async () => {
    await expect(agentOf('{ agent: fence_nowhere }').run('status')).rejects.toMatchObject({
      code: 'no-program',
      exitCode: 3,
      hint: 'sudo apt-get install fence-agents',
    })
  })

  test.each([
    ['{ ip: 10.0.0.5 }', /power\.agent: .*expected one of Debian's fence-agents/],
    ['{ agent: reboot.sh }', /power\.agent: .*expected one of Debian's fence-agents/],
    ['{ agent: fence_ipmilan, password: hunter2 }', /power\.password: a password does not belong/],
    ['{ agent: fence_ipmilan, action: off }', /power\.action: is set by lab itself/],
  ])('hosts.yaml refuses a power switch with %s', (power, says) => {
    expect(() => fileWith(power)).toThrow(says)
    expect(() => fileWith(power)).not.toThrow(/hunter2/)
  })
})
