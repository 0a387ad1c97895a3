/** A host gets the contents of the base disk that its role needs. */
import { execFileSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import type { Lab } from '../../../src/lab/lab.js'
import { machineNamed } from '../../../src/lab/lab.js'
import { machineFiles } from '../../../src/machine/files.js'
import { hostArchitecture } from '../../../src/parts/architecture.js'
import { pins } from '../../../src/parts/pins.js'
import { type Equipment, equipmentFor } from '../../../src/provider/hosts/equip.js'
import { loadLab } from '../../../src/registry.js'

const equipment = async (lab: Lab, name: string): Promise<Equipment> =>
  equipmentFor(lab, machineNamed(lab, name))

describe('the equipment of a host', () => {
  test.each(['iscsi', 'iscsi-ha', 'deployment-ha', 'statefulset', 'control-planes'])(
    'the equipment in the lab %s is made of packages that the base disk has as well',
    async (name) => {
      const lab = await loadLab(name)
      for (const machine of lab.machines) {
        const { packages } = await equipmentFor(lab, machine)
        // Packages of Debian's own system are not listed a second time.
        expect(pins().system.packages).toEqual(expect.arrayContaining([...packages]))
      }
    },
  )

  test('the equipment of an initiator is open-iscsi, and nothing of Kubernetes', async () => {
    const { packages, programs, files, noSwap } = await equipment(await loadLab('iscsi'), 'initiator')
    expect(packages).toEqual(['open-iscsi', 'e2fsprogs'])
    expect([programs.length, noSwap]).toEqual([0, false])
    expect(files.map(({ path }) => path)).toEqual(['/etc/modules-load.d/lab.conf'])
  })

  test.skipIf(hostArchitecture() !== 'amd64')(
    'a node with another kind of processor gets the same programs, built for that kind',
    async () => {
      const lab = await loadLab('deployment')
      const worker = machineNamed(lab, 'worker1')
      const { programs, ...rest } = await equipmentFor(lab, worker)
      const { programs: others, ...sameRest } = await equipmentFor(lab, worker, { architecture: 'arm64' })
      expect(sameRest).toEqual(rest)
      expect(others.map(({ to }) => to)).toEqual(programs.map(({ to }) => to))
      for (const { from } of others)
        expect(from).toMatch(/\/(kubernetes|containerd|cni-plugins)-arm64-[0-9a-f]{12}\//)
      expect((await equipmentFor(lab, worker, { architecture: 'amd64' })).programs).toEqual(programs)
    },
  )

  test('the equipment of a target makes a file and a loop device for each LUN, at every boot', async () => {
    const { files, enabled } = await equipment(await loadLab('iscsi'), 'target')
    const script = files.find(({ path }) => path === '/etc/lab/boot.d/40-luns')?.content ?? ''
    expect(() => execFileSync('sh', ['-n'], { input: script })).not.toThrow()
    expect(script).toContain('ln -sfn "$loop" /dev/lab/lun0')
    expect(enabled).toEqual(['lab-boot.service'])
    const unit = files.find(({ path }) => path.endsWith('lab-boot.service'))?.content ?? ''
    // Portals need the host's own network, which starts after the base disk's unit.
    expect(unit).toMatch(/^After=network-online\.target/m)
    expect(unit).not.toMatch(/^Before=.*network-online/m)
  })

  test('the equipment covers every unit that the lab file’s own files bring, so that none stays at work without its file', async () => {
    for (const name of ['iscsi', 'iscsi-ha', 'deployment-ha', 'control-planes']) {
      const lab = await loadLab(name)
      for (const machine of lab.machines) {
        const { units, files } = await equipmentFor(lab, machine)
        const brought = [
          ...files,
          ...machineFiles(lab, machine, {
            secrets: { bootstrapToken: 'aaaaaa.aaaaaaaaaaaaaaaa', clusterKey: 'x' },
            lunDevice: (index) => `/dev/lab/lun${String(index)}`,
          }),
        ]
          .map(
            ({ path }) =>
              /^\/etc\/systemd\/system\/([^/@]+\.(?:service|socket|mount|automount))$/.exec(path)?.[1],
          )
          .filter((unit) => unit !== undefined)
        expect(units, `${name}, ${machine.name}`).toEqual(expect.arrayContaining(brought))
      }
    }
  })

  test('the equipment of one of several control planes is keepalived, for the address that they share', async () => {
    const several = await equipment(await loadLab('control-planes'), 'master1')
    expect(several.packages).toContain('keepalived')
    expect(several.units).toEqual(expect.arrayContaining(['keepalived.service', 'lab-endpoint.service']))
    expect((await equipment(await loadLab('iscsi-ha'), 'master')).packages).not.toContain('keepalived')
  })

  test('the equipment of a node is the programs and settings of the base disk, without swap', async () => {
    const { programs, files, noSwap, enabled } = await equipment(await loadLab('iscsi-ha'), 'worker1')
    expect(programs.map(({ to }) => to)).toEqual(
      expect.arrayContaining(['/usr/bin/kubelet', '/usr/bin/containerd', '/opt/cni/bin/bridge']),
    )
    expect(noSwap).toBe(true)
    expect(enabled).toContain('kubelet.service')
    const config = files.find(({ path }) => path === '/etc/containerd/config.toml')?.content
    expect(config).toMatch(/sandbox = 'registry\.k8s\.io\/pause:/)
  })
})
