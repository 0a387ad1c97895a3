import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { existsSync, realpathSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { execa } from 'execa'
import lockfile from 'proper-lockfile'
import { exitCodes, LabError } from '../error.js'
import { mounts } from '../mounts.js'
import { type Doubtful, folderFrom } from '../state.js'
import { makeFolder, type Place, refuseForeign, refuseForeignIn } from '../trust.js'
import { removeTree } from './sandbox.js'
import { openUses } from './uses.js'

/** The cache holds no secrets, and a system made in it has users of its own. */
const shared = 0o755

const place: Place = {
  variable: 'LAB_CACHE',
  danger: 'lab runs the programs in it, and so would run somebody else’s',
}

/** Folders that were already checked; they are asked for many times. */
const trusted = new Set<string>()

/**
 * The folder of parts: LAB_CACHE, else XDG_CACHE_HOME/lab, else ~/.cache/lab. Root may have prepared it for
 * everybody.
 * @throws LabError if another user can write it or one of its parts
 */
export const cacheRoot = (): string => {
  const root = folderFrom('LAB_CACHE', 'XDG_CACHE_HOME', '.cache')
  if (trusted.has(root) || refuseForeign(root, place, 'ours-or-root', 'folder') === undefined) return root
  refuseForeignIn(root, place, 'ours-or-root', {
    // Files inside a part may belong to users of the system that it contains.
    into: (path) => path === 'parts',
    // Downloads belong to the unprivileged builders, and nothing in them is run on this host. Every user may note
    // which parts their machines need.
    but: (path) => path === 'go' || path === 'uses',
  })
  trusted.add(root)
  return root
}

/** The mount point of a path's file system if it is mounted noexec; undefined otherwise. */
export const noexecMountOf = (path: string): string | undefined => {
  let at = path
  while (!existsSync(at) && at !== '/') at = dirname(at)
  try {
    const real = realpathSync(at)
    const above = mounts().filter(
      ({ point }) => point === '/' || real === point || real.startsWith(`${point}/`),
    )
    // The deepest mount, and of several at one place the last, which hides the others.
    const deepest = Math.max(...above.map(({ point }) => point.length))
    const mount = above.findLast(({ point }) => point.length === deepest)
    return mount?.options.includes('noexec') ? mount.point : undefined
  } catch {
    // Not Linux, or no /proc: a failing start will tell.
    return undefined
  }
}

/** @throws LabError if parts cannot be stored or used there, before an hour is spent on building them */
export const openCache = async (root: string): Promise<void> => {
  await makeFolder(root, shared)
  refuseForeign(root, place)
  const mount = noexecMountOf(root)
  if (mount !== undefined)
    throw new LabError(
      'noexec',
      `${root}: no program can be started from it, because ${mount} is mounted noexec; the kernel of a machine is a program`,
      {
        hint: `mount -o remount,exec ${mount}\nor another folder: LAB_CACHE=$HOME/.lab-cache lab …`,
        exitCode: exitCodes.host,
      },
    )
  // Permissions may allow writing where a read-only file system does not.
  await makeFolder(join(root, 'parts'), shared)
  await openUses(root)
  const trial = join(root, `.${String(process.pid)}.trial`)
  try {
    await writeFile(trial, 'x')
  } finally {
    await rm(trial, { force: true })
  }
}

/** Milliseconds after which the lock of a dead process can be taken; its holder touches it twice as often. */
const staleLock = 10_000

/** The measurements of a build: its seconds and its lines of output. */
export interface Measurement {
  readonly seconds: number
  readonly lines: number
}

/** A cache entry that nothing refers to any more. */
export interface OldPart {
  readonly path: string
  readonly bytes: number
}

/**
 * The folder of parts, each under its name and the hash of its inputs. A folder `parts/<key>` is complete: it gets
 * this name by one rename when all its content is on disk.
 */
export class Cache {
  readonly root: string

  constructor(root: string = cacheRoot()) {
    this.root = root
  }

  /** The folder of a part, whether it exists or not. */
  path(key: string): string {
    return join(this.root, 'parts', key)
  }

  has(key: string): boolean {
    return existsSync(this.path(key))
  }

  async log(id: string): Promise<string> {
    const folder = join(this.root, 'logs')
    await makeFolder(folder, shared)
    await this.removeLogs(30)
    return join(folder, `${id}-${new Date().toISOString().replaceAll(/[-:]|\.\d+Z/g, '')}.log`)
  }

  /**
   * Runs `work` while no other process builds the same part. The lock of a killed process expires after ten seconds.
   * Not the lock of a lab: containers and other hosts may share a cache, and do not see the process that holds it
   * (docs/design/locks.md).
   * @param busy called repeatedly while another process holds the lock
   * @param lost called if the lock was taken over, as may happen to a process that was stopped for long
   */
  async locked<T>(
    key: string,
    work: () => Promise<T>,
    { signal, busy, lost }: { signal: AbortSignal; busy: (holder: string) => void; lost: () => void },
  ): Promise<T> {
    const folder = join(this.root, 'locks')
    await makeFolder(folder, shared)
    const file = join(folder, key)
    for (;;) {
      signal.throwIfAborted()
      try {
        const release = await lockfile.lock(file, { realpath: false, stale: staleLock, onCompromised: lost })
        try {
          return await work()
        } finally {
          await release().catch(() => undefined)
        }
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ELOCKED') throw error
      }
      busy(await this.#builderOf(key))
      await delay(300, undefined, { signal })
    }
  }

  async #builderOf(key: string): Promise<string> {
    const entries = await readdir(join(this.root, 'parts')).catch(() => [])
    const found = entries.find((entry) => entry.startsWith(`${key}.building-`))
    return found ? `process ${found.slice(found.lastIndexOf('-') + 1)}` : 'another process'
  }

  /**
   * Builds a part in a folder that has a temporary name until it is complete. The caller holds the lock.
   * @param fill makes the part in `out`; `work` is its scratch folder
   */
  async create(key: string, fill: (out: string, work: string) => Promise<void>): Promise<void> {
    await this.#removeUnfinished(key)
    const building = `${this.path(key)}.building-${String(process.pid)}`
    const out = join(building, 'out')
    const work = join(building, 'work')
    try {
      await makeFolder(join(this.root, 'parts'), shared)
      // One after another: with recursive, Node reports a full disk as a missing file.
      for (const folder of [building, out, work]) await mkdir(folder)
      await fill(out, work)
      // After a power cut, a complete folder must not contain incomplete files.
      await execa('sync', ['--file-system', out], { reject: false })
      await rename(out, this.path(key))
    } finally {
      await removeTree(building).catch(() => undefined)
    }
  }

  async #removeUnfinished(key: string): Promise<void> {
    for (const entry of await readdir(join(this.root, 'parts')).catch(() => []))
      if (entry.startsWith(`${key}.building-`)) await removeTree(join(this.root, 'parts', entry))
  }

  /** Removes what killed builds left behind. */
  async sweep(): Promise<void> {
    for (const entry of await readdir(join(this.root, 'parts')).catch(() => [])) {
      const key = /^(.*)\.building-\d+$/.exec(entry)?.[1]
      if (key === undefined) continue
      const file = join(this.root, 'locks', key)
      if (!(await lockfile.check(file, { realpath: false, stale: staleLock }).catch(() => false)))
        await removeTree(join(this.root, 'parts', entry))
    }
  }

  async measured(id: string): Promise<Measurement | undefined> {
    const text = await readFile(join(this.root, 'measured', `${id}.json`), 'utf8').catch(() => undefined)
    try {
      const { seconds, lines } = JSON.parse(text ?? '') as Doubtful<Measurement>
      return typeof seconds === 'number' && typeof lines === 'number' ? { seconds, lines } : undefined
    } catch {
      // Missing, or empty after a power cut: there is no measurement.
      return undefined
    }
  }

  async measure(id: string, measurement: Measurement): Promise<void> {
    const folder = join(this.root, 'measured')
    await makeFolder(folder, shared)
    const file = join(folder, `${id}.json`)
    await writeFile(`${file}.${String(process.pid)}`, JSON.stringify(measurement))
    await rename(`${file}.${String(process.pid)}`, file)
  }

  /** Complete parts that are not in `current` and contain no path of `keep`. */
  async old(current: ReadonlySet<string>, keep: readonly string[]): Promise<OldPart[]> {
    const found: OldPart[] = []
    for (const entry of await readdir(join(this.root, 'parts')).catch(() => [])) {
      const path = join(this.root, 'parts', entry)
      if (current.has(entry) || entry.includes('.building-')) continue
      if (keep.some((kept) => kept === path || kept.startsWith(`${path}/`))) continue
      found.push({ path, bytes: await diskUsage(path) })
    }
    return found
  }

  async remove(part: OldPart): Promise<void> {
    // Renamed first, so that nobody ever sees a partial folder.
    const gone = `${part.path}.building-${String(process.pid)}`
    await rename(part.path, gone)
    await removeTree(gone)
    await rm(join(this.root, 'locks', basename(part.path)), { recursive: true, force: true })
  }

  /** Removes logs older than `days`. */
  async removeLogs(days: number): Promise<void> {
    const folder = join(this.root, 'logs')
    for (const entry of await readdir(folder).catch(() => [])) {
      // Another process may be removing them as well.
      const { mtimeMs } = await stat(join(folder, entry)).catch(() => ({ mtimeMs: Infinity }))
      if (Date.now() - mtimeMs > days * 86_400_000) await rm(join(folder, entry), { force: true })
    }
  }
}

const diskUsage = async (path: string): Promise<number> => {
  const { stdout } = await execa('du', ['--summarize', '--block-size=1', path], { reject: false })
  return Number.parseInt(stdout, 10) || 0
}
