import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { describe, expect, test } from 'vitest'
import { parseAllDocuments } from 'yaml'
import { type Lab, machineNamed } from '../../src/lab/lab.js'
import { loadLab, parseLab } from '../../src/registry.js'
import { machineFiles, tarOf } from '../../src/machine/files.js'
import type { MachineFile } from '../../src/machine/machine-file.js'
import { temporaryFolder } from '../helpers/folder.js'
import { contentOf, filesOf, labNamed, nastyText, options } from './lab-files.js'

const allFiles = (lab: Lab): readonly (MachineFile & { readonly machine: string })[] =>
  lab.machines.flatMap(({ name }) => filesOf(lab, name).map((file) => ({ ...file, machine: name })))

const names = ['iscsi', 'iscsi-ha', 'nasty'] as const

describe.each(names)('the files of %s', (name) => {
  test('the files match the golden ones', async () => {
    const text = allFiles(labNamed(name))
      .map(
        ({ machine, path, content, mode = 0o644 }) =>
          `=== ${machine}:${path} ${mode.toString(8)}\n${content}${content.endsWith('\n') ? '' : '(no newline)\n'}`,
      )
      .join('')
    await expect(text).toMatchFileSnapshot(`../golden/machine/${name}.txt`)
  })

  test('every path occurs once, is absolute, and its file ends with a newline', () => {
    const lab = labNamed(name)
    for (const machine of lab.machines) {
      const paths = filesOf(lab, machine.name).map(({ path }) => path)
      expect(new Set(paths).size).toBe(paths.length)
      for (const path of paths) expect(path).toMatch(/^\/etc\//)
    }
    for (const { path, content } of allFiles(lab)) expect(content.endsWith('\n'), path).toBe(true)
  })

  test('no file contains a template expression', () => {
    for (const { path, content } of allFiles(labNamed(name))) {
      // Text from the nasty lab file does not come from a template.
      const ours = content.replaceAll(/\{\{(x|mustaches)\}\}/g, '')
      for (const trace of ['{{', 'undefined', '[object', 'NaN', '&quot;', '&#x'])
        expect(ours.includes(trace), `${path} has ${trace}`).toBe(false)
    }
  })

  test('files with a secret are readable only by root', () => {
    const lab = labNamed(name)
    const secrets = [options.secrets.bootstrapToken, ...lab.targets.map(({ chap }) => chap.password)]
    for (const { path, content, mode = 0o644 } of allFiles(lab))
      if (secrets.some((secret) => content.includes(secret))) expect(mode & 0o077, path).toBe(0)
  })

  test('scripts parse in every shell of this host', async () => {
    const scripts = allFiles(labNamed(name)).filter(({ content }) => content.startsWith('#!'))
    expect(scripts.length).toBeGreaterThan(0)
    for (const { machine, path, content, mode = 0o644 } of scripts) {
      expect(mode & 0o100, path).toBe(0o100)
      for (const shell of ['sh', 'bash']) {
        const { exitCode, stderr } = await execa(shell, ['-n'], { input: content, reject: false })
        expect(`${machine}:${path}: ${String(exitCode)} ${stderr}`).toBe(`${machine}:${path}: 0 `)
      }
    }
  })

  test('YAML files parse and have no duplicate keys', () => {
    const found = allFiles(labNamed(name)).filter(({ path }) => path.endsWith('.yaml'))
    expect(found.length > 0).toBe(labNamed(name).kubernetes !== undefined)
    for (const { path, content } of found) {
      for (const document of parseAllDocuments(content)) {
        if ('empty' in document) throw new Error(`${path} is empty`)
        expect(document.errors, path).toEqual([])
        expect(document.toJS(), path).toMatchObject({
          apiVersion: expect.any(String),
          kind: expect.any(String),
        })
      }
    }
  })

  test('JSON files parse', () => {
    for (const { content, path } of allFiles(labNamed(name)).filter((file) =>
      file.path.endsWith('.conflist'),
    ))
      expect(JSON.parse(content), path).toMatchObject({
        name: 'lab',
        plugins: [{ type: 'bridge' }, { type: 'portmap' }],
      })
  })

  test('the archive is the same for every user who makes it', async () => {
    const files = allFiles(labNamed(name)).map((file) => ({ ...file, path: `/${file.machine}${file.path}` }))
    expect((await tarOf(files)).equals(await tarOf(files))).toBe(true)
  })
})

describe('settings of the lab file', () => {
  /** The documents of a kubeadm file by kind. */
  const kinds = (machine: string): Readonly<Record<string, unknown>> =>
    Object.fromEntries(
      parseAllDocuments(contentOf(labNamed('nasty'), machine, '/etc/lab/kubeadm.yaml')).map((document) => {
        const value = ('empty' in document ? {} : document.toJS()) as { kind: string }
        return [value.kind, value]
      }),
    )

  test('kubeadm settings are passed on unchanged', () => {
    expect(kinds('cp')).toMatchObject({
      InitConfiguration: {
        localAPIEndpoint: { advertiseAddress: '172.20.17.5' },
        nodeRegistration: { name: 'cp', kubeletExtraArgs: [{ name: 'node-ip', value: '172.20.17.5' }] },
        bootstrapTokens: [{ token: 'abcdef.0123456789abcdef', ttl: '1h0m0s' }],
      },
      ClusterConfiguration: {
        kubernetesVersion: 'v1.36.3',
        networking: {
          podSubnet: '10.128.0.0/10',
          serviceSubnet: '192.168.0.0/16',
          dnsDomain: 'lab.example.test',
        },
        apiServer: {
          extraArgs: [
            { name: 'v', value: '4' },
            { name: 'audit-log-path', value: `/tmp/it's: a "log" # with {{mustaches}}` },
          ],
        },
      },
      KubeletConfiguration: {
        failSwapOn: false,
        maxPods: 50,
        evictionHard: { 'memory.available': '50Mi', 'nodefs.available': '5%' },
      },
    })
    expect(kinds('w2')).toMatchObject({ JoinConfiguration: { nodeRegistration: { name: 'w2' } } })
  })

  test('settings of the user override those of lab, and each flag occurs once', () => {
    const { controllerManager } = kinds('cp')['ClusterConfiguration'] as {
      controllerManager: { extraArgs: readonly { name: string; value: string }[] }
    }
    expect(Object.fromEntries(controllerManager.extraArgs.map(({ name, value }) => [name, value]))).toEqual({
      'leader-elect': 'true',
      'allocate-node-cidrs': 'false',
      'node-monitor-grace-period': '20s',
    })
    expect(controllerManager.extraArgs).toHaveLength(3)
  })

  test('failover: fast shortens every timeout, and with fencing no pod leaves a lost node by itself', async () => {
    const lab = await loadLab('iscsi-ha')
    const configOf = (changes: Partial<Lab>): string => {
      const changed = { ...lab, ...changes }
      return (
        machineFiles(changed, machineNamed(changed, 'master'), options).find(
          ({ path }) => path === '/etc/lab/kubeadm.yaml',
        )?.content ?? ''
      )
    }
    const asItComes = configOf({ failover: 'default', fencing: 'none' })
    for (const word of ['node-monitor', 'toleration', 'nodeLease']) expect(asItComes).not.toContain(word)
    const fast = configOf({ failover: 'fast', fencing: 'none' })
    expect(fast).toContain('{"name":"default-unreachable-toleration-seconds","value":"1"}')
    expect(fast).toContain('{"name":"node-monitor-grace-period","value":"8s"}')
    expect(fast).toContain('nodeLeaseDurationSeconds: 8')
    for (const fencing of ['power', 'storage'] as const)
      expect(configOf({ failover: 'fast', fencing })).toContain(
        '{"name":"default-unreachable-toleration-seconds","value":"86400"}',
      )
  })

  test('emulated machines get longer timeouts from kubeadm and from their units', async () => {
    const lab = { ...(await loadLab('iscsi-ha')), failover: 'fast' as const }
    const documents = (name: string, path: string, slowdown?: number) =>
      parseAllDocuments(
        machineFiles(lab, machineNamed(lab, name), {
          ...options,
          ...(slowdown === undefined ? {} : { slowdown }),
        }).find((file) => file.path === path)?.content ?? '',
      ).map((document) => document.toJS() as Record<string, unknown>)
    const [init, , kubelet] = documents('master', '/etc/lab/kubeadm.yaml', 20)
    expect(init).toMatchObject({
      kind: 'InitConfiguration',
      timeouts: { controlPlaneComponentHealthCheck: '4800s', tlsBootstrap: '6000s' },
    })
    expect(kubelet).toMatchObject({ nodeLeaseDurationSeconds: 160, nodeStatusUpdateFrequency: '40s' })
    expect(documents('worker1', '/etc/lab/kubeadm.yaml', 20)[0]).toMatchObject({
      kind: 'JoinConfiguration',
      timeouts: { discovery: '6000s' },
    })
    const patchOf = (component: string): string => `/etc/lab/kubeadm-patches/${component}+strategic.yaml`
    const patch = patchOf('kube-apiserver')
    const patched = (name: string, probes: object) => [
      {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name, namespace: 'kube-system' },
        spec: { containers: [{ name, ...probes }] },
      },
    ]
    const livenessProbe = { timeoutSeconds: 300, failureThreshold: 160 }
    expect(documents('master', patch, 20)).toEqual(
      patched('kube-apiserver', {
        livenessProbe,
        readinessProbe: { periodSeconds: 20, timeoutSeconds: 300 },
      }),
    )
    // A patch cannot add a probe that does not exist.
    expect(documents('master', patchOf('kube-controller-manager'), 20)).toEqual(
      patched('kube-controller-manager', { livenessProbe }),
    )
    const waiting = '{"name":"etcd-readycheck-timeout","value":"40s"}'
    expect(JSON.stringify(documents('master', '/etc/lab/kubeadm.yaml', 20))).toContain(waiting)
    expect(JSON.stringify(documents('master', '/etc/lab/kubeadm.yaml'))).not.toContain('etcd-readycheck')
    expect(documents('master', patch)).toEqual([])
    expect(documents('worker1', patch, 20)).toEqual([])
    for (const name of ['master', 'worker1'])
      for (const document of documents(name, '/etc/lab/kubeadm.yaml'))
        expect(document).not.toHaveProperty('timeouts')
  })

  test('kubelet settings of the user override those of lab', () => {
    const text = nastyText.replace('maxPods: 50,', 'maxPods: 50, failSwapOn: true,')
    const lab = parseLab(text, 'nasty.yaml', { built: '1.36.3', minors: ['1.36'] })
    const [, , kubelet] = parseAllDocuments(contentOf(lab, 'cp', '/etc/lab/kubeadm.yaml'))
    if (!kubelet || !('errors' in kubelet)) throw new Error('no kubelet document')
    expect(kubelet.errors).toEqual([])
    expect(kubelet.toJS()).toMatchObject({ failSwapOn: true })
  })

  test('every node has a route to every other node, and to the range that the others route to it', () => {
    const lab = labNamed('nasty')
    const nodes = ['cp', 'w1', 'w2', 'w3']
    const range = (machine: string): unknown =>
      (
        JSON.parse(contentOf(lab, machine, '/etc/cni/net.d/10-lab.conflist')) as {
          plugins: [{ ipam: { ranges: [[{ subnet: unknown }]] } }]
        }
      ).plugins[0].ipam.ranges[0][0].subnet
    expect(nodes.map(range)).toEqual(['10.129.5.0/24', '10.129.6.0/24', '10.143.254.0/24', '10.128.2.0/24'])
    for (const node of nodes) {
      const script = contentOf(lab, node, '/etc/lab/boot.d/10-routes')
      const routes = [...script.matchAll(/^ip route replace (\S+) via (\S+) proto 86$/gm)].map(
        ([, to, via]) => `${String(to)} ${String(via)}`,
      )
      const wanted = nodes
        .filter((other) => other !== node)
        .map(
          (other) =>
            `${String(range(other))} ${lab.machines.find(({ name }) => name === other)?.address ?? ''}`,
        )
      expect(routes).toEqual(wanted)
    }
  })

  test('a change in the lab file changes only the machines it concerns', () => {
    const other = parseLab(nastyText.replace("'$(reboot)", "'$(halt)"), 'nasty.yaml', {
      built: '1.36.3',
      minors: ['1.36'],
    })
    const differing = labNamed('nasty').machines.flatMap(({ name }) =>
      filesOf(labNamed('nasty'), name)
        .filter((file, index) => file.content !== filesOf(other, name)[index]?.content)
        .map(({ path }) => `${name}:${path}`),
    )
    expect(differing).toEqual(['more-disks:/etc/lab/boot.d/50-target'])
  })
})

describe('an archive', () => {
  const files: readonly MachineFile[] = [
    { path: '/etc/hostname', content: 'worker1\n' },
    { path: '/etc/lab/boot.d/50-target', content: '#!/bin/sh\ntrue\n', mode: 0o700 },
    { path: '/root/secret', content: 'パスワード 🔑\n', mode: 0o600 },
    { path: '/empty', content: '' },
    { path: `/deep/${'x'.repeat(90)}/${'y'.repeat(90)}`, content: 'long path\n' },
    { path: '/large', content: 'z'.repeat(3_000_000) },
    { path: "/odd name's", content: 'x' },
  ]

  test('tar extracts an archive as the machines do, with every file as it was given', async () => {
    const folder = await temporaryFolder()
    const options = ['--extract', '--no-same-owner', '--preserve-permissions', `--directory=${folder}`]
    await execa('tar', options, { input: await tarOf(files) })
    for (const { path, content, mode = 0o644 } of files) {
      expect(await readFile(join(folder, path), 'utf8'), path).toBe(content)
      expect((await stat(join(folder, path))).mode & 0o7777, path).toBe(mode)
    }
  })

  test('extracting an archive replaces existing files and their modes', async () => {
    const folder = await temporaryFolder()
    await mkdir(join(folder, 'root'))
    await writeFile(join(folder, 'root', 'secret'), 'old', { mode: 0o644 })
    await execa('tar', ['--extract', '--preserve-permissions', `--directory=${folder}`], {
      input: await tarOf(files),
    })
    expect((await stat(join(folder, 'root', 'secret'))).mode & 0o7777).toBe(0o600)
  })

  test('an archive belongs to root and has no dates', async () => {
    const { stdout } = await execa(
      'tar',
      ['--list', '--verbose', '--numeric-owner', '--full-time', '--utc'],
      {
        input: await tarOf(files),
      },
    )
    const lines = stdout.split('\n')
    expect(lines).toHaveLength(files.length)
    for (const line of lines) expect(line).toMatch(/^-\S+ 0\/0 +\d+ 1970-01-01 00:00:00 /)
  })

  test('archives of equal files are equal byte for byte, and others differ', async () => {
    const first = await tarOf(files)
    expect(first.equals(await tarOf(files))).toBe(true)
    expect(first.equals(await tarOf([...files].reverse()))).toBe(false)
  })

  test('an archive without files is valid', async () => {
    const { stdout } = await execa('tar', ['--list'], { input: await tarOf([]) })
    expect(stdout).toBe('')
  })
})
