/** What the Vagrant provider finds missing on a host. */
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import type { Lab } from '../../src/lab/lab.js'
import { loadLab } from '../../src/registry.js'
import type { VagrantHost } from '../../src/provider/vagrant/probe.js'
import { vagrantProvider } from '../../src/provider/vagrant/vagrant.js'
import type { VagrantKind } from '../../src/provider/vagrant/hypervisor.js'
import {
  both,
  firstPrograms,
  needVagrant,
  onlyPrograms,
  run,
  setEnvironment,
  skipWithoutVagrant,
  temporaryFolder,
} from './vagrant-tools.js'

// Vagrant and Ruby need a second each, and many times that on a busy machine.
vi.setConfig({ testTimeout: 60_000 })

const GiB = 1024 ** 3

describe('the probe', () => {
  const debian = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'
  const ubuntu = 'NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\n'

  const hostWith = async (
    files: Readonly<Record<string, string>>,
    rest: Partial<VagrantHost> = {},
  ): Promise<VagrantHost> => {
    const root = await temporaryFolder()
    for (const [path, content] of Object.entries(files)) {
      await mkdir(join(root, path, '..'), { recursive: true })
      await writeFile(join(root, path), content)
    }
    return { platform: 'linux', root, memory: 64 * GiB, ...rest }
  }
  const signal = (): AbortSignal => new AbortController().signal

  const vagrant =
    'case "$1" in --version) echo "Vagrant 2.4.9";; status) echo "not created";; *) exit 1;; esac'
  const virtualBox = 'case "$1" in --version) echo 7.2.22r175245;; list) ;; *) exit 1;; esac'
  const virsh = 'case "$1" in --version) echo 9.0.0;; --connect) ;; *) exit 1;; esac'

  test('the probe names both providers and both remedies when neither is installed', async () => {
    await onlyPrograms({})
    const found = await vagrantProvider('virtualbox', await hostWith({ 'etc/os-release': debian })).probe(
      signal(),
    )
    expect(found.usable).toBe(false)
    expect(found.evidence).toBe(
      'vagrant --version: not found in PATH; VBoxManage --version: not found in PATH',
    )
    expect(found.remedy).toMatch(
      /^wget .*hashicorp[^]*download\.virtualbox\.org[^]*apt-get install virtualbox/,
    )
  })

  test.each([
    [
      'etc/os-release',
      debian,
      'linux',
      'libvirt',
      /^sudo apt-get install vagrant vagrant-libvirt\nsudo apt-get install libvirt-daemon/,
    ],
    ['etc/os-release', ubuntu, 'linux', 'virtualbox', /\nsudo apt-get install virtualbox$/],
    [
      'etc/os-release',
      'ID=arch\n',
      'linux',
      'virtualbox',
      /^install Vagrant: https:.*\ninstall VirtualBox: https:/,
    ],
    [
      'nothing',
      '',
      'darwin',
      'virtualbox',
      /^brew install hashicorp\/tap\/hashicorp-vagrant\nbrew install --cask virtualbox$/,
    ],
  ] as const)(
    'the probe with %s %j on %s names the commands for %s there',
    async (path, content, platform, kind, remedy) => {
      await onlyPrograms({})
      const host = await hostWith({ [path]: content }, { platform })
      expect((await vagrantProvider(kind, host).probe(signal())).remedy).toMatch(remedy)
    },
  )

  test('the probe accepts VirtualBox with Vagrant', async () => {
    await onlyPrograms({ vagrant, VBoxManage: virtualBox })
    expect(await vagrantProvider('virtualbox', await hostWith({})).probe(signal())).toEqual({
      usable: true,
      evidence: 'Vagrant 2.4.9; VirtualBox 7.2.22r175245; Vagrant can use virtualbox',
    })
  })

  test('the probe rejects VirtualBox without its kernel driver, about which it only warns', async () => {
    // The output of Debian's VirtualBox 7.2.22.
    const warning =
      'WARNING: The character device /dev/vboxdrv does not exist.\n\t Please install the virtualbox-dkms package'
    await onlyPrograms({ vagrant, VBoxManage: `echo '${warning}' >&2\n${virtualBox}` })
    const found = await vagrantProvider('virtualbox', await hostWith({ 'etc/os-release': debian })).probe(
      signal(),
    )
    expect(found.usable).toBe(false)
    expect(found.evidence).toContain('/dev/vboxdrv does not exist')
    expect(found.remedy).toContain('modprobe vboxdrv')
  })

  test('the probe rejects a VirtualBox that Vagrant rejects', async () => {
    const refusing =
      'case "$1" in --version) echo "Vagrant 2.3.4";; *) echo "version of VirtualBox not supported" >&2; exit 1;; esac'
    await onlyPrograms({ vagrant: refusing, VBoxManage: virtualBox })
    const found = await vagrantProvider('virtualbox', await hostWith({ 'etc/os-release': debian })).probe(
      signal(),
    )
    expect(found).toMatchObject({
      usable: false,
      evidence:
        'Vagrant 2.3.4; VirtualBox 7.2.22r175245; vagrant status: version of VirtualBox not supported',
    })
    expect(found.remedy).toContain('apt.releases.hashicorp.com')
  })

  test.each([
    ['dev/kvm', 'Vagrant 2.4.9; libvirt 9.0.0, /dev/kvm exists; Vagrant can use libvirt'],
    [
      'dev/null',
      'Vagrant 2.4.9; libvirt 9.0.0, no /dev/kvm, so machines are emulated, many times slower; Vagrant can use libvirt',
    ],
  ])('the probe accepts libvirt with Vagrant and %s', async (file, evidence) => {
    await onlyPrograms({ vagrant, virsh })
    expect(await vagrantProvider('libvirt', await hostWith({ [file]: '' })).probe(signal())).toEqual({
      usable: true,
      evidence,
    })
  })

  test('the probe rejects a libvirt that does not answer', async () => {
    const silent =
      'case "$1" in --version) echo 9.0.0;; *) echo "error: failed to connect to the hypervisor" >&2; exit 1;; esac'
    await onlyPrograms({ vagrant, virsh: silent })
    const found = await vagrantProvider('libvirt', await hostWith({ 'etc/os-release': debian })).probe(
      signal(),
    )
    expect(found.evidence).toContain('virsh --connect qemu:///system list --name: error: failed to connect')
    expect(found.remedy).toMatch(/^sudo systemctl enable --now libvirtd/)
  })

  describe.skipIf(skipWithoutVagrant)('the probe with the real Vagrant', () => {
    /** The scripts come first on PATH; Vagrant writes to folders of the test. */
    const probeWith = async (kind: VagrantKind, scripts: Readonly<Record<string, string>>) => {
      needVagrant()
      const [home, temporary] = [await temporaryFolder(), await temporaryFolder()]
      await firstPrograms(scripts)
      setEnvironment({ HOME: home, TMPDIR: temporary })
      const found = await vagrantProvider(kind, thisDebian).probe(signal())
      expect(await readdir(temporary)).toEqual([])
      return found
    }
    const thisDebian: VagrantHost = { platform: 'linux', root: '/', memory: 64 * GiB }

    test("the probe with the real Vagrant rejects a future version of VirtualBox in Vagrant's own words", async () => {
      const found = await probeWith('virtualbox', {
        VBoxManage: virtualBox.replace('7.2.22r175245', '99.0.1r1'),
      })
      expect(found.evidence).toMatch(
        /^Vagrant \d+\.\d+\.\d+; VirtualBox 99\.0\.1r1; vagrant status: .*version of VirtualBox/,
      )
      expect(found.usable).toBe(false)
    })

    test('the probe with the real Vagrant accepts libvirt only with the plugin', async () => {
      const found = await probeWith('libvirt', { virsh })
      const { output } = await run('/', ['vagrant', 'plugin', 'list'])
      expect(found.usable).toBe(output.includes('vagrant-libvirt'))
      expect(found.evidence).toContain(
        found.usable
          ? 'Vagrant can use libvirt'
          : "vagrant status: The provider 'libvirt' could not be found",
      )
    })
  })

  test('the probe with the real Vagrant stops when it is aborted', async () => {
    await onlyPrograms({ vagrant: 'exec /bin/sleep 20', virsh: 'exec /bin/sleep 20' })
    const controller = new AbortController()
    const probing = vagrantProvider('libvirt', await hostWith({})).probe(controller.signal)
    setTimeout(() => {
      controller.abort(new Error('enough'))
    }, 50)
    await expect(probing).rejects.toThrow('enough')
  })

  describe('the preflight', () => {
    const inSubnet = async (subnet: string): Promise<Lab> => ({
      ...(await loadLab('iscsi')),
      network: { subnet },
    })
    const conf = 'etc/vbox/networks.conf'
    // Stand-ins for a host on which all of them work.
    const programs = { vagrant: 'echo Vagrant 2.4.9', virsh: 'echo 9.0.0', VBoxManage: 'echo 7.2.22r175245' }
    beforeEach(() => onlyPrograms(programs))

    test.each([
      { kind: 'virtualbox', lacks: 'VBoxManage', hint: 'virtualbox-7.2' },
      { kind: 'virtualbox', lacks: 'vagrant', hint: 'apt.releases.hashicorp.com' },
      { kind: 'libvirt', lacks: 'virsh', hint: 'libvirt-daemon-system' },
    ] as const)(
      'the preflight rejects $kind without $lacks before a box is built',
      async ({ kind, lacks, hint }) => {
        await onlyPrograms(Object.fromEntries(Object.entries(programs).filter(([name]) => name !== lacks)))
        const host = await hostWith({ 'etc/os-release': 'ID=debian\n' })
        const problems = await vagrantProvider(kind, host).preflight(await loadLab('iscsi'))
        expect(problems).toEqual([
          { problem: `${lacks} --version: not found in PATH`, hint: expect.stringContaining(hint) },
        ])
      },
    )

    test('the preflight finds no problem with the shipped labs', async () => {
      const host = await hostWith({})
      for (const { name, kind } of both)
        expect(await vagrantProvider(kind, host).preflight(await loadLab(name))).toEqual([])
    })

    test("the preflight rejects a subnet outside VirtualBox's range, and names every way out", async () => {
      const problems = await vagrantProvider('virtualbox', await hostWith({})).preflight(
        await inSubnet('10.9.8.0/24'),
      )
      expect(problems).toEqual([
        {
          problem:
            "VirtualBox allows host-only networks in 192.168.56.0/21 only; the lab's subnet is 10.9.8.0/24",
          hint: "sudo mkdir -p /etc/vbox && printf '%s\\n' '* 192.168.56.0/21' '* 10.9.8.0/24' | sudo tee -a /etc/vbox/networks.conf",
        },
      ])
      expect(
        await vagrantProvider('libvirt', await hostWith({})).preflight(await inSubnet('10.9.8.0/24')),
      ).toEqual([])
    })

    test("the preflight rejects a subnet that is only partly inside VirtualBox's range", async () => {
      const problems = await vagrantProvider('virtualbox', await hostWith({})).preflight(
        await inSubnet('192.168.0.0/16'),
      )
      expect(problems).toHaveLength(1)
    })

    test.each([
      ['* 10.0.0.0/8 192.168.0.0/16\n', []],
      ['# mine\n\n*  10.9.0.0/16\n* 2001::/64\n', []],
      ['* 0.0.0.0/0 ::/0', []],
      ['* 10.9.9.0/24\n#* 10.9.8.0/24\n', ['10.9.9.0/24']],
      ['', ['no range']],
    ])('the preflight respects networks.conf of VirtualBox: %j', async (content, allowed) => {
      const host = await hostWith({ [conf]: content })
      const problems = await vagrantProvider('virtualbox', host).preflight(await inSubnet('10.9.8.0/24'))
      expect(problems.map(({ problem }) => problem)).toEqual(
        allowed.map(
          (range) => `VirtualBox allows host-only networks in ${range} only; the lab's subnet is 10.9.8.0/24`,
        ),
      )
      // The file has decided already, so its own lines do not change.
      for (const { hint } of problems) expect(hint).toContain(`printf '%s\\n' '* 10.9.8.0/24' |`)
    })

    test.each([
      ['7.2.22r175245', 0],
      ['6.1.50r161033', 1],
    ])('the preflight applies the rules for VirtualBox %s on macOS', async (version, count) => {
      await onlyPrograms({ ...programs, VBoxManage: `echo ${version}` })
      const host = await hostWith({}, { platform: 'darwin' })
      expect(await vagrantProvider('virtualbox', host).preflight(await inSubnet('10.9.8.0/24'))).toHaveLength(
        count,
      )
    })

    test.each([
      ['libvirt', '192.168.0.0/16', '192.168.121.0/24'],
      ['virtualbox', '10.0.0.0/8', '10.0.2.0/24'],
    ] as const)(
      "the preflight rejects a subnet with Vagrant's own addresses for %s: %s",
      async (kind, subnet, own) => {
        const host = await hostWith({ [conf]: '* 0.0.0.0/0' })
        const [problem, ...others] = await vagrantProvider(kind, host).preflight(await inSubnet(subnet))
        expect(problem?.problem).toContain(`${subnet} overlaps ${own}`)
        expect(others).toEqual([])
      },
    )

    test('the preflight reports missing memory and missing disk space together', async () => {
      const lab = await loadLab('iscsi')
      const luns = Array.from({ length: 31 }, (_, lun) => ({ lun, size: GiB }))
      const crowded = { ...lab, targets: lab.targets.map((target) => ({ ...target, luns })) }
      const host = await hostWith({}, { memory: GiB / 2 })
      expect(
        (await vagrantProvider('virtualbox', host).preflight(crowded)).map(({ problem }) => problem),
      ).toEqual([
        'target serves 31 LUNs; a VirtualBox machine takes 30 extra disks',
        'the machines need 1024 MiB of memory; this host has 512 MiB',
      ])
    })
  })
})
