/**
 * Machines are made of parts. A part is a folder made by a few commands from inputs that are known in advance, so it
 * is identified by the hash of these inputs: nothing is built twice, and an edit rebuilds only what depends on it.
 */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { Interrupted, LabError, messageOf } from '../error.js'
import type { Preparation } from './preparation.js'
import { projectRoot } from '../package.js'
import type { Cache } from './cache.js'
import { type Company, companyOf } from './company.js'
import { diagnose } from './diagnose.js'
import { Making, NotPublished, type Order, type TellPart } from './making.js'
import type { Part } from './part.js'
import { sourcesOf } from './sources.js'
import { checkSpace } from './disk-space.js'

/** Whether an error says that a fetched file differs from its pin. */
const isOther = (error: unknown): error is LabError =>
  error instanceof LabError && error.code === 'digest-mismatch'

const filesBelow = (path: string): string[] =>
  statSync(path).isDirectory()
    ? readdirSync(path)
        .sort()
        .flatMap((name) => filesBelow(join(path, name)))
    : [path]

/**
 * The hash of every part, 12 hexadecimal digits, from its own inputs and the hashes of the parts it needs.
 * @param parts each listed after its inputs
 */
export const hashesOf = (parts: readonly Part[]): ReadonlyMap<string, string> => {
  const hashes = new Map<string, string>()
  for (const part of parts) {
    const hash = createHash('sha256')
    hash.update(JSON.stringify([part.id, part.values]))
    for (const file of part.files.flatMap(filesBelow)) {
      const executable = (statSync(file).mode & 0o100) !== 0
      hash.update(`\0${relative(projectRoot, file)}\0${executable ? 'x' : '-'}\0`)
      hash.update(readFileSync(file))
    }
    for (const need of [...part.needs].sort()) {
      const needed = hashes.get(need)
      if (needed === undefined)
        throw new Error(`part ${part.id} needs ${need}, which does not come before it`)
      hash.update(`\0${need}=${needed}`)
    }
    hashes.set(part.id, hash.digest('hex').slice(0, 12))
  }
  return hashes
}

/** The parts that must be made for all of `targets` to exist: a part whose users all exist is not needed. */
export const missingParts = (
  parts: readonly Part[],
  targets: readonly string[],
  {
    isThere,
    needsOf = ({ needs }) => needs,
  }: { isThere: (part: Part) => boolean; needsOf?: (part: Part) => readonly string[] },
): readonly Part[] => {
  const wanted = new Set(targets)
  const missing: Part[] = []
  for (const part of [...parts].reverse()) {
    if (!wanted.has(part.id) || isThere(part)) continue
    missing.unshift(part)
    for (const need of needsOf(part)) wanted.add(need)
  }
  return missing
}

/** Seconds from the start of a part until everything that waits for it is done. */
const urgencyOf = (parts: readonly Part[]): ReadonlyMap<string, number> => {
  const urgency = new Map<string, number>()
  for (const part of [...parts].reverse()) {
    const after = parts
      .filter(({ needs, fetch }) => [...needs, ...(fetch?.needs ?? [])].includes(part.id))
      .map((other) => urgency.get(other.id) ?? 0)
    urgency.set(part.id, part.reference.seconds + Math.max(0, ...after))
  }
  return urgency
}

/** The failure of one part, with the cause of the failure. */
const failure = (part: Part, error: unknown, log: string): LabError => {
  if (error instanceof Interrupted) return error
  const known =
    error instanceof LabError
      ? { code: error.code, reason: error.message, hint: error.hint }
      : diagnose([messageOf(error)], (error as NodeJS.ErrnoException).code)
  return new LabError(known?.code ?? 'part-failed', `${part.title}: ${known?.reason ?? messageOf(error)}`, {
    hint: known?.hint ?? `tail -n 30 ${log}`,
    log,
    cause: error,
  })
}

/** Which parts exist, which can be fetched, and which must be made. */
class Stock {
  readonly #parts: readonly Part[]
  readonly #targets: readonly string[]
  readonly #cache: Cache
  readonly #hashes: ReadonlyMap<string, string>
  readonly #sources: Map<string, URL>

  private constructor(parts: readonly Part[], targets: readonly string[], cache: Cache) {
    this.#parts = parts
    this.#targets = targets
    this.#cache = cache
    this.#hashes = hashesOf(parts)
    this.#sources = new Map()
  }

  static async open(parts: readonly Part[], targets: readonly string[], cache: Cache): Promise<Stock> {
    const stock = new Stock(parts, targets, cache)
    for (const [id, url] of await sourcesOf(stock.missing())) stock.#sources.set(id, url)
    return stock
  }

  readonly isThere = (part: Part): boolean => this.has(part.id)

  has(id: string): boolean {
    return this.#cache.has(this.#keyOf(id))
  }

  needsOf(part: Part): readonly string[] {
    return ((this.#sources.has(part.id) ? part.fetch : undefined) ?? part).needs
  }

  missing(): readonly Part[] {
    return missingParts(this.#parts, this.#targets, {
      isThere: this.isThere,
      needsOf: (part) => this.needsOf(part),
    })
  }

  /** Every part that may have to be made. */
  candidates(): readonly Part[] {
    return missingParts(this.#parts, this.#targets, {
      isThere: this.isThere,
      needsOf: (part) => [...part.needs, ...this.needsOf(part)],
    })
  }

  orderOf(part: Part): Order {
    const url = this.#sources.get(part.id)
    return {
      part,
      hash: this.#hashes.get(part.id) ?? '',
      key: this.#keyOf(part.id),
      source: part.fetch && url ? { fetch: part.fetch, url } : undefined,
      needs: this.needsOf(part),
      folderOf: (id) => this.#cache.path(this.#keyOf(id)),
    }
  }

  /** This part cannot be fetched, and is built instead. */
  cannotFetch(part: Part): void {
    this.#sources.delete(part.id)
  }

  #keyOf(id: string): string {
    return `${id}-${this.#hashes.get(id) ?? ''}`
  }
}

/** What the making of every part of one preparation uses. */
interface Workshop {
  readonly stock: Stock
  readonly cache: Cache
  readonly preparation: Preparation
  /** The first failure ends everything else. */
  readonly stop: AbortController
  /** Aborted by the user, or by the first failure. */
  readonly signal: AbortSignal
  readonly tellerOf: (part: Part) => TellPart
}

/** Makes a part. If it was to be fetched and cannot be, it is left for another round, in which it is built. */
const makeOne = async (
  { stock, cache, preparation, stop, signal, tellerOf }: Workshop,
  part: Part,
  company: () => Company,
): Promise<void> => {
  const order = stock.orderOf(part)
  const tell = tellerOf(part)
  const making = await Making.begin(order, { cache, tell, signal, company })
  const { log } = making
  const lost = (): void =>
    stop.abort(
      new LabError('part-lock-lost', `${part.title}: another lab took it over`, { hint: 'run it again' }),
    )
  try {
    await making.run(lost)
  } catch (error) {
    if (error instanceof NotPublished || (order.source && isOther(error))) {
      stock.cannotFetch(part)
      const from = order.source?.url.host ?? ''
      if (isOther(error))
        preparation.notice(
          `${part.title}: ${from} does not deliver what is pinned: ${error.message}. It is built here instead. Log: ${log}`,
        )
      tell({ state: 'waiting', note: `not available from ${from}` })
      await checkSpace(cache, stock.missing())
      return
    }
    const said = signal.aborted ? (signal.reason as unknown) : failure(part, error, log)
    if (!signal.aborted) tell({ state: 'failed', elapsed: making.elapsed(), note: messageOf(said), log })
    throw said
  }
}

/**
 * Makes all that is missing, the most urgent parts first, and one of each lane at a time.
 * @throws Error for the first part that failed
 */
const makeAll = async (workshop: Workshop, urgency: ReadonlyMap<string, number>): Promise<void> => {
  const { stock, stop, signal } = workshop
  const running = new Map<Part, Promise<void>>()
  // Fetching takes no processor.
  const built = (part: Part): boolean => !stock.orderOf(part).source
  const companyIn = (part: Part) => (): Company =>
    companyOf(part, [...running.keys()].filter(built), stock.missing().filter(built))
  let failed: Error | undefined
  for (;;) {
    if (!signal.aborted) {
      const waiting = stock.missing().filter((part) => !running.has(part))
      for (const part of waiting.sort((a, b) => (urgency.get(b.id) ?? 0) - (urgency.get(a.id) ?? 0))) {
        const ready = stock.needsOf(part).every((id) => stock.has(id))
        const free = ![...running.keys()].some((other) => other.lane === part.lane)
        if (!ready || !free) continue
        const work = makeOne(workshop, part, companyIn(part)).then(
          () => {
            running.delete(part)
          },
          (error: unknown) => {
            running.delete(part)
            failed ??= error instanceof Error ? error : new Error(String(error))
            stop.abort(error)
          },
        )
        running.set(part, work)
      }
    }
    if (running.size === 0) break
    await Promise.race(running.values())
  }
  if (workshop.preparation.signal.aborted) throw new Interrupted()
  if (failed) throw failed
}

/**
 * Makes what is missing of `targets`: fetches published parts and builds the rest.
 * @param parts each listed after its inputs
 * @throws LabError for the first part that failed, after ending the others
 */
export const buildParts = async (
  parts: readonly Part[],
  targets: readonly string[],
  cache: Cache,
  preparation: Preparation,
): Promise<void> => {
  const stock = await Stock.open(parts, targets, cache)
  const candidates = stock.candidates()
  const shown = parts.filter((part) => targets.includes(part.id) || candidates.includes(part))
  const tellerOf =
    (part: Part): TellPart =>
    (update) =>
      preparation.progress({
        part: part.id,
        title: part.title,
        index: shown.indexOf(part) + 1,
        total: shown.length,
        ...update,
      })
  for (const part of shown) tellerOf(part)({ state: candidates.includes(part) ? 'waiting' : 'cached' })
  if (candidates.length === 0) return

  await cache.sweep()
  await checkSpace(cache, stock.missing())

  const stop = new AbortController()
  const signal = AbortSignal.any([preparation.signal, stop.signal])
  await makeAll({ stock, cache, preparation, stop, signal, tellerOf }, urgencyOf(parts))
  for (const part of candidates) if (!stock.isThere(part)) tellerOf(part)({ state: 'spared' })
}
