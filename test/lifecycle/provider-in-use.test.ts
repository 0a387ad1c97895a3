/** Which provider a lab has, and what is refused because of it. */
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import { refuseNotUp, refuseOtherProvider } from '../../src/lifecycle/provider-in-use.js'
import { pathsOf } from '../../src/state.js'
import { temporaryFolder } from '../helpers/folder.js'

const lab = { name: 'iscsi' }
const bringUpWith = async (provider: string): Promise<void> => {
  const file = pathsOf(lab).provider
  await mkdir(dirname(file), { recursive: true, mode: 0o700 })
  await writeFile(file, `${provider}\n`, { mode: 0o600 })
}

beforeEach(async () => {
  vi.stubEnv('LAB_STATE', await temporaryFolder())
  onTestFinished(() => void vi.unstubAllEnvs())
})

test('a lab that is not up is refused with the command that brings it up', async () => {
  await expect(refuseNotUp(lab)).rejects.toMatchObject({ code: 'not-up', hint: 'lab up iscsi' })
  await bringUpWith('uml')
  await refuseNotUp(lab)
})

test('a file of hosts or of a cluster is refused for a lab whose provider makes its own machines', async () => {
  await refuseOtherProvider(lab, 'hosts', '--hosts', undefined)
  await expect(refuseOtherProvider(lab, 'hosts', '--hosts', 'uml')).rejects.toMatchObject({
    message: '--hosts names machines that exist already, but uml makes its own',
    hint: 'use either --hosts FILE or --provider NAME',
  })
  await bringUpWith('libvirt')
  await expect(refuseOtherProvider(lab, 'cluster', '--kubeconfig', undefined)).rejects.toMatchObject({
    message: '--kubeconfig names a cluster that exists already, but libvirt makes its own',
    hint: 'lab down iscsi',
  })
  await bringUpWith('cluster')
  await refuseOtherProvider(lab, 'cluster', '--kubeconfig', undefined)
})
