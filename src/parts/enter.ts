import { existsSync } from 'node:fs'
import { chmod, cp, mkdir, mkdtemp, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Build, RunOptions } from './part.js'
import { partsFolder } from './pins.js'
import { lend, powerless } from './sandbox.js'

const hostScript = join(partsFolder, 'upstream', 'host.sh')

/** The host's certificates, which a proxy of the network may require. */
const certificates = (): string | undefined =>
  [
    process.env['SSL_CERT_FILE'],
    '/etc/ssl/certs/ca-certificates.crt',
    '/etc/pki/tls/certs/ca-bundle.crt',
  ].find((path) => path !== undefined && existsSync(path))

interface Entered {
  /** The part whose `root` is entered; default: the builder. */
  readonly root?: string
  /** `from:to` or `from:to:ro`, in addition to `/lab/work` and `/lab/out`. */
  readonly binds: readonly string[]
}

/** The script for entering; it is an input of every part that is built with it. */
export const enterScript = join(partsFolder, 'builder', 'enter.sh')

/** A temporary folder for all commands that run in the build. */
const temporaryFolder = async (build: Build): Promise<string> => {
  const temporary = join(build.work, 'tmp')
  await mkdir(temporary, { recursive: true })
  await chmod(temporary, 0o1777)
  return temporary
}

/** The command line that runs a command inside the root directory of a part. */
export const enter = async (
  build: Build,
  command: readonly string[],
  { root = 'builder', binds }: Entered,
): Promise<readonly string[]> => {
  const trusted = certificates()
  return [
    enterScript,
    join(build.need(root), 'root'),
    `${build.work}:/lab/work`,
    `${build.out}:/lab/out`,
    `${await temporaryFolder(build)}:/tmp`,
    '/etc/resolv.conf:/etc/resolv.conf:ro',
    '/etc/hosts:/etc/hosts:ro',
    ...(trusted === undefined ? [] : [`${trusted}:/etc/ssl/certs/ca-certificates.crt:ro`]),
    ...binds,
    '--',
    ...command,
  ]
}

/** A command without privileges. */
interface Powerless extends Entered, Omit<RunOptions, 'network'> {
  /** Whether it has the host's network. */
  readonly network: boolean
  /** Folders that it may write, in addition to `/lab/work`, `/lab/out` and `/tmp`. */
  readonly writable?: readonly string[]
  /** Input files and small folders, by the path at which they are readable. */
  readonly inputs?: Readonly<Record<string, string>>
}

/** Makes world-readable copies of inputs, whatever umask they were created with. */
const readable = async (
  build: Pick<Build, 'work'>,
  inputs: Readonly<Record<string, string>>,
): Promise<readonly string[]> => {
  const folder = await mkdtemp(join(build.work, 'inputs-'))
  const binds: string[] = []
  for (const [to, from] of Object.entries(inputs)) {
    const copy = join(folder, String(binds.length))
    await cp(from, copy, { recursive: true, dereference: true })
    for (const entry of [copy, ...(await entriesBelow(copy))]) {
      const { mode } = await stat(entry)
      await chmod(entry, mode & 0o100 ? 0o755 : 0o644)
    }
    binds.push(`${copy}:${to}:ro`)
  }
  return binds
}

const entriesBelow = async (path: string): Promise<string[]> =>
  (await stat(path)).isDirectory()
    ? (await readdir(path, { recursive: true })).map((entry) => join(path, entry))
    : []

/** Runs a command inside the root directory of a part, as an unprivileged user who sees nothing else. */
export const runInside = async (
  build: Build,
  command: readonly string[],
  { root, binds, inputs = {}, writable = [], ...options }: Powerless,
): Promise<void> => {
  const all = [...binds, ...(await readable(build, inputs))]
  const entered = await enter(build, [...powerless, ...command], { ...(root && { root }), binds: all })
  await build.run([...lend([build.out, build.work, ...writable]), ...entered], options)
}

/**
 * Runs a program of the host as an unprivileged user, in a root directory that contains only the host's programs, its
 * network settings, `/lab/work` and `/lab/out`.
 */
export const runApart = async (
  build: Pick<Build, 'out' | 'work' | 'run'>,
  command: readonly string[],
  { inputs = {}, ...options }: Omit<Powerless, 'root' | 'binds' | 'writable'>,
): Promise<void> => {
  const root = await mkdtemp(join(build.work, 'host-'))
  const binds = [`${build.work}:/lab/work`, `${build.out}:/lab/out`, ...(await readable(build, inputs))]
  const apart = [hostScript, root, ...binds, '--', ...powerless, ...command]
  await build.run([...lend([build.out, build.work]), ...apart], options)
}
