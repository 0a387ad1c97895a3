import { mkdir, readdir, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { execa } from 'execa'
import { beforeAll, describe, expect, test } from 'vitest'
import { parseAllDocuments } from 'yaml'
import { type Lab, machineNamed } from '../../src/lab/lab.js'
import { loadLab, parseLab } from '../../src/registry.js'
import { machineFiles, tarOf, targetFolders } from '../../src/machine/files.js'
import type { FileOptions, MachineFile } from '../../src/machine/machine-file.js'
import { temporaryFolder } from '../helpers/folder.js'

const options: FileOptions = {
  secrets: { bootstrapToken: 'abcdef.0123456789abcdef', clusterKey: 'key-of-clusters' },
  lunDevice: (index) => `/dev/ubd${'cdefg'.charAt(index)}`,
}

const nastyText = readFileSync(join(import.meta.dirname, 'nasty.yaml'), 'utf8')

const labs = new Map<string, Lab>()

beforeAll(async () => {
  for (const name of ['iscsi', 'iscsi-ha']) labs.set(name, await loadLab(name))
  labs.set('nasty', parseLab(nastyText, 'nasty.yaml', { built: '1.36.3', minors: ['1.36'] }))
})

const labNamed = (name: string): Lab => {
  const lab = labs.get(name)
  if (!lab) throw new Error(`no lab ${name}`)
  return lab
}

const filesOf = (lab: Lab, machine: string, changes: Partial<FileOptions> = {}): readonly MachineFile[] => {
  const spec = lab.machines.find(({ name }) => name === machine)
  if (!spec) throw new Error(`no machine ${machine}`)
  return machineFiles(lab, spec, { ...options, ...changes })
}

const contentOf = (lab: Lab, machine: string, path: string): string => {
  const file = filesOf(lab, machine).find((candidate) => candidate.path === path)
  if (!file) throw new Error(`${machine} has no ${path}`)
  return file.content
}

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

/**
 * The kernel's configfs creates the contents of a folder when the folder is made, and removes them with it. These
 * shell functions do the same on an ordinary file system.
 */
const asConfigfs = `
mountpoint() { :; }
mkdir() {
  command mkdir "$@" || return
  for made in "$@"; do case "$made" in
    */target/iscsi) command mkdir -p "$made"/discovery_auth ;;
    */acls/*/lun_*) ;;
    */acls/*) command mkdir -p "$made"/auth ;;
    */tpgt_1) command mkdir -p "$made"/attrib "$made"/acls "$made"/np "$made"/lun ;;
    */iblock_*/*) command mkdir -p "$made"/wwn ;;
  esac; done
}
rmdir() { command rm -r "$@"; }
`

const runTarget = async (folder: string, lab: Lab, machine: string): Promise<string> => {
  const script = contentOf(lab, machine, '/etc/lab/boot.d/50-target')
    .replaceAll('/sys/kernel/config', join(folder, 'config'))
    .replaceAll('/etc/target', join(folder, 'etc'))
    .replaceAll('/run/lab-target.lock', `${folder}.lock`)
    .replaceAll('/var/lib/lab/fenced', join(folder, 'fenced'))
  const { stdout, stderr } = await execa('/bin/sh', ['-x', '-c', asConfigfs + script])
  expect(stdout).toBe('')
  return stderr
}

describe('the script of a target, run on a stand-in for configfs', () => {
  const valueOf = (folder: string, ...path: readonly string[]): Promise<string> =>
    readFile(join(folder, 'config', 'target', ...path), 'utf8')

  test('names and passwords are written byte for byte', async () => {
    const lab = labNamed('nasty')
    for (const { iqn, chap, machine } of lab.targets) {
      const folder = await temporaryFolder()
      await runTarget(folder, lab, machine)
      const acls = join('iscsi', iqn, 'tpgt_1', 'acls')
      expect((await readdir(join(folder, 'config', 'target', acls))).sort()).toEqual([
        'iqn.2016-04.world.srv:w1',
        'iqn.2016-04.world.srv:w3',
        'iqn.2024-01.example.lab:second',
      ])
      for (const { iqn: initiator } of lab.machines.filter(({ role }) => role === 'worker')) {
        expect(await valueOf(folder, acls, initiator ?? '', 'auth', 'userid')).toBe(chap.username)
        expect(await valueOf(folder, acls, initiator ?? '', 'auth', 'password')).toBe(chap.password)
      }
    }
  })

  test('nobody can log in without CHAP, and the target is enabled only after CHAP is set', async () => {
    const folder = await temporaryFolder()
    const log = await runTarget(folder, labNamed('iscsi'), 'target')
    const group = ['iscsi', 'iqn.2016-04.world.srv:target00', 'tpgt_1'] as const
    expect(await valueOf(folder, ...group, 'attrib', 'authentication')).toBe('1')
    expect(await valueOf(folder, ...group, 'attrib', 'generate_node_acls')).toBe('0')
    expect(await valueOf(folder, ...group, 'enable')).toBe('1')
    expect(await readdir(join(folder, 'config', 'target', ...group, 'np'))).toEqual(['192.168.56.70:3260'])
    expect(log.indexOf('auth/password')).toBeLessThan(log.indexOf('/enable 1', log.indexOf('auth/password')))
  })

  test('every LUN has its own disk across all targets of a machine', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, labNamed('nasty'), 'disks')
    const devices = await Promise.all(
      [
        ['one', '0'],
        ['one', '7'],
        ['two', '0'],
      ].map(async ([target = '', lun = '']) => {
        const path = join('iscsi', `iqn.2016-04.world.srv:${target}`, 'tpgt_1', 'lun', `lun_${lun}`, 'store')
        const store = await readlink(join(folder, 'config', 'target', path))
        return readFile(join(store, 'udev_path'), 'utf8')
      }),
    )
    expect(devices).toEqual(['/dev/ubdc', '/dev/ubdd', '/dev/ubde'])
  })

  // Initiators identify disks by it: if two had the same number, by-id links and multipath would take them for one.
  test('every disk of a lab has its own serial number, whichever machine serves it', () => {
    const lab = labNamed('nasty')
    const targets = lab.targets.map((target) => ({ ...target, luns: [{ lun: 0, size: 1024 ** 3 }] }))
    const serials = ['disks', 'more-disks'].flatMap((machine) =>
      [
        ...contentOf({ ...lab, targets }, machine, '/etc/lab/boot.d/50-target').matchAll(
          /printf %s '?(\S+?)'? > \S+vpd_unit_serial/g,
        ),
      ].map(([, serial]) => serial),
    )
    expect(serials).toHaveLength(3)
    expect(new Set(serials).size).toBe(3)
  })

  test('a second run of the script changes nothing', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, labNamed('nasty'), 'disks')
    const files = async (): Promise<readonly string[]> => {
      const { stdout } = await execa('find', [folder, '-printf', '%p %l %T@\n'])
      return stdout.split('\n').sort()
    }
    const before = await files()
    await runTarget(folder, labNamed('nasty'), 'disks')
    expect(await files()).toEqual(before)
  })

  test('a new password is applied, and a removed initiator loses access', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, labNamed('nasty'), 'disks')
    const changed = parseLab(
      nastyText.replace(/^ {2}- \{ name: w3.*\n/m, '').replace("username: 'a  b'", "username: 'c d'"),
      'nasty.yaml',
      { built: '1.36.3', minors: ['1.36'] },
    )
    await runTarget(folder, changed, 'disks')
    const acls = join('iscsi', 'iqn.2016-04.world.srv:two', 'tpgt_1', 'acls')
    expect((await readdir(join(folder, 'config', 'target', acls))).sort()).toEqual([
      'iqn.2016-04.world.srv:w1',
      'iqn.2024-01.example.lab:second',
    ])
    expect(await valueOf(folder, acls, 'iqn.2016-04.world.srv:w1', 'auth', 'userid')).toBe('c d')
  })

  test('a target that is no longer in the lab file is not served', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, labNamed('nasty'), 'disks')
    const lab = labNamed('nasty')
    const fewer: Lab = { ...lab, targets: lab.targets.filter(({ iqn }) => !iqn.endsWith(':two')) }
    await runTarget(folder, fewer, 'disks')
    expect(await readdir(join(folder, 'config', 'target', 'iscsi'))).toEqual([
      'discovery_auth',
      'iqn.2016-04.world.srv:one',
    ])
  })

  test('only an initiator with the CHAP secret of the first target can discover the targets', async () => {
    const folder = await temporaryFolder()
    const lab = labNamed('nasty')
    await runTarget(folder, lab, 'disks')
    const auth = async (name: string): Promise<string> => valueOf(folder, 'iscsi', 'discovery_auth', name)
    expect(await auth('userid')).toBe(lab.targets[0]?.chap.username)
    expect(await auth('password')).toBe(lab.targets[0]?.chap.password)
    expect(await auth('enforce_discovery_auth')).toBe('1')
    for (const name of ['one', 'two'])
      expect(
        await valueOf(
          folder,
          'iscsi',
          `iqn.2016-04.world.srv:${name}`,
          'tpgt_1',
          'attrib',
          'demo_mode_discovery',
        ),
      ).toBe('0')
  })

  const mutual = { username: 'answer', password: "it's $HOME" }
  const answering = (lab: Lab): Lab => ({
    ...lab,
    targets: lab.targets.map((target) => ({ ...target, chap: { ...target.chap, mutual } })),
  })

  test('the target answers with the mutual name and password at login and at discovery', async () => {
    const folder = await temporaryFolder()
    const lab = answering(labNamed('iscsi'))
    await runTarget(folder, lab, 'target')
    const acl = join(
      'iqn.2016-04.world.srv:target00',
      'tpgt_1',
      'acls',
      'iqn.2016-04.world.srv:initiator',
      'auth',
    )
    for (const place of [acl, 'discovery_auth']) {
      expect(await valueOf(folder, 'iscsi', place, 'userid_mutual')).toBe(mutual.username)
      expect(await valueOf(folder, 'iscsi', place, 'password_mutual')).toBe(mutual.password)
    }
    // The kernel enables it once it has both; if they are not in the lab file, it must forget them.
    const says = join(folder, 'config', 'target', 'iscsi', acl, 'authenticate_target')
    await writeFile(says, '1\n')
    await runTarget(folder, labNamed('iscsi'), 'target')
    expect(await valueOf(folder, 'iscsi', acl, 'userid_mutual')).toBe('NULL')
    expect(await valueOf(folder, 'iscsi', acl, 'password_mutual')).toBe('NULL')
  })

  test('a value with an extra line end is rewritten, and one in the kernel’s own form is left alone', async () => {
    const folder = await temporaryFolder()
    const lab = labNamed('iscsi')
    await runTarget(folder, lab, 'target')
    const auth = join(folder, 'config', 'target', 'iscsi', 'discovery_auth')
    await writeFile(join(auth, 'password'), 'password\n\n')
    await writeFile(join(auth, 'userid'), 'username\n')
    await runTarget(folder, lab, 'target')
    expect(await readFile(join(auth, 'password'), 'utf8')).toBe('password')
    expect(await readFile(join(auth, 'userid'), 'utf8')).toBe('username\n')
  })

  const masked = (): Lab =>
    parseLab(
      readFileSync(join(import.meta.dirname, '..', 'lab', 'valid', 'masking.yaml'), 'utf8'),
      'masking.yaml',
      {
        built: '1.36.3',
        minors: ['1.36'],
      },
    )

  const mappings = async (folder: string): Promise<readonly string[]> => {
    const { stdout } = await execa(
      'sh',
      ['-c', "cd iscsi/*/tpgt_1/acls && find . -type l -printf '%P %l\n' | sed 's|/lun .*/| = |'"],
      { cwd: join(folder, 'config', 'target') },
    )
    return stdout
      .split('\n')
      .map((line) => line.replace('iqn.2016-04.world.srv:', ''))
      .sort()
  }

  const meant = [
    'c1/lun_1 = lun_1',
    'c1/lun_3 = lun_3',
    'c2/lun_3 = lun_3',
    'w1/lun_0 = lun_0',
    'w1/lun_2 = lun_2',
    'w2/lun_0 = lun_0',
    'w2/lun_2 = lun_2',
  ]

  test('every initiator sees its own LUNs: of the database, of its file systems, and those that name it', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, masked(), 'target')
    expect(await mappings(folder)).toEqual(meant)
  })

  test('a LUN that was mapped by hand is unmapped, whatever its number', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, masked(), 'target')
    const { stdout: group } = await execa('sh', ['-c', 'echo iscsi/*/tpgt_1'], {
      cwd: join(folder, 'config', 'target'),
    })
    const acls = join(folder, 'config', 'target', group, 'acls')
    const lun = (number: number): string =>
      join(folder, 'config', 'target', group, 'lun', `lun_${String(number)}`)
    // LUN 0 is for c2, the database's disk; LUN 1 of c1 leads to the database's disk as well; the link has another
    // name.
    await mkdir(join(acls, 'iqn.2016-04.world.srv:c2', 'lun_0'))
    await symlink(lun(0), join(acls, 'iqn.2016-04.world.srv:c2', 'lun_0', 'mine'))
    await rm(join(acls, 'iqn.2016-04.world.srv:c1', 'lun_1', 'lun'))
    await symlink(lun(0), join(acls, 'iqn.2016-04.world.srv:c1', 'lun_1', 'lun'))
    await writeFile(join(acls, 'iqn.2016-04.world.srv:w1', 'lun_0', 'write_protect'), '1\n')
    await runTarget(folder, masked(), 'target')
    expect(await mappings(folder)).toEqual(meant)
    expect(await readFile(join(acls, 'iqn.2016-04.world.srv:w1', 'lun_0', 'write_protect'), 'utf8')).toBe('0')
  })

  test('a fenced initiator has no access list, whatever the lab file says, until the fence is undone', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, masked(), 'target')
    const fenced = join(folder, 'fenced')
    await mkdir(fenced)
    await writeFile(join(fenced, 'iqn.2016-04.world.srv:w1'), '')
    await runTarget(folder, masked(), 'target')
    expect(await mappings(folder)).toEqual(meant.filter((line) => !line.startsWith('w1/')))
    await rm(join(fenced, 'iqn.2016-04.world.srv:w1'))
    await runTarget(folder, masked(), 'target')
    expect(await mappings(folder)).toEqual(meant)
  })

  test('addresses and ports that are no longer in the lab file are closed', async () => {
    const folder = await temporaryFolder()
    await runTarget(folder, labNamed('nasty'), 'disks')
    const lab = labNamed('nasty')
    const moved: Lab = {
      ...lab,
      targets: lab.targets.map((target) => (target.port === 3261 ? { ...target, port: 3262 } : target)),
    }
    await runTarget(folder, moved, 'disks')
    const portals = join(folder, 'config', 'target', 'iscsi', 'iqn.2016-04.world.srv:two', 'tpgt_1', 'np')
    expect(await readdir(portals)).toEqual(['172.20.16.70:3262'])
  })
})

describe('the folders that a target machine should have', () => {
  const foldersIn = async (folder: string): Promise<readonly string[]> => {
    const patterns = [
      'core/iblock_*/*',
      'iscsi/*/tpgt_1',
      ...['np/*', 'lun/*', 'acls/*', 'acls/*/lun_*'].map((kind) => `iscsi/*/tpgt_1/${kind}`),
    ]
    const { stdout } = await execa('sh', ['-c', `ls -d ${patterns.join(' ')}`], {
      cwd: join(folder, 'config', 'target'),
    })
    return stdout.split('\n').sort()
  }

  const sorted = (lab: Lab, machine: string): readonly string[] =>
    [
      ...targetFolders(
        lab,
        lab.machines.find(({ name }) => name === machine)!,
      ),
    ].sort()

  test.each(['disks', 'more-disks'])(
    'the expected folders are those that the script of %s makes',
    async (machine) => {
      const folder = await temporaryFolder()
      await runTarget(folder, labNamed('nasty'), machine)
      expect(await foldersIn(folder)).toEqual(sorted(labNamed('nasty'), machine))
    },
  )

  test('the expected folders are right after any edit of targets, LUNs, ports and initiators, in any order', async () => {
    const folder = await temporaryFolder()
    const lab = labNamed('nasty')
    await runTarget(folder, lab, 'disks')
    const edited: Lab = {
      ...lab,
      machines: lab.machines.filter(({ name }) => name !== 'w3'),
      targets: [...lab.targets].reverse().map((target, index) => ({
        ...target,
        iqn: index === 1 ? 'iqn.2016-04.world.srv:renamed' : target.iqn,
        port: target.port + 10,
        luns: target.luns.map(({ lun, size }) => ({ lun: lun === 7 ? 8 : lun, size })),
      })),
    }
    await runTarget(folder, edited, 'disks')
    expect(await foldersIn(folder)).toEqual(sorted(edited, 'disks'))
    await runTarget(folder, lab, 'disks')
    expect(await foldersIn(folder)).toEqual(sorted(lab, 'disks'))
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
