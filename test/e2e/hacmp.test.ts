/**
 * labs/hacmp.yaml on real machines: three control planes, two machines with one disk, two workers. Every plug is
 * pulled, and every other fault of the lab file is tried.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Bench, runComplaints } from './lab.js'

const bench = new Bench()
const lab = 'hacmp'

afterAll(async () => {
  await bench.close()
})

describe('a lab without a single point of failure', () => {
  beforeAll(async () => {
    await bench.up(lab)
  })

  it('hacmp passes every check', async () => {
    expect(await bench.complaints(lab)).toEqual([])
  })

  it.each([
    'power-cut-any-target-serving',
    'power-cut-any-target-waiting',
    'power-cut-any-master1',
    'power-cut-any-master2',
    'power-cut-any-master3',
    'power-cut-any-database',
    'power-cut-any-standby',
    'target-hang',
    'target-reboot',
    'target-maintenance',
    'replication-cut',
    'targets-apart',
    'clients-cut',
    'target-disk-full',
    'target-disk-error',
    'copy-disk-error',
    'split-brain',
    'leader-cut',
    'endpoint-cut',
    'one-apart',
    'quorum-lost',
    'etcd-disk-full',
  ])(
    'hacmp passes the scenario %s: no row, line or ConfigMap that was acknowledged is lost',
    async (scenario) => {
      const { runs, exitCode } = await bench.run(lab, scenario)
      expect(runComplaints(runs)).toEqual([])
      expect(exitCode).toBe(0)
    },
  )
})
