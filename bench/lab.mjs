/** The built command line, with a state folder of its own; parts come from the cache that is in use. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse, stringify } from 'yaml'

export const cli = process.env.LAB_CLI ?? fileURLToPath(new URL('../dist/cli.js', import.meta.url))
// Short, because it holds Unix sockets; on a disk, because it holds gigabytes.
export const state = mkdtempSync(join('/var/tmp', 'lab-bench-'))

/**
 * Runs it to its end; resolves with exit code, seconds and output. `started` gets the process.
 * @param detached Ctrl-C at the terminal does not reach it
 */
export const lab = (args, { env = {}, onLine, started, detached = false } = {}) =>
  new Promise((resolve, reject) => {
    const begun = performance.now()
    const child = spawn(process.execPath, [cli, ...args], {
      env: { ...process.env, LAB_STATE: state, NO_COLOR: '1', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached,
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

/** Ends the benchmark: a figure of a failed run is none. */
export const giveUp = async (args, result) => {
  console.error(`lab ${args.join(' ')}: exit code ${result.code}\n${result.stdout}\n${result.stderr}`)
  if ((await lab(['down', args[1] ?? ''])).code === 0) tidy()
  process.exit(1)
}

/** Like `lab`, but anything else than success ends the benchmark. */
export const must = async (args, options) => {
  const result = await lab(args, options)
  if (result.code !== 0) await giveUp(args, result)
  return result
}

/** A shipped lab with changes, as a file of its own. @returns its path */
export const variant = (from, name, change) => {
  const file = parse(readFileSync(new URL(`../labs/${from}.yaml`, import.meta.url), 'utf8'))
  file.name = name
  change(file)
  const path = join(state, `${name}.yaml`)
  writeFileSync(path, stringify(file))
  return path
}

/**
 * The minimal standard generator (Park and Miller, 1988): a printed seed repeats a run.
 * @param seed 1 to 2147483646 @returns a function for the next number, from 0 to 1
 */
export const generator = (seed) => () => (seed = (seed * 48271) % 2147483647) / 2147483647

export const tidy = () => rmSync(state, { recursive: true, force: true })
