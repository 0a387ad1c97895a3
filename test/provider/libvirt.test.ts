/** What libvirt reports about its domains; test/vagrant has real machines. */
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { libvirt } from '../../src/provider/vagrant/libvirt.js'
import { onlyPrograms } from './vagrant-tools.js'

/**
 * The answers of virsh 9.0 for four domains of QEMU: one running, one suspended, one destroyed, one of another lab.
 */
const recorded = join(import.meta.dirname, '..', 'golden', 'virsh', 'machines.txt')

describe('the machines of a lab', () => {
  test('the domains of the lab are its machines, and no others', async () => {
    await onlyPrograms({ virsh: `exec /bin/cat '${recorded}'` })
    const machines = await libvirt.machines({ name: 'demo' })
    expect([...machines].sort((a, b) => a.name.localeCompare(b.name))).toEqual([
      {
        name: 'cut',
        id: '2b830fa7-4638-4ca5-9533-e26a90f90651',
        running: false,
        detail: 'its power was cut',
        memory: 512 * 1024 ** 2,
        cpus: 1,
      },
      {
        name: 'on',
        id: 'a76c5bbf-a391-4ca4-a0f0-41904c07cd17',
        running: true,
        detail: 'domain lab_demo_on, number 1',
        memory: 512 * 1024 ** 2,
        cpus: 1,
      },
      {
        name: 'still',
        id: '2d685590-f206-4469-92c0-fd0dd9108560',
        running: true,
        paused: true,
        detail: 'domain lab_demo_still, number 2',
        memory: 1024 ** 3,
        cpus: 2,
      },
    ])
  })
})
