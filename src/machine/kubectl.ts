import { setTimeout as delay } from 'node:timers/promises'
import { execa } from 'execa'
import { codeOf, commandFailed, LabError, notThere } from '../error.js'

/** The fields of a Kubernetes object that checks use. */
export interface KubeObject {
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly [key: string]: unknown }
  readonly [key: string]: unknown
}

/** kubectl with the lab's kubeconfig. */
export interface Kubectl {
  /**
   * @throws LabError `kubectl-failed`, `not-there`, `conflict`, `too-busy`, or `command-failed` of `kubectl exec`, with
   * kubectl's own message
   */
  run(args: readonly string[], options?: { input?: string; timeout?: number }): Promise<string>
  get<T = KubeObject>(...args: readonly string[]): Promise<T>
  /**
   * Reports every object once, and again whenever it changes or is deleted, until the signal. A watch that ends, for
   * example with the API server, is restarted and reports all objects again.
   * @param failed called with the reason whenever a watch fails, and what happens is not seen for a while
   */
  watch(
    args: readonly string[],
    seen: (event: WatchEvent) => void,
    signal: AbortSignal,
    failed?: (reason: unknown) => void,
  ): Promise<void>
  /**
   * Reports the objects of a path such as `/api/v1/namespaces/x/pods` until the signal: first the present ones, then
   * every change in the API server's order, without gaps. Resolves after the list: from then on nothing is missed
   * unnoticed. A watch that ended is continued from the last change that was seen. Only if the API server no longer has
   * the changes since then does a new list show the result, and not what happened meanwhile.
   */
  follow(path: string, seen: (event: WatchEvent) => void, signal: AbortSignal, sight?: Sight): Promise<void>
}

/** How much of what happens is seen. */
export interface Sight {
  /** The API server does not answer: changes are not seen before `back`. */
  readonly lost?: (reason: unknown) => void
  /** It answers again. The changes that were not seen follow, unless they were `missed`. */
  readonly back?: () => void
  /** Changes were missed for good. */
  readonly missed?: (reason: unknown) => void
}

/** A list of the API server, as returned by a `GET`. */
interface ObjectList {
  readonly metadata: { readonly resourceVersion: string }
  readonly items: readonly KubeObject[]
}

export interface WatchEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR'
  readonly object: KubeObject
}

/** Milliseconds before a watch that ended is restarted. */
const watchPause = 500

/**
 * Seconds of silence after which a watch asks the API server whether it is still there, and then waits for its answer.
 * Without an answer, the watch ends and is restarted: a control plane that lost its power closes no connection. The
 * client library's own values are 30 and 15, in which a fencing agent would not see a lost node.
 */
const silence = 5

/**
 * The API server's phrase for HTTP 404, and kubectl's own for what a list does not contain. A program that a container
 * or the kubeconfig lacks is also `not found`, which says nothing about the cluster.
 */
const notThereWords = /^Error from server \(NotFound\)|^error: [\w./ -]+ "[^"]+" not found$/m

/** The API server's phrases for a version of which it no longer has the changes. */
const expiredWords = /\((Expired|Gone)\)|too old resource version/

/** The code of the error for that. */
const expired = 'expired'

/** kubectl's phrase for the exit code of what it ran in a container. 126 and 127: it could not be started there. */
const commandFailedWords = /^command terminated with exit code (?!126$|127$)\d+$/m

const failureOf = (said: string): string =>
  codeOf(
    said,
    commandFailedWords.test(said)
      ? commandFailed
      : notThereWords.test(said)
        ? notThere
        : expiredWords.test(said)
          ? expired
          : 'kubectl-failed',
  )

const getWith =
  (run: Kubectl['run']): Kubectl['get'] =>
  async <T>(...args: readonly string[]) =>
    JSON.parse(await run(['get', '-o', 'json', ...args])) as T

/**
 * An object, named as for `kubectl get`; undefined if it does not exist.
 * @param timeout in seconds
 */
export const objectIfThere = async <T>(
  kubectl: Pick<Kubectl, 'run'>,
  named: readonly string[],
  options: { readonly timeout?: number } = {},
): Promise<T | undefined> => {
  const said = await kubectl.run(['get', ...named, '--ignore-not-found', '-o', 'json'], options)
  return said.trim() === '' ? undefined : (JSON.parse(said) as T)
}

/** The version of the API server: `v1.34.1`. */
export const serverVersion = async (kubectl: Pick<Kubectl, 'run'>): Promise<string> =>
  (JSON.parse(await kubectl.run(['get', '--raw', '/version'])) as { gitVersion: string }).gitVersion

/** Asks each question once, and repeats its answer: for an examination of one moment, which changes nothing. */
export const askingOnce = (kubectl: Kubectl): Kubectl => {
  const answers = new Map<string, Promise<string>>()
  const run: Kubectl['run'] = (args, options = {}) => {
    const question = JSON.stringify([args, options.input])
    const answer = answers.get(question) ?? kubectl.run(args, options)
    answers.set(question, answer)
    return answer
  }
  return { ...kubectl, run, get: getWith(run) }
}

/** kubectl with a kubeconfig, and what each of its commands begins with. */
interface Program {
  readonly binary: string
  readonly kubeconfig: string
  readonly signal: AbortSignal
  /** The factor for all timeouts. */
  readonly slowdown: number
}

const runIn =
  ({ binary, kubeconfig, signal, slowdown }: Program): Kubectl['run'] =>
  async (args, { input, timeout: usual = 30 } = {}) => {
    const timeout = usual * slowdown
    const result = await execa(
      binary,
      ['--kubeconfig', kubeconfig, `--request-timeout=${String(timeout)}s`, ...args],
      {
        ...(input === undefined ? { stdin: 'ignore' } : { input }),
        reject: false,
        cancelSignal: signal,
        timeout: (timeout + 5) * 1000,
        maxBuffer: 100_000_000,
      },
    )
    if (result.isCanceled) throw new LabError('interrupted', 'interrupted')
    if (result.exitCode !== 0) {
      throw failed(args, result.stderr || result.stdout || (result.originalMessage ?? 'no answer'))
    }
    return result.stdout
  }

const failed = (args: readonly string[], words: string): LabError => {
  const lines = words.trim().split('\n').slice(-2)
  // The first line of a script is enough, and does not hide the error.
  const [line = '', ...more] = args.join(' ').split('\n')
  const asked = more.length > 0 ? `${line} …` : line
  return new LabError(failureOf(lines.join('\n')), `kubectl ${asked}: ${lines.join(' | ')}`)
}

/**
 * Passes on what a `kubectl get` prints, line by line, until it or the signal ends.
 * @param take returns false to end it
 * @throws LabError if it fails
 */
const eachLine = async (
  { binary, kubeconfig, slowdown }: Program,
  args: readonly string[],
  until: AbortSignal,
  take: (event: WatchEvent) => boolean,
): Promise<void> => {
  const patience = String(silence * slowdown)
  const watching = execa(binary, ['--kubeconfig', kubeconfig, 'get', ...args], {
    stdin: 'ignore',
    reject: false,
    cancelSignal: until,
    buffer: { stdout: false, stderr: true },
    env: { HTTP2_READ_IDLE_TIMEOUT_SECONDS: patience, HTTP2_PING_TIMEOUT_SECONDS: patience },
  })
  let enough = false
  for await (const line of watching.iterable())
    if (line !== '' && !enough && !take(JSON.parse(line) as WatchEvent)) {
      enough = true
      watching.kill()
    }
  const { exitCode, stderr, originalMessage } = await watching
  if (exitCode !== 0 && !enough && !until.aborted)
    throw failed(['get', ...args], stderr || (originalMessage ?? 'no answer'))
}

const watchOnce = async (
  program: Program,
  args: readonly string[],
  seen: (event: WatchEvent) => void,
  until: AbortSignal,
): Promise<void> => {
  await eachLine(program, [...args, '--watch', '--output-watch-events', '-o', 'json'], until, (event) => {
    seen(event)
    return true
  })
}

/**
 * Follows a list from one of its versions until the watch ends.
 * @returns the version from which it can be continued
 * @throws LabError `expired` if the API server no longer has the changes since that version
 */
const followFrom = async (
  program: Program,
  { path, version }: { readonly path: string; readonly version: string },
  seen: (event: WatchEvent) => void,
  until: AbortSignal,
  reached: (version: string) => void,
): Promise<void> => {
  const query = `?watch=1&allowWatchBookmarks=true&resourceVersion=${version}`
  let ended: KubeObject | undefined
  await eachLine(program, ['--raw', `${path}${query}`], until, ({ type, object }) => {
    if (type === 'ERROR') {
      ended = object
      return false
    }
    if (type !== 'BOOKMARK') seen({ type, object })
    const { resourceVersion } = object.metadata
    if (typeof resourceVersion === 'string') reached(resourceVersion)
    return true
  })
  if (ended === undefined || until.aborted) return
  const { code, message } = ended as { readonly code?: unknown; readonly message?: unknown }
  const why = typeof message === 'string' ? message : 'the watch ended with an error'
  throw new LabError(code === 410 ? expired : 'kubectl-failed', `kubectl get --raw ${path}: ${why}`)
}

/** Remembers the objects of a list, so that a new list shows what was missed. */
class Known {
  readonly #objects = new Map<string, KubeObject>()
  readonly #seen: (event: WatchEvent) => void

  constructor(seen: (event: WatchEvent) => void) {
    this.#seen = seen
  }

  readonly tell = (event: WatchEvent): void => {
    const uid = String(event.object.metadata['uid'])
    if (event.type === 'DELETED') this.#objects.delete(uid)
    else this.#objects.set(uid, event.object)
    this.#seen(event)
  }

  compare(items: readonly KubeObject[]): void {
    const there = new Set(items.map(({ metadata }) => String(metadata['uid'])))
    for (const [uid, object] of [...this.#objects])
      if (!there.has(uid)) this.tell({ type: 'DELETED', object })
    for (const object of items)
      this.tell({ type: this.#objects.has(String(object.metadata['uid'])) ? 'MODIFIED' : 'ADDED', object })
  }
}

const followIn =
  (program: Program, run: Kubectl['run']): Kubectl['follow'] =>
  async (path, seen, until, { lost, back, missed } = {}) => {
    const known = new Known(seen)
    const list = async (): Promise<ObjectList> => JSON.parse(await run(['get', '--raw', path])) as ObjectList
    const first = await list()
    known.compare(first.items)
    let { resourceVersion: version } = first.metadata
    /** Whether the API server has not answered since a watch failed. */
    let blind = false
    /** One watch, and if the one before failed, first the question whether the API server answers again. */
    const goOn = async (): Promise<void> => {
      if (blind) {
        await list()
        blind = false
        back?.()
      }
      await followFrom(program, { path, version }, known.tell, until, (reached) => (version = reached))
    }
    const startOver = async (): Promise<void> => {
      const { metadata, items } = await list()
      known.compare(items)
      version = metadata.resourceVersion
    }
    const over = (): boolean => until.aborted
    const forEver = async (): Promise<void> => {
      while (!over()) {
        try {
          try {
            await goOn()
          } catch (error) {
            if (!(error instanceof LabError && error.code === expired)) throw error
            missed?.(error)
            await startOver()
          }
        } catch (error) {
          if (over()) return
          blind = true
          lost?.(error)
        }
        await delay(watchPause, undefined, { signal: until }).catch(() => undefined)
      }
    }
    forEver().catch(() => undefined)
  }

/** @param slowdown the factor for all timeouts */
export const kubectlWith = (
  binary: string,
  kubeconfig: string,
  signal: AbortSignal,
  slowdown = 1,
): Kubectl => {
  const program: Program = { binary, kubeconfig, signal, slowdown }
  const run = runIn(program)
  return {
    run,
    get: getWith(run),
    follow: followIn(program, run),
    watch: async (args, seen, until, missed) => {
      while (!until.aborted) {
        // However it ended, the next one is started.
        await watchOnce(program, args, seen, until).catch((error: unknown) => missed?.(error))
        await delay(watchPause, undefined, { signal: until }).catch(() => undefined)
      }
    },
  }
}
