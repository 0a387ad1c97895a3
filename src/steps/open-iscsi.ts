/** Commands for open-iscsi. Names and passwords go through standard input, since everybody can read arguments. */
import type { Chap } from '../lab/lab.js'
import { chapRecord } from '../machine/files.js'
import { type Command, shell } from '../machine/sh.js'

/** Where open-iscsi keeps its records: the last place in Debian 13, the first elsewhere. */
const recordFolders = ['/etc/iscsi/nodes', '/etc/iscsi/ifaces', '/etc/iscsi/send_targets', '/var/lib/iscsi']

/** A target refused the initiator: ISCSI_ERR_LOGIN_AUTH_FAILED in open-iscsi. */
export const refusedByTarget = 24
/** The initiator refused the target: ISCSI_ERR_FATAL_LOGIN. */
export const refusedByInitiator = 19

/** The keys of a record that are replaced. */
const replaced = ['authmethod', 'username', 'password']

/** Writes lines from standard input into the record in \$file, in place of those with the same keys. */
const merge = (section: string): Command =>
  shell`test -n "$file"; umask 077; grep -v ${[...replaced.map((key) => `${section}.${key}`), 'node.session.scan', 'node.session.initial_login_retry_max', '# END'].flatMap((start) => ['-e', `^${start}`])} "$file" > "$file".new; cat >> "$file".new; mv "$file".new "$file"`

const discovery = 'discovery.sendtargets.auth'
const session = 'node.session.auth'

/** The lines of a record for the given credentials, if any. */
const recordOf = (section: string, chap: Chap | undefined, more = ''): string =>
  `${chap ? chapRecord(section, chap) : `${section}.authmethod = None\n`}${more}# END RECORD\n`

interface Said {
  readonly command: Command
  readonly input: string
}

/**
 * Runs in a temporary mount namespace, so that the machine's own records and sessions are untouched and no
 * credentials are left behind.
 */
const alone = (section: string, chap: Chap | undefined, more: string, ...lines: readonly Command[]): Said => {
  const script = [
    // One at a time: next to others that were refused, a discovery with the right password sometimes got no answer
    // (`iSCSI PDU timed out`). The caller decides how long each may wait for its turn.
    shell`set -e; exec 2>&1 8>/run/lab-iscsiadm.lock; flock 8`,
    shell`for folder in ${recordFolders}; do test ! -d $folder || mount -t tmpfs none $folder; done`,
    shell`mkdir -p /var/lib/iscsi/nodes /var/lib/iscsi/ifaces /var/lib/iscsi/send_targets`,
    ...lines,
  ]
  return {
    command: {
      // A file system that is unmounted outside must be unmounted inside as well, or its disk stays in use until this
      // ends.
      ...shell`unshare --mount --propagation slave sh -c ${script.map(({ text }) => text).join('\n')}`,
      shown: 'iscsiadm, with records of its own',
    },
    input: recordOf(section, chap, more),
  }
}

/** Seconds for one attempt of open-iscsi to connect. */
const discoveryDeadline = 15

/**
 * Asks a portal for its targets. Exit code 124: it did not answer in time.
 * @param chap absent: without credentials
 */
export const discover = (portal: string, chap: Chap | undefined): Said => {
  const at = ['-m', 'discoverydb', '-t', 'sendtargets', '-p', portal]
  return alone(
    discovery,
    chap,
    '',
    shell`iscsiadm ${at} -o new >/dev/null`,
    shell`file=$(find /etc/iscsi/send_targets /var/lib/iscsi/send_targets -name st_config 2>/dev/null | head -n 1)`,
    merge(discovery),
    // A silent portal would be tried for longer than a check waits, and the next checks wait for this one.
    shell`timeout ${String(discoveryDeadline)} iscsiadm ${at} -o nonpersistent --discover`,
  )
}

/** Logs in once through a separate interface, looks at no disk, and logs out again. */
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
 * The records of a target, if there are any. Reading them is cheaper than starting iscsiadm, which takes 0.1 s of
 * processor time on a User-Mode Linux machine, where many concurrent logins compete for processors.
 */
export const recordsOf = (iqn: string): readonly string[] => [
  `/etc/iscsi/nodes/${iqn}`,
  `/var/lib/iscsi/nodes/${iqn}`,
]

/** The file of a node's record. */
const nodeFile = (iqn: string, portal: string): Command =>
  shell`file=$(find /etc/iscsi/nodes /var/lib/iscsi/nodes -type f -path ${`*/${iqn}/*`} -path ${`*${portal.replace(':', ',')}*`} 2>/dev/null | head -n 1)`

/** Writes the machine's own record of a node, with its credentials. */
export const writeRecord = (iqn: string, portal: string, chap: Chap): Said => ({
  command: [
    shell`set -e; iscsiadm ${nodeArgs(iqn, portal)} -o new >/dev/null`,
    nodeFile(iqn, portal),
    merge(session),
  ].reduce((all, { text }) => ({ text: `${all.text}\n${text}`, shown: all.shown })),
  input: recordOf(session, chap),
})

/**
 * The hash of the credentials in the machine's own record of a node, as `sha256sum` prints it; compare with
 * `recordHash`.
 */
export const hashOfRecord = (iqn: string, portal: string): Command => ({
  text: `${nodeFile(iqn, portal).text}; grep ${replaced.map((key) => `-e ^${session}.${key}`).join(' ')} "$file" | sha256sum | cut -c1-64`,
  shown: 'sha256sum of the record',
})

export const recordText = (chap: Chap): string => chapRecord(session, chap)
