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
}

export const kubectlWith = (binary: string, kubeconfig: string, signal: AbortSignal): Kubectl => {
  const run: Kubectl['run'] = async (args, { input, timeout = 30 } = {}) => {
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
  return {
    run,
    get: async <T>(...args: readonly string[]) => JSON.parse(await run(['get', '-o', 'json', ...args])) as T,
  }
}
