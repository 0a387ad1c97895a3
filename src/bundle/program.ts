/**
 * `lab` itself in a bundle, so that a computer that has only Node can install it: the package, and its dependencies as
 * the tarballs that npm publishes. `npm ci` compares each with the digest in the lock file.
 */
import { existsSync } from 'node:fs'
import { chmod, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { execa } from 'execa'
import { LabError } from '../error.js'
import { projectRoot } from '../package.js'
import { sha256Of } from './manifest.js'

export interface ProgramFile {
  /** Paths in the bundle. */
  readonly path: string
  readonly size: number
  readonly sha256: string
}

interface LockEntry {
  readonly name?: string
  readonly version?: string
  readonly integrity?: string
  readonly dev?: boolean
  readonly link?: boolean
  resolved?: string
}

/** The fields of npm's lock file that matter here. */
export interface LockFile {
  readonly packages: Record<string, LockEntry>
}

/** `@xterm/xterm` for `node_modules/x/node_modules/@xterm/xterm`. */
const nameOf = (place: string): string =>
  place.slice(place.lastIndexOf('node_modules/') + 'node_modules/'.length)

/** The file name that `npm pack` gives a package. */
const tarballOf = (name: string, version: string): string =>
  `${name.replace(/^@/, '').replace('/', '-')}-${version}.tgz`

/** The packages that `lab` needs to run, each once, without those for its development. */
export const neededPackages = (
  lock: LockFile,
): readonly { readonly spec: string; readonly tarball: string; readonly integrity: string }[] => {
  const found = new Map<string, { spec: string; tarball: string; integrity: string }>()
  for (const [place, { name, version, integrity, dev, link }] of Object.entries(lock.packages)) {
    if (place === '' || dev === true || link === true || version === undefined || integrity === undefined)
      continue
    const called = name ?? nameOf(place)
    found.set(`${called}@${version}`, {
      spec: `${called}@${version}`,
      tarball: tarballOf(called, version),
      integrity,
    })
  }
  return [...found.values()]
}

/** The same lock file, without development packages, and with every package as a file next to it. */
export const lockBeside = (lock: LockFile): LockFile => ({
  ...lock,
  packages: Object.fromEntries(
    Object.entries(lock.packages)
      .filter(([, { dev }]) => dev !== true)
      .map(([place, entry]) => {
        if (place === '' || entry.version === undefined) {
          const { devDependencies, ...rest } = entry as LockEntry & { devDependencies?: unknown }
          return [place, rest]
        }
        return [
          place,
          { ...entry, resolved: `file:packages/${tarballOf(entry.name ?? nameOf(place), entry.version)}` },
        ]
      }),
  ),
})

const digestFits = (data: Buffer, integrity: string): boolean =>
  integrity.split(/\s+/).some((one) => {
    const [algorithm = '', digest] = one.split('-', 2)
    return (
      /^sha(256|384|512)$/.test(algorithm) && createHash(algorithm).update(data).digest('base64') === digest
    )
  })

/** Installs `lab` into a folder of the user's choice. The installed `lab` checks the signature of the bundle. */
const installScript = `#!/bin/sh
# Installs lab from this folder, without a network: sh install.sh [FOLDER]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
into=\${1:-$HOME/lab}
command -v node >/dev/null || { echo "lab needs Node 20 or later: https://nodejs.org" >&2; exit 3; }
[ "$(node -p 'Number(process.versions.node.split(".")[0]) >= 20')" = true ] ||
  { echo "lab needs Node 20 or later; this is $(node --version)" >&2; exit 3; }
(cd "$here" && sha256sum --quiet --check SHA256SUMS)
[ ! -e "$into" ] || { echo "$into is there already: sh install.sh ANOTHER-FOLDER" >&2; exit 2; }
mkdir -p "$into.new"
tar -xzf "$here/lab.tgz" -C "$into.new" --strip-components=1
cp "$here/package.json" "$here/package-lock.json" "$into.new/"
ln -s "$here/packages" "$into.new/packages"
(cd "$into.new" && npm ci --offline --ignore-scripts --no-audit --no-fund --loglevel=error)
rm "$into.new/packages"
mv "$into.new" "$into"
echo "lab is here: $into/dist/cli.js"
echo "So that it is called lab: ln -s $into/dist/cli.js /usr/local/bin/lab"
`

const isRight = async (file: string, integrity: string): Promise<boolean> => {
  const data = await readFile(file).catch(() => undefined)
  return data !== undefined && digestFits(data, integrity)
}

/** @throws LabError `npm-pack` */
const npmPack = async (signal: AbortSignal, ...words: readonly string[]): Promise<void> => {
  const result = await execa('npm', ['pack', '--silent', '--ignore-scripts', ...words], {
    cwd: projectRoot,
    reject: false,
    cancelSignal: signal,
    stdin: 'ignore',
  })
  if (result.failed)
    throw new LabError(
      'npm-pack',
      `npm packages of lab: ${(result.stderr || (result.shortMessage ?? '')).trim()}`,
      {
        hint: 'npm ping; a bundle can be made only where the npm registry, or a mirror of it, can be reached',
        cause: result,
      },
    )
}

/** Fetches the packages that are missing in a folder, and removes all others. */
const fetchPackages = async (
  needed: ReturnType<typeof neededPackages>,
  folder: string,
  signal: AbortSignal,
): Promise<void> => {
  await mkdir(folder, { recursive: true })
  const missing: string[] = []
  for (const { spec, tarball, integrity } of needed)
    if (!(await isRight(join(folder, tarball), integrity))) missing.push(spec)
  if (missing.length > 0) await npmPack(signal, '--pack-destination', folder, ...missing)
  for (const name of await readdir(folder))
    if (!needed.some(({ tarball }) => tarball === name)) await rm(join(folder, name))
  for (const { spec, tarball, integrity } of needed)
    if (!(await isRight(join(folder, tarball), integrity)))
      throw new LabError(
        'npm-pack',
        `${spec}: the registry offers a package other than the one in the lock file`,
        {
          hint: `npm view ${spec} dist.integrity`,
        },
      )
}

/** Packs lab itself, with what it takes to install it beside its packages. */
const packLab = async (lock: LockFile, folder: string, signal: AbortSignal): Promise<void> => {
  const text = await readFile(join(projectRoot, 'package.json'), 'utf8')
  const manifest = JSON.parse(text) as Record<string, unknown>
  await npmPack(signal, '--pack-destination', folder, projectRoot)
  const packed = tarballOf(String(manifest['name']), String(manifest['version']))
  await rename(join(folder, packed), join(folder, 'lab.tgz'))
  const { devDependencies, scripts, ...rest } = manifest
  await writeFile(join(folder, 'package.json'), `${JSON.stringify(rest, null, 2)}\n`)
  await writeFile(join(folder, 'package-lock.json'), `${JSON.stringify(lockBeside(lock), null, 2)}\n`)
  await writeFile(join(folder, 'install.sh'), installScript)
  await chmod(join(folder, 'install.sh'), 0o755)
}

/**
 * Adds the folder `lab` to a bundle. npm fetches the packages, from its own cache if possible.
 * @returns its files, by their path in the bundle
 * @throws LabError `no-lock-file`, `npm-pack`
 */
export const addProgram = async (into: string, signal: AbortSignal): Promise<readonly ProgramFile[]> => {
  const folder = join(into, 'lab')
  const lockFile = join(projectRoot, 'package-lock.json')
  if (!existsSync(lockFile))
    throw new LabError(
      'no-lock-file',
      `${lockFile} is missing: it lists the npm packages that lab is made of`,
      { hint: 'make the bundle from a clone of the repository, or from a lab that came from a bundle' },
    )
  const lock = JSON.parse(await readFile(lockFile, 'utf8')) as LockFile
  const needed = neededPackages(lock)
  await fetchPackages(needed, join(folder, 'packages'), signal)
  await packLab(lock, folder, signal)
  const names = [
    'lab.tgz',
    'package.json',
    'package-lock.json',
    'install.sh',
    ...needed.map(({ tarball }) => `packages/${tarball}`),
  ].sort()
  const described = async (name: string) => ({
    path: `lab/${name}`,
    size: (await stat(join(folder, name))).size,
    sha256: sha256Of(await readFile(join(folder, name))),
  })
  const files = await Promise.all(names.map(described))
  await writeFile(
    join(folder, 'SHA256SUMS'),
    files.map(({ path, sha256 }) => `${sha256}  ${path.slice('lab/'.length)}\n`).join(''),
  )
  return [...files, await described('SHA256SUMS')]
}
