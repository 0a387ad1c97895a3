/** Undoes what was recorded on a host, with a shell script for each change. */
import { LabError, messageOf } from '../../error.js'
import type { Transport } from '../../machine/machine.js'
import { quote } from '../../machine/sh.js'
import { type Patience, restartHost } from './restart.js'
import {
  type Entry,
  hasMemoryController,
  hostFolder,
  readRecord,
  replaceFile,
  runAsRoot,
  undoFolder,
  words,
} from './undo-record.js'

/** Lines for a `case` of the shell that looks for one of them: names of users, mounts, tables. */
const among = (lines: readonly string[]): string => quote(`\n${lines.join('\n')}\n`)

/** What was recorded about one kind of change. */
type Before<Kind extends Entry['before']['kind']> = Extract<Entry['before'], { readonly kind: Kind }>

/** Removes the files that were not there, and brings back the others. */
const filesBack = (before: Before<'files'>, number: Entry['number']): string => {
  const tar = `${undoFolder}/${number}.tar`
  const gone = [...before.absent, ...before.saved]
  return [
    ...(before.saved.length > 0 ? [`[ -s ${tar} ] || { echo 'the saved files are gone' >&2; exit 1; }`] : []),
    ...(gone.length > 0 ? [`rm -rf --one-file-system -- ${words(gone)}`] : []),
    ...(before.saved.length > 0
      ? [`tar --extract --absolute-names --same-owner --preserve-permissions --acls --xattrs --file=${tar}`]
      : []),
    'systemctl daemon-reload',
  ].join('\n')
}

/** Removes packages, and the users and groups that came with them. */
const packagesAway = (before: Before<'packages'>): string =>
  `export DEBIAN_FRONTEND=noninteractive
# An apt-get that a killed lab started keeps running. Wait for it, five minutes at most.
when_free() {
  for round in $(seq 150); do
    said=$(dpkg "$@" 2>&1) && return 0
    case $said in *'lock'*) sleep 2 ;; *) break ;; esac
  done
  echo "$said" >&2
  return 1
}
when_free --configure -a 2>/dev/null || true
here=$(dpkg-query -W -f '\${db:Status-Status} \${Package}\\n' ${words(before.names)} 2>/dev/null | sed -n '/^not-installed /d; s/^[^ ]* //p')
[ -z "$here" ] || when_free --purge $here
cut -d: -f1,3 /etc/passwd | while IFS=: read -r name id; do
  case ${among(before.users)} in *"
$name
"*) continue ;; esac
  [ "$id" -ge 1000 ] && [ "$id" -lt 60000 ] || userdel "$name" 2>/dev/null || true
done
cut -d: -f1,3 /etc/group | while IFS=: read -r name id; do
  case ${among(before.groups)} in *"
$name
"*) continue ;; esac
  [ "$id" -ge 1000 ] && [ "$id" -lt 60000 ] || groupdel "$name" 2>/dev/null || true
done
ldconfig`

/** Brings back what each unit was: enabled or not, active or not. */
const unitsBack = (before: Before<'units'>): string =>
  before.units
    .map(({ name, enabled, active }) => {
      const unit = quote(name)
      const back =
        enabled === 'not-found' || enabled === 'disabled'
          ? `systemctl disable --quiet ${unit} 2>/dev/null || true`
          : enabled === 'enabled'
            ? `systemctl enable --quiet ${unit} || true`
            : enabled === 'masked'
              ? `systemctl mask --quiet ${unit} || true`
              : ':'
      return [
        ...(enabled === 'masked' ? [] : [`systemctl unmask --quiet ${unit} 2>/dev/null || true`]),
        active ? `systemctl start ${unit} || true` : `systemctl stop ${unit} 2>/dev/null || true`,
        back,
        `systemctl reset-failed ${unit} 2>/dev/null || true`,
      ].join('\n')
    })
    .join('\n')

/** Removes everything that is served with LIO, and the devices below it. */
const targetAway = (): string =>
  `cd /sys/kernel/config/target 2>/dev/null && {
  for link in iscsi/iqn.*/tpgt_*/acls/*/lun_*/lun iscsi/iqn.*/tpgt_*/acls/*/lun_*/*; do [ ! -L "$link" ] || rm "$link"; done
  for link in iscsi/iqn.*/tpgt_*/lun/lun_*/*; do [ ! -L "$link" ] || rm "$link"; done
  for folder in iscsi/iqn.*/tpgt_*/acls/*/lun_* iscsi/iqn.*/tpgt_*/acls/* iscsi/iqn.*/tpgt_*/np/* iscsi/iqn.*/tpgt_*/lun/lun_* iscsi/iqn.*/tpgt_* iscsi/iqn.* core/iblock_*/* core/iblock_*; do
    [ ! -d "$folder" ] || rmdir "$folder" 2>/dev/null || true
  done
  [ ! -d iscsi ] || rmdir iscsi 2>/dev/null || true
}
for loop in $(losetup --noheadings --output NAME,BACK-FILE 2>/dev/null | awk -v below=${hostFolder}/luns/ 'index($2, below) == 1 { print $1 }'); do losetup -d "$loop"; done
rm -rf /dev/lab
if ls -d /sys/kernel/config/target/iscsi/iqn.* >/dev/null 2>&1; then echo 'targets are still served' >&2; exit 1; fi`

/** Unmounts the disks of targets, and logs out of the targets. */
const sessionsAway = (before: Before<'sessions'>): string =>
  `for disk in /dev/disk/by-path/ip-*-iscsi-*; do
  [ -b "$disk" ] || continue
  disk=$(readlink -f "$disk")
  for at in $(findmnt --noheadings --output TARGET --source "$disk"); do umount "$at" || umount -l "$at"; done
done
if command -v iscsiadm >/dev/null; then
${before.targets.map((target) => `  iscsiadm -m node -T ${quote(target)} --logout >/dev/null 2>&1 || true\n  iscsiadm -m node -T ${quote(target)} -o delete >/dev/null 2>&1 || true`).join('\n')}
fi
if [ -n "$(ls /sys/class/iscsi_session 2>/dev/null)" ]; then echo 'sessions are still there' >&2; exit 1; fi`

/** Ends all containers, and removes their mounts, interfaces, routes and tables. */
const containersAway = (before: Before<'containers'>): string =>
  `systemctl stop kubelet containerd 2>/dev/null || true
for round in 1 2 3 4 5 6 7 8 9 10; do
  pids=$(pgrep -f '^/usr/bin/containerd-shim-runc-v2 ' || true)
  groups=$(find /sys/fs/cgroup/kubepods.slice -name cgroup.procs -exec cat {} + 2>/dev/null || true)
  [ -n "$pids$groups" ] || break
  kill -9 $pids $groups 2>/dev/null || true
  sleep 0.3
done
umount_new() { awk '{ print $5 }' /proc/self/mountinfo | sort -r | while read -r at; do
  case $at in /var/lib/kubelet/* | /var/lib/containerd/* | /run/containerd/* | /run/netns/cni-* | /srv/nfs) ;; *) continue ;; esac
  case ${among(before.mounts)} in *"
$at
"*) ;; *) umount -l "$at" 2>/dev/null || true ;; esac
done; }
umount_new
umount_new
rm -f /run/netns/cni-*
for link in $(ls /sys/class/net); do
  case ${among(before.interfaces)} in *"
$link
"*) ;; *) ip link delete "$link" 2>/dev/null || true ;; esac
done
ip -4 route flush proto 86 2>/dev/null || true
nft list tables 2>/dev/null | sed 's/^table //' | while read -r table; do
  case ${among(before.tables)} in *"
$table
"*) ;; *) nft delete table $table ;; esac
done
rm -rf /run/containerd /run/flannel
# The slices in it end with it, and systemd forgets them.
systemctl stop kubepods.slice 2>/dev/null || true
systemctl reset-failed 'kubepods*' 2>/dev/null || true
find /sys/fs/cgroup/kubepods.slice -depth -type d -exec rmdir {} + 2>/dev/null || true`

/** The script that undoes one change. It does no harm if it has run before, completely or not. */
export const undoScript = ({ number, before }: Entry): string => {
  switch (before.kind) {
    case 'files':
      return filesBack(before, number)
    case 'packages':
      return packagesAway(before)
    case 'units':
      return unitsBack(before)
    case 'sysctls':
      return before.values
        .map(([name, value]) => `sysctl -q -w ${quote(`${name}=${value}`)} 2>/dev/null || true`)
        .join('\n')
    case 'modules':
      return before.names
        .filter((name) => !before.loaded.includes(name))
        .reverse()
        .map((name) => `modprobe -qr ${quote(name)} 2>/dev/null || true`)
        .join('\n')
    case 'boot-line':
      return replaceFile(before.file, Buffer.from(before.base64, 'base64'))
    case 'hostname':
      return `hostname ${quote(before.name)}`
    case 'swap':
      return before.devices
        .map(
          (device) =>
            `grep -q ${quote(`^${device} `)} /proc/swaps || swapon ${quote(device)} 2>/dev/null || true`,
        )
        .join('\n')
    case 'target':
      return targetAway()
    case 'sessions':
      return sessionsAway(before)
    case 'containers':
      return containersAway(before)
  }
}

const runs = async (root: Transport, test: string): Promise<boolean> =>
  (await runAsRoot(root, `if ${test}; then echo yes; fi`, { what: 'looking' })).trim() === 'yes'

/**
 * Undoes all entries, from the last to the first, and removes each once it is undone.
 * @throws LabError for the first that fails; it and the earlier ones stay recorded
 */
export const undoRecord = async (
  root: Transport,
  progress: (note: string) => void,
  patience?: Patience,
): Promise<void> => {
  for (const entry of [...(await readRecord(root))].reverse()) {
    progress(entry.key.split(':')[0] ?? entry.key)
    try {
      await runAsRoot(root, `set -e\n${undoScript(entry)}`, {
        timeout: 600,
        what: `undoing ${entry.before.kind}`,
      })
      // It runs with the line that lab wrote, until it is restarted.
      if (entry.before.kind === 'boot-line' && (await runs(root, hasMemoryController)))
        await restartHost(root, `${entry.before.file} is as it was`, progress, patience)
    } catch (error) {
      throw new LabError('not-given-back', messageOf(error), { cause: error })
    }
    await runAsRoot(
      root,
      `rm -f ${undoFolder}/${entry.number}.json && sync ${undoFolder} && rm -f ${undoFolder}/${entry.number}.tar`,
      { what: 'shortening the record' },
    )
  }
}
