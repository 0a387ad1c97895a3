/** The probe of ZooKeeper's image. A small program stands in for `nc`, which this host need not have. */
import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { expect, test } from 'vitest'
import { projectRoot } from '../../src/render.js'
import { temporaryFolder } from '../helpers/folder.js'

const probe = join(projectRoot, 'parts', 'images', 'kubernetes-zookeeper', 'zookeeper-ready')

test.each([
  ['imok', 0],
  ['', 1],
])('a server that answers %j, asked in four bytes and no more: %d', async (answer, wanted) => {
  const folder = await temporaryFolder()
  const asked = join(folder, 'asked')
  await writeFile(join(folder, 'nc'), `#!/bin/sh\ncat > ${asked}\nprintf '%s' '${answer}'\n`)
  await chmod(join(folder, 'nc'), 0o755)
  const { exitCode } = await execa('bash', [probe, '2181'], {
    reject: false,
    env: { PATH: `${folder}:${process.env['PATH'] ?? ''}` },
  })
  expect(exitCode).toBe(wanted)
  // ZooKeeper reads four; a byte that is left makes its kernel reset the connection, and the answer is lost with it.
  expect((await execa('cat', [asked], { stripFinalNewline: false })).stdout).toBe('ruok')
})
