/**
 * What a lab survives without being broken on purpose: a host that sleeps, a year in a drawer, a target that is away
 * for longer than an initiator waits. About 10 minutes on two idle cores; the target is away for 200 s of them.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Bench, runComplaints } from './lab.js'

const bench = new Bench()
afterAll(() => bench.close())

const on = (machine: string, script: string): Promise<string> =>
  bench.ok('exec', 'life', machine, '--', 'sh', '-c', script)
const kubectl = (...words: readonly string[]): Promise<string> => bench.ok('kubectl', 'life', '--', ...words)
const nodeOfDatabase = async (): Promise<string> =>
  kubectl('get', 'pods', '-l', 'app=mysql-server', '-o', 'jsonpath={.items[0].spec.nodeName}')

const nodes = ['master', 'worker1', 'worker2']
let file = ''

beforeAll(async () => {
  // No node may be fenced while a kubelet is down for its certificate.
  file = await bench.variant('iscsi-ha', 'life', (lab) => {
    Object.assign(lab, { failover: 'default', fencing: 'none' })
  })
  await bench.up(file)
})

it('lab up corrects the clocks of all machines after the host slept, and changes nothing else', async () => {
  // A machine follows a clock of the host that stands still while the host sleeps. Four minutes, because the
  // certificates of a new cluster are valid from five minutes before they were made.
  await on('all', "date -s '-4 min'")
  const machines = ['target', ...nodes]
  expect(await bench.complaints('life')).toEqual([
    ...machines.map((name) => `${name}-clock`),
    // The database has just made its own certificate, which clients would not accept yet.
    ...['worker1', 'worker2'].map((name) => `${name}-row-inside`),
  ])
  const changed = await bench.up('life')
  // For a moment the node controller may take every lease for four minutes old, and every node for lost.
  expect(changed.filter((step) => !step.startsWith('ready-'))).toEqual(
    machines.map((name) => `reach-${name}`),
  )
  await bench.whole('life')
})

it('lab up renews certificates that have all expired, as after 400 days on a shelf', async () => {
  // The host's clock cannot be changed. So its certificates are made to expire in a minute; the authorities, which are
  // valid for ten years, stay. For the cluster this is the same as a year that has passed.
  await on(
    'master',
    `sed 's/^encryptionAlgorithm.*/&\\ncertificateValidityPeriod: 1m0s/' /etc/lab/kubeadm.yaml > /run/short.yaml
     kubeadm certs renew all --config /run/short.yaml`,
  )
  for (const node of nodes) {
    const kubeconfig = await on(
      'master',
      `kubeadm kubeconfig user --config /etc/lab/kubeadm.yaml --org system:nodes --client-name system:node:${node} --validity-period 1m 2>/dev/null`,
    )
    const pem = ['certificate', 'key'].map((what) =>
      Buffer.from(new RegExp(`client-${what}-data: (\\S+)`).exec(kubeconfig)?.[1] ?? '', 'base64').toString(),
    )
    await writeFile(`${bench.folder}/${node}.pem`, pem.join(''))
    await bench.ok('cp', 'life', `${bench.folder}/${node}.pem`, `${node}:/run/short.pem`)
    await on(
      node,
      'systemctl stop kubelet; cd /var/lib/kubelet/pki && rm kubelet-client-* && cp /run/short.pem kubelet-client-current.pem && chmod 600 kubelet-client-current.pem',
    )
  }
  const { files } = await bench.json<{ files: { kubeconfig: string } }>('status', 'life')
  const before = await readFile(files.kubeconfig, 'utf8')
  const admin = await on('master', 'cat /etc/kubernetes/admin.conf')
  const server = /server: .*/.exec(before)?.[0] ?? ''
  await writeFile(files.kubeconfig, `${admin.replace(/server: .*/, server)}\n`)
  await bench.ok('stop', 'life')
  await new Promise((resolve) => setTimeout(resolve, 60_000))
  await bench.ok('start', 'life')
  await bench.whole('life')
  expect(await kubectl('get', 'nodes', '-o', 'name')).toBe(nodes.map((name) => `node/${name}`).join('\n'))
  // From now on the kubelets renew their certificates by themselves.
  for (const node of nodes)
    expect(await on(node, 'cat /etc/kubernetes/kubelet.conf')).not.toContain('client-certificate-data')
})

it('lab verify names a file system of the database that was shut down, and lab up mounts it again', async () => {
  const node = await nodeOfDatabase()
  const group = '/sys/kernel/config/target/iscsi/iqn*/tpgt_1/enable'
  // As with an initiator that waits only 5 s.
  await on(node, 'for each in /sys/class/iscsi_session/*/recovery_tmo; do echo 5 > "$each"; done')
  // Only a failed write shuts a file system down, and an idle database writes nothing.
  const probe =
    'probe=$(findmnt --raw --noheadings --output TARGET | grep --max-count=1 /kubernetes.io/iscsi/)/lab-probe; for i in $(seq 40); do date > "$probe" && sync "$probe"; sleep 1; done'
  await on(node, `nohup sh -c '${probe}' >/dev/null 2>&1 &`)
  await on('target', `echo 0 | tee ${group}`)
  await new Promise((resolve) => setTimeout(resolve, 25_000))
  await on('target', `echo 1 | tee ${group}`)
  await new Promise((resolve) => setTimeout(resolve, 15_000))
  expect(await bench.complaints('life')).toContain('volume-writable')
  expect(await bench.up('life')).toContain('deploy-database')
  await bench.whole('life')
})

it('the database loses nothing while its target is away for 200 s, and continues without help', async () => {
  const { exitCode, runs } = await bench.run('life', 'target-long-loss')
  expect(runComplaints(runs)).toEqual([])
  expect(exitCode).toBe(0)
}, 1_200_000)
