/** The error messages of the three programs, and what lab makes of them. */
import { describe, expect, test } from 'vitest'
import { explain } from '../../src/provider/vagrant/tools.js'

interface Complaint {
  readonly program: 'VBoxManage' | 'vagrant' | 'virsh'
  readonly says: string
  readonly code: string
  /** The reason in plain words. */
  readonly reason: RegExp
  /** The command to type. */
  readonly hint: RegExp
  /** Their own words, which must be shown. */
  readonly words: string
}

const complaints: readonly Complaint[] = [
  {
    program: 'VBoxManage',
    says: `VBoxManage: error: VT-x is being used by another hypervisor (VERR_VMX_IN_VMX_ROOT_MODE).
VBoxManage: error: VirtualBox can't operate in VMX root mode. Please disable the KVM kernel extension, recompile your kernel and reboot (VERR_VMX_IN_VMX_ROOT_MODE)
VBoxManage: error: Details: code NS_ERROR_FAILURE (0x80004005), component ConsoleWrap, interface IConsole`,
    code: 'virtualization-busy',
    reason: /another hypervisor, such as KVM, holds the virtualisation/,
    hint: /^sudo modprobe -r kvm_intel/,
    words: 'VERR_VMX_IN_VMX_ROOT_MODE',
  },
  {
    program: 'vagrant',
    says: `There was an error while executing \`VBoxManage\`, a CLI used by Vagrant
for controlling VirtualBox. The command and stderr is shown below.

Command: ["startvm", "d3f4", "--type", "headless"]

Stderr: VBoxManage: error: AMD-V is being used by another hypervisor (VERR_SVM_IN_USE)
VBoxManage: error: Details: code NS_ERROR_FAILURE (0x80004005), component ConsoleWrap, interface IConsole`,
    code: 'virtualization-busy',
    reason: /another hypervisor/,
    hint: /^sudo modprobe -r kvm_intel/,
    words: 'Stderr: VBoxManage: error: AMD-V is being used by another hypervisor (VERR_SVM_IN_USE)',
  },
  {
    program: 'VBoxManage',
    says: `VBoxManage: error: Not in a hypervisor partition (HVP=0) (VERR_NEM_NOT_AVAILABLE).
VBoxManage: error: VT-x is disabled in the BIOS for all CPU modes (VERR_VMX_MSR_ALL_VMX_DISABLED)`,
    code: 'virtualization-off',
    reason: /the firmware \(BIOS\) has switched it off/,
    hint: /cpuinfo.*lab up demo --provider uml$/,
    words: 'VT-x is disabled in the BIOS',
  },
  {
    program: 'VBoxManage',
    says: 'VBoxManage: error: AMD-V is disabled in the BIOS (or by the host OS) (VERR_SVM_DISABLED)',
    code: 'virtualization-off',
    reason: /the firmware \(BIOS\) has switched it off/,
    hint: /cpuinfo/,
    words: 'VERR_SVM_DISABLED',
  },
  {
    program: 'vagrant',
    says: `The IP address configured for the host-only network is not within the
allowed ranges. Please update the address used to be within the allowed
ranges and run the command again.

  Address: 10.9.8.11
  Ranges: 192.168.56.0/21

Valid ranges can be modified in the /etc/vbox/networks.conf file. For
more information including valid format see:

  https://www.virtualbox.org/manual/ch06.html#network_hostonly`,
    code: 'host-only-range',
    reason: /allows host-only networks only in certain ranges/,
    hint: /^lab plan demo --provider virtualbox/,
    words: 'networks.conf',
  },
  {
    program: 'VBoxManage',
    says: `VBoxManage: error: Code E_ACCESSDENIED (0x80070005) - Access denied (extended info not available)
VBoxManage: error: Context: "EnableStaticIPConfig(Bstr(pszIp).raw(), Bstr(pszNetmask).raw())" at line 242 of file VBoxManageHostonly.cpp`,
    code: 'host-only-range',
    reason: /allows host-only networks only in certain ranges/,
    hint: /^lab plan demo/,
    words: 'E_ACCESSDENIED',
  },
  {
    program: 'vagrant',
    says: `The provider 'virtualbox' that was requested to back the machine
'target' is reporting that it isn't usable on this system. The
reason is shown below:

Vagrant has detected that you have a version of VirtualBox installed
that is not supported by this version of Vagrant. Please install one of
the supported versions listed below to use Vagrant:

4.0, 4.1, 4.2, 4.3, 5.0, 5.1, 5.2, 6.0, 6.1, 7.0

A Vagrant update may also be available that adds support for the version
you specified. Please check www.vagrantup.com/downloads.html to download
the latest version.`,
    code: 'version-too-new',
    reason: /this Vagrant does not support this version of VirtualBox/,
    hint: /^lab doctor/,
    words: 'the latest version.',
  },
  {
    program: 'vagrant',
    says: `The box 'lab/debian-13' could not be found or
could not be accessed in the remote catalog. If this is a private
box on HashiCorp's Vagrant Cloud, please verify you're logged in via
\`vagrant login\`. Also, please double-check the name.`,
    code: 'no-box',
    reason: /Vagrant does not have the box/,
    hint: /^lab up demo /,
    words: "The box 'lab/debian-13' could not be found",
  },
  {
    program: 'VBoxManage',
    says: `VBoxManage: error: Cannot register the hard disk '/home/a/demo/target-0.vdi' {4f5c6a1e-0000-4000-8000-000000000001} because a hard disk '/home/b/demo/target-0.vdi' with UUID {4f5c6a1e-0000-4000-8000-000000000001} already exists`,
    code: 'disk-clash',
    reason: /still has a disk of an earlier lab/,
    hint: /^lab down demo /,
    words: 'Cannot register the hard disk',
  },
  {
    program: 'VBoxManage',
    says: `VBoxManage: error: Machine settings file '/root/VirtualBox VMs/lab_demo_target/lab_demo_target.vbox' already exists`,
    code: 'name-clash',
    reason: /something of that name already/,
    hint: /^lab down demo$/,
    words: 'already exists',
  },
  {
    program: 'vagrant',
    says: `Name \`lab_demo_target\` of domain about to create is already taken. Please try to run
\`vagrant up\` command again.`,
    code: 'name-clash',
    reason: /something of that name already/,
    hint: /^lab down demo$/,
    words: 'is already taken',
  },
  {
    program: 'virsh',
    says: "error: operation failed: domain 'lab_demo_target' already exists with uuid 2f1c…",
    code: 'name-clash',
    reason: /something of that name already/,
    hint: /^lab down demo$/,
    words: 'already exists with uuid',
  },
  {
    program: 'virsh',
    says: `error: Failed to start network lab_demo
error: internal error: Network is already in use by interface virbr1`,
    code: 'network-clash',
    reason: /another network of this host has the lab's addresses/,
    hint: /^ip -br address/,
    words: 'virbr1',
  },
  {
    program: 'virsh',
    says: `error: failed to connect to the hypervisor
error: Failed to connect socket to '/var/run/libvirt/libvirt-sock': Permission denied`,
    code: 'libvirt-denied',
    reason: /this user may not use libvirt/,
    hint: /^sudo adduser "\$USER" libvirt/,
    words: 'Permission denied',
  },
  {
    program: 'virsh',
    says: `error: failed to connect to the hypervisor
error: Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory`,
    code: 'libvirt-silent',
    reason: /libvirt does not answer/,
    hint: /^sudo systemctl enable --now libvirtd/,
    words: 'No such file or directory',
  },
  {
    program: 'vagrant',
    says: `==> target: Error while creating domain: internal error: process exited while connecting to monitor: Could not access KVM kernel module: Permission denied
qemu-system-x86_64: failed to initialize kvm: Permission denied`,
    code: 'no-kvm',
    reason: /KVM is present but does not work/,
    hint: /^LAB_EMULATE=1 lab up demo --provider libvirt/,
    words: 'Could not access KVM kernel module',
  },
  {
    program: 'vagrant',
    says: `An action 'up' was attempted on the machine 'target',
but another process is already executing an action on the machine.
Vagrant locks each machine for access by only one process at a time.`,
    code: 'vagrant-busy',
    reason: /another vagrant process is working/,
    hint: /^ps aux/,
    words: 'another process is already executing an action',
  },
  {
    program: 'vagrant',
    says: `The provider 'libvirt' could not be found, but was requested to
back the machine 'target'. Please use a provider that exists.`,
    code: 'no-plugin',
    reason: /Vagrant has no plugin/,
    hint: /^lab doctor$/,
    words: "The provider 'libvirt' could not be found",
  },
  {
    program: 'vagrant',
    says: `Timed out while waiting for the machine to boot. This means that
Vagrant was unable to communicate with the guest machine within
the configured ("config.vm.boot_timeout" value) time period.`,
    code: 'boot-timeout',
    reason: /started, but did not answer in time/,
    hint: /^lab up demo .* lab logs demo target shows its console/,
    words: 'Timed out while waiting for the machine to boot',
  },
  {
    program: 'VBoxManage',
    says: `VBoxManage: error: Could not create the medium storage unit '/d/target-0.vdi'.
VBoxManage: error: VDI: setting image size failed for '/d/target-0.vdi' (VERR_DISK_FULL)`,
    code: 'disk-full',
    reason: /the disk is full/,
    hint: /^df -h$/,
    words: 'VERR_DISK_FULL',
  },
  {
    program: 'virsh',
    says: `error: Failed to start domain 'lab_demo_target'
error: internal error: process exited while connecting to monitor: qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory`,
    code: 'out-of-memory',
    reason: /not enough memory/,
    hint: /^free -h/,
    words: 'Cannot allocate memory',
  },
]

const about = { lab: 'demo', machine: 'target', log: '/state/demo/vagrant.log' }

describe('an error of a tool', () => {
  test.each(complaints)(
    'an error of $program is recognized as $code',
    ({ program, says, code, reason, hint, words }) => {
      const error = explain(program, says, about)
      expect(error.code).toBe(code)
      expect(error.message).toMatch(/^target: /)
      expect(error.message).toMatch(reason)
      expect(error.message).toContain(`; ${program} says: `)
      expect(error.message.slice(error.message.indexOf(' says: '))).toContain(words)
      expect(error.hint).toMatch(hint)
      expect(error.hint).not.toMatch(/\b(LAB|MACHINE)\b/)
      expect(error.log).toBe(about.log)
    },
  )

  test('an unknown error is shown by its last lines, without the warnings about guest additions', () => {
    const error = explain(
      'vagrant',
      `==> target: The guest additions on this VM do not match the installed version of VirtualBox!
something new
and its end`,
      about,
    )
    expect(error).toMatchObject({ code: 'provider-failed', hint: 'lab doctor' })
    expect(error.message).toMatch(/something new and its end$/)
  })

  test('a crash of Vagrant is shown without its stack', () => {
    const gem = '/usr/share/rubygems-integration/all/gems/vagrant-2.3.4'
    const error = explain(
      'vagrant',
      `==> target: Clearing any previously set network interfaces...
/usr/lib/ruby/3.1.0/ipaddr.rb:594:in \`initialize': address family must be specified (IPAddr::AddressFamilyError)
\tfrom ${gem}/lib/vagrant/util/network_ip.rb:16:in \`new'
\tfrom ${gem}/plugins/providers/virtualbox/action/network.rb:326:in \`each'`,
      about,
    )
    expect(error.message).toMatch(/address family must be specified \(IPAddr::AddressFamilyError\)$/)
  })

  test('an error without output is reported as such', () => {
    expect(explain('virsh', '\n', { lab: 'demo' }).message).toBe('demo: virsh says: it printed nothing')
  })

  const warning = `WARNING: The character device /dev/vboxdrv does not exist.
\t Please install the virtualbox-dkms package and the appropriate
\t headers, most likely linux-headers-generic.

\t You will not be able to start VMs until this problem is fixed.
`
  test('a missing driver, about which VBoxManage always warns, is not blamed for another error', () => {
    const error = explain(
      'VBoxManage',
      `${warning}VBoxManage: error: Could not find a registered machine named 'x'`,
      about,
    )
    expect(error.code).toBe('provider-failed')
    expect(error.message).not.toContain('vboxdrv')
  })

  test('a missing driver is blamed when a machine ends while it starts', () => {
    const error = explain(
      'VBoxManage',
      `${warning}VBoxManage: error: The virtual machine 'lab_demo_target' has terminated unexpectedly during startup with exit code 1 (0x1)`,
      about,
    )
    expect(error).toMatchObject({ code: 'no-driver', hint: expect.stringContaining('modprobe vboxdrv') })
  })
})
