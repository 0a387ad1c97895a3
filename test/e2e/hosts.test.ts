/** Machines that somebody else made: plain Debian, reached over SSH alone. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { seenByOwner } from '../hosts/owner.js'
import { password, World } from '../hosts/world.js'

const secret = { PI_PASSWORD: password, BMC_PASSWORD: password }
let world: World

/** Writes hosts.yaml for both machines, with the settings that each needs. */
const write = async (target: string, initiator: string): Promise<void> => {
  const text = `apiVersion: lab.hosts/v1\ndefaults: { user: pi, password: $PI_PASSWORD }\nhosts:\n  target: ${target}\n  initiator: ${initiator}\n`
  await writeFile(join(world.folder, 'hosts.yaml'), text)
}

interface Checked {
  readonly good: boolean
  readonly findings: readonly {
    readonly host: string
    readonly what: string
    readonly level: string
    readonly saw: string
  }[]
}

const check = async (
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = secret,
): Promise<Checked> => {
  const { stdout, stderr } = await world.begin(['hosts', 'check', 'hosts.yaml', '-o', 'json', ...args], env)
  if (stdout === '') throw new Error(stderr)
  return JSON.parse(stdout) as Checked
}

const refused = async (...given: Parameters<typeof check>): Promise<readonly string[]> =>
  (await check(...given)).findings
    .filter(({ level }) => level === 'refuse')
    .map(({ host, saw }) => `${host}: ${saw}`)

beforeAll(async () => {
  world = await World.start([
    { name: 'first', address: '10.20.30.70', memory: 512 },
    { name: 'second', address: '10.20.30.71', memory: 512 },
  ])
})

afterAll(() => world.close())

describe('lab hosts check', () => {
  let keys: readonly string[]

  it('lab hosts check asks about host keys once, pins them in the file, and finds nothing wrong with a plain Debian', async () => {
    await write('{ address: 10.20.30.70 }', '{ address: 10.20.30.71 }')
    const unasked = await world.begin(['hosts', 'check', 'hosts.yaml'], secret)
    expect(unasked.exitCode).toBe(3)
    expect(unasked.stderr).toContain('2 host keys of hosts.yaml are not pinned')
    expect(await check(['--yes', '--lab', 'iscsi'])).toMatchObject({ good: true })
    const { hosts } = parse(await readFile(join(world.folder, 'hosts.yaml'), 'utf8')) as {
      hosts: Record<string, { hostKey: string }>
    }
    keys = [hosts['target']?.hostKey ?? '', hosts['initiator']?.hostKey ?? '']
    for (const key of keys) expect(key).toMatch(/^ssh-ed25519 AAAA/)
    expect(await check()).toMatchObject({ good: true })
  })

  it('lab hosts check reports all problems of all hosts at once', async () => {
    await write(`{ address: 10.20.30.70, hostKey: ${keys[1] ?? ''} }`, '{ address: 10.20.30.99 }')
    expect(await refused()).toEqual([
      'target: 10.20.30.70: the host key differs from the pinned one',
      'initiator: 10.20.30.99: its host key is not known yet',
    ])
    await write(
      `{ address: 10.20.30.70, hostKey: ${keys[0] ?? ''} }`,
      `{ address: 10.20.30.71, hostKey: ${keys[1] ?? ''}, user: guest }`,
    )
    await world.owner('10.20.30.71', 'useradd -m guest; echo guest:raspberry | chpasswd')
    expect(await refused()).toEqual([expect.stringMatching(/^initiator: .*guest cannot become root/)])
    await world.owner('10.20.30.71', 'userdel -r guest 2>/dev/null; true')
    const wrong = await refused([], { PI_PASSWORD: 'wrong-one' })
    expect(wrong).toEqual([
      expect.stringMatching(/^target: .*cannot log in as pi/),
      expect.stringMatching(/^initiator: .*cannot log in as guest/),
    ])
    expect(wrong.join()).not.toContain('wrong-one')
  })

  it('lab hosts check connects through a jump host, with its own pinned key, and names the jump host if it does not answer', async () => {
    const jump = (address: string): string =>
      `{ address: 10.20.30.71, hostKey: ${keys[1] ?? ''}, via: gate }\njumpHosts:\n  gate: { address: ${address}, hostKey: ${keys[0] ?? ''}, password: $PI_PASSWORD }`
    await write(`{ address: 10.20.30.70, hostKey: ${keys[0] ?? ''} }`, jump('10.20.30.70'))
    expect(await refused()).toEqual([])
    await write(`{ address: 10.20.30.70, hostKey: ${keys[0] ?? ''} }`, jump('10.20.30.98'))
    expect(await refused()).toEqual([expect.stringMatching(/^initiator: .*10\.20\.30\.98/)])
  })
})

describe('lab up --hosts', () => {
  const before: string[] = []
  const lab = async (...args: readonly string[]) => {
    const { exitCode, stdout, stderr } = await world.begin(args, secret)
    return { exitCode, stdout, stderr }
  }

  it('lab up makes a lab of existing machines, and the lab passes every check', async () => {
    const power = await world.offerPower()
    await write(
      `{ address: 10.20.30.70, power: ${power('first')} }`,
      `{ address: 10.20.30.71, power: ${power('second')} }`,
    )
    before.push(await seenByOwner(world, '10.20.30.70'), await seenByOwner(world, '10.20.30.71'))
    const begun = performance.now()
    const { exitCode, stderr } = await lab('up', 'iscsi', '--hosts', 'hosts.yaml', '--yes')
    expect(stderr).not.toMatch(/^✖/m)
    expect(exitCode).toBe(0)
    console.log(`up on hosts: ${((performance.now() - begun) / 1000).toFixed(0)} s`)
    const verified = await lab('verify', 'iscsi')
    expect(verified.stderr).not.toMatch(/^✖/m)
    expect(verified.exitCode, verified.stdout).toBe(0)
  })

  it('lab up has nothing to do the second time', async () => {
    expect((await lab('up', 'iscsi')).stdout).toContain('nothing to do')
  })

  it('lab power cuts the power of a machine with a real fence agent, and switches it on again', async () => {
    expect(await lab('power', 'iscsi', 'initiator', 'off')).toMatchObject({ exitCode: 0 })
    expect(await world.running()).toEqual(['first'])
    expect(await lab('power', 'iscsi', 'initiator', 'on')).toMatchObject({ exitCode: 0 })
    expect([...(await world.running())].sort()).toEqual(['first', 'second'])
    expect(await lab('up', 'iscsi')).toMatchObject({ exitCode: 0 })
  })

  it('lab up refuses machines that another lab uses, and says who uses them', async () => {
    const { exitCode, stderr } = await world.begin(['up', 'iscsi', '--hosts', 'hosts.yaml'], {
      ...secret,
      LAB_STATE: join(world.folder, 'other'),
    })
    expect(exitCode).not.toBe(0)
    expect(stderr).toMatch(/has been using it for the lab iscsi since/)
  })

  it('lab down names a machine that it cannot reach, and gives it back later, after its reboot', async () => {
    await world.cut('second')
    const away = await lab('down', 'iscsi')
    expect(away.exitCode).toBe(1)
    expect(away.stdout).toContain('initiator has not been given back yet')
    await world.reboot('second', '10.20.30.71')
    const killed = world.begin(['down', 'iscsi'], secret)
    setTimeout(() => killed.kill('SIGKILL'), 6000)
    await killed
    const { exitCode, stdout, stderr } = await lab('down', 'iscsi')
    expect(stderr).not.toMatch(/^✖/m)
    expect(stdout).toContain('nothing left')
    expect(exitCode).toBe(0)
  })

  it('lab down leaves both machines as their owner had them', async () => {
    for (const [index, address] of ['10.20.30.70', '10.20.30.71'].entries())
      expect(await seenByOwner(world, address)).toBe(before[index])
  })
})
