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
   * every change in the API server's order, without gaps. Resolves after the list: from then on nothing is missed.
   * After a watch that ended, a new list shows what was missed.
   * @param failed as for `watch`
   */
  follow(
    path: string,
    seen: (event: WatchEvent) => void,
    signal: AbortSignal,
    failed?: (reason: unknown) => void,
  ): Promise<void>
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

/** The API server's phrase for HTTP 404, and kubectl's own for what a list does not contain. */
const notThereWords = /\(NotFound\)|not found/

/** kubectl's phrase for the exit code of what it ran in a container. 126 and 127: it could not be started there. */
const commandFailedWords = /^command terminated with exit code (?!126$|127$)\d+$/m

const failureOf = (said: string): string =>
  codeOf(
    said,
    commandFailedWords.test(said) ? commandFailed : notThereWords.test(said) ? notThere : 'kubectl-failed',
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

/** Follows a list from one of its versions until the watch ends. */
const followFrom = async (
  program: Program,
  { path, version }: { readonly path: string; readonly version: string },
  seen: (event: WatchEvent) => void,
  until: AbortSignal,
): Promise<void> => {
  const query = `?watch=1&allowWatchBookmarks=true&resourceVersion=${version}`
  await eachLine(program, ['--raw', `${path}${query}`], until, (event) => {
    // The version is too old, or the server is shutting down: a new list is needed.
    if (event.type === 'ERROR') return false
    if (event.type !== 'BOOKMARK') seen(event)
    return true
  })
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
  async (path, seen, until, missed) => {
    const known = new Known(seen)
    const list = async (): Promise<string> => {
      const found = JSON.parse(await run(['get', '--raw', path])) as ObjectList
      known.compare(found.items)
      return found.metadata.resourceVersion
    }
    let version: string | undefined = await list()
    const goOn = async (): Promise<void> => {
      while (!until.aborted) {
        try {
          version ??= await list()
          await followFrom(program, { path, version }, known.tell, until)
        } catch (error) {
          // The next one is started, and lists what was missed.
          missed?.(error)
        }
        version = undefined
        await delay(watchPause, undefined, { signal: until }).catch(() => undefined)
      }
    }
    goOn().catch(() => undefined)
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
