/** A class of `lab class` with a folder of its own, as its teacher and its students use it. */
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { request } from 'node:https'
import { join } from 'node:path'
import { execa } from 'execa'
import { expect } from 'vitest'
import { cardUrl, type ClassFile, readClass } from '../../src/class/class.js'
import { runAtSeat } from '../../src/class/seat.js'
import { logIn } from '../../src/class/visit.js'
import { cli } from './lab.js'

export interface Said {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

export class Classroom {
  readonly folder: string
  readonly lab: string
  readonly port: number

  private constructor(folder: string, lab: string, port: number) {
    this.folder = folder
    this.lab = lab
    this.port = port
  }

  static async open(lab: string, port: number): Promise<Classroom> {
    const folder = await mkdtemp('/var/tmp/lab-class-')
    // The product's code in this process must find it, too.
    process.env['LAB_CLASSES'] = folder
    return new Classroom(folder, lab, port)
  }

  /** `lab class`, which may still be running. */
  start(...words: readonly string[]) {
    return execa(process.execPath, [cli, 'class', ...words], {
      env: { LAB_CLASSES: this.folder },
      reject: false,
      stdin: 'ignore',
    })
  }

  async run(...words: readonly string[]): Promise<Said> {
    const { exitCode = 128, stdout, stderr } = await this.start(...words)
    return { exitCode, stdout, stderr }
  }

  async ok(...words: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.run(...words)
    expect(exitCode, `lab class ${words.join(' ')}\n${stdout}\n${stderr}`).toBe(0)
    return stdout
  }

  get root(): string {
    return join(this.folder, this.lab)
  }

  async file(): Promise<ClassFile> {
    const found = await readClass(this.lab)
    if (!found) throw new Error(`there is no class in ${this.folder}`)
    return found
  }

  /** The address on a card, or of the teacher's page. @param seat `07`, or `teacher` */
  async url(seat: string): Promise<string> {
    const file = await this.file()
    const token = seat === 'teacher' ? file.teacher : file.seats.find(({ id }) => id === seat)?.token
    return cardUrl(file, token ?? '')
  }

  async cookie(seat: string): Promise<string> {
    return logIn(await this.url(seat), await this.certificate())
  }

  certificate(): Promise<string> {
    return readFile(join(this.root, 'certificate.pem'), 'utf8')
  }

  /** The pid of a seat's first process on this host. */
  async pidOf(seat: string): Promise<number> {
    return Number((await readFile(join(this.root, 'seats', seat, 'pid'), 'utf8')).split(' ')[0])
  }

  async gatewayPid(): Promise<number> {
    const { pid } = JSON.parse(await readFile(join(this.root, 'gateway.lock'), 'utf8')) as { pid: number }
    return pid
  }

  /** Runs a script as the student at a seat. */
  async student(seat: string, script: string): Promise<Said> {
    return runAtSeat({ class: await this.file(), id: seat }, ['sh', '-c', script], { timeout: 120_000 })
  }

  /** The gateway's answer: a status, and the beginning of the body. */
  async get(path: string, cookie?: string): Promise<{ readonly status: number; readonly body: string }> {
    const ca = await this.certificate()
    return new Promise((resolve, reject) => {
      request(
        {
          host: '127.0.0.1',
          port: this.port,
          path,
          ca,
          agent: false,
          headers: cookie === undefined ? {} : { cookie },
        },
        (response) => {
          const answer = (body: string): void => resolve({ status: response.statusCode ?? 0, body })
          // A stream of events does not end by itself.
          response.once('data', (data: Buffer) => {
            answer(data.toString('utf8'))
            response.destroy()
          })
          response.once('end', () => answer(''))
        },
      )
        .on('error', reject)
        .end()
    })
  }

  async close(): Promise<void> {
    if (existsSync(this.root)) await this.run('down', '--wait')
    await rm(this.folder, { recursive: true, force: true })
  }
}
