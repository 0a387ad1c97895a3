/**
 * Whether VirtualBox or libvirt can be used through Vagrant on this host, found by trying, and what a lab requires of
 * it.
 */
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { execa } from 'execa'
import { overlaps, parseSubnet } from '../../lab/address.js'
import type { Lab } from '../../lab/lab.js'
import { quote } from '../../machine/sh.js'
import type { Usability } from '../provider.js'
import { subnetOf, type VagrantKind } from './hypervisor.js'
import { disksOf } from './vagrantfile.js'

/** The properties of a host that matter here; tests use another one. */
export interface VagrantHost {
  readonly platform: NodeJS.Platform
  /** Where its /etc and /dev are. */
  readonly root: string
  /** Bytes. */
  readonly memory: number
}

const thisHost: VagrantHost = { platform: process.platform, root: '/', memory: totalmem() }

// Whether it works here.

/** The result of one test. */
interface Finding {
  readonly ok: boolean
  readonly saw: string
  /** What to type if it failed. */
  readonly remedy?: string
}

/** @param host replaced in tests */
export const probe = async (
  kind: VagrantKind,
  signal: AbortSignal,
  host: VagrantHost = thisHost,
): Promise<Usability> => {
  const remedy = remedies[kind][await systemOf(host)]
  const findings = [...(await tryPrograms(kind, remedy, host, signal))]
  // Vagrant decides in the end: it knows the supported versions of VirtualBox and whether it has the plugin.
  if (findings.every(({ ok }) => ok)) findings.push(await tryTogether(kind, remedy, signal))

  const usable = findings.every(({ ok }) => ok)
  const evidence = findings.map(({ saw }) => saw).join('; ')
  const missing = findings.flatMap(({ ok, remedy }) => (ok || remedy === undefined ? [] : [remedy]))
  return usable ? { usable, evidence } : { usable, evidence, remedy: missing.join('\n') }
}

/** Tests each program separately. */
const tryPrograms = (
  kind: VagrantKind,
  remedy: Remedies,
  host: VagrantHost,
  signal: AbortSignal,
): Promise<readonly Finding[]> =>
  Promise.all([
    tryVagrant(remedy, signal),
    kind === 'virtualbox' ? tryVirtualBox(remedy, signal) : tryLibvirt(remedy, host, signal),
  ])

const tryVagrant = async (remedy: Remedies, signal: AbortSignal): Promise<Finding> => {
  const version = await ask('vagrant', ['--version'], { signal })
  return { ok: version.ok, saw: version.said, remedy: remedy.vagrant }
}

const tryVirtualBox = async (remedy: Remedies, signal: AbortSignal): Promise<Finding> => {
  const version = await ask('VBoxManage', ['--version'], { signal })
  if (!version.ok) return { ok: false, saw: version.said, remedy: remedy.hypervisor }
  // Without its kernel driver VBoxManage does everything but start machines; it warns and exits with 0.
  if (/warning.*vboxdrv/is.test(version.said)) return { ok: false, saw: version.said, remedy: remedy.service }
  const list = await ask('VBoxManage', ['list', 'vms'], { signal })
  return list.ok
    ? { ok: true, saw: `VirtualBox ${version.said}` }
    : { ok: false, saw: list.said, remedy: remedy.service }
}

const tryLibvirt = async (remedy: Remedies, host: VagrantHost, signal: AbortSignal): Promise<Finding> => {
  const version = await ask('virsh', ['--version'], { signal })
  if (!version.ok) return { ok: false, saw: version.said, remedy: remedy.hypervisor }
  const list = await ask('virsh', ['--connect', 'qemu:///system', 'list', '--name'], { signal })
  if (!list.ok) return { ok: false, saw: list.said, remedy: remedy.service }
  // KVM is not tested: only libvirt's own user could tell whether libvirt may use it.
  const kvm = existsSync(join(host.root, 'dev/kvm'))
    ? '/dev/kvm exists'
    : 'no /dev/kvm, so machines are emulated, many times slower'
  return { ok: true, saw: `libvirt ${version.said}, ${kvm}` }
}

const tryTogether = async (kind: VagrantKind, remedy: Remedies, signal: AbortSignal): Promise<Finding> => {
  const folder = await mkdtemp(join(tmpdir(), 'lab-vagrant-'))
  try {
    await writeFile(
      join(folder, 'Vagrantfile'),
      `Vagrant.configure('2') { |config| config.vm.box = 'none' }\n`,
    )
    const env = {
      VAGRANT_CWD: folder,
      VAGRANT_VAGRANTFILE: 'Vagrantfile',
      VAGRANT_DOTFILE_PATH: join(folder, '.vagrant'),
      VAGRANT_DEFAULT_PROVIDER: kind,
    }
    const status = await ask('vagrant', ['status'], { signal, env })
    return {
      ok: status.ok,
      saw: status.ok ? `Vagrant can use ${kind}` : status.said,
      remedy: remedy.together,
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

interface Answer {
  readonly ok: boolean
  /** Its output on one line, after the command if it failed. */
  readonly said: string
}

const ask = async (
  command: string,
  args: readonly string[],
  { signal, env = {} }: { signal: AbortSignal; env?: Readonly<Record<string, string>> },
): Promise<Answer> => {
  const seconds = 30
  const result = await execa(command, args, {
    reject: false,
    stdin: 'ignore',
    timeout: seconds * 1000,
    cancelSignal: signal,
    // No update check, and no colours.
    env: { VAGRANT_CHECKPOINT_DISABLE: '1', VAGRANT_NO_COLOR: '1', ...env },
  })
  signal.throwIfAborted()
  const printed = [result.stdout, result.stderr].join(' ').trim().replaceAll(/\s+/g, ' ')
  if (!result.failed) return { ok: true, said: printed }

  const why =
    result.code === 'ENOENT'
      ? 'not found in PATH'
      : result.timedOut
        ? `no answer within ${String(seconds)} s`
        : printed || (result.originalMessage ?? `exit code ${String(result.exitCode)}`)
  return {
    ok: false,
    said: `${[command, ...args].join(' ')}: ${why.length > 400 ? `${why.slice(0, 399)}…` : why}`,
  }
}

/** Commands to type. */
interface Remedies {
  readonly vagrant: string
  /** VirtualBox or libvirt is missing. */
  readonly hypervisor: string
  /** It is installed but does not answer. */
  readonly service: string
  /** Both are installed, but Vagrant cannot use it. */
  readonly together: string
}

const fromRepository = (name: string, key: string, source: string, packages: string): string =>
  [
    `wget -qO- ${key} | sudo gpg --dearmor --yes -o /usr/share/keyrings/${name}.gpg`,
    `echo "deb [signed-by=/usr/share/keyrings/${name}.gpg] ${source}" | sudo tee /etc/apt/sources.list.d/${name}.list`,
    `sudo apt-get update && sudo apt-get install ${packages}`,
  ].join('\n')

const codename = '$(. /etc/os-release && echo $VERSION_CODENAME)'

const vagrantFromHashiCorp = fromRepository(
  'hashicorp',
  'https://apt.releases.hashicorp.com/gpg',
  `https://apt.releases.hashicorp.com ${codename} main`,
  'vagrant',
)

const virtualBoxFromOracle = fromRepository(
  'virtualbox',
  'https://www.virtualbox.org/download/oracle_vbox_2016.asc',
  `https://download.virtualbox.org/virtualbox/debian ${codename} contrib`,
  'virtualbox-7.2',
)

const loadDriver =
  'sudo apt-get install linux-headers-$(uname -r) && { sudo modprobe vboxdrv || sudo /sbin/vboxconfig; }'

const libvirtPackages = `sudo apt-get install libvirt-daemon-system libvirt-clients qemu-utils ${
  process.arch === 'arm64' ? 'qemu-system-arm' : 'qemu-system-x86'
}`

const startLibvirt =
  'sudo systemctl enable --now libvirtd && sudo adduser "$USER" libvirt   # then log in again'

type System = 'debian' | 'ubuntu' | 'macos' | 'other'

const remedies: Readonly<Record<VagrantKind, Readonly<Record<System, Remedies>>>> = {
  virtualbox: {
    // Not Debian's own Vagrant: it is the last version under a free licence, and supports VirtualBox only up to 7.0.
    debian: {
      vagrant: vagrantFromHashiCorp,
      hypervisor: virtualBoxFromOracle,
      service: loadDriver,
      together: vagrantFromHashiCorp,
    },
    ubuntu: {
      vagrant: vagrantFromHashiCorp,
      hypervisor: 'sudo apt-get install virtualbox',
      service: loadDriver,
      together: vagrantFromHashiCorp,
    },
    macos: {
      vagrant: 'brew install hashicorp/tap/hashicorp-vagrant',
      hypervisor: 'brew install --cask virtualbox',
      service: 'brew reinstall --cask virtualbox',
      together: 'brew upgrade hashicorp/tap/hashicorp-vagrant',
    },
    other: {
      vagrant: 'install Vagrant: https://developer.hashicorp.com/vagrant/install',
      hypervisor: 'install VirtualBox: https://www.virtualbox.org/wiki/Downloads',
      service: 'sudo modprobe vboxdrv || sudo /sbin/vboxconfig',
      together: 'install the newest Vagrant: https://developer.hashicorp.com/vagrant/install',
    },
  },
  libvirt: {
    debian: {
      vagrant: 'sudo apt-get install vagrant vagrant-libvirt',
      hypervisor: libvirtPackages,
      service: startLibvirt,
      together: 'sudo apt-get install vagrant-libvirt',
    },
    ubuntu: {
      vagrant: vagrantFromHashiCorp,
      hypervisor: libvirtPackages,
      service: startLibvirt,
      together: 'sudo apt-get install libvirt-dev gcc make && vagrant plugin install vagrant-libvirt',
    },
    macos: {
      vagrant: 'brew install hashicorp/tap/hashicorp-vagrant',
      hypervisor: 'brew install libvirt qemu',
      service: 'brew services start libvirt',
      together: 'vagrant plugin install vagrant-libvirt',
    },
    other: {
      vagrant: 'install Vagrant: https://developer.hashicorp.com/vagrant/install',
      hypervisor: 'install libvirt and QEMU: https://libvirt.org/downloads.html',
      service: startLibvirt,
      together: 'vagrant plugin install vagrant-libvirt',
    },
  },
}

const systemOf = async (host: VagrantHost): Promise<System> => {
  if (host.platform === 'darwin') return 'macos'
  const release = await readFile(join(host.root, 'etc/os-release'), 'utf8').catch(() => '')
  const family = release
    .split('\n')
    .filter((line) => /^ID(_LIKE)?=/.test(line))
    .join(' ')
  return family.includes('ubuntu') ? 'ubuntu' : family.includes('debian') ? 'debian' : 'other'
}

// Whether this lab fits here.

interface Problem {
  readonly problem: string
  readonly hint: string
}

/** Everything that this host lacks for this lab. */
export const preflight = async (
  kind: VagrantKind,
  lab: Lab,
  host: VagrantHost = thisHost,
): Promise<readonly Problem[]> => [
  ...(await programProblems(kind, host)),
  ...(kind === 'virtualbox' ? await hostOnlyProblems(lab, host) : []),
  ...ownNetworkProblems(lab, kind),
  ...(kind === 'virtualbox' ? portProblems(lab) : []),
  ...memoryProblems(lab, host),
]

/** Whether Vagrant can use both takes seconds to find out, so only `probe` asks. */
const programProblems = async (kind: VagrantKind, host: VagrantHost): Promise<readonly Problem[]> => {
  const remedy = remedies[kind][await systemOf(host)]
  const findings = await tryPrograms(kind, remedy, host, AbortSignal.timeout(60_000))
  return findings.flatMap(({ ok, saw, remedy: hint = 'lab doctor' }) => (ok ? [] : [{ problem: saw, hint }]))
}

/** The file that widens VirtualBox's choice of host-only addresses: lines of `* 10.0.0.0/8 192.168.0.0/16`. */
const networksConf = 'etc/vbox/networks.conf'

const defaultRange = '192.168.56.0/21'

/** Since 6.1.28, VirtualBox allows host-only networks only in certain ranges, on Linux and, until 7.0, on macOS. */
const hostOnlyProblems = async (lab: Lab, host: VagrantHost): Promise<readonly Problem[]> => {
  if (host.platform === 'win32' || (host.platform === 'darwin' && (await virtualBoxMajor()) >= 7)) return []

  const file = await readFile(join(host.root, networksConf), 'utf8').catch(() => undefined)
  const allowed = file === undefined ? [defaultRange] : rangesIn(file)
  const wanted = subnetOf(lab.network.subnet)
  const fits = allowed.some((range) => {
    const subnet = parseSubnet(range)
    return subnet !== undefined && subnet.prefix <= wanted.prefix && overlaps(subnet, wanted)
  })
  if (fits) return []

  // Once the file exists, VirtualBox's own range no longer counts, so a new file has to name it too.
  const lines = [...(file === undefined ? [defaultRange] : []), lab.network.subnet].map((range) =>
    quote(`* ${range}`),
  )
  return [
    {
      problem: `VirtualBox allows host-only networks in ${allowed.join(', ') || 'no range'} only; the lab's subnet is ${lab.network.subnet}`,
      hint: `sudo mkdir -p /etc/vbox && printf '%s\\n' ${lines.join(' ')} | sudo tee -a /${networksConf}`,
    },
  ]
}

const rangesIn = (file: string): readonly string[] =>
  file
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line.startsWith('*'))
    .flatMap((line) => line.slice(1).trim().split(/\s+/))
    .filter((range) => range !== '' && !range.includes(':'))

/** 0 if VirtualBox does not say. */
const virtualBoxMajor = async (): Promise<number> => {
  const { said } = await ask('VBoxManage', ['--version'], { signal: AbortSignal.timeout(30_000) })
  return Number(/^(\d+)\./.exec(said)?.[1] ?? 0)
}

/** Vagrant reaches every machine over a network of its own, which the lab's network must not overlap. */
const ownNetwork: Readonly<Record<VagrantKind, string>> = {
  virtualbox: '10.0.2.0/24',
  libvirt: '192.168.121.0/24',
}

const ownNetworkProblems = (lab: Lab, kind: VagrantKind): readonly Problem[] =>
  overlaps(subnetOf(lab.network.subnet), subnetOf(ownNetwork[kind]))
    ? [
        {
          problem: `the lab's subnet ${lab.network.subnet} overlaps ${ownNetwork[kind]}, over which Vagrant reaches its ${kind} machines`,
          hint: `choose another network.subnet in ${lab.file}, such as 192.168.56.0/24`,
        },
      ]
    : []

/** Ports of VirtualBox's SATA controller. */
const ports = 30

const portProblems = (lab: Lab): readonly Problem[] =>
  lab.machines
    .map((machine) => ({ name: machine.name, luns: disksOf(lab, machine).length }))
    .filter(({ luns }) => luns > ports)
    .map(({ name, luns }) => ({
      problem: `${name} serves ${String(luns)} LUNs; a VirtualBox machine takes ${String(ports)} extra disks`,
      hint: `spread them over more targets in ${lab.file}`,
    }))

const memoryProblems = (lab: Lab, host: VagrantHost): readonly Problem[] => {
  const wanted = lab.machines.reduce((sum, machine) => sum + machine.memory, 0)
  const mebibytes = (bytes: number): string => `${String(Math.ceil(bytes / 1024 ** 2))} MiB`
  return wanted <= host.memory
    ? []
    : [
        {
          problem: `the machines need ${mebibytes(wanted)} of memory; this host has ${mebibytes(host.memory)}`,
          hint: `reduce the memory of the machines in ${lab.file}, or their number`,
        },
      ]
}
