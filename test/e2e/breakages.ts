/**
 * What people break, and how it is recognized: one record for each breakage. How to make it, which check names it, the
 * check's evidence, the command that its hint names, and the effect of that command.
 *
 * Over 400 lines because it is a list.
 */

/** What can be changed by hand. */
export interface Hands {
  /** A script on a machine. */
  readonly on: (machine: string, script: string) => Promise<string>
  readonly kubectl: (...words: readonly string[]) => Promise<string>
  /** The worker that the database does not run on; undefined in a lab without a database. */
  readonly standby: string
  /** The process on this host that runs the machine. */
  readonly signal: (machine: string, signal: NodeJS.Signals) => Promise<void>
  /** Removes a file of the lab's folder on this host. */
  readonly remove: (file: string) => Promise<void>
}

export interface Breakage {
  /** What was broken. */
  readonly what: string
  readonly breaks: (hands: Hands) => Promise<unknown>
  /** The id of the check that names it, and words of its title. STANDBY stands for that worker's name. */
  readonly check: string
  readonly title: RegExp
  /** Words of its evidence: they name the cause. */
  readonly saw: RegExp
  /** Checks that come before it in the plan and fail as well, because they see the same cause in another way. */
  readonly behind?: readonly string[]
  /** The command that its hint names. */
  readonly hint: RegExp
  /** The effect of that command: it repairs the lab, or it prints the cause and `lab up` repairs it. */
  readonly typed: 'mends' | RegExp
  /** What a person who has seen the cause does next; undefined: nothing, `lab up` repairs it. */
  readonly then?: (hands: Hands) => Promise<unknown>
}

const labUp = /^lab up \S+$/

const targets = '/sys/kernel/config/target'
const group = `${targets}/iscsi/iqn.2016-04.world.srv:target00/tpgt_1`
const lun0 = '/mnt/target00-lun-0'

const on =
  (machine: string, script: string): Breakage['breaks'] =>
  (hands) =>
    hands.on(machine.replace('STANDBY', hands.standby), script)

/** The command breaks the connection that it came through. */
const fatal =
  (machine: string, script: string): Breakage['breaks'] =>
  (hands) =>
    hands.on(machine, script).catch(() => undefined)

const atTarget: readonly Breakage[] = [
  {
    what: 'the target is disabled',
    breaks: on('target', `echo 0 > ${group}/enable`),
    check: 'target00-portal',
    title: /listens/,
    saw: /enable=0/,
    hint: /boot\.d\/50-target$/,
    typed: 'mends',
  },
  {
    what: 'the portal of the target is removed',
    breaks: on('target', `rmdir ${group}/np/*`),
    check: 'target00-portal',
    title: /listens/,
    saw: /no portal/,
    hint: /boot\.d\/50-target$/,
    typed: 'mends',
  },
  {
    what: 'a portal is left over',
    breaks: on('target', `mkdir ${group}/np/192.168.56.70:3333`),
    check: 'target-targets',
    title: /nothing else/,
    saw: /left over: .*:3333/,
    hint: /boot\.d\/50-target$/,
    typed: 'mends',
  },
  {
    what: 'the ACL of the initiator is removed',
    breaks: on(
      'target',
      `cd ${group}/acls && for acl in *; do for map in $acl/lun_*; do rm -f $map/lun; rmdir $map; done; rmdir $acl; done`,
    ),
    check: 'target00-acl',
    title: /may log in/,
    saw: /no initiator/,
    hint: /boot\.d\/50-target$/,
    typed: 'mends',
  },
  {
    what: 'somebody else has an ACL',
    breaks: on('target', `mkdir ${group}/acls/iqn.2001-01.com.example:thief`),
    check: 'target00-acl',
    title: /may log in/,
    saw: /thief/,
    hint: /boot\.d\/50-target$/,
    typed: 'mends',
  },
  {
    what: 'the target makes an ACL for anybody who asks',
    breaks: on('target', `echo 1 > ${group}/attrib/generate_node_acls`),
    check: 'target00-acl',
    title: /may log in/,
    saw: /every initiator/,
    hint: /boot\.d\/50-target$/,
    typed: 'mends',
  },
  {
    what: 'CHAP is switched off at the target',
    breaks: on('target', `echo 0 > ${group}/attrib/authentication`),
    check: 'target00-chap',
    title: /CHAP/,
    saw: /authentication=0/,
    hint: /boot\.d\/50-target$/,
    typed: 'mends',
  },
  {
    what: 'the password is another one at the target',
    breaks: on('target', `for acl in ${group}/acls/*; do printf wrong > $acl/auth/password; done`),
    check: 'target00-chap',
    title: /CHAP/,
    saw: /credentials|password/,
    hint: /boot\.d\/50-target$/,
    typed: 'mends',
  },
  {
    what: 'the LUN is unmapped from the initiator',
    breaks: on('target', `for map in ${group}/acls/*/lun_0; do rm $map/lun; rmdir $map; done`),
    check: 'target00-acl-initiator',
    title: /sees LUN 0/,
    saw: /no LUN/,
    hint: /boot\.d\/50-target$/,
    typed: 'mends',
  },
  {
    what: 'the LUN has no backing device',
    breaks: on('target', `rm ${group}/acls/*/lun_0/lun ${group}/lun/lun_0/store`),
    check: 'target00-lun-0',
    title: /LUN 0/,
    saw: /no backing/,
    hint: /boot\.d\/50-target$/,
    typed: 'mends',
  },
  {
    what: 'a LUN is left over',
    breaks: on('target', `mkdir ${group}/lun/lun_9`),
    check: 'target-targets',
    title: /nothing else/,
    saw: /left over: .*lun_9/,
    hint: /boot\.d\/50-target$/,
    typed: 'mends',
  },
  {
    what: 'the script of the target is edited',
    breaks: on('target', `echo exit 0 >> /etc/lab/boot.d/50-target`),
    check: 'target-files',
    title: /files/,
    saw: /50-target/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'an initiator is shut out at the target, though nobody was fenced',
    breaks: on(
      'target',
      `mkdir -p /var/lib/lab/fenced && touch /var/lib/lab/fenced/iqn.2001-01.com.example:x`,
    ),
    check: 'target-fenced',
    title: /shuts no initiator out/,
    saw: /example:x/,
    hint: labUp,
    typed: 'mends',
  },
]

const atInitiator: readonly Breakage[] = [
  {
    what: 'the initiator has another initiator name',
    breaks: on(
      'initiator',
      'echo InitiatorName=iqn.2001-01.com.example:thief > /etc/iscsi/initiatorname.iscsi',
    ),
    check: 'initiator-iqn',
    title: /initiator name/,
    saw: /thief; it should be iqn/,
    behind: ['initiator-files'],
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'iscsid is stopped and masked',
    breaks: on('initiator', 'systemctl mask --now iscsid.socket iscsid.service'),
    check: 'initiator-iscsid',
    title: /iscsid/,
    saw: /masked|inactive/,
    hint: /systemctl/,
    typed: /masked/,
  },
  {
    what: 'the initiator is logged out',
    breaks: on('initiator', `umount ${lun0}; iscsiadm -m node --logout`),
    check: 'target00-lun-0-logged-in',
    title: /logged in/,
    saw: /No active sessions/i,
    hint: /-m session/,
    typed: /No active sessions/i,
  },
  {
    what: 'the file system is unmounted',
    breaks: on('initiator', `umount ${lun0}`),
    check: 'target00-lun-0-mounted',
    title: /mounted/,
    saw: /not mounted/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'the file system is mounted read-only',
    breaks: on('initiator', `mount -o remount,ro ${lun0}`),
    check: 'target00-lun-0-mounted',
    title: /mounted/,
    saw: /read-only/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'the file system is shut down, as after an I/O error',
    // EXT4_IOC_SHUTDOWN
    breaks: on(
      'initiator',
      `perl -e 'open(my $top, "<", "${lun0}") or die; my $now = pack("L", 1); ioctl($top, 0x8004587d, $now) or die $!'`,
    ),
    check: 'target00-lun-0-mounted',
    title: /mounted/,
    saw: /shut down after an I\/O error/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'the file on the LUN is overwritten',
    breaks: on('initiator', `echo hello > ${lun0}/mysql-data/testament`),
    check: 'target00-lun-0-file',
    title: /reads back/,
    saw: /other bytes/,
    hint: /testament/,
    typed: /hello/,
  },
  {
    what: 'the mode of the directory is changed',
    breaks: on('initiator', `chmod 700 ${lun0}/mysql-data`),
    check: 'target00-lun-0-directory',
    title: /mode 0777/,
    saw: /mode 700/,
    hint: /ls -ld|stat/,
    typed: /drwx------/,
  },
]

const ofMachines: readonly Breakage[] = [
  {
    what: 'a machine is switched off from inside',
    breaks: fatal(
      'initiator',
      'umount /mnt/*; sync; nohup systemctl poweroff --force --force >/dev/null 2>&1 & sleep 1',
    ),
    check: 'initiator-running',
    title: /runs/,
    saw: /stopped: .*Power down/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: "a machine's process is killed",
    breaks: (hands) => hands.signal('initiator', 'SIGKILL'),
    check: 'initiator-running',
    title: /runs/,
    saw: /SIGKILL|killed/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'a machine is paused',
    breaks: (hands) => hands.signal('initiator', 'SIGSTOP'),
    check: 'initiator-running',
    title: /runs/,
    // Its processes are stopped by hand, perhaps not all of them.
    saw: /it is paused|no SSH/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'a machine has another hostname',
    breaks: on('initiator', 'hostname somebody'),
    check: 'initiator-hostname',
    title: /host name/,
    saw: /somebody; it should be initiator/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'the clock of a machine is an hour behind',
    breaks: on('initiator', 'date -s "-1 hour"'),
    check: 'initiator-clock',
    title: /clock/,
    saw: /-(3599|36\d\d)/,
    hint: /lab (up|exec)/,
    typed: 'mends',
  },
  {
    what: 'the disk of a machine is full',
    breaks: on('initiator', 'dd if=/dev/zero of=/root/large bs=1M 2>/dev/null; true'),
    check: 'initiator-disk',
    title: /free space/,
    saw: /0 MiB|full/,
    hint: /du|df/,
    typed: /large/,
    // This is user data: lab removes nothing.
    then: on('initiator', 'rm /root/large'),
  },
  {
    what: 'the SSH server of a machine is stopped',
    breaks: fatal('initiator', 'nohup systemctl stop ssh >/dev/null 2>&1 & sleep 2'),
    check: 'initiator-running',
    title: /runs/,
    saw: /no SSH/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: "a file of lab's is removed",
    breaks: on('target', 'rm /etc/hosts'),
    check: 'target-files',
    title: /files/,
    saw: /\/etc\/hosts/,
    hint: labUp,
    typed: 'mends',
  },
]

/** On the lab `iscsi`: two machines. */
export const onTwoMachines: readonly Breakage[] = [...atTarget, ...atInitiator, ...ofMachines]

const ofTheControlPlane: readonly Breakage[] = [
  {
    what: 'the kubelet is stopped',
    // A worker would be fenced for this.
    breaks: on('master', 'systemctl stop kubelet'),
    check: 'master-kubelet',
    title: /kubelet runs/,
    saw: /inactive/,
    hint: /journalctl -u kubelet/,
    typed: /Stopp/,
  },
  {
    what: 'containerd is stopped',
    breaks: on('master', 'systemctl stop containerd'),
    check: 'master-containerd',
    title: /containerd runs/,
    saw: /inactive/,
    hint: /journalctl -u containerd/,
    typed: /Stopp/,
  },
  {
    what: 'the configuration of the pod network is removed',
    breaks: on('master', 'rm /etc/cni/net.d/10-lab.conflist'),
    check: 'master-files',
    title: /files/,
    saw: /10-lab\.conflist/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: "this host's kubeconfig is removed",
    breaks: (hands) => hands.remove('kubeconfig'),
    check: 'kubeconfig',
    title: /kubeconfig/,
    saw: /no such file/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'CoreDNS is scaled away',
    breaks: ({ kubectl }) => kubectl('-n', 'kube-system', 'scale', 'deployment', 'coredns', '--replicas=0'),
    check: 'coredns',
    title: /CoreDNS/,
    saw: /no such pods|Terminating/,
    hint: /describe/,
    typed: /0 desired/,
  },
  {
    what: 'kube-proxy is removed',
    breaks: ({ kubectl }) => kubectl('-n', 'kube-system', 'delete', 'daemonset', 'kube-proxy'),
    check: 'master-kube-proxy',
    title: /kube-proxy runs/,
    saw: /no such pod|Terminating/,
    hint: /describe/,
    typed: /No resources found|Terminating/,
  },
]

const ofNodes: readonly Breakage[] = [
  {
    what: 'a node is cordoned',
    breaks: ({ kubectl }) => kubectl('cordon', 'worker2'),
    check: 'worker2-schedulable',
    title: /takes pods/,
    saw: /cordoned/,
    hint: /describe node/,
    typed: /Unschedulable: +true/,
  },
  {
    what: 'a node is tainted',
    breaks: ({ kubectl }) => kubectl('taint', 'node', 'worker2', 'maintenance=yes:NoSchedule'),
    check: 'worker2-schedulable',
    title: /takes pods/,
    saw: /maintenance:NoSchedule/,
    hint: /describe node/,
    typed: /maintenance=yes/,
  },
  {
    what: "a route to another node's pods is removed",
    breaks: on('worker1', 'ip route delete 10.244.11.0/24'),
    check: 'worker1-routes',
    title: /route/,
    saw: /missing: 10\.244\.11\.0/,
    hint: /10-routes/,
    typed: 'mends',
  },
  {
    what: 'a node forwards no packets',
    breaks: on('worker1', 'sysctl -w net.ipv4.ip_forward=0'),
    check: 'worker1-sysctl',
    title: /forwards packets/,
    saw: /ip_forward.*= 0/,
    hint: /sysctl --system/,
    typed: 'mends',
  },
  {
    what: 'a node lacks an image',
    breaks: on('STANDBY', 'ctr -n k8s.io images rm docker.io/library/mariadb:11.8'),
    check: 'STANDBY-images',
    title: /images/,
    saw: /missing: .*mariadb/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'the initiator of a node is stopped and masked',
    // If it is only stopped, the next iscsiadm starts it, perhaps that of another check.
    breaks: on('STANDBY', 'systemctl mask --now iscsid.socket iscsid.service'),
    check: 'STANDBY-iscsid',
    title: /iscsid/,
    saw: /masked|inactive/,
    hint: /systemctl status/,
    typed: /masked/,
  },
  {
    what: 'a node is deleted from the API',
    breaks: ({ kubectl, standby }) => kubectl('delete', 'node', standby),
    check: 'STANDBY-registered',
    title: /node of the cluster/,
    saw: /no such node/,
    hint: /journalctl -u kubelet/,
    typed: /not found/,
  },
]

/** Runs SQL as root, in the database's own pod. */
const sql =
  (statement: string): Breakage['breaks'] =>
  ({ kubectl }) =>
    kubectl(
      ...['exec', 'deploy/mysql-server', '-c', 'mysql', '--'],
      ...['mariadb', '-uroot', '-proot', 'test', '-e', statement],
    )

const ofTheDatabase: readonly Breakage[] = [
  {
    what: 'the secret has another password',
    breaks: ({ kubectl }) =>
      kubectl(
        ...['patch', 'secret', 'chap-secret', '-p'],
        '{"stringData":{"node.session.auth.password":"wrong"}}',
      ),
    check: 'chap-secret',
    title: /chap-secret/,
    saw: /wrong values/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'the row is changed',
    breaks: sql("UPDATE lab_row SET text = 'changed by hand'"),
    check: 'row-through-master',
    title: /row reads back/,
    saw: /changed by hand/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'the table is dropped',
    breaks: sql('DROP TABLE lab_row'),
    check: 'row-through-master',
    title: /row reads back/,
    saw: /lab_row' doesn't exist/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'the Service is no longer reached from outside',
    breaks: ({ kubectl }) => kubectl('patch', 'service', 'mysql', '-p', '{"spec":{"type":"ClusterIP"}}'),
    check: 'database-service',
    title: /Service mysql/,
    saw: /ClusterIP/,
    hint: /describe service/,
    typed: /Type: +ClusterIP/,
  },
  {
    what: 'the Service is deleted',
    breaks: ({ kubectl }) => kubectl('delete', 'service', 'mysql'),
    check: 'database-service',
    title: /Service mysql/,
    saw: /not found/,
    hint: /describe service/,
    typed: /not found/,
  },
  {
    what: 'the clients are removed',
    breaks: ({ kubectl }) => kubectl('delete', 'daemonset', 'mysql-client'),
    check: 'clients-run',
    title: /client/,
    saw: /none|Terminating/,
    hint: /describe/,
    typed: /No resources found|Terminating/,
  },
  {
    what: 'the database is scaled to nothing',
    breaks: ({ kubectl }) => kubectl('scale', 'deployment', 'mysql-server', '--replicas=0'),
    check: 'volume-writable',
    title: /takes writes/,
    saw: /mounted on no node, and (there is no pod of mysql-server|.*Terminating)/,
    hint: labUp,
    typed: 'mends',
  },
]

const ofItsHeart: readonly Breakage[] = [
  {
    what: 'the API server is described otherwise',
    breaks: on(
      'master',
      "sed -i 's|--etcd-servers=.*|--etcd-servers=https://127.0.0.1:1|' /etc/kubernetes/manifests/kube-apiserver.yaml",
    ),
    check: 'manifests',
    title: /as kubeadm wrote it/,
    saw: /--etcd-servers=https:\/\/127\.0\.0\.1:1/,
    hint: labUp,
    typed: 'mends',
  },
  {
    what: 'the control plane is switched off from inside',
    breaks: fatal('master', 'sync; nohup systemctl poweroff --force --force >/dev/null 2>&1 & sleep 1'),
    check: 'master-running',
    title: /runs/,
    saw: /stopped: .*Power down/,
    hint: labUp,
    typed: 'mends',
  },
]

/**
 * On the lab `iscsi-ha`: Kubernetes, and a database on the disk. STANDBY is the worker that the database does not run
 * on. The most valuable ones come first, in case time is short.
 */
export const onACluster: readonly Breakage[] = [
  ...ofTheControlPlane,
  ...ofNodes,
  ...ofTheDatabase,
  ...ofItsHeart,
]
