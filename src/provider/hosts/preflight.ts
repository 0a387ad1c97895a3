/** The problems of hosts for a lab, and what `up` would change on them: computed from what they report. */
import { disksOn, type Lab } from '../../lab/lab.js'
import { sizeText } from '../../lab/units.js'
import { holderIn, holderText } from './lock.js'
import { type Asked, type Finding, interfaceOf, subnetOf } from './asked.js'
import { together } from './compare.js'
import type { Occupant } from './facts.js'
import { portsOf } from './ports.js'
import { type Found, kernel, type Place, placeIn, system } from './system-findings.js'

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

/** How a host is freed of what already uses it. */
const freeing: Readonly<Record<Occupant['by'], string>> = {
  k3s: '/usr/local/bin/k3s-uninstall.sh',
  kubernetes: 'kubeadm reset; rm -r /etc/kubernetes; apt-get purge kubeadm kubelet',
  kubeadm: 'apt-get purge kubeadm kubelet',
  other: 'use a machine that nobody else uses, or remove what is there',
}

/** What it has. */
function* resources({ facts, spec }: Asked, { lab, machine, isNode }: Place): Found {
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
}

/** What already uses it, or is in the way. */
function* otherUse(asked: Asked, { machine }: Place): Found {
  const { facts, spec } = asked
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
}

/** When and where it is. */
function* timeAndPlace(asked: Asked): Found {
  const { facts, spec, skew } = asked
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

function* findingsOf(asked: Asked, lab: Lab | undefined): Found {
  const place = placeIn(asked, lab)
  yield* system(asked, place)
  yield* resources(asked, place)
  yield* otherUse(asked, place)
  yield* kernel(asked, place)
  yield* timeAndPlace(asked)
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
