/**
 * The observable state of a host as a list of lines, which stays the same as long as nothing changes. It is compared
 * before and after a lab has used the host.
 */
import type { Transport } from '../../machine/machine.js'
import { bootLineFiles } from './boot-line.js'
import { hostFolder, runAsRoot } from './undo-record.js'

/** The manifest of a host before it was changed, kept on the host itself. */
export const manifestFile = `${hostFolder}/manifest`

/**
 * Every line begins with its subject. What changes by itself is left out: times, counters, leases, logs, and
 * everything below /run, /tmp and /var/cache.
 */
export const manifestScript = `
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
each() { sed "s/^/$1 /"; }
# Try several times, because systemd may not answer at once on a busy host, and the list would be wrong without it.
ask() {
  for round in 1 2 3 4; do
    if said=$(systemctl --no-legend --no-pager "$@"); then [ -z "$said" ] || echo "$said"; return 0; fi
    sleep 3
  done
  echo 'systemd does not say what units there are' >&2
  kill $$
}
dpkg-query -W -f '\${Package}:\${Architecture} \${Version} \${db:Status-Abbrev}\\n' | each package
apt-mark showauto 2>/dev/null | each auto
ask list-unit-files --type=service,socket,timer,mount,path | awk '{ print $1, $2 }' | each unit-file
ask list-units --plain --state=active --type=service,socket,timer | awk '{ print $1, $4 }' | grep -vE '^(user@|user-runtime-dir@|session|apt-|systemd-tmpfiles-clean|fstrim|man-db|dpkg-db|ssh@|sshd@|systemd-timedated|systemd-hostnamed|polkit|packagekit)' | each active
ask list-units --plain --state=failed | awk '{ print $1 }' | each failed
find /etc /usr/local /opt /root /boot -xdev \\( -type f -o -type l -o -type d \\) ! -path /etc/ld.so.cache ! -path '/root/.ssh*' -printf '%y %m %U:%G %p %l\\n' 2>/dev/null | each file
find /etc /usr/local /opt /boot -xdev -type f ! -path /etc/ld.so.cache -exec sha256sum {} + 2>/dev/null | each content
sha256sum ${bootLineFiles.join(' ')} 2>/dev/null | each content
[ ! -e /root/.ssh ] || { stat -c '%a %u %n' /root/.ssh; cat /root/.ssh/authorized_keys; } 2>/dev/null | each root-login
ls /usr/bin /usr/sbin /usr/lib /usr/libexec /var/lib /srv /mnt 2>/dev/null | each name
cut -d' ' -f1 /proc/modules 2>/dev/null | each module
sysctl -a 2>/dev/null | grep -E '^(net\\.(ipv4|ipv6)\\.(ip_forward|conf\\.(all|default)\\.)|net\\.bridge|vm\\.(overcommit_memory|panic_on_oom|swappiness)|kernel\\.(panic|keys|hostname)|fs\\.inotify)' | each sysctl
ss -Hltun 2>/dev/null | awk '{ print $1, $5 }' | each port
awk '{ print $5, $9 }' /proc/self/mountinfo | grep -vE '^/run/(user|credentials)|^/proc/sys/fs/binfmt_misc' | each mount
nft list ruleset 2>/dev/null | sed 's/counter packets [0-9]* bytes [0-9]*/counter/' | each nftables
iptables-save 2>/dev/null | grep -v '^#' | sed 's/\\[[0-9:]*\\]//' | each iptables
ip -o link 2>/dev/null | awk -F': ' '{ print $2 }' | each interface
ip -4 route show 2>/dev/null | each route
ip -o -4 address show 2>/dev/null | awk '{ print $2, $4 }' | each address
ls /run/netns 2>/dev/null | each netns
awk 'NR > 1 { print $1 }' /proc/swaps 2>/dev/null | each swap
losetup --noheadings --output NAME,BACK-FILE 2>/dev/null | each loop
ls -d /sys/kernel/config/target/iscsi/iqn.* /sys/class/iscsi_session/* 2>/dev/null | each iscsi
[ -e /etc/kubernetes ] && echo kubernetes there
cat /proc/cmdline | each cmdline
true
`

/** Differences that stay, and why that is right. Documented in docs/hosts.md. */
export const stays: readonly { readonly line: RegExp; readonly why: string }[] = [
  { line: /^name lab$/, why: 'lab’s own folder, which goes last' },
  // useradd, userdel and similar programs keep the last version of the user files next to them.
  {
    line: /^(?:file|content) .*\/etc\/(?:passwd|group|shadow|gshadow|subuid|subgid)-/,
    why: 'copies that useradd makes',
  },
  { line: /^(?:active|unit-file) run-.*\.(?:mount|scope|service)/, why: 'units that are made at run time' },
  {
    line: /^active (?:systemd-udevd-|modprobe@|systemd-logind|dbus)/,
    why: 'units that come when somebody asks for them',
  },
  // Such as ldconfig.service, which runs only at a first boot.
  { line: /^active \S+\.service exited$/, why: 'units that are done, and that a reboot may not do again' },
]

const linesOf = (text: string): readonly string[] => text.split('\n').filter((line) => line.trim() !== '')

/** New lines with a +, and missing ones with a -, without those that may differ. */
export const manifestDifference = (before: string, after: string): readonly string[] => {
  const [was, is] = [new Set(linesOf(before)), new Set(linesOf(after))]
  const may = (line: string): boolean => stays.some((each) => each.line.test(line))
  return [
    ...[...is].filter((line) => !was.has(line)).map((line) => `+ ${line}`),
    ...[...was].filter((line) => !is.has(line)).map((line) => `- ${line}`),
  ].filter((line) => !may(line.slice(2)))
}

/** @param root runs commands as root on the host */
export const askManifest = (root: Transport): Promise<string> =>
  runAsRoot(root, manifestScript, { what: 'listing the present state', timeout: 300 })
