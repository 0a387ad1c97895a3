/**
 * The configuration of control planes for their shared address, and the program that watches the API server next to
 * keepalived.
 */
import { readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { execa } from 'execa'
import { describe, expect, it } from 'vitest'
import { parseAllDocuments } from 'yaml'
import type { Lab } from '../../src/lab/lab.js'
import { machineFiles } from '../../src/machine/files.js'
import type { MachineFile } from '../../src/machine/machine-file.js'
import { selfSigned } from '../../src/provider/uml/certificate.js'
import { loadLab } from '../../src/registry.js'
import { temporaryFolder } from '../helpers/folder.js'

const lab = await loadLab('control-planes')

const filesOf = (of: Lab, name: string): readonly MachineFile[] => {
  const machine = of.machines.find((each) => each.name === name)
  if (!machine) throw new Error(`no machine ${name}`)
  return machineFiles(of, machine, {
    secrets: { bootstrapToken: 'abcdef.0123456789abcdef', clusterKey: 'key-of-clusters' },
  })
}
const contentOf = (of: Lab, name: string, path: string): string => {
  const file = filesOf(of, name).find((each) => each.path === path)
  if (!file) throw new Error(`${name} has no ${path}`)
  return file.content
}
const documents = (text: string): Record<string, Record<string, unknown>>[] =>
  parseAllDocuments(text).map((document) => document.toJS() as Record<string, Record<string, unknown>>)

describe('kubeadm', () => {
  it('kubeadm gets the shared address, and lets controllers elect a leader', () => {
    const [, cluster] = documents(contentOf(lab, 'master2', '/etc/lab/kubeadm.yaml'))
    expect(cluster).toMatchObject({ controlPlaneEndpoint: '192.168.56.10:6443' })
    expect(JSON.stringify(cluster?.['controllerManager'])).not.toContain('"leader-elect","value":"false"')
    // The certificate shows which API server answers: it names only its own machine.
    expect(cluster?.['apiServer']?.['certSANs']).toEqual(['127.0.0.1', 'localhost'])
  })

  it('kubeadm gives most of a busy machine to etcd and the API server, since a late heartbeat costs the cluster its leader', () => {
    const requestOf = (component: string): number => {
      const [pod] = documents(
        contentOf(lab, 'master1', `/etc/lab/kubeadm-patches/${component}1+strategic.yaml`),
      )
      const [container] = (pod?.['spec'] as unknown as { containers: Record<string, unknown>[] }).containers
      expect(container?.['name']).toBe(component)
      return parseInt((container?.['resources'] as { requests: { cpu: string } }).requests.cpu)
    }
    const [etcd, api, ...others] = [
      'etcd',
      'kube-apiserver',
      'kube-controller-manager',
      'kube-scheduler',
    ].map(requestOf) as [number, number, ...number[]]
    const rest = others.reduce((sum, each) => sum + each, 0)
    expect(etcd).toBeGreaterThan(2 * rest)
    expect(api).toBeGreaterThan(2 * rest)
    // A pod of CoreDNS, which requests 100, fits on the one CPU as well.
    expect(etcd + api + rest).toBeLessThanOrEqual(900)
  })

  it('kubeadm leaves the leases of controllers as Kubernetes has them, also for a fast failover', () => {
    expect(contentOf(lab, 'master1', '/etc/lab/kubeadm.yaml')).not.toContain('leader-elect-')
  })

  it('kubeadm lets a node be silent for longer if several control planes share an address, since no node can report while they agree on a new holder or leader', () => {
    const config = contentOf(lab, 'master1', '/etc/lab/kubeadm.yaml')
    const [, seconds] = /"node-monitor-grace-period","value":"(\d+)s"/.exec(config) ?? []
    // The API may be away for 10 s, and a kubelet may need 8 s more until it has renewed its lease.
    expect(Number(seconds)).toBeGreaterThanOrEqual(18)
    expect(config).toContain('nodeLeaseDurationSeconds: 8')
  })

  it('kubeadm joins a master as a control plane, and a worker as a worker', () => {
    const [master] = documents(contentOf(lab, 'master3', '/etc/lab/kubeadm-join.yaml'))
    expect(master).toMatchObject({
      controlPlane: { localAPIEndpoint: { advertiseAddress: '192.168.56.13' } },
    })
    const [worker] = documents(contentOf(lab, 'worker1', '/etc/lab/kubeadm.yaml'))
    expect(worker).not.toHaveProperty('controlPlane')
  })
})

describe('keepalived', () => {
  it('keepalived speaks only with the two others, and is written by a script that a shell can parse', async () => {
    const script = contentOf(lab, 'master2', '/etc/lab/boot.d/20-endpoint')
    const [, peers = ''] = /unicast_peer \{([^}]*)\}/.exec(script) ?? []
    expect(peers.trim().split(/\s+/)).toEqual(['192.168.56.11', '192.168.56.13'])
    await execa('sh', ['-n'], { input: script })
  })

  it('a single control plane needs no keepalived, because it has the address itself', () => {
    const alone: Lab = { ...lab, machines: lab.machines.filter(({ name }) => !/^master[23]/.test(name)) }
    const script = contentOf(alone, 'master1', '/etc/lab/boot.d/20-endpoint')
    expect(script).toContain('ip address replace 192.168.56.10/32')
    expect(script).not.toContain('unicast_peer')
  })

  it('keepalived is not part of a lab with one control plane and no shared address', async () => {
    const paths = filesOf(await loadLab('iscsi-ha'), 'master').map(({ path }) => path)
    expect(paths.filter((path) => /endpoint|join/.test(path))).toEqual([])
  })
})

describe('the watch next to keepalived', () => {
  it(
    'the watch next to keepalived reports ready, not ready, and not ready for long, over one connection',
    { timeout: 120_000 },
    async () => {
      const folder = await temporaryFolder()
      const state = join(folder, 'state')
      let status = 200
      let connections = 0
      const { key, certificate } = selfSigned('test', '127.0.0.1')
      const server = createServer({ key, cert: certificate }, (_, response) => {
        response.writeHead(status, { 'content-length': 2 }).end('ok')
      })
      server.on('secureConnection', () => (connections += 1))
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      const script = join(folder, 'watch.sh')
      await writeFile(
        script,
        contentOf(lab, 'master1', '/etc/lab/endpoint-watch.sh')
          .replaceAll('/run/lab-endpoint', state)
          .replaceAll('192.168.56.11:6443', `127.0.0.1:${String((server.address() as AddressInfo).port)}`)
          .replaceAll('192.168.56.11/6443', `127.0.0.1/${String((server.address() as AddressInfo).port)}`),
      )
      // The two others do not answer until the file exists.
      const peers = join(folder, 'peers')
      await writeFile(join(folder, 'timeout'), `#!/bin/sh\ntest -e ${peers}\n`, { mode: 0o755 })
      const watching = execa('bash', [script], {
        reject: false,
        env: { PATH: `${folder}:${process.env['PATH'] ?? ''}` },
      })
      const becomes = async (wanted: string): Promise<void> => {
        for (let tries = 0; ; tries += 1) {
          const is = (await readFile(state, 'utf8').catch(() => '')).trim()
          if (is === wanted) return
          if (tries > 200) throw new Error(`is ${is}; it should be ${wanted}`)
          await delay(200)
        }
      }
      try {
        await becomes('0')
        const before = connections
        // keepalived would accept a number with a line break; the test is that it is a single number.
        expect(await readFile(state, 'utf8')).toBe('0\n')
        await delay(5000)
        expect(connections).toBe(before)
        status = 500
        await becomes('-50')
        await becomes('-254')
        status = 200
        await becomes('0')
        await writeFile(peers, '')
        status = 500
        await becomes('-50')
        await delay(10_000)
        // The others can be reached: the address is handed over if one of them is ready, and is kept otherwise.
        expect((await readFile(state, 'utf8')).trim()).toBe('-50')
        await rm(peers)
        await becomes('-254')
        status = 200
        await becomes('0')
        server.closeAllConnections()
        server.close()
        await becomes('-254')
      } finally {
        watching.kill()
        server.closeAllConnections()
        server.close()
        await watching
      }
    },
  )
})
