/**
 * Experiments of the course on real machines: those of three labs that fit into the time, on the machines of one.
 * All of them: `npm run test:course`.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Bench, runComplaints } from './lab.js'

const bench = new Bench()
afterAll(async () => {
  await bench.lab('down', 'statefulset')
  await bench.close()
})

describe('a lab of the course', () => {
  beforeAll(async () => {
    await bench.ok('up', 'statefulset')
  })

  it.each([
    ['statefulset', 'parallel'],
    ['deployment', 'scale'],
    ['replicaset', 'pod-deleted'],
  ])('%s: %s holds, and the lab is as it was', async (lab, experiment) => {
    const on = lab === 'statefulset' ? [] : ['--on', 'statefulset']
    const { exitCode, runs, stderr } = await bench.run(lab, experiment, ...on)
    expect(runComplaints(runs), stderr).toEqual([])
    expect({ exitCode, verdicts: runs.map(({ verdict }) => verdict) }, stderr).toEqual({
      exitCode: 0,
      verdicts: ['PASS'],
    })
    expect(runs[0]?.figures.length).toBeGreaterThan(0)
    expect(await bench.openFaults('statefulset')).toEqual([])
  })

  it('heals after Ctrl-C: nothing of an experiment is left', async () => {
    const running = bench.begin('statefulset', 'ordering')
    while ((await bench.openFaults('statefulset')).length === 0 && running.exitCode === null) await delay(50)
    await delay(3000)
    running.kill('SIGINT')
    const { exitCode, stderr } = await running
    expect(exitCode, stderr).toBe(130)
    expect(await bench.openFaults('statefulset')).toEqual([])
    const namespaces = await bench.ok('kubectl', 'statefulset', '--', 'get', 'namespaces', '-o', 'name')
    expect(namespaces).not.toContain('lab-ordering')
    expect(await bench.complaints('statefulset')).toEqual([])
  })
})
