/** The built command line as a user runs it, with its own state folder; parts come from the real cache. */
import { setMaxListeners } from 'node:events'
import { existsSync, mkdtempSync, readFileSync } from 'node:fs'
import { cp, mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import { parse, stringify } from 'yaml'
import type { ReportJson } from '../../src/plan/report.js'
import type { RunReport } from '../../src/report/schema.js'
import { readmeBlock } from '../helpers/readme.js'

/** LAB_CLI: another build of it, to try something out. */
export const cli = process.env['LAB_CLI'] ?? fileURLToPath(new URL('../../dist/cli.js', import.meta.url))
const shipped = (name: string): string => fileURLToPath(new URL(`../../labs/${name}.yaml`, import.meta.url))

/** The result of a `lab run`. */
export interface Ran {
  readonly exitCode: number
  readonly runs: readonly RunReport[]
  readonly stderr: string
}

/** The checks that did not pass, for a failure message. */
export const runComplaints = (runs: readonly RunReport[]): readonly string[] =>
  runs.flatMap(({ scenario, checks }) =>
    checks
      .filter(({ outcome }) => outcome !== 'passed')
      .map(({ title, saw }) => `${scenario.name}: ${title}: ${saw}`),
  )

export class Bench {
  // /var/tmp, because a lab's folder holds Unix sockets, whose paths must be short, and gigabytes, which may not fit
  // into a tmpfs. The name lets the runner of many tests find what an interrupted test left.
  readonly folder = mkdtempSync(join('/var/tmp', `lab-e2e-${process.env['LAB_TEST_RUN'] ?? ''}`))
  readonly env: { readonly LAB_STATE: string; readonly NO_COLOR: string }

  /** Ends the processes that a timed-out test left running: they would work on a lab that is being removed. */
  readonly #ending = new AbortController()

  /** @param state the name of the folder of labs */
  constructor(state = 'state') {
    this.env = { LAB_STATE: join(this.folder, state), NO_COLOR: '1' }
    // A test of many machines talks to many of them at once.
    setMaxListeners(0, this.#ending.signal)
  }

  /** The network namespace in which `lab` runs; absent: that of the test. */
  network: string | undefined

  #start(args: readonly string[]) {
    const within = this.network === undefined ? [] : ['nsenter', `--net=${this.network}`, '--']
    const [program = '', ...words] = [...within, process.execPath, cli, ...args]
    return execa(program, words, {
      env: this.env,
      reject: false,
      stdin: 'ignore',
      cwd: this.folder,
      cancelSignal: this.#ending.signal,
      forceKillAfterDelay: 60_000,
    })
  }

  async lab(...args: readonly string[]): Promise<{ exitCode: number; stdout: string; stderr: string }> {
    const { exitCode = 128, stdout, stderr } = await this.#start(args)
    return { exitCode, stdout, stderr }
  }

  /** Runs a command that must succeed; if it fails, everything it printed is in the error. */
  async ok(...args: readonly string[]): Promise<string> {
    const result = await this.lab(...args)
    if (result.exitCode !== 0)
      throw new Error(
        `lab ${args.join(' ')}: exit code ${String(result.exitCode)}\n${result.stdout}\n${result.stderr}`,
      )
    return result.stdout
  }

  /**
   * Runs a command block of README.md, with its own home folder. The block "start" runs in a fresh copy of this
   * repository, as for a new user; for the others, `lab` is a command.
   */
  async readme(block: string): Promise<string> {
    const [copy, home, bin] = ['copy', 'home', 'bin'].map((name) => join(this.folder, name)) as [
      string,
      string,
      string,
    ]
    for (const folder of [home, bin]) await mkdir(folder, { recursive: true })
    await writeFile(join(bin, 'lab'), `#!/bin/sh\nexec '${process.execPath}' '${cli}' "$@"\n`, {
      mode: 0o755,
    })
    const root = fileURLToPath(new URL('../..', import.meta.url))
    const left = ['node_modules', 'dist', '.git', 'coverage'].map((name) => join(root, name))
    if (block === 'start') await cp(root, copy, { recursive: true, filter: (path) => !left.includes(path) })
    const cache =
      process.env['LAB_CACHE'] ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'lab')
    const { stdout } = await execa('sh', ['-c', readmeBlock(block)], {
      cwd: block === 'start' ? copy : this.folder,
      env: {
        ...this.env,
        HOME: home,
        LAB_CACHE: cache,
        npm_config_cache: process.env['npm_config_cache'] ?? join(homedir(), '.npm'),
        PATH: `${bin}:${process.env['PATH'] ?? ''}`,
      },
      stdin: 'ignore',
    })
    return stdout
  }

  async json<T>(...args: readonly string[]): Promise<T> {
    return JSON.parse((await this.lab(...args, '-o', 'json')).stdout) as T
  }

  /** Ids of the checks that fail. Their evidence is printed: a test that expects none shows ids only. */
  async complaints(lab: string): Promise<readonly string[]> {
    const report = await this.json<ReportJson>('verify', lab)
    const complaining = report.results.flatMap(({ checks }) => checks.filter(({ ok }) => !ok))
    for (const { id, saw } of complaining) console.log(`${lab}, ${id}: ${saw}`)
    return complaining.map(({ id }) => id)
  }

  /**
   * Waits up to 90 s until no check fails: a lost session comes back by itself, and on a busy host a machine may be
   * late for a moment. For tests of the final state of a lab, not of the time that it takes.
   */
  async whole(lab: string): Promise<void> {
    const deadline = performance.now() + 90_000
    for (;;) {
      const left = await this.complaints(lab)
      if (left.length === 0) return
      if (performance.now() > deadline) throw new Error(`${lab} is not healthy: ${left.join(', ')}`)
      await delay(500)
    }
  }

  async run(lab: string, ...words: readonly string[]): Promise<Ran> {
    const { exitCode, stdout, stderr } = await this.lab('run', lab, ...words, '-o', 'json')
    const { runs } = JSON.parse(stdout || '{"runs":[]}') as { runs: readonly RunReport[] }
    return { exitCode, runs, stderr }
  }

  /** A run that continues while the test does something else. */
  begin(lab: string, ...words: readonly string[]) {
    return this.#start(['run', lab, ...words])
  }

  /**
   * The power switch of a machine, used through the provider: nothing is recorded in the journal, as when a person
   * pulls the plug. `pause` stops the machine and keeps its memory.
   */
  async power(lab: string, machine: string, what: 'cut' | 'on' | 'pause' | 'resume'): Promise<void> {
    const program = `
      const { loadRunning } = await import(process.env.DIST + '/lifecycle/load-lab.js')
      const { providerOf } = await import(process.env.DIST + '/lifecycle/provider-in-use.js')
      const { sessionFor } = await import(process.env.DIST + '/command-line/with-lab.js')
      const { boot, fileOptions } = await import(process.env.DIST + '/steps/machines.js')
      const [name, machine, what] = process.argv.slice(1)
      const lab = await loadRunning(name)
      const provider = await providerOf(lab)
      if (what === 'on') {
        const session = await sessionFor(lab, provider, new AbortController().signal)
        const spec = lab.machines.find((each) => each.name === machine)
        await boot(lab, spec, await fileOptions(lab, provider)).apply(session, () => undefined)
        await session.close()
      } else if (what === 'cut') await provider.power.cut(lab, machine)
      else await provider.pause[what === 'pause' ? 'begin' : 'end'](lab, machine)`
    await execa(process.execPath, ['--input-type=module', '--eval', program, lab, machine, what], {
      env: { ...this.env, DIST: dirname(cli) },
      cwd: this.folder,
      stdin: 'ignore',
    })
  }

  /** The faults that must still be undone. */
  async openFaults(lab: string): Promise<readonly string[]> {
    const folder = join(this.env.LAB_STATE, lab, 'faults')
    return existsSync(folder) ? readdir(folder) : []
  }

  /** Ids of the steps that `up` changed. */
  async up(lab: string): Promise<readonly string[]> {
    const result = await this.lab('up', lab, '-o', 'json')
    const report = JSON.parse(result.stdout) as ReportJson
    const failed = report.results.filter(({ outcome }) => outcome !== 'ok' && outcome !== 'changed')
    if (failed.length > 0 || result.exitCode !== 0)
      throw new Error(
        `lab up ${lab}: ${failed.map(({ step, reason }) => `${step}: ${reason ?? ''}`).join('\n')}\n${result.stderr}`,
      )
    return report.results.filter(({ outcome }) => outcome === 'changed').map(({ step }) => step)
  }

  /** A shipped lab with changes, as a file of its own. */
  async variant(from: string, name: string, change: (lab: Record<string, never>) => void): Promise<string> {
    const lab = parse(readFileSync(shipped(from), 'utf8')) as Record<string, never> & { name: string }
    lab.name = name
    change(lab)
    const file = join(this.folder, `${name}.yaml`)
    await writeFile(file, stringify(lab))
    return file
  }

  /**
   * Ends all remaining processes, takes every lab down, and removes the folder; keeps the folder if a lab is still
   * there.
   */
  async close(): Promise<void> {
    this.#ending.abort()
    const made = existsSync(this.env.LAB_STATE) ? await readdir(this.env.LAB_STATE) : []
    // Next to the folders of labs are their locks, `.NAME.lock`.
    for (const name of made.filter((entry) => !entry.startsWith('.'))) {
      const down = await execa(process.execPath, [cli, 'down', name, '--wait'], {
        env: this.env,
        reject: false,
        stdin: 'ignore',
      })
      if (down.exitCode !== 0)
        throw new Error(`lab down ${name} left something in ${this.folder}:\n${down.stdout}\n${down.stderr}`)
    }
    await rm(this.folder, { recursive: true, force: true })
  }
}
