/** The built command line, with a state folder of its own; parts come from the cache that is in use. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse, stringify } from 'yaml'

export const cli = process.env.LAB_CLI ?? fileURLToPath(new URL('../dist/cli.js', import.meta.url))
// Short, because it holds Unix sockets; on a disk, because it holds gigabytes.
export const state = mkdtempSync(join('/var/tmp', 'lab-bench-'))

/**
 * Runs it to its end; resolves with exit code, seconds and output. `started` gets the process.
 * @param detached Ctrl-C at the terminal does not reach it
 * @param program another build of the command line
 */
export const lab = (args, { env = {}, onLine, started, detached = false, program = cli } = {}) =>
  new Promise((resolve, reject) => {
    const begun = performance.now()
    const child = spawn(process.execPath, [program, ...args], {
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

/** Ends the benchmark: a failed run has no figures. */
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

/** Labs of the course that have machines of their own. */
export const courseHosts = ['statefulset', 'deployment-ha', 'wordpress', 'zookeeper', 'cassandra']

/** Of numbers; undefined if there are none. */
export const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]

/** Calls `look` for every process of this host; one that ends in the meantime is left out. */
const eachProcess = (look) => {
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    try {
      look(pid, (file) => readFileSync(`/proc/${pid}/${file}`, 'utf8'))
    } catch {
      // It ended in the meantime.
    }
  }
}

/** Whether a process is the kernel of a machine of a lab. */
const isKernelOf = (name, read) => {
  const command = read('cmdline')
  return command.includes(join(state, name)) && command.includes('umid=')
}

/**
 * MiB that the machines of a lab use on this host. Nothing is shared between machines, so their memory is added up.
 */
export const heldMemory = (name) => {
  let kib = 0
  eachProcess((_, read) => {
    if (isKernelOf(name, read)) kib += Number(/^VmRSS:\s+(\d+)/m.exec(read('status'))?.[1] ?? 0)
  })
  return Math.round(kib / 1024)
}

/** Clock ticks of the kernel in a second: 100 on every Linux that Node.js runs on. */
const ticks = 100

/**
 * Seconds of CPU time that the machines of a lab have used: their kernels, what these have waited for, and the
 * processes of theirs that are alive.
 */
export const usedCpu = (name) => {
  const processes = new Map()
  const kernels = new Set()
  eachProcess((pid, read) => {
    const fields = read('stat')
      .replace(/^.*\) /s, '')
      .split(' ')
    const [parent, user, system, childUser, childSystem] = [1, 11, 12, 13, 14].map((place) =>
      Number(fields[place]),
    )
    processes.set(pid, { parent: String(parent), own: user + system, children: childUser + childSystem })
    if (isKernelOf(name, read)) kernels.add(pid)
  })
  let sum = 0
  for (const [pid, { parent, own, children }] of processes) {
    if (kernels.has(pid)) sum += own + children
    else if (kernels.has(parent)) sum += own
  }
  return sum / ticks
}

/** Parses the text of an option; invalid text ends the program with a message. */
export const whole = (option, text, most) => {
  const number = Number(text)
  if (Number.isInteger(number) && number >= 1 && number <= most) return number
  console.error(`--${option} ${text}: expected a whole number from 1 to ${most}`)
  tidy()
  process.exit(2)
}

export const mostSeed = 2147483646

/**
 * The minimal standard generator (Park and Miller, 1988): a printed seed repeats a run.
 * @param seed 1 to `mostSeed` @returns a function for the next number, from 0 to 1
 */
export const generator = (seed) => {
  const next = () => (seed = (seed * 48271) % 2147483647) / 2147483647
  // The first number of a small seed is near 0, whatever the seed.
  next()
  return next
}

export const tidy = () => rmSync(state, { recursive: true, force: true })
