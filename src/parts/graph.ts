/**
 * Machines are made of parts. A part is a folder made by a few commands from inputs that are known in advance, so it
 * is identified by the hash of these inputs: nothing is built twice, and an edit rebuilds only what depends on it.
 */
import { createHash } from 'node:crypto'
import { createWriteStream, readdirSync, readFileSync, statSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { connect } from 'node:net'
import { join, relative } from 'node:path'
import { finished } from 'node:stream/promises'
import { Interrupted, LabError, messageOf } from '../error.js'
import { Progress } from './estimate.js'
import type { PartProgress, Preparation } from './preparation.js'
import { projectRoot } from '../package.js'
import type { Cache } from './cache.js'
import { diagnose } from './diagnose.js'
import type { Build, Fetch, Part } from './part.js'
import { proxies, runInSandbox } from './sandbox.js'
import { checkSpace } from './disk-space.js'

/** Milliseconds after which a silent host counts as unreachable. */
const connectTimeout = 5000

/**
 * Whether the host of an address answers. Without a connection, nothing is prepared for fetching and no time is lost.
 */
const answers = (url: URL): Promise<boolean> => {
  // A proxy may get through even if this host cannot.
  if (proxies.some((name) => process.env[name])) return Promise.resolve(true)
  return new Promise((resolve) => {
    const port = Number(url.port) || (url.protocol === 'http:' ? 80 : 443)
    const socket = connect({ host: url.hostname, port })
    const end = (reached: boolean) => () => {
      clearTimeout(late)
      socket.destroy()
      resolve(reached)
    }
    // Started before the connection, since resolving a name takes long without a name server.
    const late = setTimeout(end(false), connectTimeout)
    socket.once('connect', end(true)).once('error', end(false))
  })
}

/** Where these parts, by id, can be fetched ready-made, as far as that is known without asking. */
const sourcesOf = async (parts: readonly Part[]): Promise<Map<string, URL>> => {
  const sources = parts.flatMap(({ id, fetch }) => {
    const url = fetch?.from()
    return url ? [[id, url] as const] : []
  })
  const reached = new Map<string, Promise<boolean>>()
  for (const [, url] of sources) if (!reached.has(url.host)) reached.set(url.host, answers(url))
  const found = new Map<string, URL>()
  for (const [id, url] of sources) if (await reached.get(url.host)) found.set(id, url)
  return found
}

/** The part could not be fetched. */
class NotPublished extends Error {}

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
  const hashes = hashesOf(parts)
  const keyOf = (part: Pick<Part, 'id'>): string => `${part.id}-${hashes.get(part.id) ?? ''}`
  const isThere = (part: Part): boolean => cache.has(keyOf(part))
  const sources = await sourcesOf(missingParts(parts, targets, { isThere }))
  const fetchOf = ({ id, fetch }: Part): Fetch | undefined => (sources.has(id) ? fetch : undefined)
  const needsOf = (part: Part): readonly string[] => (fetchOf(part) ?? part).needs
  const missing = (): readonly Part[] => missingParts(parts, targets, { isThere, needsOf })
  // Every part that may have to be made.
  const candidates = missingParts(parts, targets, {
    isThere,
    needsOf: (part) => [...part.needs, ...needsOf(part)],
  })
  const shown = parts.filter((part) => targets.includes(part.id) || candidates.includes(part))
  const tell = (part: Part, update: Omit<PartProgress, 'part' | 'title' | 'index' | 'total'>): void => {
    preparation.progress({
      part: part.id,
      title: part.title,
      index: shown.indexOf(part) + 1,
      total: shown.length,
      ...update,
    })
  }
  for (const part of shown) tell(part, { state: candidates.includes(part) ? 'waiting' : 'cached' })
  if (candidates.length === 0) return

  await cache.sweep()
  await checkSpace(cache, missing())

  // The first failure ends everything else.
  const stop = new AbortController()
  const signal = AbortSignal.any([preparation.signal, stop.signal])

  const makeOne = async (part: Part): Promise<void> => {
    const key = keyOf(part)
    const fetch = fetchOf(part)
    const url = sources.get(part.id)
    const needs = needsOf(part)
    const log = await cache.log(fetch ? `${part.id}-fetch` : part.id)
    const before = (await cache.measured(part.id)) ?? part.reference
    const started = Date.now()
    let lines = 0
    let note = ''
    const elapsed = (): number => Math.round((Date.now() - started) / 1000)
    const sofar = new Progress(before)
    // The speed of a download is not known in advance.
    const progress = (): Partial<PartProgress> => (fetch ? {} : sofar.at(elapsed(), lines))

    const make = async (out: string, work: string): Promise<void> => {
      const writing = createWriteStream(log)
      // A log that cannot be written is no reason to stop; a full disk shows elsewhere.
      writing.on('error', () => undefined)
      const say = (line: string): void => {
        lines += 1
        if (line.trim()) note = line.trim()
        writing.write(`${line}\n`)
      }
      const ticking = setInterval(() => {
        tell(part, { state: 'building', elapsed: elapsed(), ...progress(), note, log })
      }, 1000)
      tell(part, { state: 'building', elapsed: 0, ...progress(), log })
      try {
        const build: Build = {
          out,
          work,
          hash: hashes.get(part.id) ?? '',
          signal,
          need: (id) => {
            if (!needs.includes(id)) throw new Error(`part ${part.id} does not declare that it needs ${id}`)
            return cache.path(keyOf({ id }))
          },
          say,
          run: async (command, { blame, ...options } = {}) => {
            const ending = await runInSandbox(command, { signal, ...options, onLine: say })
            if (!ending) return
            const ended = ending.signal ?? `exit code ${String(ending.exitCode)}`
            const { code, reason, hint } = diagnose(ending.tail) ?? {
              code: blame?.code ?? 'part-failed',
              reason: `${blame?.reason ?? `${command[0] ?? ''} ended with ${ended}`}: ${lastWords(ending.tail)}`,
              hint: blame?.hint,
            }
            throw new LabError(code, reason, { hint, log })
          },
        }
        if (!fetch || !url) {
          await part.build(build)
          return
        }
        await fetch.run(build, url)
        if ((await readdir(out)).length === 0) throw new NotPublished()
      } finally {
        clearInterval(ticking)
        writing.end()
        await finished(writing).catch(() => undefined)
      }
    }

    try {
      await cache.locked(
        key,
        async () => {
          if (cache.has(key)) {
            tell(part, { state: 'cached' })
            return
          }
          await cache.create(key, make)
          // Only the duration of building is recorded.
          if (!fetch) await cache.measure(part.id, { seconds: (Date.now() - started) / 1000, lines })
          tell(part, {
            state: fetch ? 'fetched' : 'built',
            fraction: 1,
            remaining: 0,
            elapsed: elapsed(),
            log,
          })
        },
        {
          signal,
          busy: (holder) => {
            tell(part, { state: 'waiting', elapsed: elapsed(), note: `${holder} is building it` })
          },
          lost: () => {
            stop.abort(
              new LabError('part-lock-lost', `${part.title}: another lab took it over`, {
                hint: 'run it again',
              }),
            )
          },
        },
      )
    } catch (error) {
      if (error instanceof NotPublished || (fetch && isOther(error))) {
        sources.delete(part.id)
        const from = url?.host ?? ''
        if (isOther(error))
          preparation.notice(
            `${part.title}: ${from} does not deliver what is pinned: ${error.message}. It is built here instead. Log: ${log}`,
          )
        tell(part, { state: 'waiting', note: `not available from ${from}` })
        await checkSpace(cache, missing())
        return
      }
      const said = signal.aborted ? (signal.reason as unknown) : failure(part, error, log)
      if (!signal.aborted) tell(part, { state: 'failed', elapsed: elapsed(), note: messageOf(said), log })
      throw said
    }
  }

  const urgency = urgencyOf(parts)
  const running = new Map<Part, Promise<void>>()
  let failed: Error | undefined
  for (;;) {
    if (!signal.aborted) {
      const waiting = missing().filter((part) => !running.has(part))
      for (const part of waiting.sort((a, b) => (urgency.get(b.id) ?? 0) - (urgency.get(a.id) ?? 0))) {
        const ready = needsOf(part).every((id) => cache.has(keyOf({ id })))
        const free = ![...running.keys()].some((other) => other.lane === part.lane)
        if (!ready || !free) continue
        const work = makeOne(part).then(
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
  if (preparation.signal.aborted) throw new Interrupted()
  if (failed) throw failed
  for (const part of candidates) if (!isThere(part)) tell(part, { state: 'spared' })
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
