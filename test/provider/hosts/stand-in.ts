/** A host that is a folder of this computer: scripts run here with its files and programs, and not as root. */
import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Transport } from '../../../src/machine/machine.js'

export class StandIn implements Transport {
  readonly address = 'host'
  readonly #root: string
  readonly #places: readonly string[]

  /** @param places beginnings of paths that scripts find in the folder */
  constructor(root: string, places: readonly string[]) {
    this.#root = root
    this.#places = [...places, '/var/lib/lab']
    mkdirSync(this.at('/bin'))
  }

  at(path: string): string {
    return join(this.#root, path)
  }

  /** A folder, if the path ends in a slash. */
  write(path: string, content: string | Buffer): void {
    mkdirSync(path.endsWith('/') ? this.at(path) : dirname(this.at(path)), { recursive: true })
    if (!path.endsWith('/')) writeFileSync(this.at(path), content)
  }

  read(path: string): string {
    return existsSync(this.at(path)) ? readFileSync(this.at(path), 'utf8') : ''
  }

  bytes(path: string): Buffer {
    return readFileSync(this.at(path))
  }

  /** @param script of a shell; `$ROOT` is the host's folder */
  program(name: string, script: string): void {
    this.write(`/bin/${name}`, `#!/bin/sh\nROOT=${this.#root}\n${script}\n`)
    chmodSync(this.at(`/bin/${name}`), 0o755)
  }

  exec(command: string, { input }: { readonly input?: string | Buffer | undefined } = {}) {
    const text = this.#places
      .reduce((all, place) => all.replaceAll(place, this.at(place)), command.replaceAll(this.#root, ''))
      .replace('PATH=/usr/local/sbin', `PATH=${this.at('/bin')}:/usr/local/sbin`)
    try {
      const stdout = execFileSync('sh', ['-c', text], { input: input ?? '', encoding: 'utf8', stdio: 'pipe' })
      return Promise.resolve({ exitCode: 0, stdout: stdout.replaceAll(this.#root, ''), stderr: '' })
    } catch (error) {
      const { status, stdout, stderr } = error as { status: number; stdout: string; stderr: string }
      return Promise.resolve({ exitCode: status, stdout, stderr })
    }
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
