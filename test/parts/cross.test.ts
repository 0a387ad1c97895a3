/**
 * Parts for another kind of processor than this host's. test/vagrant checks that they can be built, and that a machine
 * of them boots.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { release } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { hostArchitecture } from '../../src/parts/architecture.js'
import { catalog, foreignCatalog } from '../../src/parts/catalog.js'
import { hashesOf } from '../../src/parts/graph.js'
import { boxOf } from '../../src/parts/parts.js'
import { partsFolder, pins } from '../../src/parts/pins.js'
import { runInSandbox } from '../../src/parts/sandbox.js'
import { temporaryFolder } from '../helpers/folder.js'

// Parts for another kind of processor exist only on amd64.
describe.skipIf(hostArchitecture() !== 'amd64')('parts for arm64', () => {
  const parts = foreignCatalog(pins(), '/cache', 'arm64')

  test('parts for arm64 exist beside those of this host, each with its own inputs', () => {
    const here = new Set(catalog(pins(), '/cache').map(({ id }) => id))
    const ids = parts.map(({ id }) => id)
    expect(hashesOf(parts).size).toBe(ids.length)
    // The Go compilers are the same.
    expect(ids.filter((id) => here.has(id))).toEqual(['builder', 'registry-client'])
    expect(ids.filter((id) => !id.endsWith('-arm64'))).toEqual(['builder', 'registry-client'])
    expect(ids).toEqual(expect.arrayContaining(['box-libvirt-arm64', 'box-virtualbox-arm64', 'cross-arm64']))
  })

  test('parts for arm64 change nothing that is built for this host', () => {
    const copy = structuredClone(pins())
    copy.cross.arm64!.packages.push('x')
    expect(hashesOf(catalog(copy, '/cache'))).toEqual(hashesOf(catalog(pins(), '/cache')))
    const changed = hashesOf(foreignCatalog(copy, '/cache', 'arm64'))
    const before = hashesOf(parts)
    expect(changed.get('box-libvirt-arm64')).not.toBe(before.get('box-libvirt-arm64'))
    expect(changed.get('kubernetes-arm64')).toBe(before.get('kubernetes-arm64'))
  })

  test('parts for arm64 make a different box', () => {
    const [here, there] = [boxOf('libvirt'), boxOf('libvirt', 'arm64')]
    expect(here.architecture).toBe('amd64')
    expect(there.architecture).toBe('arm64')
    expect(there.box).not.toBe(here.box)
    expect(there.version).not.toBe(here.version)
  })
})

// Since Linux 6.7, a user namespace can have its own binfmt_misc.
const [major = 0, minor = 0] = release()
  .split('.')
  .map((part) => Number.parseInt(part, 10))
const emulates =
  (major > 6 || (major === 6 && minor >= 7)) &&
  readFileSync('/proc/filesystems', 'utf8').includes('binfmt_misc') &&
  spawnSync('unshare', ['--user', 'true']).status === 0
test.skipIf(!emulates)(
  'a command for another processor is emulated in user namespaces alone, without registering anything on the host',
  async () => {
    const folder = await temporaryFolder()
    const known = join(folder, 'usr', 'aarch64-linux-gnu', 'lib', 'ld-linux-aarch64.so.1')
    await mkdir(join(known, '..'), { recursive: true })
    // In place of a program for arm64: only this one runs in another user namespace than the sandbox.
    const outside = '[ "$(readlink /proc/self/ns/user)" != "$OUTSIDE" ]'
    await writeFile(known, `#!/bin/sh\n${outside}\n`, { mode: 0o755 })
    const emulate = join(partsFolder, 'cross', 'emulate.sh')
    const emulator = join(folder, 'usr', 'bin', 'qemu-aarch64')
    await mkdir(join(emulator, '..'))
    await copyFile('/bin/true', emulator)
    const users = `awk '{ print "known:", $1, $3 }' /proc/self/uid_map`
    const lines: string[] = []
    const ending = await runInSandbox(
      [
        ...['bash', '-c', `${users}; OUTSIDE=$(readlink /proc/self/ns/user) "$@"`, 'sandbox'],
        ...[emulate, 'arm64', emulator, 'bash', '-c', `${users}; cat /proc/sys/fs/binfmt_misc/lab; exit 7`],
      ],
      { signal: new AbortController().signal, onLine: (line) => void lines.push(line) },
    )
    expect(ending?.exitCode, lines.join('\n')).toBe(7)
    const ranges = lines.filter((line) => line.startsWith('known:'))
    expect(ranges.length).toBeGreaterThan(0)
    expect(ranges.slice(ranges.length / 2)).toEqual(ranges.slice(0, ranges.length / 2))
    expect(lines).toContain(`interpreter ${emulator}`)
    expect(existsSync('/proc/sys/fs/binfmt_misc/lab')).toBe(false)
  },
)

test('a processor without an emulator is refused before anything runs', () => {
  const script = join(partsFolder, 'cross', 'emulate.sh')
  const { status, stdout } = spawnSync(script, ['vax', '/no/qemu-vax', 'echo', 'ran'], { encoding: 'utf8' })
  expect({ status, stdout }).toEqual({ status: 1, stdout: 'error: there is no emulator for vax here\n' })
})
