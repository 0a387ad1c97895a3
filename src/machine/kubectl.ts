import { setTimeout as delay } from 'node:timers/promises'
import { execa } from 'execa'
import { LabError } from '../error.js'

/** A Kubernetes object as far as checks look. */
export interface KubeObject {
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly [key: string]: unknown }
  readonly [key: string]: unknown
}

/** kubectl with the lab's kubeconfig. */
export interface Kubectl {
  /** @throws LabError `kubectl-failed` with kubectl's own words. */
  run(args: readonly string[], options?: { input?: string; timeout?: number }): Promise<string>
  get<T = KubeObject>(...args: readonly string[]): Promise<T>
  /**
   * Tells every object once, and again whenever it changes or goes, until the signal: a watch that ends, as when
   * the API server does, is begun anew, and tells all objects again.
   */
  watch(args: readonly string[], seen: (event: WatchEvent) => void, signal: AbortSignal): Promise<void>
}

export interface WatchEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR'
  readonly object: KubeObject
}

/** Milliseconds before a watch that ended is begun anew. */
const watchPause = 500

/** @param patience all timeouts are that many times longer */
export const kubectlWith = (
  binary: string,
  kubeconfig: string,
  signal: AbortSignal,
  patience = 1,
): Kubectl => {
  const run: Kubectl['run'] = async (args, { input, timeout: usual = 30 } = {}) => {
    const timeout = usual * patience
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
    if (result.exitCode !== 0)
      throw new LabError(
        'kubectl-failed',
        `kubectl ${args.join(' ')}: ${(result.stderr || result.stdout || (result.originalMessage ?? 'no answer')).trim().split('\n').slice(-2).join(' | ')}`,
      )
    return result.stdout
  }
  const watchOnce = async (
    args: readonly string[],
    seen: (event: WatchEvent) => void,
    until: AbortSignal,
  ): Promise<void> => {
    const watching = execa(
      binary,
      ['--kubeconfig', kubeconfig, 'get', ...args, '--watch', '--output-watch-events', '-o', 'json'],
      { stdin: 'ignore', reject: false, cancelSignal: until, buffer: false },
    )
    for await (const line of watching.iterable()) if (line !== '') seen(JSON.parse(line) as WatchEvent)
    await watching
  }

  return {
    run,
    watch: async (args, seen, until) => {
      while (!until.aborted) {
        // How one of them ended tells nothing: another is begun.
        await watchOnce(args, seen, until).catch(() => undefined)
        await delay(watchPause, undefined, { signal: until }).catch(() => undefined)
      }
    },
    get: async <T>(...args: readonly string[]) => JSON.parse(await run(['get', '-o', 'json', ...args])) as T,
  }
}
