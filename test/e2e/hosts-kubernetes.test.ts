/** Kubernetes on machines that somebody else made: plain Debian, reached over SSH alone, and given back as it was. */
import { cp, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse, stringify } from 'yaml'
import { seenByOwner } from '../hosts/owner.js'
import { cli } from './lab.js'
import { bootLineFile, type ForeignMachine, password, World } from '../hosts/world.js'

const secret = { PI_PASSWORD: password, BMC_PASSWORD: password }

/** The hosts of each lab, by the names of its machines. */
const labs: Readonly<Record<string, readonly ForeignMachine[]>> = {
  deployment: [
    { name: 'master', address: '10.20.30.11', memory: 2048 },
    // Like a Raspberry Pi: without a memory controller, which its boot line can switch on.
    {
      name: 'worker1',
      address: '10.20.30.21',
      memory: 1024,
      bootLine: 'root=/dev/ubda cgroup_disable=memory',
    },
  ],
  'iscsi-ha': [
    { name: 'target', address: '10.20.30.70', memory: 512 },
    { name: 'master', address: '10.20.30.11', memory: 3072 },
    { name: 'worker1', address: '10.20.30.21', memory: 2048 },
    { name: 'worker2', address: '10.20.30.22', memory: 2048 },
  ],
}

/** What each lab runs. The machines of `iscsi-ha` have power switches: Debian's fence_redfish drives the supervisor's. */
const possible: Readonly<Record<string, readonly string[]>> = {
  deployment: ['scale'],
  'iscsi-ha': ['drain', 'power-cut'],
}

/** A shipped lab with these machines alone: what is tried here does not depend on how many workers there are. */
const writeReduced = async (name: string, machines: readonly string[], into: string): Promise<void> => {
  const folder = fileURLToPath(new URL('../../labs', import.meta.url))
  const lab = parse(await readFile(join(folder, `${name}.yaml`), 'utf8')) as {
    machines: { name: string }[]
    manifests?: string
  }
  lab.machines = lab.machines.filter((machine) => machines.includes(machine.name))
  if (lab.manifests !== undefined)
    await cp(join(folder, lab.manifests), join(into, lab.manifests), { recursive: true })
  await writeFile(join(into, 'lab.yaml'), stringify(lab))
}

for (const [name, machines] of Object.entries(labs))
  describe(`lab up ${name} --hosts`, () => {
    let world: World
    let firmware: Promise<void>
    const pis = machines.filter(({ bootLine }) => bootLine !== undefined)
    const before = new Map<string, string>()

    const lab = async (...args: readonly string[]) => {
      const begun = performance.now()
      const { exitCode, stdout, stderr } = await world.begin(args, secret)
      const seconds = (performance.now() - begun) / 1000
      console.log(`lab ${args.join(' ')}: ${seconds.toFixed(1)} s, exit code ${String(exitCode)}`)
      if (exitCode !== 0) console.log(`${stdout}\n${stderr}`)
      return { exitCode, stdout, stderr }
    }

    beforeAll(async () => {
      world = await World.start(machines)
      firmware = world.playFirmware()
      const power = name === 'iscsi-ha' ? await world.offerPower() : undefined
      await writeFile(
        join(world.folder, 'hosts.yaml'),
        `apiVersion: lab.hosts/v1\ndefaults: { user: pi, password: $PI_PASSWORD }\nhosts:\n${machines.map((each) => `  ${each.name}: { address: ${each.address}${power === undefined ? '' : `, power: ${power(each.name)}`} }\n`).join('')}`,
      )
      await writeReduced(
        name,
        machines.map((machine) => machine.name),
        world.folder,
      )
      // In this computer's own network: where the machines are, no name server answers a build.
      await execa(process.execPath, [cli, 'prepare', 'lab.yaml', '--provider', 'hosts'], {
        cwd: world.folder,
        env: world.env,
      })
      for (const { address } of machines) before.set(address, await seenByOwner(world, address))
    })

    afterAll(async () => {
      await world.close()
      await firmware
    })

    it.runIf(pis.length > 0)(
      'lab hosts check announces the restart of a machine without a memory controller',
      async () => {
        const { stdout } = await lab('hosts', 'check', 'hosts.yaml', '--lab', 'lab.yaml', '--yes')
        expect(stdout).toMatch(
          /→ cgroups .*cmdline\.txt will get cgroup_enable=memory, and the machine will be restarted/,
        )
        expect(world.restarts).toBe(0)
      },
    )

    it('lab up makes a cluster of existing machines, and the cluster passes every check', async () => {
      expect(await lab('up', 'lab.yaml', '--hosts', 'hosts.yaml', '--yes')).toMatchObject({ exitCode: 0 })
      expect(await lab('verify', name)).toMatchObject({ exitCode: 0 })
    })

    it.runIf(pis.length > 0)('lab up has restarted such a machine once, with its new boot line', async () => {
      expect(world.restarts).toBe(pis.length)
      for (const { address } of pis)
        expect(await world.owner(address, `cat ${bootLineFile} /sys/fs/cgroup/cgroup.controllers`)).toMatch(
          /^root=\/dev\/ubda cgroup_enable=memory cgroup_memory=1\n.*\bmemory\b/,
        )
    })

    it('lab up has nothing to do the second time', async () => {
      expect((await lab('up', 'lab.yaml')).stdout).toContain('nothing to do')
    })

    it.each(possible[name] ?? [])('lab runs %s', async (what) => {
      const { exitCode, stdout } = await lab('run', name, what)
      expect(stdout).toMatch(/^PASS /m)
      expect(exitCode).toBe(0)
    })

    it('lab down gives every machine back as its owner had it', async () => {
      const { exitCode, stdout, stderr } = await lab('down', name)
      expect(stderr).not.toMatch(/^✖/m)
      expect(stdout).toContain('nothing left')
      expect(exitCode).toBe(0)
      for (const { address } of machines) expect(await seenByOwner(world, address)).toBe(before.get(address))
      expect(world.restarts).toBe(2 * pis.length)
      for (const { address, bootLine } of pis)
        expect(await world.owner(address, `cat ${bootLineFile}`)).toBe(bootLine)
    })
  })
