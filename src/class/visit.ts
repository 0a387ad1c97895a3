/**
 * Visits a seat the way a student does: through the address on the card, with its words, into the terminal, and types.
 */
import { request } from 'node:https'
import { WebSocket } from 'ws'
import { LabError } from '../error.js'

export interface Visit {
  readonly ok: boolean
  readonly saw: string
  readonly seconds: number
}

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
 * Types a command into a terminal of the seat other than the student's, and reads its output.
 * @param deadline milliseconds
 */
export const visitSeat = async (
  url: string,
  ca: string,
  command: string,
  deadline: number,
  signal: AbortSignal,
): Promise<Visit> => {
  const began = Date.now()
  const ended = (ok: boolean, saw: string): Visit => ({ ok, saw, seconds: (Date.now() - began) / 1000 })
  let cookie: string
  try {
    cookie = await logIn(url, ca)
  } catch (error) {
    return ended(false, `the card's address: ${error instanceof Error ? error.message : String(error)}`)
  }
  const { host, origin } = new URL(url)
  const socket = new WebSocket(`wss://${host}/terminal?session=check`, { ca, headers: { cookie, origin } })
  // Split, so that the echo of the command does not look like its output.
  const mark = `seat-${String(began)}`
  return new Promise((resolve) => {
    let shown = ''
    let typed = false
    const finish = (ok: boolean, saw: string): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', stop)
      socket.removeAllListeners('close')
      socket.on('error', () => undefined)
      // The shell of this visit ends with it.
      if (socket.readyState === WebSocket.OPEN) socket.send(Buffer.from('\u0003exit\r'), () => socket.close())
      else socket.terminate()
      resolve(ended(ok, saw))
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
      shown = `${shown}${text}`.slice(-20_000)
      if (!typed) {
        typed = true
        socket.send(Buffer.from(`${command}; echo "${mark.slice(0, 5)}""${mark.slice(5)}=$?"\r`))
      }
      const code = new RegExp(`${mark}=(\\d+)`).exec(shown)?.[1]
      if (code !== undefined) finish(code === '0', code === '0' ? 'ready' : `${command} ended with ${code}`)
    })
  })
}
