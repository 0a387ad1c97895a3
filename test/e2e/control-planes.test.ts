/** labs/control-planes.yaml on real machines: three control planes share an address, and any one may be lost. */
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

  it('pass every check', async () => {
    expect(await bench.complaints(lab)).toEqual([])
  })

  it.each(['leader-cut', 'endpoint-cut', 'follower-cut', 'one-apart', 'quorum-lost', 'power-cut'])(
    'pass the scenario %s: no row, line or ConfigMap that was acknowledged is lost',
    async (scenario) => {
      const { runs, exitCode } = await bench.run(lab, scenario)
      expect(runComplaints(runs)).toEqual([])
      expect(exitCode).toBe(0)
    },
  )
})
