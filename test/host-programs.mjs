/** What tests need of the host in addition to the product, and the Debian packages that contain it. */
import { spawnSync } from 'node:child_process'

/** Programs, or paths of files, by name. */
const packagesOf = {
  vagrant: ['vagrant'],
  '/usr/share/vagrant-plugins/plugins.d/vagrant-libvirt.json': ['vagrant-libvirt'],
  virsh: ['libvirt-clients'],
  libvirtd: ['libvirt-daemon-system'],
  dnsmasq: ['dnsmasq-base'],
  'qemu-system-x86_64': ['qemu-system-x86'],
  'qemu-system-aarch64': ['qemu-system-arm', 'qemu-efi-aarch64'],
  'qemu-img': ['qemu-utils'],
  mmdebstrap: ['mmdebstrap'],
  ssh: ['openssh-client'],
  ss: ['iproute2'],
  pgrep: ['procps'],
  script: ['bsdutils'],
}

/** The missing ones of these programs. */
export const missingOf = (programs) =>
  programs.filter(
    (program) => spawnSync('sh', ['-c', 'test -e "$0" || command -v "$0"', program]).status !== 0,
  )

/** The arguments of apt-get that install them. */
export const installing = (programs) => [
  'install',
  '--yes',
  '--no-install-recommends',
  ...new Set(programs.flatMap((program) => packagesOf[program])),
]
