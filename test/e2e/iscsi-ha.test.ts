/** labs/iscsi-ha.yaml on real machines: the main job, ten breakages by hand, edits, stop and start, removal. */
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { execa } from 'execa'
import { parse, stringify } from 'yaml'
import { Bench, cli } from './lab.js'

const bench = new Bench()
afterAll(() => bench.close())

interface File {
  machines: { name: string; role: string; address: string; memory: string }[]
  iscsi: { targets: { chap: { username: string; password: string } }[] }
  [field: string]: unknown
}

const edit = async (file: string, change: (lab: File) => void): Promise<void> => {
  const lab = parse(await readFile(file, 'utf8')) as File
  change(lab)
  await writeFile(file, stringify(lab))
}

const on = (machine: string, script: string): Promise<string> =>
  bench.ok('exec', 'iscsi-ha', machine, '--', 'sh', '-c', script)
const kubectl = (...words: readonly string[]): Promise<string> =>
  bench.ok('kubectl', 'iscsi-ha', '--', ...words)

describe('lab up iscsi-ha', () => {
  let file = ''
  beforeAll(async () => {
    await bench.readme('start')
    // A copy to edit: the lab keeps its name.
    file = await bench.variant('iscsi-ha', 'iscsi-ha', () => undefined)
  })

  it('lab verify passes all of its roughly sixty checks', async () => {
    const { stdout } = await bench.lab('verify', 'iscsi-ha')
    const [, passed, failed] = /^(\d+) passed, (\d+) failed$/m.exec(stdout) ?? []
    expect({ passed: Number(passed) >= 60, failed }).toEqual({ passed: true, failed: '0' })
  })

  it('lab up changes nothing the second time', async () => {
    expect(await bench.up(file)).toEqual([])
  })

  it("lab status names a kubeconfig that the user's own kubectl can use", async () => {
    const { files } = await bench.json<{ files: { kubeconfig: string } }>('status', 'iscsi-ha')
    const nodes = await kubectl('get', 'nodes', '-o', 'name')
    expect(nodes.split('\n')).toEqual(['node/master', 'node/worker1', 'node/worker2'])
    expect(await readFile(files.kubeconfig, 'utf8')).toContain('server: https://127.0.0.1:')
  })

  it('lab forward forwards a port of the lab to 127.0.0.1', async () => {
    const command = [cli, 'forward', 'iscsi-ha', 'worker1:32306', '--port', '0', '-o', 'json']
    const forward = execa(process.execPath, command, { env: bench.env, reject: false, stdin: 'ignore' })
    let said = ''
    while (!said.includes('}')) {
      const [chunk] = (await once(forward.stdout, 'data')) as [Buffer]
      said += chunk.toString()
    }
    const { listen } = JSON.parse(said) as { listen: string }
    const greeting = await execa('bash', [
      '-c',
      `exec 3<>/dev/tcp/${listen.replace(':', '/')}; head -c 20 <&3 | tr -d '\\0'`,
    ])
    expect(greeting.stdout).toContain('11.8')
    forward.kill('SIGINT')
    await forward
  })

  it('the commands of README.md move the database to the other worker', async () => {
    expect(await bench.readme('drain')).toContain('node/worker1 drained')
    expect(await bench.complaints('iscsi-ha')).toEqual([])
  })

  it('the power cut of README.md loses nothing, and lab report shows it', async () => {
    expect(await bench.readme('break')).toMatch(/PASS/)
    expect(await bench.complaints('iscsi-ha')).toEqual([])
  })

  it("the commands of README.md bring up the user's own lab file", async () => {
    expect(await bench.readme('write')).toContain('nothing left')
  })

  interface Breakage {
    readonly what: string
    readonly break_: () => Promise<unknown>
    /** The check that must name it. */
    readonly named: string
    /** The step of `up` that must repair it. */
    readonly repairedBy: string
  }

  /** Several at once, if none hides another: each round costs two checks and an `up`. */
  const breakages: Readonly<Record<string, readonly Breakage[]>> = {
    'a stopped kubelet, another initiator name, CHAP switched off': [
      {
        what: 'a stopped kubelet',
        // A worker would be fenced for this, before `up` starts on a busy host.
        break_: () => on('master', 'systemctl stop kubelet'),
        named: 'master-kubelet',
        repairedBy: 'init-control-plane',
      },
      {
        what: 'another initiator name',
        break_: () =>
          on('worker2', 'echo InitiatorName=iqn.2001-01.com.example:thief > /etc/iscsi/initiatorname.iscsi'),
        named: 'worker2-iqn',
        repairedBy: 'configure-worker2',
      },
      {
        what: 'CHAP switched off',
        break_: () =>
          on('target', 'echo 0 | tee /sys/kernel/config/target/iscsi/iqn*/tpgt_1/attrib/authentication'),
        named: 'target00-chap',
        repairedBy: 'serve-target00',
      },
    ],
    'a deleted row, a stopped containerd, a deleted route, a removed ACL, a sysctl turned off': [
      {
        what: 'a deleted row',
        break_: () => deleteRow(),
        named: 'row-through-worker1',
        repairedBy: 'write-row',
      },
      {
        what: 'a stopped containerd',
        break_: () => on('worker2', 'systemctl stop containerd'),
        named: 'worker2-containerd',
        repairedBy: 'start-containerd-worker2',
      },
      {
        what: 'a deleted route',
        break_: () => on('worker1', 'ip route delete 10.244.11.0/24'),
        named: 'worker1-routes',
        repairedBy: 'route-pods-worker1',
      },
      {
        what: 'a removed ACL',
        break_: () =>
          on(
            'target',
            'cd /sys/kernel/config/target/iscsi/iqn*/tpgt_1/acls && for acl in *; do grep -q LOGGED_IN $acl/info || { rm $acl/lun_0/lun && rmdir $acl/lun_0 $acl; }; done',
          ),
        named: 'target00-acl',
        repairedBy: 'serve-target00',
      },
      {
        what: 'a sysctl turned off',
        break_: () => on('worker1', 'sysctl -w net.ipv4.ip_forward=0'),
        named: 'worker1-sysctl',
        repairedBy: 'configure-worker1',
      },
    ],
    'a cordoned node, a deleted Service, a changed secret, CoreDNS scaled away': [
      {
        what: 'a cordoned node',
        break_: () => kubectl('cordon', 'worker2'),
        named: 'worker2-schedulable',
        repairedBy: 'ready-worker2',
      },
      {
        what: 'a deleted Service',
        break_: () => kubectl('delete', 'service', 'mysql'),
        named: 'database-service',
        repairedBy: 'deploy-database',
      },
      {
        what: 'a changed secret',
        break_: () =>
          kubectl(
            'patch',
            'secret',
            'chap-secret',
            '-p',
            '{"stringData":{"node.session.auth.password":"wrong"}}',
          ),
        named: 'chap-secret',
        repairedBy: 'create-chap-secret',
      },
      {
        what: 'CoreDNS scaled away',
        break_: () => kubectl('-n', 'kube-system', 'scale', 'deployment', 'coredns', '--replicas=0'),
        named: 'coredns',
        repairedBy: 'install-dns',
      },
    ],
  }

  const deleteRow = async (): Promise<unknown> => {
    const pod = (await kubectl('get', 'pods', '-l', 'app=mysql-client', '-o', 'name')).split('\n')[0] ?? ''
    return kubectl(
      'exec',
      pod,
      '--',
      'bash',
      '-c',
      'MYSQL_PWD=$MARIADB_PASSWORD mariadb -h mysql -u "$MARIADB_USER" test -e "DELETE FROM lab_row"',
    )
  }

  it.each(Object.entries(breakages))('lab verify names %s, and lab up repairs them', async (_, together) => {
    for (const { break_ } of together) await break_()
    const complaints = await bench.complaints('iscsi-ha')
    expect(together.filter(({ named }) => !complaints.includes(named)).map(({ what }) => what)).toEqual([])
    const changed = await bench.up(file)
    expect(
      together.filter(({ repairedBy }) => !changed.includes(repairedBy)).map(({ what }) => what),
    ).toEqual([])
    expect(await bench.complaints('iscsi-ha')).toEqual([])
  })

  it('lab up restarts a machine whose process was killed, with the cluster and its row intact', async () => {
    const { stdout } = await execa('pgrep', ['-f', `umid=worker1 .*${bench.env.LAB_STATE}`])
    for (const pid of stdout.split('\n')) process.kill(Number(pid), 'SIGKILL')
    expect(await bench.complaints('iscsi-ha')).toContain('worker1-running')
    // The fencing agent fences the node, and `up` first undoes that, by a fresh boot.
    await bench.up(file)
    expect(await bench.complaints('iscsi-ha')).toEqual([])
    const again = await execa('pgrep', ['-f', `umid=worker1 .*${bench.env.LAB_STATE}`])
    expect(again.stdout.split('\n').filter((pid) => stdout.split('\n').includes(pid))).toEqual([])
  })

  it('lab up adds a worker that is new in the lab file and removes one that is gone from it', async () => {
    await edit(file, (lab) =>
      lab.machines.push({ name: 'worker3', role: 'worker', address: '192.168.56.23', memory: '1GiB' }),
    )
    const { steps } = await bench.json<{ steps: { id: string }[] }>('plan', file)
    expect(steps.map(({ id }) => id)).toEqual(expect.arrayContaining(['boot-worker3', 'join-worker3']))
    expect(steps.map(({ id }) => id)).not.toContain('boot-worker1')
    expect(await bench.up(file)).toContain('join-worker3')
    expect(await kubectl('get', 'nodes', '-o', 'name')).toContain('node/worker3')
    await edit(file, (lab) => (lab.machines = lab.machines.filter(({ name }) => name !== 'worker3')))
    expect(await bench.up(file)).toContain('remove-worker3')
    expect(await kubectl('get', 'nodes', '-o', 'name')).not.toContain('node/worker3')
    expect(await bench.complaints('iscsi-ha')).toEqual([])
  })

  it('lab up changes the memory of one machine without touching the others', async () => {
    await edit(file, (lab) => {
      for (const machine of lab.machines) if (machine.name === 'worker2') machine.memory = '1536MiB'
    })
    const changed = await bench.up(file)
    expect(changed).toContain('boot-worker2')
    expect(changed.filter((step) => step.startsWith('boot-'))).toEqual(['boot-worker2'])
    expect(await bench.complaints('iscsi-ha')).toEqual([])
  })

  it('the row is still there after lab stop and lab start', async () => {
    await bench.ok('stop', 'iscsi-ha')
    await bench.ok('start', 'iscsi-ha')
    expect(await bench.complaints('iscsi-ha')).toEqual([])
  })

  it('the commands of README.md remove the lab and leave nothing behind', async () => {
    expect(await bench.readme('remove')).toContain('nothing left')
  })
})

describe('a lab file with other values', () => {
  it('a lab with two targets, another subnet and unusual secrets comes up although lab up was killed twice', async () => {
    const file = await bench.variant('iscsi-ha', 'other', (lab) => {
      Object.assign(lab, {
        failover: 'default',
        fencing: 'none',
        scenarios: [],
        network: { subnet: '172.20.4.0/23' },
        machines: [
          { name: 'storage-a', role: 'target', address: '172.20.4.10', memory: '256MiB' },
          { name: 'storage-b', role: 'target', address: '172.20.5.10', memory: '256MiB' },
          { name: 'cp', role: 'control-plane', address: '172.20.4.20', memory: '2GiB' },
          {
            name: 'node-1',
            role: 'worker',
            address: '172.20.5.1',
            memory: '1GiB',
            iqn: 'iqn.2026-11.example:n1',
          },
        ],
        iscsi: {
          targets: [
            {
              machine: 'storage-a',
              iqn: 'iqn.2026-11.example.lab:unused',
              chap: { username: 'a', password: 'b' },
              luns: [{ lun: 0, size: '64MiB' }],
            },
            {
              machine: 'storage-b',
              iqn: 'iqn.2026-11.example.lab:data',
              port: 3261,
              chap: { username: "o'brien $USER", password: 'p"w `id` \\ ünï 秘密' },
              luns: [{ lun: 2, size: '1GiB' }],
            },
          ],
        },
        kubernetes: {
          version: '1.36.3',
          podSubnet: '10.64.0.0/15',
          serviceSubnet: '10.112.0.0/16',
          dnsDomain: 'lab.test',
          kubelet: { maxPods: 40 },
          apiServer: { 'event-ttl': '30m' },
        },
        database: {
          name: 'store',
          target: 'iqn.2026-11.example.lab:data',
          lun: 2,
          nodePort: 30306,
          database: 'shop',
          user: 'keeper',
          password: `k'e"e$p\\er 鍵`,
          rootPassword: 'r%o@o:t',
        },
      })
    })
    for (const after of [2500, 15_000]) {
      const run = execa(process.execPath, [cli, 'up', file], {
        env: bench.env,
        reject: false,
        stdin: 'ignore',
      })
      setTimeout(() => run.kill('SIGKILL'), after)
      expect((await run).signal).toBe('SIGKILL')
    }
    await bench.up(file)
    expect(await bench.complaints('other')).toEqual([])
    expect(
      await bench.ok(
        'kubectl',
        'other',
        '--',
        'get',
        'node',
        'node-1',
        '-o',
        'jsonpath={.status.capacity.pods}',
      ),
    ).toBe('40')
    expect(await bench.ok('down', 'other')).toContain('nothing left')
  })
})
