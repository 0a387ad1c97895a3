import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execa } from 'execa'
import { afterEach, beforeEach, expect, it } from 'vitest'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lab-machine-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

/**
 * Runs the script of a machine that brings up its network. A stand-in for `ip`, since a real card is busy only by
 * chance, fails as often as told; `sleep` returns at once.
 */
const bringUp = async (failures: number) => {
  const config = join(folder, 'network')
  await writeFile(config, 'INTERFACE=lo ADDRESS=192.168.56.70/24 GATEWAY=192.168.56.1\n')
  const script = (await readFile('templates/base/usr/local/sbin/lab-network', 'utf8'))
    .replaceAll('/etc/lab/network', config)
    .replace("grep -q '^cpu MHz' /proc/cpuinfo", 'true')
  const programs = {
    ip: `cat > ${folder}/asked
         echo x >> ${folder}/calls
         [ "$(wc -l < ${folder}/calls)" -gt ${String(failures)} ]`,
    sleep: ':',
    ethtool: ':',
  }
  for (const [name, body] of Object.entries(programs))
    await writeFile(join(folder, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 })
  await writeFile(join(folder, 'script'), script)
  const env = { PATH: `${folder}:${process.env['PATH'] ?? ''}` }
  const { exitCode } = await execa('sh', [join(folder, 'script')], { env, reject: false })
  const calls = (await readFile(join(folder, 'calls'), 'utf8')).trim().split('\n').length
  return { exitCode, calls, asked: await readFile(join(folder, 'asked'), 'utf8') }
}

it("brings up a machine's network with its address and gateway", async () => {
  expect(await bringUp(0)).toEqual({
    exitCode: 0,
    calls: 1,
    asked:
      'address replace 192.168.56.70/24 dev lo\nlink set lo up\nroute replace default via 192.168.56.1\n',
  })
})

it('waits for a network card that is still busy after a reboot', async () => {
  expect(await bringUp(3)).toMatchObject({ exitCode: 0, calls: 4 })
})
