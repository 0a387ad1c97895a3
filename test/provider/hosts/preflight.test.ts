/** The preflight of hosts, computed from what they report: a good host, and one problem at a time. */
import { describe, expect, test } from 'vitest'
import { hostArchitecture } from '../../../src/parts/architecture.js'
import type { HostSpec } from '../../../src/lab/hosts-file.js'
import type { Lab } from '../../../src/lab/lab.js'
import { type Facts, readFacts } from '../../../src/provider/hosts/facts.js'
import type { Asked, Finding } from '../../../src/provider/hosts/asked.js'
import { neededPorts } from '../../../src/provider/hosts/ports.js'
import { judgeHosts } from '../../../src/provider/hosts/preflight.js'
import { loadLab } from '../../../src/registry.js'

const GiB = 1024 ** 3

const good: Facts = {
  ...{ machine: 'aarch64', architecture: hostArchitecture() ?? 'amd64', page: 4096 },
  system: { id: 'debian', version: '13', pretty: 'Debian GNU/Linux 13 (trixie)' },
  ...{ model: 'Raspberry Pi 4 Model B Rev 1.4', kernel: '6.12.47', memory: 4 * GiB, cpus: 4 },
  ...{ free: 20 * GiB, readOnlyRoot: false, swap: [], machineId: 'one', hostname: 'pi1' },
  interfaces: [
    {
      ...{ name: 'eth0', address: '10.0.0.11', prefix: 24, mac: '02:00:00:00:00:11', mtu: 1500 },
      ...{ wireless: false, dynamic: false },
    },
  ],
  ...{ defaultInterface: 'eth0', time: 0, controllers: ['cpu', 'memory', 'pids'], monolithic: false },
  features: [
    'iscsi_tcp',
    'target_core_mod',
    'iscsi_target_mod',
    'loop',
    'overlay',
    'br_netfilter',
    'nf_tables',
  ],
  ...{ bootFile: '', bootLine: '', bootWords: [] },
  ...{ openIscsi: '', firewalls: [], taken: [], lock: '', throttled: '', complaints: [], knowsItself: true },
  ...{ rootLogin: 'prohibit-password', ports: [22] },
}

const spec = (name: string, more: Partial<HostSpec> = {}): HostSpec => ({
  ...{ name, address: '10.0.0.11', port: 22, user: 'pi', hostKey: `ssh-ed25519 ${name}` },
  ...more,
})

const asked = (name: string, facts: Partial<Facts> = {}, more: Partial<Asked> = {}): Asked => ({
  ...{ spec: spec(name), facts: { ...good, ...facts }, skew: 0, unreached: [] },
  ...more,
})

const found = (hosts: readonly Asked[], lab?: Lab): readonly Finding[] =>
  judgeHosts(hosts, lab).filter(({ level }) => level !== 'ok')

const bigger = { address: '10.0.0.12', name: 'eth0', prefix: 24, mac: '02:00:00:00:00:12', mtu: 1500 }
const second: Partial<Facts> = {
  ...{ machineId: 'two', hostname: 'pi2' },
  interfaces: [{ ...bigger, wireless: false, dynamic: false }],
}

describe('the preflight of one host', () => {
  test('the preflight of one host finds no problem with a good one', () => {
    expect(found([asked('worker1')])).toEqual([])
  })

  test.each<[string, Partial<Facts>, Finding['level'], string, RegExp]>([
    [
      '32-bit programs under a 64-bit kernel',
      { architecture: 'armhf' },
      'refuse',
      'architecture',
      /armhf.*no 32-bit arm/,
    ],
    [
      'another processor',
      { machine: 'riscv64', architecture: 'riscv64' },
      'refuse',
      'architecture',
      /riscv64/,
    ],
    ['a system without dpkg', { architecture: '' }, 'refuse', 'architecture', /without dpkg/],
    [
      'another distribution',
      { system: { id: 'fedora', version: '43', pretty: 'Fedora Linux 43' } },
      'refuse',
      'system',
      /Fedora Linux 43/,
    ],
    [
      'a Debian that is too old',
      { system: { id: 'debian', version: '11', pretty: 'Debian GNU/Linux 11' } },
      'refuse',
      'system',
      /11/,
    ],
    ['pages of 16 KiB', { page: 16384 }, 'warn', 'page size', /16 KiB/],
    ['a full card', { free: 100 * 1024 ** 2 }, 'refuse', 'disk', /100 MiB free/],
    ['a root file system that is read-only', { readOnlyRoot: true }, 'refuse', 'disk', /read-only/],
    ['errors of its card', { complaints: ['mmc0: timeout waiting'] }, 'warn', 'hardware', /mmc0/],
    [
      'under-voltage in the past',
      { throttled: '0x50000' },
      'warn',
      'power supply',
      /under-voltage since.*throttled since/,
    ],
    ['k3s on it', { taken: [{ by: 'k3s' as const, saw: 'k3s is at work' }] }, 'refuse', 'taken', /k3s/],
    [
      'another lab on it',
      {
        lock: JSON.stringify({ who: 'alice@desk', lab: 'iscsi', key: 'A', since: '2026-11-29' }),
        taken: [{ by: 'other' as const, saw: 'it serves iSCSI targets' }],
      },
      'refuse',
      'taken',
      /^alice@desk has been using it for the lab iscsi since 2026-11-29$/,
    ],
    ['no login for root', { rootLogin: 'no' }, 'refuse', 'login', /PermitRootLogin no/],
    ['a firewall', { firewalls: ['ufw'] }, 'warn', 'firewall', /ufw/],
    ['the open-iscsi that hangs', { openIscsi: '2.1.10-1' }, 'refuse', 'open-iscsi', /hangs/],
    ['no memory controller', { controllers: ['cpu'] }, 'warn', 'cgroups', /memory controller/],
    ['a name that it does not know', { knowsItself: false }, 'change', 'names', /pi1/],
    ['Wi-Fi', { interfaces: [{ ...good.interfaces[0]!, wireless: true }] }, 'warn', 'network', /Wi-Fi/],
    ['no address', { interfaces: [] }, 'refuse', 'network', /no IPv4 address/],
  ])('the preflight of one host finds %s, and says what to do', (_, facts, level, what, saw) => {
    const [finding, ...others] = found([asked('worker1', facts)])
    expect(others).toEqual([])
    expect(finding).toMatchObject({ host: 'worker1', level, what })
    expect(finding?.saw).toMatch(saw)
    if (level !== 'change') expect(finding?.fix).toBeTruthy()
  })

  test('the preflight of one host finds a wrong clock, and other hosts that it cannot reach', () => {
    expect(found([asked('worker1', {}, { skew: -5_000_000 })])).toMatchObject([
      { what: 'clock', level: 'change' },
    ])
    expect(found([asked('worker1', {}, { unreached: ['master'] })])).toMatchObject([
      { what: 'network', level: 'refuse', saw: 'does not reach master over SSH' },
    ])
  })
})

describe('the preflight of the hosts of a lab', () => {
  test('the preflight tries the ports on which the machines of a lab must reach each other, and no others', async () => {
    const lab = await loadLab('iscsi-ha')
    expect(neededPorts(lab, 'worker1', 'master')).toEqual([6443])
    expect(neededPorts(lab, 'master', 'worker1')).toEqual([10250])
    expect(neededPorts(lab, 'worker1', 'target')).toEqual([3260])
    expect(neededPorts(lab, 'worker1', 'worker2')).toEqual([])
    expect(neededPorts(lab, 'target', 'worker1')).toEqual([])
    const several = await loadLab('control-planes')
    const [first = '', second = ''] = several.machines
      .filter(({ role }) => role === 'control-plane')
      .map(({ name }) => name)
    expect(neededPorts(several, first, second)).toEqual([6443, 2379, 2380, 10250])
    expect(neededPorts(await loadLab('deployment-ha'), 'worker1', 'nfs')).toEqual([2049])
  })

  test('the preflight refuses a host that does not reach another one on a port that the lab needs', async () => {
    const shut = [
      { host: 'target', port: 3260 },
      { host: 'master', port: 6443 },
    ]
    expect(found([asked('worker1', {}, { shut })], await loadLab('iscsi-ha'))).toMatchObject([
      { what: 'network', level: 'refuse', saw: 'does not reach target on port 3260, which the lab needs' },
      { what: 'network', level: 'refuse', saw: 'does not reach master on port 6443, which the lab needs' },
    ])
  })

  test('the preflight finds too little memory, swap, a port in use and a kernel without LIO, depending on the role of each machine', async () => {
    const lab = await loadLab('iscsi-ha')
    const names = ['target', 'master', 'worker1']
    const of = (name: string, facts: Partial<Facts>): readonly string[] =>
      found([asked(name, facts)], lab).map(({ what, level }) => `${level} ${what}`)
    for (const name of names) expect(of(name, {})).toEqual([])
    expect(of('master', { memory: GiB })).toEqual(['refuse memory'])
    expect(of('worker1', { swap: ['/dev/zram0'] })).toEqual(['change swap'])
    expect(of('target', { swap: ['/dev/zram0'] })).toEqual([])
    expect(of('master', { ports: [22, 6443] })).toEqual(['refuse ports'])
    expect(of('worker1', { ports: [22, 6443] })).toEqual([])
    expect(of('target', { features: ['loop'] })).toEqual(['refuse kernel'])
    expect(of('worker1', { features: ['overlay', 'br_netfilter', 'nf_tables'] })).toEqual(['refuse kernel'])
    expect(of('worker1', { controllers: [] })).toEqual(['refuse cgroups'])
    expect(of('worker1', { free: 2 * GiB })).toEqual(['refuse disk'])
    expect(of('target', { free: 10 * GiB })).toEqual([])
    // Kubernetes for arm64 is built on amd64 as well, but not the other way round; a target does not need it.
    const isArm = hostArchitecture() === 'arm64'
    const other = isArm ? 'amd64' : 'arm64'
    expect(of('worker1', { architecture: other })).toEqual(isArm ? ['refuse architecture'] : [])
    expect(of('target', { architecture: other })).toEqual([])
    const cassandra = { ...lab, images: [...lab.images, 'cassandra:5.0'] }
    const findings = found([asked('worker1', { architecture: other })], cassandra)
    expect(findings).toMatchObject([{ level: 'refuse', what: 'architecture' }])
    if (!isArm)
      expect(findings[0]!.saw).toBe(
        'arm64, but the image docker.io/library/cassandra:5.0 is built only for amd64',
      )
  })

  test.each<[string, Partial<Facts>, string, Finding['level']]>([
    ['the same machine-id', { ...second, machineId: 'one' }, 'machine-id', 'refuse'],
    [
      'the same MAC address',
      { ...second, interfaces: [{ ...second.interfaces![0]!, mac: '02:00:00:00:00:11' }] },
      'MAC address',
      'refuse',
    ],
    ['the same host name', { ...second, hostname: 'pi1' }, 'host name', 'change'],
  ])('the preflight finds two hosts with %s, as cloned cards have', (_, facts, what, level) => {
    const two = asked('worker2', facts, { spec: spec('worker2', { address: '10.0.0.12' }) })
    expect(found([asked('worker1'), two])).toMatchObject([{ host: 'worker2', what, level }])
  })

  test('the preflight reports once that two machines of a lab are one host with two addresses', async () => {
    const one = { ...bigger, wireless: false, dynamic: false }
    const twice = {
      ...second,
      interfaces: [
        { ...one, address: '10.0.0.11' },
        { ...one, address: '10.0.0.12' },
      ],
    }
    const key = { hostKey: 'ssh-ed25519 AAAA' }
    const hosts = [
      asked('worker1', twice, { spec: spec('worker1', { address: '10.0.0.11', ...key }) }),
      asked('worker2', twice, { spec: spec('worker2', { address: '10.0.0.12', ...key }) }),
    ]
    expect(found(hosts, await loadLab('iscsi-ha'))).toMatchObject([
      {
        host: 'worker2',
        level: 'refuse',
        what: 'host',
        saw: 'it is the same machine as worker1: one host can be only one machine, because both would have its name and its ports',
      },
    ])
  })

  test('the preflight refuses nodes in two networks, because their pods could not reach each other', async () => {
    const far = { ...second, interfaces: [{ ...second.interfaces![0]!, address: '10.0.9.12' }] }
    const lab = await loadLab('iscsi-ha')
    const hosts = [
      asked('master'),
      asked('worker1', far, { spec: spec('worker1', { address: '10.0.9.12' }) }),
    ]
    expect(found(hosts, lab)).toMatchObject([{ host: 'worker1', what: 'network', level: 'refuse' }])
  })

  test('the preflight refuses control planes that share an address which is not in their network', async () => {
    const lab = await loadLab('control-planes')
    const [first = ''] = lab.machines.filter(({ role }) => role === 'control-plane').map(({ name }) => name)
    const [finding, ...others] = found([asked(first)], lab)
    expect(others).toEqual([])
    expect(finding).toMatchObject({ host: first, what: 'network', level: 'refuse' })
    expect(finding?.saw).toContain('is not in its network 10.0.0.0/24')
    const own = { ...lab, kubernetes: { ...lab.kubernetes!, endpoint: '10.0.0.99' } }
    expect(found([asked(first)], own)).toEqual([])
  })

  test('the preflight uses the interface that hosts.yaml names for the address in the lab', async () => {
    const lab = await loadLab('iscsi-ha')
    const two = {
      ...second,
      interfaces: [
        ...second.interfaces!,
        { ...bigger, name: 'wlan0', address: '10.9.0.12', mac: 'x', wireless: true, dynamic: false },
      ],
    }
    const host = (name: string) =>
      asked('worker1', two, { spec: spec('worker1', { address: '10.0.0.12', interface: name }) })
    expect(found([asked('master'), host('eth0')], lab)).toEqual([])
    expect(found([asked('master'), host('wlan0')], lab).map(({ level }) => level)).toEqual(['warn', 'refuse'])
    expect(found([asked('master'), host('eth7')], lab)).toMatchObject([{ level: 'refuse', what: 'network' }])
  })
})

test('the output of the script can be parsed, including values with spaces and repeated ones', () => {
  const facts = readFacts(
    [
      'machine\taarch64',
      'architecture\tarm64',
      'memory\t948204',
      'free\t1000',
      'interface\teth0 10.0.0.11/24 02:00:00:00:00:11 1500 no yes',
      'interface\twlan0 10.0.1.11/24 02:00:00:00:00:12 1500 yes yes',
      'controllers\tcpu io memory pids',
      'taken\tk3s k3s is at work',
      'port\t22',
      'port\t6443',
      'lock\t',
    ].join('\n'),
  )
  expect(facts).toMatchObject({
    ...{
      architecture: 'arm64',
      memory: 948204 * 1024,
      free: 1024000,
      lock: '',
      taken: [{ by: 'k3s', saw: 'k3s is at work' }],
    },
    ...{ controllers: ['cpu', 'io', 'memory', 'pids'], ports: [22, 6443] },
  })
  expect(facts.interfaces.map(({ name, wireless, dynamic }) => [name, wireless, dynamic])).toEqual([
    ['eth0', false, true],
    ['wlan0', true, true],
  ])
})
