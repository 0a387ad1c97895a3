/** One part while it is made: its lock, its log, its sandbox, and how far it is. */
import { createWriteStream } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { finished } from 'node:stream/promises'
import { LabError } from '../error.js'
import type { Cache, Measurement } from './cache.js'
import { diagnose } from './diagnose.js'
import type { Company } from './company.js'
import { Progress } from './estimate.js'
import type { Build, Fetch, Part, RunOptions } from './part.js'
import type { PartProgress } from './preparation.js'
import { runInSandbox } from './sandbox.js'

/** The part could not be fetched. */
export class NotPublished extends Error {}

/** A part that is to be made, from parts that exist. */
export interface Order {
  readonly part: Part
  readonly hash: string
  /** Its name in the cache. */
  readonly key: string
  /** Undefined: it is built. */
  readonly source: { readonly fetch: Fetch; readonly url: URL } | undefined
  readonly needs: readonly string[]
  /** The folder of another part. */
  readonly folderOf: (id: string) => string
}

/** Tells the state of one part. */
export type TellPart = (update: Omit<PartProgress, 'part' | 'title' | 'index' | 'total'>) => void

/** What the making of a part uses. */
interface Around {
  readonly cache: Cache
  readonly tell: TellPart
  readonly signal: AbortSignal
  /** Asked about once a second. */
  readonly company: () => Company
}

export class Making {
  readonly log: string
  readonly #order: Order
  readonly #cache: Cache
  readonly #tell: TellPart
  readonly #signal: AbortSignal
  readonly #company: () => Company
  readonly #started = Date.now()
  readonly #sofar: Progress
  #lines = 0
  #note = ''

  private constructor(
    order: Order,
    { cache, tell, signal, company }: Around,
    { log, before }: { log: string; before: Measurement },
  ) {
    this.#order = order
    this.#cache = cache
    this.#tell = tell
    this.#signal = signal
    this.#company = company
    this.#sofar = new Progress(before)
    this.log = log
  }

  static async begin(order: Order, around: Around): Promise<Making> {
    const { part, source } = order
    return new Making(order, around, {
      log: await around.cache.log(source ? `${part.id}-fetch` : part.id),
      before: (await around.cache.measured(part.id)) ?? part.reference,
    })
  }

  /** Seconds since it began. */
  elapsed(): number {
    return Math.round((Date.now() - this.#started) / 1000)
  }

  /**
   * Makes the part, unless another process has made it meanwhile.
   * @param lost called if another process took over the lock
   * @throws NotPublished if it could not be fetched
   */
  async run(lost: () => void): Promise<void> {
    const { part, key, source } = this.#order
    const make = async (): Promise<void> => {
      if (this.#cache.has(key)) {
        this.#tell({ state: 'cached' })
        return
      }
      await this.#cache.create(key, (out, work) => this.#fill(out, work))
      const seconds = (Date.now() - this.#started) / 1000
      // Only the duration of building is recorded.
      if (!source) await this.#cache.measure(part.id, { seconds, lines: this.#lines })
      const state = source ? 'fetched' : 'built'
      this.#tell({ state, fraction: 1, remaining: 0, elapsed: this.elapsed(), log: this.log })
    }
    const busy = (holder: string): void =>
      this.#tell({ state: 'waiting', elapsed: this.elapsed(), note: `${holder} is building it` })
    await this.#cache.locked(key, make, { signal: this.#signal, busy, lost })
  }

  /** The speed of a download is not known in advance. */
  #progress(): Partial<PartProgress> {
    return this.#order.source ? {} : this.#sofar.at(this.elapsed(), this.#lines, this.#company())
  }

  async #fill(out: string, work: string): Promise<void> {
    const { part, source } = this.#order
    const writing = createWriteStream(this.log)
    // A log that cannot be written is no reason to stop; a full disk shows elsewhere.
    writing.on('error', () => undefined)
    const say = (line: string): void => {
      this.#lines += 1
      if (line.trim()) this.#note = line.trim()
      writing.write(`${line}\n`)
    }
    const ticking = setInterval(() => {
      this.#tell({
        state: 'building',
        elapsed: this.elapsed(),
        ...this.#progress(),
        note: this.#note,
        log: this.log,
      })
    }, 1000)
    this.#tell({ state: 'building', elapsed: 0, ...this.#progress(), log: this.log })
    try {
      const build = this.#buildIn(out, work, say)
      if (!source) {
        await part.build(build)
        return
      }
      await source.fetch.run(build, source.url)
      if ((await readdir(out)).length === 0) throw new NotPublished()
    } finally {
      clearInterval(ticking)
      writing.end()
      await finished(writing).catch(() => undefined)
    }
  }

  #buildIn(out: string, work: string, say: (line: string) => void): Build {
    const { part, hash, needs, folderOf } = this.#order
    return {
      out,
      work,
      hash,
      signal: this.#signal,
      need: (id) => {
        if (!needs.includes(id)) throw new Error(`part ${part.id} does not declare that it needs ${id}`)
        return folderOf(id)
      },
      say,
      run: (command, options = {}) => this.#run(command, options, say),
    }
  }

  async #run(
    command: readonly string[],
    { blame, ...options }: RunOptions,
    say: (line: string) => void,
  ): Promise<void> {
    const ending = await runInSandbox(command, { signal: this.#signal, ...options, onLine: say })
    if (!ending) return
    const ended = ending.signal ?? `exit code ${String(ending.exitCode)}`
    const { code, reason, hint } = diagnose(ending.tail) ?? {
      code: blame?.code ?? 'part-failed',
      reason: `${blame?.reason ?? `${command[0] ?? ''} ended with ${ended}`}: ${lastWords(ending.tail)}`,
      hint: blame?.hint,
    }
    throw new LabError(code, reason, { hint, log: this.log })
  }
}

/** The most telling line: the first that names an error, since later ones are consequences. */
const lastWords = (tail: readonly string[]): string => {
  const telling = tail.find((line) =>
    /\berror: |\bfatal|^E: |: cannot |unbound variable|syntax error|not found|No such file|undefined: /i.test(
      line,
    ),
  )
  return (telling ?? tail.filter(Boolean).at(-1) ?? 'it printed nothing').trim().slice(0, 300)
}
