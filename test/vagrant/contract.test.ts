/**
 * The contract of a provider, with real libvirt machines, emulated by QEMU; and with VirtualBox, where a stand-in
 * starts machines that the real VBoxManage defined.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import type { Provider } from '../../src/provider/provider.js'
import type { VagrantKind } from '../../src/provider/vagrant/hypervisor.js'
import { vagrantProvider } from '../../src/provider/vagrant/vagrant.js'
import { type Bench, contract, contractLab } from '../provider/contract.js'
import { vboxFolder } from './worlds.js'

/** Emulated, and with a kernel that has modules. */
const emulated = { slowdown: 15, kernelTakes: 110 * 1024 ** 2 }
const lab = contractLab('512MiB', '/contract.yaml')

/** With the box, whichever test needed it first. */
const ready = async (kind: VagrantKind): Promise<Provider> => {
  const provider = vagrantProvider(kind)
  await provider.prepare(lab, {
    signal: new AbortController().signal,
    notice: (text) => {
      console.log(text)
    },
    progress: () => {},
  })
  return provider
}

describe.skipIf(process.env['LAB_TEST_LONG'] !== '1')('held to by', () => {
  contract('libvirt', async (): Promise<Bench> => {
    process.env['LAB_EMULATE'] = '1'
    return {
      provider: await ready('libvirt'),
      lab,
      ...emulated,
      runsAs: ['process', 'interface', 'file'],
    }
  })

  contract('virtualbox', async (): Promise<Bench> => {
    const bin = join(vboxFolder(), 'stand-in')
    mkdirSync(bin, { recursive: true })
    const standIn = join(import.meta.dirname, 'virtualbox-stand-in.mjs')
    writeFileSync(join(bin, 'VBoxManage'), `#!/bin/sh\nexec '${process.execPath}' '${standIn}' "$@"\n`, {
      mode: 0o755,
    })
    process.env['LAB_STAND_IN_FOLDER'] = join(vboxFolder(), 'stand-in-machines')
    process.env['PATH'] = `${bin}:${process.env['PATH'] ?? ''}`
    return {
      provider: await ready('virtualbox'),
      lab,
      ...emulated,
      runsAs: ['process', 'file'],
      networkStays: true,
    }
  })
})
