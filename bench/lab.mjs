/** The built command line, with a state folder of its own; parts come from the cache that is in use. */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const cli = process.env.LAB_CLI ?? fileURLToPath(new URL('../dist/cli.js', import.meta.url))
// Short, because it holds Unix sockets; on a disk, because it holds gigabytes.
export const state = mkdtempSync(join('/var/tmp', 'lab-bench-'))

/** Runs it to its end; resolves with exit code, seconds and output. `started` gets the process. */
export const lab = (args, { env = {}, onLine, started } = {}) =>
  new Promise((resolve, reject) => {
    const begun = performance.now()
    const child = spawn(process.execPath, [cli, ...args], {
      env: { ...process.env, LAB_STATE: state, NO_COLOR: '1', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    started?.(child)
    let stdout = ''
    let stderr = ''
    let rest = ''
    child.stdout.on('data', (chunk) => {
      stdout += chunk
      const lines = (rest + chunk).split('\n')
      rest = lines.pop()
      for (const line of lines) onLine?.(line, (performance.now() - begun) / 1000)
    })
    child.stderr.on('data', (chunk) => (stderr += chunk))
    child.once('error', reject)
    child.once('close', (code, signal) =>
      resolve({ code, signal, stdout, stderr, seconds: (performance.now() - begun) / 1000 }),
    )
  })

/** Like `lab`, but anything else than success ends the benchmark: a figure of a failed run is none. */
export const must = async (args, options) => {
  const result = await lab(args, options)
  if (result.code !== 0) {
    console.error(`lab ${args.join(' ')}: exit code ${result.code}\n${result.stdout}\n${result.stderr}`)
    await lab(['down', args[1] ?? ''])
    process.exit(1)
  }
  return result
}

export const tidy = () => rmSync(state, { recursive: true, force: true })
