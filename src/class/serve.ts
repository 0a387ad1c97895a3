/** The process that keeps a class: the gateway, and the keeper of the seats. Started by `lab class up`. */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { Desks } from './board.js'
import { certificateFor } from './certificate.js'
import { type ClassFile, classPaths, readClass } from './class.js'
import { serveControl } from './control-socket.js'
import { type Gateway, openGateway } from './gateway.js'
import { otherAddress } from './gateway-process.js'
import { Keeper } from './keeper.js'
import { LabError } from '../error.js'
import { cannotListen } from '../listen.js'
import { takeLock } from '../lock.js'
import { OtherGateways } from './other-gateways.js'
import { readRoster } from './roster.js'

/** Milliseconds between two looks at whether the class is still there. */
const period = 1000

const sentence = ({ message, hint }: LabError): string =>
  hint === undefined ? message : `${message}; next: ${hint}`

/**
 * The class, as soon as its file can be read: the seats go on without it, and somebody may correct it.
 * @param tell what is wrong, once
 * @returns undefined if somebody has removed the file
 */
export const classSoon = async (
  lab: string,
  tell: (problem: string) => void,
  signal: AbortSignal,
): Promise<ClassFile | undefined> => {
  for (let told = ''; ;) {
    try {
      return await readClass(lab)
    } catch (error) {
      if (!(error instanceof LabError)) throw error
      const problem = sentence(error)
      if (problem !== told) tell(problem)
      told = problem
    }
    await delay(period, undefined, { signal })
  }
}

/**
 * Keeps a class until the signal, until a command ends it, or until somebody has removed its file. If another file of
 * the class cannot be used, the board and `lab class status` say so, and whatever does not need it goes on.
 */
export const keepClass = async (wanted: ClassFile, signal: AbortSignal): Promise<void> => {
  const paths = classPaths(wanted.lab)
  const release = await takeLock(paths.gatewayLock, {
    command: `lab class serve ${wanted.lab}`,
    purpose: 'change',
    signal,
  })
  const keeper = new Keeper(wanted)
  const others = new OtherGateways()
  const desks = new Desks(keeper, others)
  const usable = async <T>(file: string, read: () => Promise<T>): Promise<T | undefined> => {
    try {
      const value = await read()
      desks.note(file, undefined)
      return value
    } catch (error) {
      if (!(error instanceof LabError)) throw error
      desks.note(file, sentence(error))
      return undefined
    }
  }
  const readOthers = async (): Promise<void> => {
    // If the roster cannot be used, those that are known stay.
    const read = await usable(paths.roster, async () => (await readRoster(wanted.lab))?.elsewhere ?? [])
    if (read) others.want(read)
  }
  let gateway: Gateway | undefined
  const openPages = async (): Promise<void> => {
    if (gateway) return
    const certificate = await usable(paths.certificate, () => certificateFor(wanted.lab, wanted.address))
    if (!certificate) return
    const opened = openGateway(keeper, certificate, others, desks)
    try {
      await opened.app.listen({ host: wanted.host, port: wanted.port })
    } catch (error) {
      await opened.close()
      throw cannotListen(wanted, error, otherAddress(wanted))
    }
    gateway = opened
  }
  const stop = new AbortController()
  // Otherwise it would open seats again in a folder that nobody ends.
  const looking = setInterval(() => {
    if (!existsSync(paths.file)) stop.abort()
  }, period)
  try {
    await readOthers()
    await openPages()
    const control = await serveControl(paths.socket, {
      'GET /board': () => desks.board(),
      'POST /reload': async () => {
        const now = await usable(paths.file, () => readClass(wanted.lab))
        if (now) keeper.want(now)
        await readOthers()
        await openPages()
      },
      'POST /reset': (body) => keeper.reset(String((body as { seat?: unknown }).seat)),
      'POST /stop': () => stop.abort(),
    })
    keeper.start()
    others.start()
    const ended = AbortSignal.any([signal, stop.signal])
    if (!ended.aborted) await once(ended, 'abort')
    keeper.stop()
    control.close()
    control.closeAllConnections()
    await gateway?.close()
  } finally {
    clearInterval(looking)
    keeper.stop()
    others.stop()
    await release()
  }
}
