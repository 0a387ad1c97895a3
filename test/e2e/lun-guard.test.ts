/**
 * Only one node at a time may write to a LUN, even if Kubernetes is misconfigured. Runs on real machines without
 * fencing; the target's own count of written blocks is the evidence. Takes about 8 minutes on two idle cores.
 */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { setTimeout as delay } from 'node:timers/promises'
import { execa } from 'execa'
import { quote } from '../../src/machine/sh.js'
import { Bench, cli } from './lab.js'

const bench = new Bench()
afterAll(() => bench.close())

const on = (machine: string, script: string): Promise<string> =>
  bench.ok('exec', 'guard', machine, '--', 'sh', '-c', script)
const kubectl = (...words: readonly string[]): Promise<string> => bench.ok('kubectl', 'guard', '--', ...words)
const apply = (manifest: string) =>
  execa(process.execPath, [cli, 'kubectl', 'guard', '--', 'apply', '-f', '-'], {
    env: bench.env,
    input: manifest,
  })

const workers = ['worker1', 'worker2']
const nodeOfDatabase = async (): Promise<string> =>
  kubectl('get', 'pods', '-l', 'app=mysql-server', '-o', 'jsonpath={.items[0].spec.nodeName}')
const standbyOf = (node: string): string => workers.find((name) => name !== node) ?? ''

/**
 * When a worker had a LUN mounted, according to the workers' clocks, which all follow the host's: seconds since 1970,
 * sampled every 0.1 s for 90 s. No process is started meanwhile: on a busy host that would take minutes.
 */
const watching = (path: string): string =>
  `bash -c ${quote(`exec 9<> <(:)
    while [ $SECONDS -lt 90 ]; do
      mapfile -t mounts < /proc/mounts
      for mount in "\${mounts[@]}"; do
        [[ $mount != *' /var/lib/kubelet/plugins/kubernetes.io/iscsi/'*' ext4 rw'* ]] || echo $EPOCHREALTIME
      done
      read -t 0.1 -u 9 || true
    done > ${path}`)}`

beforeAll(async () => {
  const file = await bench.variant('iscsi-ha', 'guard', (lab) => {
    Object.assign(lab, { fencing: 'none' })
    const { iscsi } = lab as unknown as { iscsi: { targets: { luns: object[] }[] } }
    iscsi.targets[0]?.luns.push({ lun: 1, size: '1GiB' })
  })
  await bench.up(file)
})

it('the guard refuses a second replica and says so in the events, and lab up removes the replica', async () => {
  const node = await nodeOfDatabase()
  await kubectl('scale', 'deployment', 'mysql-server', '--replicas=2')
  await delay(60_000)
  expect(await on(standbyOf(node), 'grep -c "^/dev/sd" /proc/mounts || true')).toBe('0')
  const messages = ['--field-selector=reason=FailedMount', '-o', 'jsonpath={.items[*].message}']
  expect(await kubectl('get', 'events', ...messages)).toContain('because only one node may use it at a time')
  expect(await bench.complaints('guard')).toContain('database-runs')
  await bench.up('guard')
  await bench.whole('guard')
})

it('after a forced deletion, the guard lets another node mount the disk only once the first has released it', async () => {
  const node = await nodeOfDatabase()
  const watches = workers.map((name) => on(name, watching('/run/mounted')))
  await delay(3000)
  await kubectl('cordon', node)
  await kubectl('delete', 'pod', '-l', 'app=mysql-server', '--force', '--grace-period=0')
  await Promise.all(watches)
  const seen = async (name: string): Promise<readonly number[]> =>
    (await on(name, 'cat /run/mounted')).split('\n').filter(Boolean).map(Number)
  const [left, taken] = [await seen(node), await seen(standbyOf(node))]
  expect(left.length).toBeGreaterThan(0)
  expect(taken.length).toBeGreaterThan(0)
  expect(Math.min(...taken)).toBeGreaterThan(Math.max(...left))
  await kubectl('uncordon', node)
  await bench.whole('guard')
})

type VolumeMode = 'Filesystem' | 'Block'
const volume = (readOnly: boolean, volumeMode: VolumeMode = 'Filesystem'): string => `
apiVersion: v1
kind: PersistentVolume
metadata: { name: own }
spec:
  capacity: { storage: 1Gi }
  accessModes: [ReadWriteOnce, ReadOnlyMany]
  volumeMode: ${volumeMode}
  storageClassName: ''
  iscsi: { targetPortal: '192.168.56.70:3260', iqn: 'iqn.2016-04.world.srv:target00', lun: 1, fsType: ext4, readOnly: ${String(readOnly)}, chapAuthSession: true, secretRef: { name: chap-secret, namespace: default } }
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: own }
spec: { accessModes: [${readOnly ? 'ReadOnlyMany' : 'ReadWriteOnce'}], volumeMode: ${volumeMode}, storageClassName: '', volumeName: own, resources: { requests: { storage: 1Gi } } }
`
/** How the container of a pod gets its volume. */
const uses = (readOnly: boolean, volumeMode: VolumeMode): string =>
  volumeMode === 'Block'
    ? 'volumeDevices: [{ name: v, devicePath: /dev/own }]'
    : `volumeMounts: [{ name: v, mountPath: /d, readOnly: ${String(readOnly)} }]`
const user = (
  name: string,
  node: string,
  readOnly: boolean,
  volumeMode: VolumeMode = 'Filesystem',
): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name} }
spec:
  nodeName: ${node}
  terminationGracePeriodSeconds: 1
  containers: [{ name: c, image: 'docker.io/library/mariadb:11.8', command: [sleep, '9999'], ${uses(readOnly, volumeMode)} }]
  volumes: [{ name: v, persistentVolumeClaim: { claimName: own, readOnly: ${String(readOnly)} } }]
`
const ready = (name: string) => kubectl('wait', '--for=condition=Ready', `pod/${name}`, '--timeout=120s')

it('the guard ignores a pod with another LUN, and lets a second node use its claim only after that pod', async () => {
  const node = await nodeOfDatabase()
  const standby = standbyOf(node)
  await apply(`${volume(false)}---${user('first', standby, false)}`)
  await ready('first')
  await bench.whole('guard')
  expect(await bench.up('guard')).toEqual([])
  await apply(user('second', node, false))
  await delay(30_000)
  expect(await kubectl('get', 'pod', 'second', '-o', 'jsonpath={.status.phase}')).toBe('Pending')
  await kubectl('delete', 'pod', 'first')
  await ready('second')
  await kubectl('delete', 'pod', 'second')
  await kubectl('delete', 'pvc,pv', '--all')
})

it('the guard lets a second node use a claim of mode Block only after the first has released it', async () => {
  const node = await nodeOfDatabase()
  const standby = standbyOf(node)
  await apply(`${volume(false, 'Block')}---${user('first', standby, false, 'Block')}`)
  await ready('first')
  await apply(user('second', node, false, 'Block'))
  await delay(30_000)
  expect(await kubectl('get', 'pod', 'second', '-o', 'jsonpath={.status.phase}')).toBe('Pending')
  const reason = ['--field-selector=reason=FailedMapVolume', '-o', 'jsonpath={.items[*].message}']
  expect(await kubectl('get', 'events', ...reason)).toContain(`${standby} is healthy and uses it`)
  await kubectl('delete', 'pod', 'first')
  await ready('second')
  await kubectl('delete', 'pod', 'second')
})

it('a pod with a volume of mode Block ends although its session was lost, and every node can use the volume again', async () => {
  const node = await nodeOfDatabase()
  const standby = standbyOf(node)
  await apply(user('first', standby, false, 'Block'))
  await ready('first')
  await on(standby, 'iscsiadm -m session --logout')
  await kubectl('delete', 'pod', 'first', '--timeout=90s')
  for (const name of [node, standby]) {
    await apply(user(`at-${name}`, name, false, 'Block'))
    await ready(`at-${name}`)
    await kubectl('delete', 'pod', `at-${name}`, '--timeout=90s')
  }
  await kubectl('delete', 'pvc,pv', '--all')
  await bench.whole('guard')
})

it('the guard lets any number of nodes mount a read-only LUN', async () => {
  await apply(`${volume(true)}---${workers.map((name) => user(`at-${name}`, name, true)).join('---')}`)
  for (const name of workers) await ready(`at-${name}`)
  await bench.whole('guard')
})

it('the guard alone does not prevent two writers when a lost node is not fenced', async () => {
  const { exitCode, runs } = await bench.run('guard', 'api-partition')
  expect(exitCode).toBe(1)
  expect(runs[0]?.data?.findings.length).toBeGreaterThan(0)
})
