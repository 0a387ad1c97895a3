/** The kubeconfig that a user names. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { execa } from 'execa'
import { exitCodes, LabError } from '../../error.js'
import { quote } from '../../machine/sh.js'

/**
 * The kubeconfig of one context, with everything that it refers to.
 * @throws LabError `bad-kubeconfig` if there is no such file or context
 */
export const minifiedKubeconfig = async (
  kubectl: string,
  named: string,
  context: string | undefined,
): Promise<string> => {
  const file = resolve(named)
  const bad = (why: string, hint: string): LabError =>
    new LabError('bad-kubeconfig', `${file}: ${why}`, { hint, exitCode: exitCodes.usage })
  if (!existsSync(file)) throw bad('there is no such file', 'kubectl config view, and --kubeconfig FILE')
  const chosen = context === undefined ? [] : ['--context', context]
  const said = await execa(
    kubectl,
    ['--kubeconfig', file, ...chosen, 'config', 'view', '--minify', '--flatten', '--raw'],
    { reject: false, stdin: 'ignore' },
  )
  if (said.exitCode === 0 && /^\s+server: /m.test(said.stdout)) return `${said.stdout}\n`
  if (said.code === 'ENOENT')
    throw new LabError('no-program', 'kubectl: not found on this host, and lab has built none', {
      hint: 'lab prepare deployment, or install kubectl',
      exitCode: exitCodes.host,
    })
  const lastLine = said.stderr.trim().split('\n').at(-1) ?? ''
  throw bad(
    lastLine === '' ? 'it names no server' : lastLine.replace(/^error: /, ''),
    `kubectl --kubeconfig ${quote(file)} config get-contexts`,
  )
}
