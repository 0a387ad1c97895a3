/** What the owner of a machine sees on it, without using lab's own list. */
import type { World } from './world.js'

export const seenByOwner = (world: World, address: string): Promise<string> =>
  world.owner(
    address,
    `dpkg-query -W -f '\${Package} \${Version} \${db:Status-Abbrev}\\n'
find /etc /root /usr/local /opt -type f ! -name '*-' ! -path /etc/ld.so.cache -exec sha256sum {} + | sort -k 2
ls /usr/bin /usr/sbin /var/lib /mnt; systemctl list-unit-files --no-legend --no-pager | sort
cut -d' ' -f1-3 /proc/mounts | sort; ss -ltn; hostname; cut -d: -f1 /etc/passwd /etc/group`,
  )
