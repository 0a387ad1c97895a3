/**
 * A cluster that somebody else made: that of a lab, which another lab knows only by a kubeconfig for a service account
 * that has the rights of `lab render --rbac` and no others.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { parse, stringify } from 'yaml'
import { kubectlWith } from '../../src/machine/kubectl.js'
import { builtKubectl } from '../../src/parts/parts.js'
import { Bench, runComplaints } from './lab.js'

/** The owner of the cluster, and the guest who uses it. */
const owner = new Bench()
const guest = new Bench()
const never = new AbortController().signal
const kubectl = builtKubectl() ?? 'kubectl'
const admin = join(owner.env.LAB_STATE, 'statefulset', 'kubeconfig')
const asAdmin = kubectlWith(kubectl, admin, never)

/** Everything in the cluster that a guest could change outside its namespaces. */
const outside = async (): Promise<string> =>
  JSON.stringify(
    await Promise.all([
      asAdmin.run(['get', 'namespaces', '-o', 'custom-columns=NAME:.metadata.name,LABELS:.metadata.labels']),
      asAdmin.run([
        'get',
        'nodes',
        '-o',
        'custom-columns=N:.metadata.name,L:.metadata.labels,T:.spec.taints,U:.spec.unschedulable',
      ]),
      asAdmin.run([
        'get',
        'all,persistentvolumeclaims,configmaps,secrets',
        '-A',
        '--no-headers',
        '-o',
        'custom-columns=N:.metadata.namespace,K:.kind,M:.metadata.name',
      ]),
      asAdmin.run(['get', 'persistentvolumes', '--no-headers', '-o', 'name']),
    ]),
  )

/** A kubeconfig for the service account that the rendered manifests make. */
const kubeconfigFor = async (lab: string, server?: string): Promise<string> => {
  const token = await asAdmin.run(['create', 'token', 'lab', '--namespace', `lab-${lab}`, '--duration', '2h'])
  const config = parse(await readFile(admin, 'utf8')) as {
    users: { name: string; user: object }[]
    contexts: { context: { user: string } }[]
    clusters: { cluster: { server: string } }[]
  }
  if (server !== undefined) for (const { cluster } of config.clusters) cluster.server = server
  config.users = [{ name: 'guest', user: { token: token.trim() } }]
  for (const { context } of config.contexts) context.user = 'guest'
  const file = join(guest.folder, `${lab}.kubeconfig`)
  await writeFile(file, stringify(config))
  return file
}

/** The network namespace of a lab's machines: that of its supervisor. */
const networkOf = async ({ env }: Bench): Promise<string> => {
  const { stdout } = await execa('pgrep', ['--full', `supervisor\\.js ${env.LAB_STATE}`])
  const [first] = stdout.split('\n')
  const inside = (await readFile(`/proc/${first ?? ''}/task/${first ?? ''}/children`, 'utf8'))
    .trim()
    .split(' ')[0]
  const pid = inside !== undefined && inside !== '' ? inside : first
  return `/proc/${pid ?? ''}/ns/net`
}

/** Until then, a busy host may show a node as lost, and its pods are made again elsewhere: nothing that a guest did. */
const everyNodeIsReady = (): Promise<void> =>
  expect
    .poll(
      () =>
        asAdmin.run([
          'get',
          'nodes',
          '-o',
          'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{.spec.taints[?(@.effect=="NoExecute")].key} {end}',
        ]),
      { timeout: 300_000, interval: 1000 },
    )
    .toMatch(/^(True ){3}$/)

const grant = async (lab: string): Promise<void> => {
  const manifests = await guest.ok('render', lab, '--rbac')
  await execa(kubectl, ['--kubeconfig', admin, 'apply', '-f', '-'], { input: manifests })
}

beforeAll(() => owner.up('statefulset'))
beforeEach(everyNodeIsReady)

afterAll(async () => {
  await guest.close()
  await owner.close()
})

describe('a cluster that somebody else made', () => {
  it('lab refuses an account without rights, and names what it lacks', async () => {
    await asAdmin.run(['create', 'namespace', 'lab-deployment'])
    await asAdmin.run(['create', 'serviceaccount', 'lab', '--namespace', 'lab-deployment'])
    const { exitCode, stderr } = await guest.lab(
      'up',
      'deployment',
      '--kubeconfig',
      await kubeconfigFor('deployment'),
    )
    expect(exitCode).toBe(3)
    expect(stderr).toMatch(/its nodes are not visible/)
    expect(stderr).toContain('lab render deployment --rbac')
    await asAdmin.run(['delete', 'namespace', 'lab-deployment'])
  })

  it('lab runs scenarios that kubectl alone can do, with a database in a namespace of its own', async () => {
    const lab = 'deployment-ha'
    await grant(lab)
    const before = await outside()
    // On the loopback of this computer, only the API server answers: the client of a scenario needs the node ports.
    guest.network = await networkOf(owner)
    try {
      const file = await kubeconfigFor(lab, 'https://192.168.56.11:6443')
      const up = await guest.lab('up', lab, '--kubeconfig', file)
      expect(up.exitCode, up.stderr).toBe(0)
      for (const name of ['power-cut', 'hang']) expect(up.stderr).toMatch(new RegExp(`✖ ${name} `))
      const verified = await guest.lab('verify', lab)
      expect(verified.exitCode, verified.stdout).toBe(0)
      const names = ['drain', 'pod-deleted', 'cordoned']
      const { runs: reports, exitCode, stderr } = await guest.run(lab, ...names)
      expect(runComplaints(reports), stderr).toEqual([])
      expect(
        reports.map(({ verdict }) => verdict),
        stderr,
      ).toEqual(names.map(() => 'PASS'))
      expect(exitCode).toBe(0)
      const run = guest.begin(lab, 'drain')
      await expect
        .poll(() => asAdmin.run(['get', 'nodes', '-o', 'jsonpath={.items[*].spec.unschedulable}']), {
          timeout: 120_000,
        })
        .toContain('true')
      run.kill('SIGKILL')
      await run
      await guest.ok('heal', lab)
      expect(await asAdmin.run(['get', 'nodes', '-o', 'jsonpath={.items[*].spec.unschedulable}'])).toBe('')
      await guest.ok('down', lab)
    } finally {
      // If it failed: only from this network is the cluster reached at that address.
      await guest.lab('heal', lab)
      await guest.lab('down', lab)
      guest.network = undefined
    }
    // The cluster's own provisioner removes the volumes of deleted claims a little later.
    await expect.poll(outside, { timeout: 120_000, interval: 1000 }).toBe(before)
  })

  const possible: Readonly<
    Record<string, { readonly runs: readonly string[]; readonly not: readonly string[] }>
  > = {
    deployment: { runs: ['scale', 'prune'], not: ['node-lost'] },
    replicaset: { runs: ['shared-volume', 'pod-deleted'], not: ['node-off', 'node-selector'] },
    statefulset: { runs: ['identity', 'parallel'], not: [] },
  }

  for (const [lab, { runs, not }] of Object.entries(possible))
    it(`lab runs ${runs.join(', ')} with the rights of lab render ${lab} --rbac alone, and touches nothing else`, async () => {
      await grant(lab)
      const before = await outside()
      const up = await guest.lab('up', lab, '--kubeconfig', await kubeconfigFor(lab))
      expect(up.exitCode, up.stderr).toBe(0)
      for (const name of not)
        expect(up.stderr).toMatch(new RegExp(`✖ ${name} .*power-cut: cluster cannot switch a machine off`))
      const verified = await guest.lab('verify', lab)
      expect(verified.exitCode, verified.stdout).toBe(0)
      for (const name of not) {
        const refused = await guest.lab('run', lab, name)
        expect(refused.exitCode).toBe(2)
        expect(refused.stderr).toContain('cluster cannot switch a machine off')
      }
      const { runs: reports, exitCode, stderr } = await guest.run(lab, ...runs)
      expect(runComplaints(reports), stderr).toEqual([])
      expect(
        reports.map(({ verdict }) => verdict),
        stderr,
      ).toEqual(runs.map(() => 'PASS'))
      expect(exitCode).toBe(0)
      await guest.ok('down', lab)
      // The cluster's own provisioner removes the volumes of deleted claims a little later.
      await expect.poll(outside, { timeout: 120_000, interval: 1000 }).toBe(before)
    })

  it('lab heal and lab down remove from the cluster everything that a killed run left', async () => {
    const before = await outside()
    await guest.ok('up', 'deployment', '--kubeconfig', await kubeconfigFor('deployment'))
    const run = guest.begin('deployment', 'scale')
    await expect
      .poll(() => asAdmin.run(['get', 'pods', '--namespace', 'lab-scale', '-o', 'name']), { timeout: 60_000 })
      .toContain('pod/')
    run.kill('SIGKILL')
    await run
    expect(await guest.openFaults('deployment')).toHaveLength(1)
    const other = new Bench()
    try {
      const taken = await other.lab('up', 'deployment', '--kubeconfig', await kubeconfigFor('deployment'))
      expect(taken.exitCode).toBe(0)
      expect((await other.lab('run', 'deployment', 'scale')).stderr).toContain('is used by another lab')
      await other.ok('down', 'deployment')
    } finally {
      await other.close()
    }
    await guest.ok('heal', 'deployment')
    expect(await outside()).toBe(before)
    await guest.ok('down', 'deployment')
    expect(await outside()).toBe(before)
  })

  it('lab refuses iSCSI labs, unknown contexts and files that are no kubeconfig, and leaves nothing behind', async () => {
    const file = await kubeconfigFor('deployment')
    const refusal = async (...args: readonly string[]): Promise<readonly [number, string]> => {
      const { exitCode, stderr } = await guest.lab('up', ...args)
      return [exitCode, stderr]
    }
    expect(await refusal('iscsi', '--kubeconfig', file)).toEqual([
      2,
      expect.stringContaining('has no Kubernetes'),
    ])
    expect(await refusal('iscsi-ha', '--kubeconfig', file)).toEqual([
      3,
      expect.stringContaining('nothing of iscsi-ha can run on'),
    ])
    expect(await refusal('deployment', '--kubeconfig', file, '--context', 'none')).toEqual([
      2,
      expect.stringContaining('none'),
    ])
    expect(await refusal('deployment', '--kubeconfig', join(guest.folder, 'nowhere'))).toEqual([
      2,
      expect.stringContaining('there is no such file'),
    ])
    expect(await guest.lab('list', '-o', 'json').then(({ stdout }) => stdout)).not.toContain('"cluster"')
  })
})
