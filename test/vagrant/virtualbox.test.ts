/**
 * What the Vagrantfile and the provider ask of VirtualBox, with the real VBoxManage. It runs here without its kernel
 * driver: everything works except starting a machine and making a host-only interface.
 */
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import Handlebars from 'handlebars'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Lab } from '../../src/lab/lab.js'
import { loadLab } from '../../src/registry.js'
import { virtualbox } from '../../src/provider/vagrant/virtualbox.js'
import { renderVagrantfile } from '../../src/provider/vagrant/vagrantfile.js'
import { projectRoot } from '../../src/package.js'
import { pathsOf } from '../../src/state.js'
import { callsFor, evaluate } from '../provider/vagrant-tools.js'
import { vboxFolder } from './worlds.js'

const GiB = 1024 ** 3

const manage = async (...args: readonly string[]): Promise<string> => (await execa('VBoxManage', args)).stdout
const info = async (vm: string): Promise<ReadonlyMap<string, string>> =>
  new Map(
    (await manage('showvminfo', vm, '--machinereadable')).split('\n').flatMap((line) => {
      const [, key, value] = /^"?([^"=]+)"?="?(.*?)"?$/.exec(line) ?? []
      return key === undefined || value === undefined ? [] : [[key, value] as const]
    }),
  )
const names = async (what: 'vms' | 'hdds'): Promise<readonly string[]> =>
  (await manage('list', what))
    .split('\n')
    .filter((line) => (what === 'vms' ? /^".*" \{/ : /^Location:/).test(line))

describe('the real VBoxManage', () => {
  let lab: Lab
  let folder: string
  let uuid: string

  /** A machine as Vagrant has it right after the import of the box: the box's controller, and a first card. */
  const makeLikeVagrant = async (): Promise<void> => {
    const vm = 'lab_iscsi_target'
    await manage('createvm', '--name', vm, '--ostype', 'Debian_64', '--register')
    await manage('storagectl', vm, '--name', 'VirtIO Controller', '--add', 'virtio', '--portcount', '1')
    await manage('modifyvm', vm, '--nic1', 'nat', '--nictype1', 'virtio')
    uuid = (await info(vm)).get('UUID') ?? ''
    const memory = join(folder, '.vagrant/machines/target/virtualbox')
    await mkdir(memory, { recursive: true })
    await writeFile(join(memory, 'id'), uuid)
  }

  /**
   * As Vagrant does at every up: each customization in its order, with `:id` replaced. Throws if the real program
   * refuses one.
   */
  const customize = async (of = lab): Promise<readonly string[]> => {
    await writeFile(join(folder, 'Vagrantfile'), renderVagrantfile(of, 'virtualbox'))
    const calls = callsFor(await evaluate(folder), 'target', 'virtualbox')
    const settings = new Map(calls.map(({ name, args }) => [name, args[0]]))
    await manage('modifyvm', uuid, '--cpus', String(settings.get('cpus=')))
    await manage('modifyvm', uuid, '--memory', String(settings.get('memory=')))
    const done: string[] = []
    for (const { name, args } of calls) {
      if (name !== 'customize') continue
      const words = (args[0] as unknown[]).map((word) => (word === ':id' ? uuid : String(word)))
      await manage(...words)
      done.push(words[0] ?? '')
    }
    return done
  }

  beforeAll(async () => {
    lab = await loadLab('iscsi')
    folder = pathsOf(lab).root
    await mkdir(folder, { recursive: true })
    await mkdir(join(folder, 'home'), { recursive: true })
    await makeLikeVagrant()
  })
  afterAll(() => virtualbox.destroy(lab))

  const version = async (): Promise<string> => (await manage('--version')).trim().split('\n').at(-1) ?? ''

  test('VBoxManage is the real one and not a stand-in', async () => {
    expect(await version()).toMatch(/^7\.[2-9].*Debian/)
  })

  test('VBoxManage accepts every customization of a new machine', async () => {
    expect(await customize()).toEqual([
      'modifyvm',
      'modifyvm',
      'storagectl',
      'createmedium',
      'storageattach',
      'setextradata',
    ])
  })

  test('the disk of a new machine is at the right port and its console goes to the right file', async () => {
    const disk = join(folder, '.vagrant/disks/target-0.vdi')
    const machine = await info(uuid)
    expect(machine.get('lab disks-0-0')).toBe(disk)
    expect(machine.get('lab disks-1-0')).toBe('none')
    expect(machine.get('storagecontrollertype1')).toBe('IntelAhci')
    expect(machine.get('storagecontrollerbootable1')).toBe('off')
    expect(machine.get('uart1')).toBe('0x03f8,4')
    expect(machine.get('uartmode1')).toBe(`file,${join(folder, '.vagrant/target.console.log')}`)
    expect(machine.get('description')).toBe('target of lab iscsi')
    expect(await manage('showmediuminfo', 'disk', disk)).toContain('Capacity:       4096 MBytes')
    expect(
      await manage('getextradata', uuid, 'VBoxInternal/Devices/ahci/0/Config/Port0/SerialNumber'),
    ).toContain('Value: lab0')
  })

  test('VBoxManage accepts the customizations a second time, and no disk changes', async () => {
    const before = await info(uuid)
    expect(await customize()).toEqual(['modifyvm', 'modifyvm'])
    const after = await info(uuid)
    for (const key of ['lab disks-0-0', 'lab disks-ImageUUID-0-0'])
      expect(after.get(key)).toBe(before.get(key))
    expect(await names('hdds')).toHaveLength(1)
  })

  test('a disk that was detached is attached again', async () => {
    const image = (await info(uuid)).get('lab disks-ImageUUID-0-0')
    const off = ['--port', '0', '--device', '0', '--medium', 'none']
    await manage('storageattach', uuid, '--storagectl', 'lab disks', ...off)
    expect(await customize()).toEqual(['modifyvm', 'modifyvm', 'storageattach', 'setextradata'])
    expect((await info(uuid)).get('lab disks-ImageUUID-0-0')).toBe(image)
  })

  test('a new LUN goes to the next port and leaves the first one alone', async () => {
    const [target] = lab.targets
    const more = {
      ...lab,
      targets: [{ ...target!, luns: [...target!.luns, { lun: 1, size: GiB }] }],
    }
    const image = (await info(uuid)).get('lab disks-ImageUUID-0-0')
    expect(await customize(more)).toEqual([
      'modifyvm',
      'modifyvm',
      'createmedium',
      'storageattach',
      'setextradata',
    ])
    const machine = await info(uuid)
    expect(machine.get('lab disks-ImageUUID-0-0')).toBe(image)
    expect(machine.get('lab disks-1-0')).toBe(join(folder, '.vagrant/disks/target-1.vdi'))
  })

  test('the provider reports the machines that VBoxManage knows', async () => {
    expect(await virtualbox.machines(lab)).toEqual([
      { name: 'target', id: uuid, running: false, detail: 'it is off', memory: GiB / 2, cpus: 1 },
    ])
    const left = await virtualbox.leftovers(lab)
    expect(left.map(({ what }) => what)).toEqual(
      expect.arrayContaining([
        'VirtualBox machine lab_iscsi_target',
        `VirtualBox disk ${join(folder, '.vagrant/disks/target-0.vdi')}`,
      ]),
    )
    // Nothing of another lab whose name begins the same way.
    expect(await virtualbox.machines({ name: 'isc' })).toEqual([])
  })

  test('a machine accepts other memory and processors, and its failure to start is reported in its own words', async () => {
    const machine = { ...lab.machines[0]!, memory: GiB, cpus: 2 }
    await expect(virtualbox.start(lab, machine)).rejects.toMatchObject({
      code: 'no-driver',
      message: expect.stringMatching(/kernel driver.*VBoxManage says: .*terminated unexpectedly/),
      hint: expect.stringContaining('modprobe vboxdrv'),
    })
    expect(await virtualbox.machines(lab)).toMatchObject([{ memory: GiB, cpus: 2 }])
  })

  test('the absence of host-only networks is reported in the words of VBoxManage', async () => {
    await expect(virtualbox.createNetwork(lab)).rejects.toMatchObject({
      code: 'no-driver',
      message: expect.stringContaining('/dev/vboxnetctl'),
      hint: 'sudo modprobe -a vboxnetadp vboxnetflt',
    })
    expect(await virtualbox.network(lab)).toMatchObject({ ok: false })
  })

  test('a disk that an earlier lab left is refused with the reason', async () => {
    const { explain } = await import('../../src/provider/vagrant/tools.js')
    const refused = async (...args: readonly string[]) => {
      const { failed, stderr } = await execa('VBoxManage', args, { reject: false })
      expect(failed).toBe(true)
      return explain('VBoxManage', stderr, { lab: 'iscsi', machine: 'target' })
    }
    expect(await refused('createvm', '--name', 'lab_iscsi_target', '--register')).toMatchObject({
      code: 'name-clash',
      hint: 'lab down iscsi',
    })
    // The same disk at another path, as after copying a folder.
    const disk = join(folder, '.vagrant/disks/target-0.vdi')
    const copy = join(vboxFolder(), 'copy.vdi')
    await execa('cp', [disk, copy])
    expect(
      await refused(
        ...['storageattach', uuid, '--storagectl', 'lab disks', '--port', '5', '--device', '0'],
        ...['--type', 'hdd', '--medium', copy],
      ),
    ).toMatchObject({ code: 'disk-clash', hint: expect.stringContaining('lab down iscsi') })
    await execa('rm', [copy])
  })

  test('the end of a lab removes its disks, machines and files', async () => {
    await virtualbox.destroy(lab)
    expect(await names('vms')).toEqual([])
    expect(await names('hdds')).toEqual([])
    expect(await readdir(join(folder, '.vagrant/disks'))).toEqual([])
    expect(await virtualbox.leftovers(lab)).toEqual([])
    await virtualbox.destroy(lab)
  })

  test('removing a machine spares another one whose disks have similar names', async () => {
    await manage('createvm', '--name', 'lab_iscsi_a', '--ostype', 'Debian_64', '--register')
    await manage('createvm', '--name', 'lab_iscsi_a-1', '--ostype', 'Debian_64', '--register')
    const disk = (name: string): string => join(folder, '.vagrant/disks', `${name}.vdi`)
    for (const name of ['a-0', 'a-1-0'])
      await manage('createmedium', 'disk', '--filename', disk(name), '--size', '8', '--format', 'VDI')
    await virtualbox.remove(lab, 'a')
    expect((await virtualbox.machines(lab)).map(({ name }) => name)).toEqual(['a-1'])
    expect([existsSync(disk('a-0')), existsSync(disk('a-1-0'))]).toEqual([false, true])
    await virtualbox.destroy(lab)
    expect(await virtualbox.leftovers(lab)).toEqual([])
  })
})

describe('the appliance of a box, imported by the real VBoxManage', () => {
  test.each([
    { arm64: false, platform: 'x86', firmware: 'BIOS', system: 'Debian_64' },
    { arm64: true, platform: 'ARM', firmware: 'EFI', system: 'Debian_arm64' },
  ])(
    'the appliance becomes a machine of the right kind on $platform',
    async ({ arm64, platform, firmware, system }) => {
      const folder = join(vboxFolder(), `appliance-${platform}`)
      await mkdir(folder, { recursive: true })
      const size = 16 * 1024 ** 2
      const disk = join(folder, 'box-disk001.vmdk')
      // Without gaps: the importer fails with VERR_EOF if nothing follows one.
      await writeFile(join(folder, 'disk.raw'), randomBytes(size))
      await execa('qemu-img', [
        ...['convert', '-O', 'vmdk', '-o', 'subformat=streamOptimized', join(folder, 'disk.raw'), disk],
      ])
      const template = join(projectRoot, 'templates', 'box-provider', 'virtualbox', 'box.ovf.hbs')
      const render = Handlebars.compile(await readFile(template, 'utf8'), { strict: true, noEscape: true })
      await writeFile(join(folder, 'box.ovf'), render({ size, arm64 }))
      const vm = `lab-appliance-${platform}`
      await manage('import', join(folder, 'box.ovf'), '--vsys', '0', '--vmname', vm)
      const about = await manage('showvminfo', vm)
      expect(about).toMatch(new RegExp(`^Platform Architecture: +${platform}$`, 'm'))
      expect(about).toMatch(new RegExp(`^Firmware: +${firmware}$`, 'm'))
      expect(about).toContain("'VirtIO Controller', Type: VirtioSCSI")
      expect(await manage('list', 'ostypes', '--platform-arch', platform.toLowerCase())).toContain(system)
      await manage('unregistervm', vm, '--delete')
      expect(await names('hdds')).toEqual([])
    },
  )
})
