/**
 * Which distributions a lab can use: the script that asks a host runs here as it is, with the files and programs of
 * such a host in place of this computer's.
 */
import { describe, expect, test, vi } from 'vitest'
import type { Finding } from '../../../src/provider/hosts/asked.js'
import { askFacts } from '../../../src/provider/hosts/facts.js'
import { judgeHosts } from '../../../src/provider/hosts/preflight.js'
import { temporaryFolder } from '../../helpers/folder.js'
import { StandIn } from './stand-in.js'

// A host asked for everything about itself starts a hundred programs.
vi.setConfig({ testTimeout: 120_000 })

/** The lines of /etc/os-release that identify the system; the others are addresses of web pages. */
const debian = (version: string, name: string): string =>
  `PRETTY_NAME="Debian GNU/Linux ${version} (${name})"\nNAME="Debian GNU/Linux"\nVERSION_ID="${version}"\nVERSION="${version} (${name})"\nVERSION_CODENAME=${name}\nID=debian\nHOME_URL="https://www.debian.org/"\n`

const ubuntu = (version: string, name: string): string =>
  `PRETTY_NAME="Ubuntu ${version}"\nNAME="Ubuntu"\nVERSION_ID="${version.slice(0, 5)}"\nVERSION="${version} (${name})"\nVERSION_CODENAME=${name.toLowerCase().split(' ')[0] ?? ''}\nID=ubuntu\nID_LIKE=debian\nHOME_URL="https://www.ubuntu.com/"\n`

const raspbian = (version: string, name: string): string =>
  `PRETTY_NAME="Raspbian GNU/Linux ${version} (${name})"\nNAME="Raspbian GNU/Linux"\nVERSION_ID="${version}"\nVERSION="${version} (${name})"\nVERSION_CODENAME=${name}\nID=raspbian\nID_LIKE=debian\n`

interface Stranger {
  /** What `uname -m` and `dpkg --print-architecture` say; default: amd64. No dpkg if empty. */
  readonly machine?: string
  readonly dpkg?: string
  /** Its files, in addition to /etc/os-release; a folder if the path ends in a slash. */
  readonly files?: Readonly<Record<string, string>>
  /** Programs that it has as well; what they print. */
  readonly programs?: Readonly<Record<string, string>>
}

/** Folders of a host that the script looks at, apart from those of the kernel. */
const places = ['/etc/os-release', '/etc/kubernetes', '/var/lib/rancher', '/boot/']

/** What is wrong with such a host, or will be changed. */
const findings = async (
  osRelease: string | undefined,
  { machine = 'x86_64', dpkg = 'amd64', files = {}, programs = {} }: Stranger = {},
): Promise<readonly Finding[]> => {
  const host = new StandIn(await temporaryFolder(), places)
  if (osRelease !== undefined) host.write('/etc/os-release', osRelease)
  for (const [path, content] of Object.entries(files)) host.write(path, content)
  const all: Readonly<Record<string, string>> = {
    uname: `[ "$1" = -m ] && echo ${machine} || echo 6.12.47`,
    dpkg: dpkg === '' ? 'exit 127' : `echo ${dpkg}`,
    // What this computer runs must not matter.
    systemctl: 'exit 3',
    'dpkg-query': 'exit 1',
    ...programs,
  }
  for (const [name, script] of Object.entries(all)) host.program(name, script)
  const facts = await askFacts(host)
  const spec = { name: 'host', address: '10.0.0.11', port: 22, user: 'pi' }
  return judgeHosts([{ spec, facts, skew: 0, unreached: [] }], undefined)
}

const subjects = ['architecture', 'system', 'taken']

/** Of these subjects only: the others depend on this computer. */
const refused = (all: readonly Finding[]): readonly string[] =>
  all
    .filter(({ what, level }) => subjects.includes(what) && level === 'refuse')
    .map(({ what, saw }) => `${what}: ${saw}`)

const arm = { machine: 'aarch64', dpkg: 'arm64' }

describe('a host can be used by a lab if it runs', () => {
  test.each<[string, string, Stranger?]>([
    ['Debian 12', debian('12', 'bookworm')],
    ['Debian 13', debian('13', 'trixie')],
    ['Debian 13 on arm64', debian('13', 'trixie'), arm],
    ['Ubuntu 22.04', ubuntu('22.04.5 LTS', 'Jammy Jellyfish')],
    ['Ubuntu 24.04', ubuntu('24.04.3 LTS', 'Noble Numbat')],
    ['Ubuntu 25.10', ubuntu('25.10', 'Questing Quokka')],
    ['Ubuntu 26.04', ubuntu('26.04 LTS', 'Resolute Raccoon')],
    // Both call themselves Debian; what tells them apart is the kernel and the files on the boot partition.
    ['Raspberry Pi OS 64 bit, bookworm', debian('12', 'bookworm'), arm],
    ['Raspberry Pi OS 64 bit, trixie', debian('13', 'trixie'), arm],
  ])('a host can be used by a lab if it runs %s', async (_, osRelease, stranger) => {
    const all = await findings(osRelease, stranger)
    expect(refused(all)).toEqual([])
    expect(all.filter(({ what }) => what === 'system')).toMatchObject([{ level: 'ok' }])
  })
})

describe('a host is refused, with the reason, if it runs', () => {
  test.each<[string, string | undefined, Stranger, string]>([
    ['Debian 11', debian('11', 'bullseye'), {}, 'system: Debian GNU/Linux 11 (bullseye)'],
    [
      'the next Debian, which has no number yet',
      'PRETTY_NAME="Debian GNU/Linux forky/sid"\nNAME="Debian GNU/Linux"\nVERSION_CODENAME=forky\nID=debian\n',
      {},
      'system: Debian GNU/Linux forky/sid',
    ],
    ['Ubuntu 20.04', ubuntu('20.04.6 LTS', 'Focal Fossa'), {}, 'system: Ubuntu 20.04.6 LTS'],
    [
      'a relative of Ubuntu',
      'NAME="Linux Mint"\nVERSION_ID="22"\nID=linuxmint\nID_LIKE="ubuntu debian"\nPRETTY_NAME="Linux Mint 22"\n',
      {},
      'system: Linux Mint 22',
    ],
    [
      'Raspberry Pi OS 32 bit under a 64-bit kernel',
      raspbian('12', 'bookworm'),
      { machine: 'aarch64', dpkg: 'armhf' },
      'architecture: a 64-bit kernel with 32-bit programs (armhf): Kubernetes has had no 32-bit arm since 1.27',
    ],
    [
      'Raspberry Pi OS 32 bit on an old board',
      raspbian('12', 'bookworm'),
      { machine: 'armv7l', dpkg: 'armhf' },
      'architecture: armv7l, armhf',
    ],
    [
      '32-bit programs of a PC',
      debian('12', 'bookworm'),
      { machine: 'x86_64', dpkg: 'i386' },
      'architecture: x86_64, i386',
    ],
  ])('a host is refused, with the reason, if it runs %s', async (_, osRelease, stranger, says) => {
    const all = await findings(osRelease, stranger)
    expect(refused(all)).toEqual([says])
    expect(all.find(({ level, what }) => level === 'refuse' && subjects.includes(what))?.fix).toMatch(
      /64-bit|Ubuntu 22\.04 to 26\.04/,
    )
  })

  test.each<[string, string]>([
    ['Fedora', 'NAME="Fedora Linux"\nID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora Linux 43 (Server)"\n'],
    ['Alpine', 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.22.1\nPRETTY_NAME="Alpine Linux v3.22"\n'],
    ['Arch Linux', 'NAME="Arch Linux"\nPRETTY_NAME="Arch Linux"\nID=arch\nBUILD_ID=rolling\n'],
  ])('a host is refused, with the reason, if it runs %s, which has no dpkg either', async (_, osRelease) => {
    const said = refused(await findings(osRelease, { dpkg: '' }))
    expect(said).toEqual(['architecture: x86_64, without dpkg', expect.stringMatching(/^system: /)])
  })

  test('a host is refused if it does not say what system it is', async () => {
    expect(refused(await findings(undefined))).toEqual(['system: no /etc/os-release'])
  })
})

describe('a host is refused, with what frees it, if it has', () => {
  test.each<[string, Stranger, string, RegExp]>([
    [
      'k3s, even switched off',
      { files: { '/var/lib/rancher/k3s/': '' } },
      'k3s was installed on it (/var/lib/rancher/k3s)',
      /k3s-uninstall/,
    ],
    [
      'k3s at work',
      { programs: { systemctl: 'case $* in *" k3s-agent") exit 0 ;; *) exit 3 ;; esac' } },
      'k3s-agent is at work',
      /k3s-uninstall/,
    ],
    [
      'a control plane by kubeadm',
      { files: { '/etc/kubernetes/admin.conf': 'x' } },
      'it is a node of a cluster (/etc/kubernetes)',
      /kubeadm reset/,
    ],
    [
      'a worker by kubeadm',
      { files: { '/etc/kubernetes/kubelet.conf': 'x' } },
      'it is a node of a cluster (/etc/kubernetes)',
      /kubeadm reset/,
    ],
    [
      'kubeadm without a cluster',
      { programs: { kubeadm: 'exit 0' } },
      'kubeadm is installed (/bin/kubeadm)',
      /apt-get purge kubeadm/,
    ],
    [
      'Docker',
      { programs: { systemctl: 'case $* in *" docker") exit 0 ;; *) exit 3 ;; esac' } },
      'docker is at work',
      /nobody else uses/,
    ],
  ])('a host is refused, with what frees it, if it has %s', async (_, stranger, says, fix) => {
    const all = await findings(debian('13', 'trixie'), stranger)
    const taken = all.filter(({ what }) => what === 'taken')
    expect(taken).toHaveLength(1)
    expect(taken[0]?.saw).toBe(says)
    expect(taken[0]?.fix).toMatch(fix)
  })
})
