/** The built command line as a user runs it, in its own folders: it neither reads nor changes the real ones. */
import { mkdirSync, mkdtempSync, readdirSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { execa } from 'execa'
import { afterAll } from 'vitest'

/** LAB_CLI: another build of it, to try something out. */
export const cli = process.env['LAB_CLI'] ?? join(import.meta.dirname, '..', '..', 'dist', 'cli.js')

/** The folder of its modules, for programs that use a single one. */
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
  /** The folder in which it runs. */
  readonly here = join(this.folder, 'here')
  readonly env: Readonly<Record<string, string>> = {
    // Without the developer's own settings; HOME is replaced as well, because it is the default without LAB_STATE.
    PATH: process.env['PATH'] ?? '',
    HOME: join(this.folder, 'home'),
    LAB_STATE: this.state,
    LAB_CACHE: this.cache,
    LAB_CLASSES: join(this.folder, 'classes'),
  }

  constructor() {
    for (const folder of [this.state, this.cache, this.here, join(this.folder, 'home')]) mkdirSync(folder)
  }

  async lab(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ran> {
    return this.run(process.execPath, [cli, ...args], env)
  }

  /** Under bash, as a user would type it; `lab` is the command line. */
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

  /** All files that exist now, as relative paths, without the folders that existed at first. */
  contents(): readonly string[] {
    return readdirSync(this.folder, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.includes('/'))
      .sort()
  }

  /**
   * The mark that `lab up` leaves in a lab's folder: it makes a lab look up. Commands then look for its machines, and
   * find none. test/e2e has real labs.
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

/** Makes desks for the tests of a file, which are closed after its last test. */
export const desks = (): (() => Desk) => {
  const made: Desk[] = []
  afterAll(async () => {
    await Promise.all(made.map((desk) => desk.close()))
  })
  return () => {
    const desk = new Desk()
    made.push(desk)
    return desk
  }
}
