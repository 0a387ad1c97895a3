import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { execa } from 'execa'
import lockfile from 'proper-lockfile'
import { folderFrom } from '../state.js'
import { removeTree } from './sandbox.js'

/** Where parts are kept: LAB_CACHE, else XDG_CACHE_HOME/lab, else ~/.cache/lab. */
export const cacheRoot = (): string => folderFrom('LAB_CACHE', 'XDG_CACHE_HOME', '.cache')

/** Milliseconds after which the lock of a process that died may be taken; it is touched twice as often. */
const staleLock = 10_000

/** A part as it was built: seconds it took, lines it printed. */
export interface Measurement {
  readonly seconds: number
  readonly lines: number
}

/** Something in the cache that nothing refers to any more. */
export interface OldPart {
  readonly path: string
  readonly bytes: number
}

/**
 * The directory in which parts are kept, each under its name and the hash of what it was made from.
 * A directory `parts/<key>` is complete: it gets that name by one rename when all of it is on the disk.
 */
export class Cache {
  readonly root: string

  constructor(root: string = cacheRoot()) {
    this.root = root
  }

  /** The directory of a part, whether or not it is there. */
  path(key: string): string {
    return join(this.root, 'parts', key)
  }

  has(key: string): boolean {
    return existsSync(this.path(key))
  }

  async log(id: string): Promise<string> {
    const folder = join(this.root, 'logs')
    await mkdir(folder, { recursive: true })
    return join(folder, `${id}-${new Date().toISOString().replaceAll(/[-:]|\.\d+Z/g, '')}.log`)
  }

  /**
   * Runs `work` while no other process builds the same part. The lock of a process that was killed passes
   * on after ten seconds.
   * @param busy is called again and again while another process has it.
   * @param lost is called if the lock was taken from us, as may happen to a process that was stopped for long.
   */
  async locked<T>(
    key: string,
    work: () => Promise<T>,
    { signal, busy, lost }: { signal: AbortSignal; busy: (holder: string) => void; lost: () => void },
  ): Promise<T> {
    const folder = join(this.root, 'locks')
    await mkdir(folder, { recursive: true })
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
   * Builds a part in a directory that has another name until it is complete. The caller holds the lock.
   * @param fill makes the part in `out`; `work` is for what it needs meanwhile.
   */
  async create(key: string, fill: (out: string, work: string) => Promise<void>): Promise<void> {
    await this.#removeUnfinished(key)
    const building = `${this.path(key)}.building-${String(process.pid)}`
    const out = join(building, 'out')
    const work = join(building, 'work')
    try {
      await mkdir(join(this.root, 'parts'), { recursive: true })
      // Not all at once: with recursive, Node says of a full disk that there is no such file.
      for (const folder of [building, out, work]) await mkdir(folder)
      await fill(out, work)
      // A power cut must not leave a complete directory with incomplete files.
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

  /** Removes what builds left behind that were killed. */
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
    return text === undefined ? undefined : (JSON.parse(text) as Measurement)
  }

  async measure(id: string, measurement: Measurement): Promise<void> {
    const folder = join(this.root, 'measured')
    await mkdir(folder, { recursive: true })
    const file = join(folder, `${id}.json`)
    await writeFile(`${file}.${String(process.pid)}`, JSON.stringify(measurement))
    await rename(`${file}.${String(process.pid)}`, file)
  }

  /** Complete parts that are none of `current`, and that no path of `keep` leads into. */
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
    // First its name, so that nobody ever sees half of it.
    const gone = `${part.path}.building-${String(process.pid)}`
    await rename(part.path, gone)
    await removeTree(gone)
    await rm(join(this.root, 'locks', basename(part.path)), { recursive: true, force: true })
  }

  /** Removes logs older than `days`. */
  async removeLogs(days: number): Promise<void> {
    const folder = join(this.root, 'logs')
    for (const entry of await readdir(folder).catch(() => [])) {
      const { mtimeMs } = await stat(join(folder, entry))
      if (Date.now() - mtimeMs > days * 86_400_000) await rm(join(folder, entry), { force: true })
    }
  }
}

const diskUsage = async (path: string): Promise<number> => {
  const { stdout } = await execa('du', ['--summarize', '--block-size=1', path], { reject: false })
  return Number.parseInt(stdout, 10) || 0
}
