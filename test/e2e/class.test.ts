/**
 * A class of two seats on this host: reached through the cards, isolated from each other, killed in the middle, and
 * removed.
 */
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { request } from 'node:https'
import { join } from 'node:path'
import { execa } from 'execa'
import puppeteer from 'puppeteer-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const cli = join(import.meta.dirname, '../../dist/cli.js')
const root = process.getuid?.() === 0
const chromium = '/usr/bin/chromium'
const port = 8643

let classes = ''
const lab = async (
  ...words: readonly string[]
): Promise<{ readonly exitCode: number | undefined; readonly stdout: string; readonly stderr: string }> => {
  const { exitCode, stdout, stderr } = await execa(process.execPath, [cli, 'class', ...words], {
    env: { LAB_CLASSES: classes },
    reject: false,
    stdin: 'ignore',
  })
  return { exitCode, stdout, stderr }
}
const ok = async (...words: readonly string[]): Promise<string> => {
  const { exitCode, stdout, stderr } = await lab(...words)
  expect(exitCode, `${stdout}\n${stderr}`).toBe(0)
  return stdout
}
const classFile = async (): Promise<{ teacher: string; seats: { id: string; token: string }[] }> =>
  JSON.parse(await readFile(join(classes, 'iscsi/class.json'), 'utf8'))
const pidOf = async (seat: string): Promise<string> =>
  (await readFile(join(classes, 'iscsi/seats', seat, 'pid'), 'utf8')).split(' ')[0] ?? ''

/** The number of a student's own processes at a seat. */
const atSeat = async (seat: string, script: string): Promise<string> => {
  const { stdout: account } = await execa('getent', ['passwd', `lab-iscsi-${seat}`])
  const [, , uid = '', gid = ''] = account.split(':')
  const { stdout, stderr, exitCode } = await execa(
    'nsenter',
    [
      ...['--target', await pidOf(seat), '--mount', '--pid', '--net', '--ipc', '--uts', '--wd=/', '--'],
      ...[
        'setpriv',
        '--reuid',
        uid,
        '--regid',
        gid,
        '--clear-groups',
        '--no-new-privs',
        '--bounding-set=-all',
        '--inh-caps=-all',
      ],
      ...[
        'env',
        '-i',
        `HOME=/home/lab-iscsi-${seat}`,
        `LAB_SEAT=${seat}`,
        `LAB_STATE=/home/lab-iscsi-${seat}/.lab`,
      ],
      ...['LAB_CACHE=/run/lab/cache', 'PATH=/run/lab/bin:/usr/bin:/bin:/usr/sbin:/sbin', 'sh', '-c', script],
    ],
    { reject: false, stdin: 'ignore' },
  )
  return `${stdout}\n${stderr}\n${exitCode ?? ''}`
}

const statusOf = (path: string): Promise<number> =>
  new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, path, rejectUnauthorized: false, agent: false }, (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
      .on('error', reject)
      .end()
  })

describe.runIf(root)('lab class', () => {
  beforeAll(async () => {
    classes = await mkdtemp('/var/tmp/lab-class-')
  })
  afterAll(async () => {
    if (existsSync(join(classes, 'iscsi'))) await lab('down')
    await rm(classes, { recursive: true, force: true })
  })

  it('refuses zero seats, and more than fit, and makes nothing', async () => {
    expect(await lab('up', 'iscsi', '--count', '0')).toMatchObject({ exitCode: 2 })
    const many = await lab('up', 'iscsi', '--count', '99')
    expect(many.exitCode).toBe(3)
    expect(many.stderr).toMatch(/lab class up iscsi --count \d+/)
    expect(existsSync(join(classes, 'iscsi'))).toBe(false)
  })

  it('brings up two seats, even if class up is killed in the middle', async () => {
    const words = ['up', 'iscsi', '--count', '2', '--size', 'small', '--listen', `127.0.0.1:${port}`]
    const first = execa(process.execPath, [cli, 'class', ...words], {
      env: { LAB_CLASSES: classes },
      reject: false,
    })
    await expect.poll(() => existsSync(join(classes, 'iscsi/gateway.sock')), { timeout: 120_000 }).toBe(true)
    first.kill('SIGKILL')
    await first
    expect(await ok(...words)).toContain('2 of 2 seats of iscsi are up')
  })

  it('finds every seat ready through the address of its card', async () => {
    expect(await ok('verify')).toContain('2 of 2 seats are ready')
  })

  it('answers nothing without a token', async () => {
    for (const path of [
      '/',
      '/page/desk',
      '/page/board',
      '/board',
      '/me',
      '/files/class.css',
      '/some-wrong-words',
    ])
      expect([path, await statusOf(path)]).toEqual([path, 404])
  })

  it('keeps a student from other seats, from the host, and from the gateway', async () => {
    expect(await atSeat('01', 'lab exec iscsi target -- id -u')).toMatch(/^0$/m)
    expect(await atSeat('01', 'ls /home; ls /var/lib/lab')).not.toContain('iscsi-02')
    expect(
      await atSeat(
        '01',
        `cat ${classes}/iscsi/class.json ${classes}/iscsi/seats/02/home/.lab/iscsi@02/lab.yaml`,
      ),
    ).toMatch(/1$/)
    expect(await atSeat('01', 'ps -eo user= | sort -u')).not.toContain('iscsi-02')
    expect(
      await atSeat(
        '01',
        `node -e "require('net').connect(${port},'127.0.0.1').on('error',e=>console.log(e.code))"`,
      ),
    ).toContain('ECONNREFUSED')
    expect(await atSeat('01', 'touch /run/lab/cache/x /run/lab/program/x /etc/x')).not.toMatch(/^0$/m)
    expect(await atSeat('01', 'mount -t tmpfs x /mnt; su -c id; unshare --net true')).not.toMatch(/uid=0/)
  })

  it.runIf(existsSync(chromium))(
    'shows a terminal that outlives the gateway, and the teacher sees a raised hand',
    async () => {
      const { teacher, seats } = await classFile()
      const browser = await puppeteer.launch({
        executablePath: chromium,
        args: ['--no-sandbox', '--ignore-certificate-errors'],
      })
      try {
        const desk = await browser.newPage()
        const faults: string[] = []
        desk.on('pageerror', (error) => faults.push(String(error)))
        await desk.goto(`https://127.0.0.1:${port}/${seats[0]!.token}`)
        const shows = (text: string): Promise<unknown> =>
          desk.waitForFunction(`globalThis.shownText?.().includes(${JSON.stringify(text)})`, {
            timeout: 120_000,
          })
        await shows('$')
        await desk.keyboard.type('echo seat-$LAB_SEAT; remembered=still-$LAB_SEAT\n')
        await shows('seat-01')
        await (await browser.createBrowserContext()).close()
        const teachers = await browser.createBrowserContext()
        const teacherPage = await teachers.newPage()
        await teacherPage.goto(`https://127.0.0.1:${port}/${teacher}`)
        await desk.bringToFront()
        await desk.click('#hand')
        await teacherPage.waitForFunction(
          'document.querySelector(`tr[data-seat="01"]`)?.className === "hand"',
          { timeout: 60_000 },
        )
        const { pid } = JSON.parse(await readFile(join(classes, 'iscsi/gateway.lock'), 'utf8')) as {
          pid: number
        }
        process.kill(pid, 'SIGKILL')
        await desk.waitForFunction('!document.querySelector(`#notice`).hidden', { timeout: 60_000 })
        await desk.waitForFunction('document.querySelector(`#notice`).hidden', {
          timeout: 120_000,
        })
        await desk.keyboard.type('echo $remembered\n')
        await shows('still-01')
        expect(faults).toEqual([])
      } finally {
        await browser.close()
      }
    },
  )

  it('restarts a seat that was killed, and resets one', async () => {
    process.kill(Number(await pidOf('02')), 'SIGKILL')
    await expect
      .poll(async () => (await lab('status')).stdout, { timeout: 300_000, interval: 1000 })
      .toMatch(/02 {2}(waiting|starting)/)
    await expect
      .poll(async () => (await lab('status')).stdout, { timeout: 300_000, interval: 1000 })
      .toContain('2 of 2 seats ready')
    await atSeat('01', 'echo mine > ~/note; lab exec iscsi initiator -- touch /root/broken')
    expect(await ok('reset', '1')).toContain('seat 01 is new again')
    expect(await atSeat('01', 'cat ~/note; lab exec iscsi initiator -- ls /root/broken')).toMatch(
      /mine[\s\S]*No such file/,
    )
  })

  it('ends with nothing left', async () => {
    expect(await ok('results')).toContain('01,ready')
    expect(await ok('down')).toContain('2 seats, 0 left')
    expect((await execa('getent', ['passwd', 'lab-iscsi-01'], { reject: false })).exitCode).not.toBe(0)
    expect(existsSync(join(classes, 'iscsi'))).toBe(false)
  })
})
