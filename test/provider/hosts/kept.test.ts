/** A lab on hosts: the hosts' own addresses replace those of the lab file before anything is planned. */
import { expect, test } from 'vitest'
import { machineNamed, podRangeOf, portalOf } from '../../../src/lab/lab.js'
import { machineFiles } from '../../../src/machine/files.js'
import { imagesUsedOn } from '../../../src/lab/images.js'
import { hostArchitecture } from '../../../src/parts/architecture.js'
import { onHosts } from '../../../src/provider/hosts/lab-record.js'
import { foreignImages } from '../../../src/provider/hosts/prepare.js'
import { loadLab } from '../../../src/registry.js'

const placed = (name: string, address: string) => ({
  ...{ name, address, prefix: 24, memory: 4 * 1024 ** 3, cpus: 4 },
})

test('portals, the network and the files of machines follow from the addresses of the hosts', async () => {
  const lab = onHosts(await loadLab('iscsi'), {
    machines: [placed('target', '10.0.9.70'), placed('initiator', '10.0.9.12')],
  })
  expect(lab.provider).toBe('hosts')
  expect(lab.network.subnet).toBe('10.0.9.0/24')
  expect(portalOf(lab, lab.targets[0]!)).toBe('10.0.9.70:3260')
  const files = machineFiles(lab, machineNamed(lab, 'initiator'), {
    secrets: { bootstrapToken: '', clusterKey: 'key-of-clusters' },
  })
  expect(files.find(({ path }) => path === '/etc/hosts')?.content).toContain('10.0.9.70 target')
  expect(JSON.stringify(files)).not.toContain('192.168.56.')
})

test('nodes get pod ranges by their order, so that equal last numbers do not clash', async () => {
  const written = await loadLab('iscsi-ha')
  const lab = onHosts(written, {
    machines: written.machines.map(({ name }, index) => placed(name, `10.0.${String(index)}.7`)),
  })
  const ranges = lab.machines
    .filter(({ role }) => role !== 'target')
    .map((machine) => podRangeOf(lab, machine))
  expect(new Set(ranges).size).toBe(ranges.length)
  expect(ranges[0]).toBe('10.244.1.0/24')
  expect(machineNamed(lab, 'worker1')).toMatchObject({ memory: 4 * 1024 ** 3, cpus: 4 })
})

test('images are built for another kind of processor only if a node of the lab has it, and only those that this node uses', async () => {
  const lab = await loadLab('iscsi-ha')
  const own = hostArchitecture() ?? 'amd64'
  const other = own === 'amd64' ? 'arm64' : 'amd64'
  const kinds = (of: (name: string) => typeof own | undefined) => ({
    machines: lab.machines.map(({ name }) => {
      const architecture = of(name)
      return { ...placed(name, '10.0.9.7'), ...(architecture ? { architecture } : {}) }
    }),
  })
  const images = (of: (name: string) => typeof own | undefined) => [...foreignImages(lab, kinds(of))]
  expect([...foreignImages(lab, undefined)]).toEqual([])
  // Written by an earlier version, which had hosts of this computer's kind only.
  expect(images(() => undefined)).toEqual([])
  expect(images((name) => (name === 'target' ? other : own))).toEqual([])
  const used = imagesUsedOn(lab, machineNamed(lab, 'worker1'))
  expect(images((name) => (name.startsWith('worker') ? other : own))).toEqual([[other, used]])
  expect(used.join()).not.toContain('kube-apiserver')
})
