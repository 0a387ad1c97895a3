/** labs/control-planes.yaml on real machines: three control planes share an address, and any one may be lost. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Bench, runComplaints } from './lab.js'

const bench = new Bench()
const lab = 'control-planes'

afterAll(async () => {
  await bench.close()
})

describe('three control planes', () => {
  beforeAll(async () => {
    await bench.up(lab)
  })

  it('three control planes pass every check', async () => {
    expect(await bench.complaints(lab)).toEqual([])
  })

  it.each(['leader-cut', 'endpoint-cut', 'follower-cut', 'one-apart', 'quorum-lost', 'power-cut'])(
    'three control planes pass the scenario %s: no row, line or ConfigMap that was acknowledged is lost',
    async (scenario) => {
      const { runs, exitCode } = await bench.run(lab, scenario)
      expect(runComplaints(runs)).toEqual([])
      expect(exitCode).toBe(0)
    },
  )

  it('three control planes pass the scenario etcd-disk-full, in which a member has no free byte on its disk', async () => {
    const { runs, exitCode } = await bench.run(lab, 'etcd-disk-full')
    expect(runComplaints(runs)).toEqual([])
    expect(exitCode).toBe(0)
  })

  it('three control planes get a new member in place of one that lost its disk', async () => {
    await bench.power(lab, 'master3', 'cut')
    await rm(join(bench.env.LAB_STATE, lab, 'machines', 'master3'), { recursive: true })
    expect(await bench.up(lab)).toContain('join-master3')
    expect(await bench.complaints(lab)).toEqual([])
    await bench.ok('down', lab)
  })
})

describe('one control plane with a shared address', () => {
  interface Machines {
    machines: { name: string }[]
    scenarios: unknown[]
  }
  const some = (...gone: readonly string[]): Promise<string> =>
    bench.variant('control-planes', 'growing', (file) => {
      const all = file as unknown as Machines
      all.machines = all.machines.filter(({ name }) => !gone.includes(name))
      // They name machines that are left out.
      all.scenarios = []
    })

  it('one control plane becomes the first of three and later the only one again, and those that leave the lab file leave etcd first', async () => {
    await bench.up(await some('master2', 'master3', 'worker2'))
    const three = await some('worker2')
    expect(await bench.up(three)).toEqual(expect.arrayContaining(['join-master2', 'join-master3']))
    expect(await bench.complaints(three)).toEqual([])
    const one = await some('master2', 'master3', 'worker2')
    await bench.up(one)
    expect(await bench.complaints(one)).toEqual([])
  })
})
