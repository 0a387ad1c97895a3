import { existsSync } from 'node:fs'
import { chmod, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Build } from './graph.js'
import { partsFolder } from './pins.js'

/** The host's certificates, which a proxy of the network may need. */
const certificates = (): string | undefined =>
  [
    process.env['SSL_CERT_FILE'],
    '/etc/ssl/certs/ca-certificates.crt',
    '/etc/pki/tls/certs/ca-bundle.crt',
  ].find((path) => path !== undefined && existsSync(path))

interface Entered {
  /** The part whose `root` it is; default: the builder. */
  readonly root?: string
  /** `from:to` or `from:to:ro`, beside `/lab/work` and `/lab/out`. */
  readonly binds: readonly string[]
}

/** The script that does it, an input of every part that is built with it. */
export const enterScript = join(partsFolder, 'builder', 'enter.sh')

/** The command line that runs a command inside a root directory that a part is. */
export const enter = async (
  build: Build,
  command: readonly string[],
  { root = 'builder', binds }: Entered,
): Promise<readonly string[]> => {
  const temporary = join(build.work, 'tmp')
  await mkdir(temporary, { recursive: true })
  await chmod(temporary, 0o1777)
  const trusted = certificates()
  return [
    enterScript,
    join(build.need(root), 'root'),
    `${build.work}:/lab/work`,
    `${build.out}:/lab/out`,
    `${temporary}:/tmp`,
    '/etc/resolv.conf:/etc/resolv.conf:ro',
    '/etc/hosts:/etc/hosts:ro',
    ...(trusted === undefined ? [] : [`${trusted}:/etc/ssl/certs/ca-certificates.crt:ro`]),
    ...binds,
    '--',
    ...command,
  ]
}
