/** The Vagrantfile of every shipped lab, for people to read and for the real Vagrant to accept. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { loadLab } from '../../src/registry.js'
import { shipped } from '../helpers/shipped.js'
import { renderVagrantfile } from '../../src/provider/vagrant/vagrantfile.js'
import {
  both,
  needVagrant,
  run,
  skipWithoutPlugin,
  skipWithoutVagrant,
  vagrantFolder,
} from './vagrant-tools.js'

// Vagrant and Ruby need a second each, and many times that on a busy machine.
vi.setConfig({ testTimeout: 60_000 })

describe('the Vagrantfile of a shipped lab', () => {
  test.each(both)('the Vagrantfile of $name for $kind matches the golden one', async ({ name, kind }) => {
    await expect(renderVagrantfile(await loadLab(name), kind)).toMatchFileSnapshot(
      `../golden/vagrant/${name}.${kind}.Vagrantfile`,
    )
  })

  test.skipIf(skipWithoutVagrant).each(both)(
    'of $name for $kind is valid according to Vagrant',
    async ({ name, kind }) => {
      needVagrant()
      const folder = await vagrantFolder(renderVagrantfile(await loadLab(name), kind))
      // The output does not mention the provider: VirtualBox may be missing, and its block is checked anyway.
      const validated = await run(folder, ['vagrant', 'validate', '--ignore-provider'], {
        VAGRANT_DEFAULT_PROVIDER: 'virtualbox',
      })
      expect(validated.output).toContain('validated successfully')
      expect(validated.exitCode).toBe(0)
      expect(validated.output).not.toMatch(/warn/i)
    },
  )

  test.skipIf(skipWithoutPlugin).each(shipped)(
    'of $name is valid according to vagrant-libvirt, including every line of its block',
    async ({ name }) => {
      needVagrant()
      const folder = await vagrantFolder(renderVagrantfile(await loadLab(name), 'libvirt'))
      // The plugin rejects unknown settings; a block that is never evaluated would pass, too.
      const validate = () => run(folder, ['vagrant', 'validate'])
      expect(await validate()).toEqual({
        exitCode: 0,
        output: expect.stringContaining('validated successfully'),
      })
      const file = join(folder, 'Vagrantfile')
      await writeFile(
        file,
        (await readFile(file, 'utf8')).replace('lv.graphics_type =', 'lv.no_such_setting ='),
      )
      expect((await validate()).output).toContain('no_such_setting')
    },
  )
})
