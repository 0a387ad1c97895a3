import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Lab } from '../../../src/lab/lab.js'
import { assignCpu, cpuList, type HostMachine, hostMachine } from '../../../src/provider/uml/processors.js'
import { loadLab } from '../../../src/registry.js'

const iscsiHa = await loadLab('iscsi-ha')
const iscsi = await loadLab('iscsi')
const hacmp = await loadLab('hacmp')
const cpus = (count: number): readonly number[] => Array.from({ length: count }, (_, index) => index)

/** How many of the distributed machines each processor has. */
const countsOf = (dealt: readonly number[]): readonly number[] => {
  const counts = new Map<number, number>()
  for (const cpu of dealt) counts.set(cpu, (counts.get(cpu) ?? 0) + 1)
  return [...counts.values()]
}

const folderIn =
  (lab: string) =>
  (machine: string): string =>
    join('/state', lab, 'machines', machine)

/** Starts all machines of a lab, one after the other, on a host that already has these. */
const started = (lab: Lab, count: number, running: readonly HostMachine[]): readonly HostMachine[] => {
  const folder = folderIn(lab.seat === undefined ? lab.name : `${lab.name}@${lab.seat}`)
  return lab.machines.reduce(
    (sofar, machine) => [
      ...sofar,
      {
        folder: folder(machine.name),
        cpu: assignCpu(lab, machine, cpus(count), sofar, folder),
        memory: machine.memory,
      },
    ],
    running,
  )
}

describe('processors', () => {
  test.each([
    [iscsi, 2],
    [iscsi, 32],
    [iscsiHa, 2],
    [iscsiHa, 3],
    [iscsiHa, 32],
  ])(
    'the processors of thirty seats of $0.name on $1 processors have the same load, except for one control plane',
    (lab, count) => {
      const load = new Map(cpus(count).map((cpu) => [cpu, 0]))
      const machines = new Map(cpus(count).map((cpu) => [cpu, 0]))
      for (let seat = 1; seat <= 30; seat++)
        for (const machine of lab.machines) {
          const cpu = assignCpu({ ...lab, seat: String(seat).padStart(2, '0') }, machine, cpus(count))
          load.set(cpu, (load.get(cpu) ?? 0) + (machine.role === 'control-plane' ? 3 : 1))
          machines.set(cpu, (machines.get(cpu) ?? 0) + 1)
        }
      const spread = (counts: Map<number, number>): number =>
        Math.max(...counts.values()) - Math.min(...counts.values())
      expect(spread(load)).toBeLessThanOrEqual(lab === iscsi ? 1 : 3)
      expect(spread(machines)).toBeLessThanOrEqual(lab === iscsi ? 1 : 6)
    },
  )

  test('the processors are the same for a seat whether it sees the machines of other seats or not', () => {
    const first = { ...iscsi, seat: '01' }
    const second = { ...iscsi, seat: '02' }
    const seen = started(first, 4, [])
    const folder = folderIn('iscsi@02')
    for (const machine of iscsi.machines)
      expect(assignCpu(second, machine, cpus(4), seen, folder)).toBe(assignCpu(second, machine, cpus(4)))
  })

  test('the processors of a control plane run no other machine while there are enough of them', () => {
    const machines = started(iscsiHa, 4, [])
    expect(countsOf(machines.map(({ cpu }) => cpu))).toEqual([1, 1, 1, 1])
    const two = started(iscsiHa, 2, [])
    const master = two.find(({ folder }) => folder.endsWith('/master'))
    expect(two.filter(({ cpu }) => cpu === master?.cpu)).toHaveLength(1)
  })

  test('the processors that another lab leaves free are used first, whatever the labs are called', () => {
    const both = ['one', 'two', 'three', 'four'].reduce<readonly HostMachine[]>(
      (running, name) => started({ ...iscsi, name }, 8, running),
      [],
    )
    expect(countsOf(both.map(({ cpu }) => cpu))).toEqual([1, 1, 1, 1, 1, 1, 1, 1])
  })

  test('the processors of a lab have the same load when another lab ends that was busy on one of them', () => {
    const busy = Array.from({ length: 8 }, (_, index) => ({
      folder: folderIn('busy')(String(index)),
      cpu: 1,
      memory: 2 * 1024 ** 3,
    }))
    const own = started(hacmp, 2, busy).slice(busy.length)
    const load = (wanted: number): number =>
      own
        .filter(({ cpu }) => cpu === wanted)
        .reduce((sum, { folder }) => sum + (folder.includes('/master') ? 3 : 1), 0)
    expect([load(0), load(1)].sort()).toEqual([6, 7])
  })

  test('the processors are chosen for a machine that starts again without moving running ones', () => {
    const running = started(iscsi, 2, [])
    const [first, second] = running
    const again = assignCpu(iscsi, iscsi.machines[0]!, cpus(2), [second!], folderIn('iscsi'))
    expect(again).toBe(first?.cpu)
  })

  test('the processors are read from /proc for a machine, and for nothing that only looks like one', () => {
    const words = ['/linux', 'mem=512M', 'umid=target', 'labfolder=/s%20t/iscsi/machines/target']
    const status = 'Name:\tlinux\nCpus_allowed_list:\t5\n'
    expect(hostMachine(words, status)).toEqual({
      folder: '/s t/iscsi/machines/target',
      cpu: 5,
      memory: 512 * 1024 ** 2,
    })
    expect(hostMachine(words, 'Cpus_allowed_list:\t0-3\n')).toBeUndefined()
    expect(hostMachine(['vi', 'labfolder=%'], status)).toBeUndefined()
    expect(hostMachine(['/linux', 'mem=1M', 'labfolder=%'], status)).toBeUndefined()
    expect(cpuList('0-1,4')).toEqual([0, 1, 4])
  })
})
