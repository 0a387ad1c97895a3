import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import type { Lab } from '../../src/lab/lab.js'
import { loadLab } from '../../src/registry.js'
import type { VagrantHost } from '../../src/provider/vagrant/probe.js'
import { vagrantProvider } from '../../src/provider/vagrant/vagrant.js'
import { renderVagrantfile } from '../../src/provider/vagrant/vagrantfile.js'
import {
  callsFor,
  customizations,
  evaluate,
  needVagrant,
  run,
  setEnvironment,
  settings,
  skipWithoutVagrant,
  temporaryFolder,
  vagrantFolder,
} from './vagrant-tools.js'

// Vagrant and Ruby need a second each, and many times that on a busy machine.
vi.setConfig({ testTimeout: 60_000 })

const GiB = 1024 ** 3

describe.skipIf(skipWithoutVagrant)('the Vagrantfile', () => {
  const evaluated = async (lab: Lab, env: Readonly<Record<string, string>> = {}) => {
    needVagrant()
    const folder = await vagrantFolder(renderVagrantfile(lab, 'virtualbox'))
    return { folder, result: await evaluate(folder, env) }
  }

  test('the Vagrantfile defines every machine with its address, processors and memory for both providers', async () => {
    const lab = await loadLab('iscsi-ha')
    const { result } = await evaluated(lab)
    expect(result.machines.map(({ name }) => name)).toEqual(['target', 'master', 'worker1', 'worker2'])
    for (const machine of lab.machines) {
      const calls = callsFor(result, machine.name)
      expect(settings(calls)).toEqual({ hostname: machine.name })
      expect(calls.find(({ name }) => name === 'network')).toMatchObject({
        args: [':private_network'],
        options: {
          ip: machine.address,
          netmask: '255.255.255.0',
          libvirt__network_name: 'lab_iscsi-ha',
          libvirt__forward_mode: 'none',
          libvirt__dhcp_enabled: false,
        },
      })
      const size = { cpus: machine.cpus, memory: machine.memory / 1024 ** 2 }
      expect(settings(callsFor(result, machine.name, 'virtualbox'))).toEqual({
        ...size,
        name: `lab_iscsi-ha_${machine.name}`,
        linked_clone: true,
        check_guest_additions: false,
        default_nic_type: 'virtio',
      })
      expect(settings(callsFor(result, machine.name, 'libvirt'))).toMatchObject({
        ...size,
        default_prefix: 'lab_iscsi-ha_',
        description: `${machine.role} of lab iscsi-ha`,
      })
    }
  })

  test('the Vagrantfile has no shared folder, enough time to boot, and a box that can be chosen', async () => {
    const lab = await loadLab('iscsi')
    for (const [env, box] of [
      [{}, 'lab/debian-13'],
      [{ LAB_BOX: 'my/box' }, 'my/box'],
    ] as const) {
      const { result } = await evaluated(lab, env)
      const config = result.calls.flatMap(({ calls }) => calls)
      expect(settings(config)).toEqual({ box, box_check_update: false, boot_timeout: 600 })
      expect(config.find(({ name }) => name === 'synced_folder')).toMatchObject({
        args: ['.', '/vagrant'],
        options: { disabled: true },
      })
    }
  })

  test('the Vagrantfile attaches one disk per LUN to the target alone under libvirt, with the name that lunDevice gives', async () => {
    const lab = await loadLab('iscsi-ha')
    const { result } = await evaluated(lab)
    const storage = (machine: string) =>
      callsFor(result, machine, 'libvirt').filter(({ name }) => name === 'storage')
    expect(storage('target')).toMatchObject([
      { args: [':file'], options: { size: '4096M', type: 'qcow2', bus: 'virtio', serial: 'lab0' } },
    ])
    expect(storage('worker1')).toEqual([])
    expect(vagrantProvider('libvirt').disks?.lunDevice(0)).toBe('/dev/disk/by-id/virtio-lab0')
  })

  test('the Vagrantfile runs the access script of lab up on its own machine only', async () => {
    const lab = await loadLab('iscsi')
    const { folder, result } = await evaluated(lab)
    const provisions = (of: typeof result, machine: string) =>
      callsFor(of, machine).filter(({ name }) => name === 'provision')
    for (const { name } of lab.machines) expect(provisions(result, name)).toEqual([])

    const script = join(folder, '.vagrant/lab/target.sh')
    await mkdir(join(folder, '.vagrant/lab'), { recursive: true })
    await writeFile(script, '')
    const again = await evaluate(folder)
    expect(provisions(again, 'target')).toMatchObject([
      { args: ['lab'], options: { type: 'shell', path: script } },
    ])
    expect(provisions(again, 'initiator')).toEqual([])
  })

  test("the Vagrantfile pins the version of the box when it is known, but never for the user's own box", async () => {
    const folder = await vagrantFolder(renderVagrantfile(await loadLab('iscsi'), 'libvirt', '1.36.3.7'))
    const config = async (env = {}) =>
      settings((await evaluate(folder, env)).calls.flatMap(({ calls }) => calls))
    expect(await config()).toMatchObject({ box: 'lab/debian-13', box_version: '1.36.3.7' })
    const other = await config({ LAB_BOX: 'my/box' })
    expect(other).toMatchObject({ box: 'my/box' })
    expect(other).not.toHaveProperty('box_version')
  })

  test('the Vagrantfile emulates on request under libvirt, with a safe processor model and longer timeouts', async () => {
    const { result } = await evaluated(await loadLab('iscsi'), { LAB_EMULATE: '1' })
    const calls = callsFor(result, 'initiator', 'libvirt')
    expect(settings(calls.flatMap((call) => [call, ...call.calls]))).toMatchObject({ boot_timeout: 3600 })
    expect(settings(calls)).toMatchObject({ driver: 'qemu', cpu_mode: 'custom', cpu_model: 'qemu64' })
    expect(calls.find(({ name }) => name === 'cpu_feature')?.options).toEqual({
      name: 'cx16',
      policy: 'disable',
    })
  })

  test('the Vagrantfile creates and attaches the controller and the disk on the first up under VirtualBox', async () => {
    const { folder, result } = await evaluated(await loadLab('iscsi'))
    const disk = join(folder, '.vagrant/disks/target-0.vdi')
    const serial = (name: string) =>
      `modifyvm :id --uart1 0x3F8 4 --uartmode1 file ${join(folder, '.vagrant', `${name}.console.log`)}`
    expect(customizations(callsFor(result, 'target', 'virtualbox'))).toEqual([
      'modifyvm :id --description target of lab iscsi',
      serial('target'),
      'storagectl :id --name lab disks --add sata --bootable off',
      `createmedium disk --filename ${disk} --size 4096 --format VDI`,
      `storageattach :id --storagectl lab disks --port 0 --device 0 --type hdd --medium ${disk}`,
      'setextradata :id VBoxInternal/Devices/ahci/0/Config/Port0/SerialNumber lab0',
    ])
    expect(customizations(callsFor(result, 'initiator', 'virtualbox'))).toEqual([
      'modifyvm :id --description initiator of lab iscsi',
      serial('initiator'),
    ])
    expect(vagrantProvider('virtualbox').disks?.lunDevice(0)).toBe('/dev/disk/by-id/ata-VBOX_HARDDISK_lab0')
  })

  /** The output of VirtualBox 7.2.22 about a machine that was made in this way, around the disks. */
  const controller = [
    'chipset="piix3"',
    'storagecontrollername0="VirtIO Controller"',
    'storagecontrollertype0="VirtioSCSI"',
    'storagecontrollername1="lab disks"',
    'storagecontrollertype1="IntelAhci"',
    '"VirtIO Controller-0-0"="/box.vdi"',
  ]
  const attached = [
    ...controller,
    '"lab disks-0-0"="/lab/.vagrant/disks/target-0.vdi"',
    '"lab disks-ImageUUID-0-0"="8e3db9fc-1842-42cb-8805-9f335e77fb73"',
  ]
  const detached = [...controller, '"lab disks-0-0"="none"']

  const again = async (info: readonly string[]): Promise<readonly string[]> => {
    const { folder } = await evaluated(await loadLab('iscsi'))
    const bin = join(folder, 'bin')
    await mkdir(bin)
    await mkdir(join(folder, '.vagrant/disks'), { recursive: true })
    await mkdir(join(folder, '.vagrant/machines/target/virtualbox'), { recursive: true })
    await writeFile(join(folder, '.vagrant/machines/target/virtualbox/id'), 'uuid-1')
    await writeFile(join(folder, '.vagrant/disks/target-0.vdi'), 'a disk')
    await writeFile(
      join(bin, 'VBoxManage'),
      `#!/bin/sh\n[ "$*" = 'showvminfo uuid-1 --machinereadable' ] || exit 1\ncat <<'EOF'\n${info.join('\n')}\nEOF\n`,
      { mode: 0o755 },
    )
    const result = await evaluate(folder, { PATH: `${bin}:${process.env['PATH'] ?? ''}` })
    return customizations(callsFor(result, 'target', 'virtualbox')).map((line) => line.split(' ')[0] ?? '')
  }

  test('the Vagrantfile leaves an attached disk alone under VirtualBox', async () => {
    expect(await again(attached)).toEqual(['modifyvm', 'modifyvm'])
  })

  test('the Vagrantfile attaches a detached disk again under VirtualBox instead of creating one', async () => {
    expect(await again(detached)).toEqual(['modifyvm', 'modifyvm', 'storageattach', 'setextradata'])
  })

  test("the Vagrantfile recreates everything but the disk of a machine that was removed behind Vagrant's back", async () => {
    expect(await again([])).toEqual(['modifyvm', 'modifyvm', 'storagectl', 'storageattach', 'setextradata'])
  })

  test('the Vagrantfile gives each of several targets on one machine one disk per LUN, also when LUNs do not start at 0', async () => {
    const lab = await loadLab('iscsi')
    const [target] = lab.targets
    if (!target) throw new Error('iscsi has a target')
    const { result } = await evaluated({
      ...lab,
      targets: [
        { ...target, luns: [3, 7].map((lun) => ({ lun, size: lun * GiB })) },
        { ...target, iqn: 'iqn.2016-04.world.srv:target01', luns: [{ lun: 0, size: GiB }] },
      ],
    })
    expect(result.machines[0]?.['disks']).toEqual([
      { target: target.iqn, lun: 3, size: 3072 },
      { target: target.iqn, lun: 7, size: 7168 },
      { target: 'iqn.2016-04.world.srv:target01', lun: 0, size: 1024 },
    ])
    const serials = callsFor(result, 'target', 'libvirt').flatMap(({ options }) => options['serial'] ?? [])
    expect(serials).toEqual(['lab0', 'lab1', 'lab2'])
    const ports = customizations(callsFor(result, 'target', 'virtualbox')).filter((line) =>
      line.includes('--port '),
    )
    expect(ports.map((line) => /--port (\d+).*-(\d+)\.vdi$/.exec(line)?.slice(1))).toEqual([
      ['0', '0'],
      ['1', '1'],
      ['2', '2'],
    ])
  })

  test.each([
    ['10.20.0.0/16', '255.255.0.0'],
    ['192.168.60.128/25', '255.255.255.128'],
    ['10.0.0.0/8', '255.0.0.0'],
  ])('the Vagrantfile translates the prefix of %s to the netmask %s', async (subnet, netmask) => {
    const lab = await loadLab('iscsi')
    expect((await evaluated({ ...lab, network: { subnet } })).result.netmask).toBe(netmask)
  })
})

describe.skipIf(skipWithoutVagrant)('quoting of lab values in the Vagrantfile', () => {
  /** Each leaves a file behind if Ruby, or a shell that Ruby starts, ever runs it. */
  const attacks = {
    'a quote': `x'; File.write('pwned', ''); '`,
    'a quote behind a backslash': `x\\'; File.write('pwned', ''); '`,
    'an interpolation': `#{File.write('pwned', '')}#$0#@x`,
    'a double quote': `"; File.write("pwned", ""); "`,
    'a backtick': '`touch pwned`',
    'a backslash at the end': 'x\\',
    'two backslashes at the end': 'x\\\\',
    'a line that ends the program': `x\n__END__\n=begin\nFile.write('pwned', '')\n`,
    'a comment': `x # y\nFile.write('pwned', '')\n#`,
    'a command for open': `| touch pwned`,
    'a command for a shell': `$(touch pwned); touch pwned`,
    'a command of ERB and Handlebars': `<%= File.write('pwned', '') %> {{ruby name}} {{{lab}}}`,
    'other scripts': 'ラボ\u2028\u202e\u0001',
  }

  const labWith = (value: string): Lab => ({
    name: value,
    description: value,
    file: value,
    network: { subnet: '192.168.56.0/24' },
    machines: [
      { name: value, role: 'target', address: value, cpus: 1, memory: GiB, iqn: value },
      { name: `second ${value}`, role: value as 'worker', address: value, cpus: 2, memory: GiB },
    ],
    targets: [
      {
        machine: value,
        iqn: value,
        port: 3260,
        chap: { username: value, password: value },
        luns: [{ lun: 0, size: GiB }],
      },
    ],
    filesystems: [],
    failover: 'default',
    fencing: 'none',
    images: [],
    storage: [],
    workloads: [],
    experiments: [],
    scenarios: [],
  })

  test.each(Object.entries(attacks))(
    'the Vagrantfile keeps a dangerous value as data: %s',
    async (_, value) => {
      needVagrant()
      const folder = await vagrantFolder(renderVagrantfile(labWith(value), 'libvirt'))
      expect(await run(folder, ['ruby', '-c', 'Vagrantfile'])).toEqual({ exitCode: 0, output: 'Syntax OK' })

      const result = await evaluate(folder)
      expect(result.lab).toBe(value)
      expect(result.machines).toEqual([
        {
          name: value,
          role: 'target',
          ip: value,
          cpus: 1,
          memory: 1024,
          disks: [{ target: value, lun: 0, size: 1024 }],
        },
        { name: `second ${value}`, role: value, ip: value, cpus: 2, memory: 1024, disks: [] },
      ])
      expect((await readdir(folder)).sort()).toEqual(['Vagrantfile', 'home', 'stub.rb'])
    },
  )

  test('the Vagrantfile contains no secret of the lab', () => {
    const lab = labWith('x')
    const [target] = lab.targets
    if (!target) throw new Error('the lab has a target')
    const chap = { username: 'very-secret-user', password: 'very-secret-word' }
    expect(renderVagrantfile({ ...lab, targets: [{ ...target, chap }] }, 'libvirt')).not.toContain(
      'very-secret',
    )
  })

  test('the Vagrantfile refuses to render text in place of a number', () => {
    const lab = labWith('x')
    const text = '1; system("touch pwned")' as unknown as number
    const [target] = lab.targets
    if (!target) throw new Error('the lab has a target')
    const rendered = renderVagrantfile(
      {
        ...lab,
        machines: lab.machines.map((machine) => ({ ...machine, cpus: text, memory: text })),
        targets: [{ ...target, luns: [{ lun: text, size: text }] }],
      },
      'libvirt',
    )
    expect(rendered).not.toContain('pwned')
  })
})

describe('the factor for slow machines', () => {
  test('the factor for slow machines is above one only where libvirt emulates', async () => {
    const host = async (...files: readonly string[]): Promise<VagrantHost> => {
      const root = await temporaryFolder()
      await mkdir(join(root, 'dev'))
      for (const file of files) await writeFile(join(root, file), '')
      return { platform: 'linux', root, memory: GiB }
    }
    const [kvm, noKvm] = [await host('dev/kvm'), await host()]
    setEnvironment({ LAB_EMULATE: '1' })
    expect(vagrantProvider('libvirt', kvm).slowdown).toBe(20)
    expect(vagrantProvider('virtualbox', kvm)).not.toHaveProperty('slowdown')
    delete process.env['LAB_EMULATE']
    expect(vagrantProvider('libvirt', kvm)).not.toHaveProperty('slowdown')
    expect(vagrantProvider('libvirt', noKvm).slowdown).toBe(20)
    expect(vagrantProvider('virtualbox', noKvm)).not.toHaveProperty('slowdown')
  })
})
