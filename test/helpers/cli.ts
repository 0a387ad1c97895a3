/** The built command line as a user runs it, in folders of its own: nothing of the real ones is read or changed. */
import { mkdirSync, mkdtempSync, readdirSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { execa } from 'execa'

/** LAB_CLI: another build of it, for trying things. */
export const cli = process.env['LAB_CLI'] ?? join(import.meta.dirname, '..', '..', 'dist', 'cli.js')

/** Where its modules lie, for programs that use one of them by itself. */
export const dist = dirname(cli)

export interface Ran {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

export class Desk {
  readonly folder = mkdtempSync(join(tmpdir(), 'lab-cli-'))
  readonly state = join(this.folder, 'state')
  readonly cache = join(this.folder, 'cache')
  /** Where it is run. */
  readonly here = join(this.folder, 'here')
  readonly env: Readonly<Record<string, string>> = {
    // Without the developer's own settings; HOME, too, because that is where it goes without LAB_STATE.
    PATH: process.env['PATH'] ?? '',
    HOME: join(this.folder, 'home'),
    LAB_STATE: this.state,
    LAB_CACHE: this.cache,
  }

  constructor() {
    for (const folder of [this.state, this.cache, this.here, join(this.folder, 'home')]) mkdirSync(folder)
  }

  async lab(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ran> {
    return this.run(process.execPath, [cli, ...args], env)
  }

  /** Under bash, as it would be typed; `lab` is the command line. */
  async shell(script: string, env: Readonly<Record<string, string>> = {}): Promise<Ran> {
    const lab = `lab() { '${process.execPath}' '${cli}' "$@"; }`
    return this.run('bash', ['-c', `${lab}\n${script}`], env)
  }

  async run(
    program: string,
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): Promise<Ran> {
    const result = await execa(program, args, {
      cwd: this.here,
      env: { ...this.env, ...env },
      extendEnv: false,
      reject: false,
      stdin: 'ignore',
      stripFinalNewline: false,
      timeout: 100_000,
    })
    return { exitCode: result.exitCode ?? 128, stdout: result.stdout, stderr: result.stderr }
  }

  /** Everything that is there now, whoever made it: relative paths, without the folders it began with. */
  contents(): readonly string[] {
    return readdirSync(this.folder, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.includes('/'))
      .sort()
  }

  /**
   * The mark that `lab up` leaves in a lab's folder: a stand-in for a lab that is up. Commands then look for its
   * machines, and find that none is there. The real thing is in test/e2e.
   */
  async madeBefore(lab: string, files: Readonly<Record<string, string>> = {}): Promise<void> {
    await mkdir(join(this.state, lab), { recursive: true })
    for (const [name, content] of Object.entries({ provider: 'uml\n', ...files }))
      await writeFile(join(this.state, lab, name), content)
  }

  async close(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true })
  }
}
