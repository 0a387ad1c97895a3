/** open-iscsi as steps drive it. Names and passwords go through standard input: arguments are for all to read. */
import type { Chap } from '../lab/lab.js'
import { chapRecord } from '../machine/files.js'
import { type Command, shell } from '../machine/sh.js'

/** Where open-iscsi keeps its records: Debian 13 in the last place, others in the first. */
const recordFolders = ['/etc/iscsi/nodes', '/etc/iscsi/ifaces', '/etc/iscsi/send_targets', '/var/lib/iscsi']

/** A target refused the initiator: ISCSI_ERR_LOGIN_AUTH_FAILED in open-iscsi. */
export const refusedByTarget = 24
/** The initiator refused the target: ISCSI_ERR_FATAL_LOGIN. */
export const refusedByInitiator = 19

/** The keys that a record gets new values for. */
const replaced = ['authmethod', 'username', 'password']

/** Puts lines from standard input into the record in \$file, in the place of those that it has for them. */
const merge = (section: string): Command =>
  shell`test -n "$file"; umask 077; grep -v ${[...replaced.map((key) => `${section}.${key}`), 'node.session.scan', 'node.session.initial_login_retry_max', '# END'].flatMap((start) => ['-e', `^${start}`])} "$file" > "$file".new; cat >> "$file".new; mv "$file".new "$file"`

const discovery = 'discovery.sendtargets.auth'
const session = 'node.session.auth'

/** What stands in a record: with what credentials, if any. */
const recordOf = (section: string, chap: Chap | undefined, more = ''): string =>
  `${chap ? chapRecord(section, chap) : `${section}.authmethod = None\n`}${more}# END RECORD\n`

interface Said {
  readonly command: Command
  readonly input: string
}

/**
 * In a mount namespace that ends with the command, so that neither records nor sessions of the machine are touched,
 * and nothing is left of what it was told.
 */
const alone = (section: string, chap: Chap | undefined, more: string, ...lines: readonly Command[]): Said => {
  const script = [
    // One at a time: beside others that were refused, a discovery with the right password sometimes waited for an
    // answer in vain (`iSCSI PDU timed out`). How long each may wait for its turn is for the caller to say.
    shell`set -e; exec 2>&1 8>/run/lab-iscsiadm.lock; flock 8`,
    shell`for folder in ${recordFolders}; do test ! -d $folder || mount -t tmpfs none $folder; done`,
    shell`mkdir -p /var/lib/iscsi/nodes /var/lib/iscsi/ifaces /var/lib/iscsi/send_targets`,
    ...lines,
  ]
  return {
    command: {
      // What is unmounted outside must be unmounted inside as well, or its disk stays in use until this ends.
      ...shell`unshare --mount --propagation slave sh -c ${script.map(({ text }) => text).join('\n')}`,
      shown: 'iscsiadm, with records of its own',
    },
    input: recordOf(section, chap, more),
  }
}

/** Asks a portal for its targets. @param chap absent: without credentials */
export const discover = (portal: string, chap: Chap | undefined): Said => {
  const at = ['-m', 'discoverydb', '-t', 'sendtargets', '-p', portal]
  return alone(
    discovery,
    chap,
    '',
    shell`iscsiadm ${at} -o new >/dev/null`,
    shell`file=$(find /etc/iscsi/send_targets /var/lib/iscsi/send_targets -name st_config 2>/dev/null | head -n 1)`,
    merge(discovery),
    shell`iscsiadm ${at} -o nonpersistent --discover`,
  )
}

/** Logs in once, through an interface of its own, looks at no disk, and logs out again. */
export const tryLogin = (iqn: string, portal: string, face: string, chap: Chap | undefined): Said => {
  const node = ['-m', 'node', '-T', iqn, '-p', portal, '-I', face]
  return alone(
    session,
    chap,
    'node.session.scan = manual\nnode.session.initial_login_retry_max = 1\n',
    shell`iscsiadm -m iface -I ${face} -o new >/dev/null; iscsiadm ${node} -o new >/dev/null`,
    shell`file=$(find /etc/iscsi/nodes /var/lib/iscsi/nodes -type f 2>/dev/null | head -n 1)`,
    merge(session),
    shell`code=0; iscsiadm ${node} --login || code=$?`,
    shell`test $code != 0 || iscsiadm ${node} --logout; exit $code`,
  )
}

export const nodeArgs = (iqn: string, portal: string): readonly string[] => [
  '-m',
  'node',
  '-T',
  iqn,
  '-p',
  portal,
]

/**
 * Where the records of a target are, if there are any. To look there is cheaper than to start iscsiadm, which took
 * 0.1 s of a processor on a machine of User-Mode Linux: many machines that log in side by side wait for processors.
 */
export const recordsOf = (iqn: string): readonly string[] => [
  `/etc/iscsi/nodes/${iqn}`,
  `/var/lib/iscsi/nodes/${iqn}`,
]

/** The file of a node's record. */
const nodeFile = (iqn: string, portal: string): Command =>
  shell`file=$(find /etc/iscsi/nodes /var/lib/iscsi/nodes -type f -path ${`*/${iqn}/*`} -path ${`*${portal.replace(':', ',')}*`} 2>/dev/null | head -n 1)`

/** Makes the machine's own record of a node, with its credentials. */
export const writeRecord = (iqn: string, portal: string, chap: Chap): Said => ({
  command: [
    shell`set -e; iscsiadm ${nodeArgs(iqn, portal)} -o new >/dev/null`,
    nodeFile(iqn, portal),
    merge(session),
  ].reduce((all, { text }) => ({ text: `${all.text}\n${text}`, shown: all.shown })),
  input: recordOf(session, chap),
})

/** The credentials in the machine's own record of a node, as `sha256sum` prints them; compare with `recordHash`. */
export const hashOfRecord = (iqn: string, portal: string): Command => ({
  text: `${nodeFile(iqn, portal).text}; grep ${replaced.map((key) => `-e ^${session}.${key}`).join(' ')} "$file" | sha256sum | cut -c1-64`,
  shown: 'sha256sum of the record',
})

export const recordText = (chap: Chap): string => chapRecord(session, chap)
