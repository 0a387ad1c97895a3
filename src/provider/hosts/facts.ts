/** What a host reports about itself, through one script that changes nothing. */
import type { Transport } from '../../machine/machine.js'
import { type BootFacts, bootLineFiles, bootLineHas } from './boot-line.js'

export interface HostInterface {
  readonly name: string
  /** IPv4, without a prefix length. */
  readonly address: string
  readonly prefix: number
  readonly mac: string
  readonly mtu: number
  readonly wireless: boolean
  readonly dynamic: boolean
}

/** What already uses a host. What it is decides how it is removed. */
export interface Occupant {
  readonly by: 'k3s' | 'kubernetes' | 'kubeadm' | 'other'
  readonly saw: string
}

/** A program or service that is in the way, and what it uses. */
export interface Facts extends BootFacts {
  /** `aarch64`, according to the kernel. */
  readonly machine: string
  /** `arm64`, according to dpkg; empty if there is no dpkg. */
  readonly architecture: string
  /** Bytes. */
  readonly page: number
  /** `debian 13`, from os-release. */
  readonly system: { readonly id: string; readonly version: string; readonly pretty: string }
  /** `Raspberry Pi 4 Model B Rev 1.4`; empty if unknown. */
  readonly model: string
  /** Bytes. */
  readonly memory: number
  readonly cpus: number
  /** Free bytes below /var. */
  readonly free: number
  readonly readOnlyRoot: boolean
  /** Swap devices in use. */
  readonly swap: readonly string[]
  readonly machineId: string
  readonly hostname: string
  readonly interfaces: readonly HostInterface[]
  /** The interface of the default route; empty if there is none. */
  readonly defaultInterface: string
  /** Seconds since the epoch. */
  readonly time: number
  /** Features that the kernel has, or that a module would add. */
  readonly features: readonly string[]
  /** Whether the kernel has no modules at all: then some features show only once they are used. */
  readonly monolithic: boolean
  readonly openIscsi: string
  /** Active firewalls. */
  readonly firewalls: readonly string[]
  /** What is in the way: `k3s is at work`. */
  readonly taken: readonly Occupant[]
  /** The content of a lab's lock; empty if no lab uses the host. */
  readonly lock: string
  /** The output of `vcgencmd get_throttled`: 0x0; empty if there is none. */
  readonly throttled: string
  /** Lines of the kernel's log about the SD card or the power supply. */
  readonly complaints: readonly string[]
  /** Whether the host can resolve its own name. */
  readonly knowsItself: boolean
  /** The effective setting of sshd: `prohibit-password`. */
  readonly rootLogin: string
  /** TCP ports in use. */
  readonly ports: readonly number[]
}

/**
 * The kernel features that nodes, targets and initiators need; how to detect each without a module, and the module
 * that adds it.
 */
export const kernelFeatures = {
  iscsi_tcp: 'test -d /sys/class/iscsi_transport/tcp',
  target_core_mod: 'test -d /sys/kernel/config/target',
  iscsi_target_mod: 'test -d /sys/module/iscsi_target_mod || test -d /sys/kernel/config/target/iscsi',
  loop: 'test -e /dev/loop-control',
  overlay: 'grep -qw overlay /proc/filesystems',
  br_netfilter: 'test -d /proc/sys/net/bridge',
  nf_tables: 'test -d /sys/module/nf_tables || nft list tables',
  nfsd: 'grep -qw nfsd /proc/filesystems',
  nfs4: 'grep -qw nfs4 /proc/filesystems',
} as const

export type KernelFeature = keyof typeof kernelFeatures

const script = `
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
say() { printf '%s\\t%s\\n' "$1" "$2"; }
say machine "$(uname -m)"
say architecture "$(dpkg --print-architecture 2>/dev/null)"
say page "$(getconf PAGESIZE)"
( . /etc/os-release; say id "$ID"; say version "$VERSION_ID"; say pretty "$PRETTY_NAME" ) 2>/dev/null
say model "$(tr -d '\\0' 2>/dev/null < /proc/device-tree/model || cat /sys/class/dmi/id/product_name 2>/dev/null)"
say kernel "$(uname -r)"
say memory "$(awk '/^MemTotal/ { print $2 }' /proc/meminfo)"
say cpus "$(nproc)"
say free "$(df --output=avail -k /var | tail -n 1)"
say root "$(findmnt --noheadings --output OPTIONS / | cut -d, -f1)"
awk 'NR > 1 { print "swap\\t" $1 }' /proc/swaps 2>/dev/null
say machineId "$(cat /etc/machine-id 2>/dev/null)"
say hostname "$(hostname)"
ip -o -4 address show scope global 2>/dev/null | while read -r _ name _ address rest; do
  dynamic=no wireless=no
  case " $rest " in *" dynamic "*) dynamic=yes ;; esac
  [ ! -e "/sys/class/net/$name/wireless" ] || wireless=yes
  say interface "$name $address $(cat "/sys/class/net/$name/address") $(cat "/sys/class/net/$name/mtu") $wireless $dynamic"
done
say default "$(ip -4 route show default 2>/dev/null | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p' | head -n 1)"
say time "$(date +%s.%N)"
say controllers "$(cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null)"
for file in ${bootLineFiles.join(' ')}; do
  if grep -q ${bootLineHas} "$file" 2>/dev/null; then say bootFile "$file"; say bootLine "$(head -n 1 "$file")"; break; fi
done
say bootWords "$(cat /proc/cmdline)"
feature() { if { eval "$2" || modprobe -qn "$1"; } >/dev/null 2>&1; then say feature "$1"; fi; }
# A kernel without modules does not show everything that is built in, so each feature is tried when it is needed.
[ -d "/lib/modules/$(uname -r)" ] || say modules none
${Object.entries(kernelFeatures)
  .map(([name, probe]) => `feature ${name} '${probe}'`)
  .join('\n')}
say openIscsi "$(dpkg-query -W -f '\${Version}' open-iscsi 2>/dev/null)"
! ufw status 2>/dev/null | grep -q '^Status: active' || say firewall ufw
! systemctl is-active --quiet firewalld 2>/dev/null || say firewall firewalld
[ -z "$(nft list ruleset 2>/dev/null | grep -E 'policy (drop|reject)|[[:space:]](drop|reject)')" ] || say firewall nftables
[ -z "$(iptables-save 2>/dev/null | grep -E '^:(INPUT|FORWARD) DROP|-j (DROP|REJECT)')" ] || say firewall iptables
for unit in k3s k3s-agent rke2-server rke2-agent k0scontroller k0sworker snap.microk8s.daemon-kubelite docker crio kubelet containerd tgt; do
  case $unit in k3s*) by=k3s ;; *) by=other ;; esac
  ! systemctl is-active --quiet "$unit" 2>/dev/null || say taken "$by $unit is at work"
done
[ ! -e /etc/kubernetes/admin.conf ] && [ ! -e /etc/kubernetes/kubelet.conf ] || say taken 'kubernetes it is a node of a cluster (/etc/kubernetes)'
[ -e /etc/kubernetes/admin.conf ] || [ -e /etc/kubernetes/kubelet.conf ] || for name in kubeadm kubelet; do
  # Its package brings units and settings that a lab's own kubelet would read.
  ! command -v "$name" >/dev/null || say taken "kubeadm $name is installed ($(command -v "$name"))"
done
[ ! -d /var/lib/rancher/k3s ] || say taken 'k3s k3s was installed on it (/var/lib/rancher/k3s)'
[ -z "$(ls /sys/kernel/config/target/iscsi 2>/dev/null | grep '^iqn')" ] || say taken 'other it serves iSCSI targets'
[ -z "$(ls /sys/class/iscsi_session 2>/dev/null)" ] || say taken 'other it is logged in to iSCSI targets'
say lock "$(cat /var/lib/lab/lock 2>/dev/null)"
say throttled "$(vcgencmd get_throttled 2>/dev/null | cut -d= -f2)"
dmesg 2>/dev/null | grep -iE 'under-?voltage|mmc[0-9].*(error|timeout)|I/O error, dev (mmcblk|sd)' | tail -n 3 | while read -r line; do say complaint "$line"; done
! getent ahosts "$(hostname)" >/dev/null 2>&1 || say knowsItself yes
say rootLogin "$(sshd -T 2>/dev/null | sed -n 's/^permitrootlogin //p')"
ss -Hltn 2>/dev/null | awk '{ n = split($4, part, ":"); print "port\\t" part[n] }' | sort -u
`

/** Parses the output of the script. */
export const readFacts = (output: string): Facts => {
  const all = new Map<string, string[]>()
  for (const line of output.split('\n')) {
    const [name = '', value] = line.split(/\t(.*)/s)
    if (value === undefined || value.trim() === '') continue
    all.set(name, [...(all.get(name) ?? []), value.trim()])
  }
  const list = (name: string): readonly string[] => all.get(name) ?? []
  const one = (name: string): string => list(name)[0] ?? ''
  const kibibytes = (name: string): number => Number(one(name)) * 1024
  return {
    machine: one('machine'),
    architecture: one('architecture'),
    page: Number(one('page')),
    system: { id: one('id'), version: one('version'), pretty: one('pretty') },
    model: one('model'),
    kernel: one('kernel'),
    memory: kibibytes('memory'),
    cpus: Number(one('cpus')),
    free: kibibytes('free'),
    readOnlyRoot: one('root') === 'ro',
    swap: list('swap'),
    machineId: one('machineId'),
    hostname: one('hostname'),
    interfaces: list('interface').map((line) => {
      const [name = '', address = '', mac = '', mtu, wireless, dynamic] = line.split(' ')
      const [plain = '', prefix] = address.split('/')
      return {
        name,
        address: plain,
        prefix: Number(prefix),
        mac,
        mtu: Number(mtu),
        wireless: wireless === 'yes',
        dynamic: dynamic === 'yes',
      }
    }),
    defaultInterface: one('default'),
    time: Number(one('time')),
    controllers: one('controllers').split(' ').filter(Boolean),
    bootFile: one('bootFile'),
    bootLine: one('bootLine'),
    bootWords: one('bootWords').split(/\s+/).filter(Boolean),
    features: list('feature'),
    monolithic: one('modules') === 'none',
    openIscsi: one('openIscsi'),
    firewalls: list('firewall'),
    taken: list('taken').map((line) => {
      const [by, saw = ''] = line.split(/ (.*)/s)
      return { by: by === 'k3s' || by === 'kubernetes' || by === 'kubeadm' ? by : 'other', saw }
    }),
    lock: one('lock'),
    throttled: one('throttled'),
    complaints: list('complaint'),
    knowsItself: one('knowsItself') === 'yes',
    rootLogin: one('rootLogin'),
    ports: list('port').map(Number),
  }
}

/** @param root runs commands as root on the host */
export const askFacts = async (root: Transport, signal?: AbortSignal): Promise<Facts> =>
  readFacts((await root.exec(script, { ...(signal ? { signal } : {}), timeout: 60 })).stdout)
