/**
 * Visits a seat the way a student does: through the address on the card, with its words, into the terminal, and types.
 */
import { request } from 'node:https'
import { stripVTControlCharacters } from 'node:util'
import { WebSocket } from 'ws'
import { LabError } from '../error.js'
import { failuresIn, type ReportJson } from '../plan/report.js'

export interface Visit {
  readonly ok: boolean
  readonly saw: string
  /** Each check that did not hold, with what it saw; or the error, if nothing could be checked. */
  readonly failed: readonly string[]
  readonly seconds: number
}

/**
 * What is typed. Each mark is split, so that the echo of the command does not look like its output.
 * @param mark what surrounds the output of `lab verify`
 */
const verifying = (lab: string, mark: string): string => {
  const echo = (rest: string): string => `echo "${mark.slice(0, 5)}""${mark.slice(5)}${rest}"`
  return `${echo(':')}; lab verify ${lab} -o json; ${echo('=$?')}\r`
}

/** What the report of `lab verify` says is wrong; without a report, the error, if there is one. */
const failedIn = (printed: string): readonly string[] => {
  const text = stripVTControlCharacters(printed).replaceAll('\r', '')
  try {
    return failuresIn(JSON.parse(/^\{$[^]*^\}$/m.exec(text)?.[0] ?? '') as ReportJson)
  } catch {
    // An error has no other form, and it is only shown.
    return /^\s*✖ (.*)$/m.exec(text)?.slice(1) ?? []
  }
}

/** Characters of the terminal's output that are kept. */
const mostShown = 1_000_000

/** As many failed checks as a person reads in one line. */
const mostNamed = 3

const namedIn = (failed: readonly string[]): string =>
  [
    ...failed.slice(0, mostNamed),
    ...(failed.length > mostNamed ? [`and ${String(failed.length - mostNamed)} more`] : []),
  ].join('; ')

/** The cookie from the address on a card. @throws LabError `not-let-in` */
export const logIn = (url: string, ca: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const call = request(url, { ca, timeout: 20_000, agent: false }, (response) => {
      response.resume()
      const cookie = response.headers['set-cookie']?.[0]?.split(';')[0]
      if (response.statusCode === 303 && cookie !== undefined) resolve(cookie)
      else
        reject(
          new LabError('not-let-in', `${new URL(url).origin}: HTTP ${String(response.statusCode)}`, {
            hint: 'lab class status',
          }),
        )
    })
    call.on('timeout', () => call.destroy(new Error('no answer')))
    call.on('error', reject)
    call.end()
  })

/**
 * Types `lab verify` into a terminal of the seat other than the student's, and reads its output.
 * @param deadline milliseconds
 */
export const visitSeat = async (
  url: string,
  ca: string,
  lab: string,
  deadline: number,
  signal: AbortSignal,
): Promise<Visit> => {
  const began = Date.now()
  const ended = (ok: boolean, saw: string, failed: readonly string[] = []): Visit => ({
    ok,
    saw,
    failed,
    seconds: (Date.now() - began) / 1000,
  })
  let cookie: string
  try {
    cookie = await logIn(url, ca)
  } catch (error) {
    return ended(false, `the card's address: ${error instanceof Error ? error.message : String(error)}`)
  }
  const { host, origin } = new URL(url)
  const socket = new WebSocket(`wss://${host}/terminal?session=check`, { ca, headers: { cookie, origin } })
  const mark = `seat-${String(began)}`
  return new Promise((resolve) => {
    let shown = ''
    let typed = false
    const finish = (ok: boolean, saw: string, failed: readonly string[] = []): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', stop)
      socket.removeAllListeners('close')
      socket.on('error', () => undefined)
      // The shell of this visit ends with it.
      if (socket.readyState === WebSocket.OPEN) socket.send(Buffer.from('\u0003exit\r'), () => socket.close())
      else socket.terminate()
      resolve(ended(ok, saw, failed))
    }
    const stop = (): void => finish(false, 'interrupted')
    const timer = setTimeout(() => finish(false, `no answer in ${String(deadline / 1000)} s`), deadline)
    signal.addEventListener('abort', stop, { once: true })
    socket.on('open', () => socket.send(JSON.stringify({ columns: 100, rows: 30 })))
    socket.on('error', (error) => finish(false, `the terminal: ${error.message}`))
    socket.on('close', () => finish(false, 'the terminal was closed'))
    socket.on('message', (data, binary) => {
      const text = (data as Buffer).toString('utf8')
      if (!binary) {
        const { ended: why } = JSON.parse(text) as { ended?: string }
        if (why !== undefined) finish(false, `the terminal: ${why}`)
        return
      }
      shown = `${shown}${text}`.slice(-mostShown)
      if (!typed) {
        typed = true
        socket.send(Buffer.from(verifying(lab, mark)))
      }
      const [, printed, code] = new RegExp(`${mark}:([^]*)${mark}=(\\d+)`).exec(shown) ?? []
      if (printed === undefined || code === undefined) return
      if (code === '0') {
        finish(true, 'ready')
        return
      }
      const failed = failedIn(printed)
      finish(false, namedIn(failed) || `lab verify ${lab} ended with ${code}`, failed)
    })
  })
}
