/**
 * A box for arm64 that was built on amd64: its disk boots by itself in an arm64 machine, emulated by QEMU, and what a
 * lab needs of it runs there.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync } from 'node:fs'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { execa } from 'execa'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hostArchitecture } from '../../src/parts/architecture.js'
import { pins } from '../../src/parts/pins.js'
import { cli } from '../helpers/cli.js'

const long = process.env['LAB_TEST_LONG'] === '1'

describe.skipIf(!long || hostArchitecture() !== 'amd64')('a box for arm64, built on amd64', () => {
  const folder = mkdtempSync(join('/var/tmp', 'lab-arm64-'))
  const key = join(folder, 'key')
  let port = 0
  let machine: ChildProcess | undefined

  const ssh = async (command: string): Promise<string> => {
    const options = {
      StrictHostKeyChecking: 'no',
      UserKnownHostsFile: '/dev/null',
      LogLevel: 'ERROR',
      ConnectTimeout: '60',
    }
    const { stdout } = await execa('ssh', [
      ...['-i', key, '-p', String(port)],
      ...Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]),
      'vagrant@127.0.0.1',
      command,
    ])
    return stdout
  }

  beforeAll(async () => {
    const { stdout } = await execa(process.execPath, [
      ...[cli, 'box', 'build', '--arch', 'arm64', '--provider', 'libvirt', '-o', 'json'],
    ])
    const { box, architecture } = JSON.parse(stdout) as { box: string; architecture: string }
    expect(architecture).toBe('arm64')
    await execa('tar', ['-xf', box, '-C', folder, 'box.img'])
    // The public key pair with which Vagrant logs in for the first time.
    const files = (await execa('dpkg', ['-L', 'vagrant'])).stdout.split('\n')
    await execa('install', ['-m', '600', files.find((path) => path.endsWith('/keys/vagrant')) ?? '', key])
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    port = (server.address() as AddressInfo).port
    await new Promise((resolve) => server.close(resolve))
    const started = spawn(
      'qemu-system-aarch64',
      [
        ...['-machine', 'virt', '-cpu', 'cortex-a72', '-accel', 'tcg', '-smp', '2', '-m', '2048'],
        ...['-bios', '/usr/share/qemu-efi-aarch64/QEMU_EFI.fd', '-display', 'none'],
        ...['-serial', `file:${join(folder, 'console')}`],
        ...['-drive', `if=virtio,format=qcow2,file=${join(folder, 'box.img')}`],
        ...['-netdev', `user,id=net,hostfwd=tcp:127.0.0.1:${String(port)}-:22`],
        ...['-device', 'virtio-net-pci,netdev=net'],
      ],
      { stdio: 'ignore' },
    )
    machine = started
    const begun = performance.now()
    while (
      !(await ssh('true').then(
        () => true,
        () => false,
      ))
    ) {
      if (started.exitCode !== null || performance.now() - begun > 900_000)
        throw new Error(`it does not answer: ${(await execa('tail', [join(folder, 'console')])).stdout}`)
      await delay(2000)
    }
    console.log(`a machine of arm64 answers after ${((performance.now() - begun) / 1000).toFixed(0)} s`)
  })

  afterAll(async () => {
    if (machine?.kill('SIGKILL')) await once(machine, 'close')
    await rm(folder, { recursive: true, force: true })
  })

  test('the kernel of a box for arm64 boots', async () => {
    expect(await ssh('uname -m')).toBe('aarch64')
  })

  test('the Kubernetes programs of a box for arm64 run', async () => {
    const version = pins().modules['kubernetes']?.version ?? ''
    expect(await ssh('kubeadm version -o short')).toBe(version)
    expect(await ssh('kubelet --version')).toBe(`Kubernetes ${version}`)
  })

  test('the images of a box for arm64 are there, and containers run from them', async () => {
    const images = (
      await ssh(
        // The first commands are what lab does with a machine that will be a node.
        'sudo touch /etc/lab/node && sudo systemctl start containerd && sudo ctr -n k8s.io images ls -q',
      )
    ).split('\n')
    const wanted = pins().images.filter(({ optional }) => !optional)
    expect(images).toEqual(expect.arrayContaining(wanted.map(({ reference }) => reference)))
    const run = (image: string, ...command: readonly string[]): Promise<string> =>
      ssh(`sudo ctr -n k8s.io run --rm ${image} it ${command.join(' ')}`)
    expect(await run('docker.io/library/debian:trixie-slim', 'uname', '-m')).toBe('aarch64')
    const pause = wanted.find(({ name }) => name === 'pause')?.reference ?? ''
    expect(await run(pause, '/pause', '-v')).toContain(pause.split(':').at(-1))
  })
})
