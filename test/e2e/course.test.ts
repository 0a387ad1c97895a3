/**
 * Experiments of the course on real machines: those of two labs, which fit into the time, on the machines of one. `npm
 * run test:course` runs all.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Bench, runComplaints } from './lab.js'

const bench = new Bench()
afterAll(() => bench.close())

describe('the experiments of the course', () => {
  beforeAll(async () => {
    await bench.ok('up', 'deployment')
  })

  it.each([
    ['deployment', 'scale'],
    ['replicaset', 'pod-deleted'],
  ])('%s: %s holds and leaves the lab as it was', async (lab, experiment) => {
    const on = lab === 'deployment' ? [] : ['--on', 'deployment']
    const { exitCode, runs, stderr } = await bench.run(lab, experiment, ...on)
    expect(runComplaints(runs), stderr).toEqual([])
    expect({ exitCode, verdicts: runs.map(({ verdict }) => verdict) }, stderr).toEqual({
      exitCode: 0,
      verdicts: ['PASS'],
    })
    expect(runs[0]).toMatchObject({ lab: 'deployment', of: lab === 'deployment' ? null : lab })
    expect(runs[0]?.figures.length).toBeGreaterThan(0)
    expect(await bench.openFaults('deployment')).toEqual([])
  })

  it('lab run removes everything an experiment made when it is interrupted by Ctrl-C', async () => {
    const running = bench.begin('deployment', 'rolling-update')
    while ((await bench.openFaults('deployment')).length === 0 && running.exitCode === null) await delay(50)
    await delay(3000)
    running.kill('SIGINT')
    const { exitCode, stderr } = await running
    expect(exitCode, stderr).toBe(130)
    expect(await bench.openFaults('deployment')).toEqual([])
    const namespaces = await bench.ok('kubectl', 'deployment', '--', 'get', 'namespaces', '-o', 'name')
    expect(namespaces).not.toContain('lab-rolling-update')
    expect(await bench.complaints('deployment')).toEqual([])
  })
})
