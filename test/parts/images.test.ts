/** Programs of the images. Small ones replace `nc` and `apache2`, which this host may not have. */
import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { expect, test } from 'vitest'
import { projectRoot } from '../../src/package.js'
import { temporaryFolder } from '../helpers/folder.js'

const images = join(projectRoot, 'parts', 'images')
const probe = join(images, 'kubernetes-zookeeper', 'zookeeper-ready')

test.each([
  ['imok', 0],
  ['', 1],
])(
  'the ZooKeeper probe sends exactly four bytes, and for the answer %j exits with %d',
  async (answer, wanted) => {
    const folder = await temporaryFolder()
    const asked = join(folder, 'asked')
    await writeFile(join(folder, 'nc'), `#!/bin/sh\ncat > ${asked}\nprintf '%s' '${answer}'\n`)
    await chmod(join(folder, 'nc'), 0o755)
    const { exitCode } = await execa('bash', [probe, '2181'], {
      reject: false,
      env: { PATH: `${folder}:${process.env['PATH'] ?? ''}` },
    })
    expect(exitCode).toBe(wanted)
    // ZooKeeper reads four bytes; a byte that is left makes its kernel reset the connection, and the answer is lost.
    expect((await execa('cat', [asked], { stripFinalNewline: false })).stdout).toBe('ruok')
  },
)

test("Apache starts with Debian's configuration, which reads variables that are not set", async () => {
  const folder = await temporaryFolder()
  // The beginning and some lines of Debian's /etc/apache2/envvars.
  await writeFile(
    join(folder, 'envvars'),
    `unset HOME
if [ "\${APACHE_CONFDIR##/etc/apache2-}" != "\${APACHE_CONFDIR}" ] ; then
  SUFFIX="-\${APACHE_CONFDIR##/etc/apache2-}"
else
  SUFFIX=
fi
export APACHE_PID_FILE=${folder}/run$SUFFIX/apache2.pid
export APACHE_RUN_DIR=${folder}/run$SUFFIX
export APACHE_LOCK_DIR=${folder}/lock$SUFFIX
`,
  )
  await writeFile(join(folder, 'apache2'), '#!/bin/sh\necho "$@"\n')
  await chmod(join(folder, 'apache2'), 0o755)
  const { stdout } = await execa('bash', [join(images, 'wordpress', 'apache2-foreground.sh'), '-X'], {
    env: { PATH: `${folder}:${process.env['PATH'] ?? ''}`, APACHE_ENVVARS: join(folder, 'envvars') },
  })
  expect(stdout).toBe('-DFOREGROUND -X')
})
