/** The problems of hosts for a lab, and what `up` would change on them: computed from what they report. */
import { disksOn, type Lab, type MachineSpec, nfsServerOf, nodesOf } from '../../lab/lab.js'
import { anyOf } from '../../lab/suggest.js'
import { sizeText } from '../../lab/units.js'
import { hostArchitecture } from '../../parts/architecture.js'
import { holderIn, holderText } from './lock.js'
import { type Asked, type Finding, interfaceOf, subnetOf } from './asked.js'
import { together } from './compare.js'
import type { KernelFeature, Occupant } from './facts.js'
import { portsOf } from './ports.js'

/** The supported releases, by the id of os-release; Raspberry Pi OS calls itself debian. */
const systems: Readonly<Record<string, readonly string[]>> = {
  debian: ['12', '13'],
  raspbian: [],
  ubuntu: ['22.04', '24.04', '24.10', '25.04', '25.10', '26.04'],
}

const gibibyte = 1024 ** 3

/** Bytes that the equipment needs: packages alone, or with containerd, Kubernetes and its images. */
const roomFor = (isNode: boolean): number => (isNode ? 4 * gibibyte : gibibyte / 4)

/** Seconds of skew that are tolerated. */
const mostSkew = 2

/** The bits of `vcgencmd get_throttled` that matter to a lab. */
const throttling = (hexadecimal: string): readonly string[] => {
  const bits = Number(hexadecimal)
  const meanings: Readonly<Record<number, string>> = {
    0: 'under-voltage now',
    2: 'throttled now',
    16: 'under-voltage since it was switched on',
    18: 'throttled since it was switched on',
  }
  return Object.entries(meanings)
    .filter(([bit]) => Math.floor(bits / 2 ** Number(bit)) % 2 === 1)
    .map(([, meaning]) => meaning)
}

const needed = (lab: Lab, machine: MachineSpec): readonly KernelFeature[] => {
  const isNode = nodesOf(lab).includes(machine)
  return [
    ...(machine.role === 'target' ? (['target_core_mod', 'iscsi_target_mod', 'loop'] as const) : []),
    ...(machine.iqn === undefined ? [] : (['iscsi_tcp'] as const)),
    ...(machine.role === 'nfs' ? (['nfsd'] as const) : []),
    ...(nfsServerOf(lab) && isNode ? (['nfs4'] as const) : []),
    ...(isNode ? (['overlay', 'br_netfilter', 'nf_tables'] as const) : []),
  ]
}

/** How a host is freed of what already uses it. */
const freeing: Readonly<Record<Occupant['by'], string>> = {
  k3s: '/usr/local/bin/k3s-uninstall.sh',
  kubernetes: 'kubeadm reset; rm -r /etc/kubernetes',
  other: 'use a machine that nobody else uses, or remove what is there',
}

function* findingsOf(asked: Asked, lab: Lab | undefined): Generator<Omit<Finding, 'host'>> {
  const { facts, spec, skew } = asked
  const machine = lab?.machines.find(({ name }) => name === spec.name)
  const isNode = lab !== undefined && machine !== undefined && nodesOf(lab).includes(machine)
  const { architecture, system } = facts

  // What it is
  if (facts.model !== '') yield { what: 'model', level: 'ok', saw: facts.model }
  if (architecture === 'armhf' && facts.machine === 'aarch64')
    yield {
      what: 'architecture',
      level: 'refuse',
      saw: 'a 64-bit kernel with 32-bit programs (armhf): Kubernetes has had no 32-bit arm since 1.27',
      fix: 'install the 64-bit Raspberry Pi OS (Raspberry Pi Imager, Other, 64-bit)',
    }
  else if (architecture !== 'amd64' && architecture !== 'arm64')
    yield {
      what: 'architecture',
      level: 'refuse',
      saw: `${facts.machine}, ${architecture === '' ? 'without dpkg' : architecture}`,
      fix: 'use a 64-bit Debian, Ubuntu or Raspberry Pi OS, on amd64 or arm64',
    }
  else if (isNode && architecture !== hostArchitecture())
    yield {
      what: 'architecture',
      level: 'refuse',
      saw: `${architecture}, but the parts of Kubernetes that are built on this computer are for ${hostArchitecture() ?? process.arch}`,
      fix: `use another host for ${spec.name}, or run lab on a computer with ${architecture}`,
    }
  else yield { what: 'architecture', level: 'ok', saw: `${facts.machine}, ${architecture}` }
  const releases = systems[system.id]
  yield releases?.includes(system.version)
    ? { what: 'system', level: 'ok', saw: system.pretty }
    : {
        what: 'system',
        level: 'refuse',
        saw: system.pretty || 'no /etc/os-release',
        fix: `Debian ${anyOf(systems['debian'] ?? [])}, Raspberry Pi OS (64 bit) of the same, or Ubuntu 22.04 to 26.04`,
      }
  if (facts.page > 4096)
    yield {
      what: 'page size',
      level: 'warn',
      saw: `pages of ${String(facts.page / 1024)} KiB: programs that were built for 4 KiB, such as some with jemalloc, do not start`,
      fix: 'set kernel=kernel8.img in /boot/firmware/config.txt, then reboot',
    }

  // What it has
  const wanted = machine?.memory ?? 0
  yield facts.memory < wanted * 0.85
    ? {
        what: 'memory',
        level: 'refuse',
        saw: `${sizeText(Math.round(facts.memory / 1024 ** 2) * 1024 ** 2)} of memory; the lab file asks for ${sizeText(wanted)}`,
        fix: `reduce memory: in the lab file, or use another host for ${spec.name}`,
      }
    : {
        what: 'memory',
        level: 'ok',
        saw: `${String(Math.round(facts.memory / 1024 ** 2))} MiB, ${String(facts.cpus)} processors`,
      }
  const luns = (lab ? disksOn(lab, spec.name) : []).reduce((sum, { size }) => sum + size, 0)
  const room = roomFor(isNode) + luns
  yield facts.free < room
    ? {
        what: 'disk',
        level: 'refuse',
        saw: `${String(Math.floor(facts.free / 1024 ** 2))} MiB free below /var; ${String(Math.ceil(room / 1024 ** 2))} MiB are needed`,
        fix: 'du -xam / | sort -rn | head -n 20',
      }
    : { what: 'disk', level: 'ok', saw: `${String(Math.floor(facts.free / 1024 ** 2))} MiB free below /var` }
  if (facts.readOnlyRoot)
    yield {
      what: 'disk',
      level: 'refuse',
      saw: 'the root file system is read-only',
      fix: 'mount -o remount,rw /; if the card is worn out, use another card',
    }
  for (const line of facts.complaints)
    yield {
      what: 'hardware',
      level: 'warn',
      saw: line,
      fix: 'use another card, or a power supply of 3 A (Pi 5: 5 A)',
    }
  const throttled = facts.throttled === '' ? [] : throttling(facts.throttled)
  if (throttled.length > 0)
    yield {
      what: 'power supply',
      level: 'warn',
      saw: `${throttled.join(', ')} (${facts.throttled})`,
      fix: 'use a power supply of 3 A (Pi 5: 5 A), and a heat sink',
    }

  // What it runs
  const holder = holderIn(facts.lock)
  if (holder)
    yield {
      what: 'taken',
      level: 'refuse',
      saw: holderText(holder),
      fix: `run lab down ${holder.lab} there; or use another host for ${spec.name}`,
    }
  // The effects of that lab on the host are expected.
  for (const { by, saw } of holder ? [] : facts.taken)
    yield {
      what: 'taken',
      level: 'refuse',
      saw,
      fix: freeing[by],
    }
  const held = machine ? portsOf[machine.role].filter((port) => facts.ports.includes(port)) : []
  if (held.length > 0 && facts.taken.length === 0 && !holder)
    yield {
      what: 'ports',
      level: 'refuse',
      saw: `something listens on ${held.join(', ')}`,
      fix: `ss -ltnp | grep -e :${held.join(' -e :')}`,
    }
  if (facts.rootLogin === 'no')
    yield {
      what: 'login',
      level: 'refuse',
      saw: 'sshd does not let root log in at all (PermitRootLogin no), but lab works as root, with a key of its own',
      fix: "echo 'PermitRootLogin prohibit-password' > /etc/ssh/sshd_config.d/root.conf; systemctl reload ssh",
    }
  if (facts.firewalls.length > 0)
    yield {
      what: 'firewall',
      level: 'warn',
      saw: `${facts.firewalls.join(', ')} refuses some packets`,
      fix: `let the other machines in, for example: ufw allow from ${subnetOf(asked) ?? 'SUBNET'}`,
    }
  if (facts.openIscsi.startsWith('2.1.10'))
    yield {
      what: 'open-iscsi',
      level: 'refuse',
      saw: `${facts.openIscsi} hangs with the kubelet (open-iscsi#484)`,
      fix: 'apt-get install --only-upgrade open-iscsi, to 2.1.11 or newer',
    }
  if (facts.swap.length > 0 && isNode)
    yield { what: 'swap', level: 'change', saw: `${facts.swap.join(', ')}: will be switched off` }
  if (!facts.controllers.includes('memory') && (isNode || lab === undefined))
    yield {
      what: 'cgroups',
      level: isNode ? 'refuse' : 'warn',
      saw: `no memory controller (${facts.controllers.join(' ') || 'no cgroup v2'}), which the kubelet needs`,
      fix: 'add cgroup_enable=memory cgroup_memory=1 to the end of the line in /boot/firmware/cmdline.txt, then reboot',
    }
  const missing = lab && machine ? needed(lab, machine).filter((name) => !facts.features.includes(name)) : []
  if (missing.length > 0)
    yield {
      what: 'kernel',
      level: facts.monolithic ? 'warn' : 'refuse',
      saw: facts.monolithic
        ? `${facts.kernel} has no modules, and does not show ${missing.join(', ')} before first use`
        : `${facts.kernel} has no ${missing.join(', ')}`,
      fix: missing.includes('target_core_mod')
        ? "use another host for the target: Raspberry Pi's kernels have no LIO; on Ubuntu: apt-get install linux-modules-extra-$(uname -r)"
        : 'apt-get install linux-modules-extra-$(uname -r), or a newer kernel',
    }

  // When and where it is
  yield Math.abs(skew) > mostSkew
    ? { what: 'clock', level: 'change', saw: `${skew.toFixed(0)} s ahead of this computer's: will be set` }
    : { what: 'clock', level: 'ok', saw: `${skew.toFixed(1)} s ahead of this computer's` }
  const own = interfaceOf(asked)
  yield own
    ? {
        what: 'network',
        level: own.wireless || own.dynamic ? 'warn' : 'ok',
        saw: `${own.address}/${String(own.prefix)} on ${own.name}${own.wireless ? ', which is Wi-Fi: slow, and loses packets' : ''}${own.dynamic ? ', from DHCP: it must not change while the lab is up' : ''}, MTU ${String(own.mtu)}`,
        ...(own.wireless || own.dynamic
          ? { fix: own.wireless ? `interface: eth0 for ${spec.name}` : 'give it a fixed lease in the router' }
          : {}),
      }
    : {
        what: 'network',
        level: 'refuse',
        saw: `no IPv4 address${spec.interface === undefined ? '' : ` on ${spec.interface}`}; it has ${facts.interfaces.map(({ name, address }) => `${name} ${address}`).join(', ') || 'none'}`,
        fix: 'ip -br address',
      }
  if (!facts.knowsItself)
    yield {
      what: 'names',
      level: 'change',
      saw: `it cannot resolve its own name ${facts.hostname}: lab adds it to /etc/hosts`,
    }
  for (const other of asked.unreached)
    yield {
      what: 'network',
      level: 'refuse',
      saw: `does not reach ${other} over SSH`,
      fix: `ping ${other}; check for a firewall, or use another network`,
    }
  for (const other of new Set((asked.shut ?? []).map(({ host }) => host))) {
    const ports = (asked.shut ?? []).flatMap(({ host, port }) => (host === other ? [port] : []))
    yield {
      what: 'network',
      level: 'refuse',
      saw: `does not reach ${other} on port ${ports.join(', ')}, which the lab needs`,
      fix: `on ${other}, let it in, for example: ufw allow from ${own?.address ?? 'ADDRESS'}`,
    }
  }
}

/** All findings about these hosts. @param lab whose machines they will be; undefined: any lab */
export const judgeHosts = (hosts: readonly Asked[], lab: Lab | undefined): readonly Finding[] => {
  const all = [
    ...hosts.flatMap((asked) =>
      [...findingsOf(asked, lab)].map((finding) => ({ host: asked.spec.name, ...finding })),
    ),
    ...together(hosts, lab),
  ]
  return hosts.flatMap(({ spec }) => all.filter(({ host }) => host === spec.name))
}
