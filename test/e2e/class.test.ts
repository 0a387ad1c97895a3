/** A class of two seats on this host: through the cards, killed in the middle, taught, reset, and gone. */
import { existsSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { once } from 'node:events'
import { request } from 'node:https'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { execa } from 'execa'
import puppeteer, { type Browser, type Page } from 'puppeteer-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import type { Board } from '../../src/class/board.js'
import { Classroom } from './classroom.js'

const root = process.getuid?.() === 0
const chromium = '/usr/bin/chromium'
const port = 8643
const exerciseFile = join(import.meta.dirname, '../../labs/learn/chap-login/exercise.yaml')

/** LAB_PICTURES: a folder that gets pictures of the pages. */
const picture = async (page: Page, name: string): Promise<void> => {
  const folder = process.env['LAB_PICTURES']
  if (folder === undefined) return
  await mkdir(folder, { recursive: true })
  await page.screenshot({ path: join(folder, `${name}.png`) })
}

/** Waits until a terminal of the page, `first` or `second`, shows the text. */
const shows = async (page: Page, text: string, which = 'first', timeout = 120_000): Promise<void> => {
  const shown = `globalThis.shownText?.(${JSON.stringify(which)})`
  try {
    // `polling`: not with its frames, because a page behind another one draws none.
    await page.waitForFunction(`${shown}?.includes(${JSON.stringify(text)})`, { timeout, polling: 200 })
  } catch (error) {
    throw new Error(
      `the ${which} terminal does not show ${text}, but:\n${String(await page.evaluate(shown))}`,
      {
        cause: error,
      },
    )
  }
}

describe.runIf(root)('lab class', () => {
  let room: Classroom
  let browser: Browser | undefined
  const up = ['up', 'iscsi', '--count', '2', '--size', 'small', '--listen', `127.0.0.1:${String(port)}`]

  beforeAll(async () => {
    room = await Classroom.open('iscsi', port)
  })
  afterAll(async () => {
    await browser?.close()
    await room.close()
  }, 120_000)

  const boardNow = async (): Promise<Board> => JSON.parse(await room.ok('status', '-o', 'json')) as Board
  const statusOf = async (seat: string): Promise<string | undefined> =>
    (await boardNow()).seats.find(({ id }) => id === seat)?.status

  it('lab class refuses impossible requests with the reason, and makes nothing', async () => {
    const refused: readonly (readonly [readonly string[], number, RegExp])[] = [
      [['up', 'iscsi', '--count', '0'], 2, /--count 0: from 1 to 99/],
      [['up', 'iscsi', '--count', '-3'], 2, /--count -3/],
      [['up', 'iscsi', '--count', '1.5'], 2, /--count 1\.5/],
      [['up', 'iscsi', '--count', '100'], 2, /--count 100: from 1 to 99/],
      [['up', 'iscsi'], 2, /--count/],
      [['up', 'iscsy', '--count', '2'], 2, /iscsi/],
      [['up', 'iscsi', '--count', '2', '--listen', 'here'], 2, /here/],
      [['up', 'iscsi', '--count', '2', '--listen', '203.0.113.9:8443'], 3, /203\.0\.113\.9/],
      [['up', 'iscsi', '--count', '2', '--hours', '0'], 2, /--hours 0/],
      [['up', 'iscsi', '--count', '2', '--size', 'tiny'], 2, /tiny/],
      [['up', 'iscsi', '--count', '2', '--lang', 'de'], 2, /de/],
      [['up', 'iscsi', '--count', '99'], 3, /lab class up iscsi --count \d+/],
      [['status'], 2, /there is no class/],
      [['down'], 2, /there is no class/],
    ]
    for (const [words, exitCode, says] of refused) {
      const said = await room.run(...words)
      expect(said, words.join(' ')).toMatchObject({ exitCode })
      expect(said.stderr, words.join(' ')).toMatch(says)
    }
    const other = createServer().listen(port, '127.0.0.1')
    await once(other, 'listening')
    const taken = await room.run(...up)
    other.close()
    expect(taken.exitCode).not.toBe(0)
    expect(taken.stderr).toMatch(/127\.0\.0\.1:8643.*(in use|EADDRINUSE)/)
    expect(existsSync(room.root)).toBe(false)
    expect((await execa('getent', ['passwd', 'lab-iscsi-01'], { reject: false })).exitCode).not.toBe(0)
  }, 120_000)

  it('lab class brings up two seats, although class up and the gateway are killed in the middle', async () => {
    for (const [there, more] of [
      ['class.json', 0],
      ['gateway.sock', 0],
      ['seats/01/pid', 2000],
    ] as const) {
      const killed = room.start(...up)
      await expect.poll(() => existsSync(join(room.root, there)), { timeout: 120_000 }).toBe(true)
      await delay(more)
      killed.kill('SIGKILL')
      await killed
    }
    expect(await statusOf('01')).toBe('starting')
    process.kill(await room.gatewayPid(), 'SIGKILL')
    expect(await room.ok(...up)).toContain('2 of 2 seats of iscsi are up')
  }, 300_000)

  it('lab class finds every seat ready through the address of its card', async () => {
    expect(await room.ok('verify')).toContain('2 of 2 seats are ready')
  }, 120_000)

  it('lab class answers nothing without a token, and makes clients that guess tokens wait', async () => {
    const paths = ['/', '/page/desk', '/page/board', '/board', '/board/events', '/me', '/files/class.css']
    for (const path of [
      ...paths,
      '/some-wrong-words',
      '/files/../class.json',
      '/files/%2e%2e/%2e%2e/package.json',
    ])
      expect([path, (await room.get(path)).status]).toEqual([path, 404])
    const ca = await room.certificate()
    const guess = (localAddress: string): Promise<number | undefined> =>
      new Promise((resolve, reject) => {
        request({ host: '127.0.0.1', port, path: '/wrong-words-again-no', ca, agent: false, localAddress })
          .on('response', (response) => {
            response.resume()
            resolve(response.statusCode)
          })
          .on('error', reject)
          .end()
      })
    const answers: (number | undefined)[] = []
    for (let count = 0; count < 12; count++) answers.push(await guess('127.0.0.9'))
    expect(answers).toEqual([...Array.from({ length: 10 }, () => 404), 429, 429])
    // Others are not delayed.
    expect((await room.get('/me', await room.cookie('01'))).status).toBe(200)
  }, 60_000)

  it.runIf(existsSync(chromium))(
    'lab class shows a terminal that outlives the gateway, which the teacher watches and joins visibly',
    async () => {
      browser = await puppeteer.launch({
        executablePath: chromium,
        args: ['--no-sandbox', '--ignore-certificate-errors'],
        defaultViewport: { width: 1500, height: 820 },
      })
      const faults: string[] = []
      const open = async (who: string): Promise<Page> => {
        // Each with cookies of its own.
        const page = await (await browser!.createBrowserContext()).newPage()
        page.on('pageerror', (error) => faults.push(String(error)))
        page.on('console', (said) => said.type() === 'error' && faults.push(said.text()))
        await page.goto(await room.url(who))
        return page
      }
      const desk = await open('01')
      await shows(desk, '$')
      await desk.keyboard.type('echo seat-$LAB_SEAT; remembered=still-$LAB_SEAT\n')
      await shows(desk, 'seat-01')

      const teacher = await open('teacher')
      await desk.bringToFront()
      await desk.click('#hand')
      await teacher.bringToFront()
      await teacher.waitForSelector('tr.hand[data-seat="01"]', { timeout: 60_000 })
      await picture(teacher, 'board-hand')

      const guest = (): Promise<string> =>
        desk.$eval('#guest', (element) => (element as unknown as { textContent: string }).textContent)
      const visit = async (mode: string): Promise<void> => {
        await teacher.click(`tr[data-seat="01"] ::-p-text(${mode})`)
        await shows(teacher, 'seat-01')
      }
      await visit('Watch')
      await expect.poll(guest, { timeout: 30_000 }).toBe('The teacher is watching')
      await teacher.keyboard.type('echo typed-by-who-watches\n')
      await desk.bringToFront()
      await desk.keyboard.type('echo "sees"" it"\n')
      await teacher.bringToFront()
      await shows(teacher, 'sees it')
      // Complete, from the first line on, although the teacher's window has another size.
      await shows(teacher, 'echo seat-$LAB_SEAT')
      await picture(teacher, 'watch')
      expect(await desk.evaluate('globalThis.shownText("first")')).not.toContain('typed-by-who-watches')
      await teacher.click('#guest-close')
      await visit('Join')
      await expect.poll(guest, { timeout: 30_000 }).toBe('The teacher is here and can type')
      await teacher.keyboard.type('echo "the"" teacher"\n')
      await shows(desk, 'the teacher')
      await desk.bringToFront()
      await picture(desk, 'desk-joined')
      await teacher.click('#guest-close')
      await expect
        .poll(() => desk.$eval('#guest', (element) => (element as unknown as { hidden: boolean }).hidden))
        .toBe(true)
      expect(faults).toEqual([])

      process.kill(await room.gatewayPid(), 'SIGKILL')
      await desk.bringToFront()
      await desk.waitForFunction('!document.querySelector(`#notice`).hidden', {
        timeout: 60_000,
        polling: 200,
      })
      await desk.waitForFunction('document.querySelector(`#notice`).hidden', {
        timeout: 120_000,
        polling: 200,
      })
      await desk.click('#terminal')
      await desk.keyboard.type('clear; echo $remembered\n')
      await shows(desk, 'still-01')
      await teacher.close()
      await desk.close()
    },
    300_000,
  )

  it.runIf(existsSync(chromium))(
    'lab class lets a robot go through an exercise in the two terminals of the page, and the board follows',
    async () => {
      const { steps } = parse(await readFile(exerciseFile, 'utf8')) as {
        steps: readonly { readonly id: string; readonly solution?: string }[]
      }
      const answers: Readonly<Record<string, string>> = { refused: '24', where: 'on-the-target' }
      const page = await (await browser!.createBrowserContext()).newPage()
      await page.goto(await room.url('02'))
      await shows(page, '$')
      await page.click('#two')
      await shows(page, '$', 'second')
      await page.click('#terminal')
      await page.keyboard.type('lab learn iscsi chap-login\n')
      for (const [index, { id, solution }] of steps.entries()) {
        await shows(page, `step ${String(index + 1)} of ${String(steps.length)}`)
        await shows(page, 'not yet')
        expect
          .soft((await boardNow()).seats.find((seat) => seat.id === '02')?.progress?.exercise ?? 'chap-login')
          .toBe('chap-login')
        if (solution === undefined) await page.keyboard.type(`${answers[id] ?? ''}\n`)
        else {
          await page.click('#second')
          await page.keyboard.type(solution.endsWith('\n') ? solution : `${solution}\n`)
          await page.click('#terminal')
        }
        await shows(page, 'Enter: next step')
        await picture(page, `exercise-${id}`)
        await page.keyboard.type('\n')
      }
      await shows(page, 'Finished after')
      await expect
        .poll(async () => (await boardNow()).seats.find(({ id }) => id === '02')?.progress, {
          timeout: 60_000,
        })
        .toMatchObject({ exercise: 'chap-login', done: steps.length, finished: true })
      expect(await room.ok('results')).toMatch(/^02,ready,chap-login,,5,0,true/m)
      expect(await room.ok('results', '--format', 'junit')).toContain(
        'name="seat 02: chap-login"/>'.replace('/>', '>'),
      )
      const teacher = await (await browser!.createBrowserContext()).newPage()
      await teacher.goto(await room.url('teacher'))
      await teacher.waitForSelector('tr[data-seat="02"]')
      await picture(teacher, 'board')
      const cards = await browser!.newPage()
      await cards.setViewport({ width: 800, height: 640 })
      await cards.setContent(await readFile(join(room.root, 'cards.html'), 'utf8'))
      await picture(cards, 'cards')
      for (const one of [page, teacher, cards]) await one.close()
    },
    300_000,
  )

  it('lab class restarts a seat that was killed', async () => {
    process.kill(await room.pidOf('02'), 'SIGKILL')
    await expect.poll(() => statusOf('02'), { timeout: 60_000, interval: 250 }).not.toBe('ready')
    await expect.poll(() => statusOf('02'), { timeout: 300_000, interval: 1000 }).toBe('ready')
    expect((await room.student('02', 'lab verify iscsi')).exitCode).toBe(0)
  }, 400_000)

  it('lab class rebuilds a seat while another one keeps working, even if the gateway is killed meanwhile', async () => {
    await room.student('01', 'echo mine > ~/note; lab exec iscsi initiator -- touch /root/broken')
    const working = room.student('02', 'for turn in 1 2 3; do lab verify iscsi >/dev/null || exit 1; done')
    const reset = room.start('reset', '1')
    const seen = new Set<string>()
    let killed = false
    const watching = (async () => {
      for (;;) {
        const { exitCode, stdout } = await room.run('status', '-o', 'json')
        const ended = await Promise.race([reset.then(() => true), delay(500, false)])
        if (ended) return
        if (exitCode !== 0) continue
        for (const { id, status } of (JSON.parse(stdout) as Board).seats) seen.add(`${id} ${status}`)
        if (!killed && seen.has('01 starting')) {
          killed = true
          process.kill(await room.gatewayPid(), 'SIGKILL')
        }
      }
    })()
    const [said] = await Promise.all([reset, watching])
    expect(said.stdout + said.stderr).toContain('seat 01 is new again')
    expect([...seen]).toContain('01 starting')
    expect((await working).exitCode).toBe(0)
    expect((await room.student('01', 'cat ~/note; lab exec iscsi initiator -- ls /root/broken')).stdout).toBe(
      'mine',
    )
    expect((await room.student('01', 'lab verify iscsi')).exitCode).toBe(0)
  }, 400_000)

  it('lab class extends its time, and forgets the names of students', async () => {
    const { until } = await room.file()
    await room.ok('extend', '30')
    expect(Date.parse((await room.file()).until) - Date.parse(until)).toBe(30 * 60_000)
    expect(await room.run('extend', 'soon')).toMatchObject({ exitCode: 2 })
    expect(await room.run('reset', '7')).toMatchObject({ exitCode: 2 })
    expect(await room.ok('forget')).toContain('lab keeps no names')
  }, 60_000)

  it('lab class leaves nothing behind when it is taken down', async () => {
    expect(await room.ok('down', '--results', join(room.folder, 'results.csv'))).toContain('2 seats, 0 left')
    expect(await readFile(join(room.folder, 'results.csv'), 'utf8')).toContain('01,ready')
    expect((await execa('getent', ['passwd', 'lab-iscsi-01'], { reject: false })).exitCode).not.toBe(0)
    expect(existsSync(room.root)).toBe(false)
    const socket = connect(port, '127.0.0.1')
    const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException]
    expect(error.code).toBe('ECONNREFUSED')
  }, 120_000)
})
