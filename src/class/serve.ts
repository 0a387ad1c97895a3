/** The process that keeps a class: the gateway, and the keeper of the seats. Started by `lab class up`. */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { certificateFor } from './certificate.js'
import { type ClassFile, classPaths, readClass } from './class.js'
import { serveControl } from './control-socket.js'
import { openGateway } from './gateway.js'
import { otherAddress } from './gateway-process.js'
import { Keeper } from './keeper.js'
import { cannotListen } from '../listen.js'
import { takeLock } from '../lock.js'
import { OtherGateways } from './other-gateways.js'
import { readRoster } from './roster.js'

/** Milliseconds between two looks at whether the class is still there. */
const period = 1000

/** Keeps a class until the signal, until a command ends it, or until somebody has removed its file. */
export const keepClass = async (wanted: ClassFile, signal: AbortSignal): Promise<void> => {
  const paths = classPaths(wanted.lab)
  const release = await takeLock(paths.gatewayLock, {
    command: `lab class serve ${wanted.lab}`,
    purpose: 'change',
    signal,
  })
  const keeper = new Keeper(wanted)
  const others = new OtherGateways()
  others.want((await readRoster(wanted.lab))?.elsewhere ?? [])
  const stop = new AbortController()
  // Otherwise it would open seats again in a folder that nobody ends.
  const looking = setInterval(() => {
    if (!existsSync(paths.file)) stop.abort()
  }, period)
  try {
    const gateway = openGateway(keeper, await certificateFor(wanted.lab, wanted.address), others)
    try {
      await gateway.app.listen({ host: wanted.host, port: wanted.port })
    } catch (error) {
      throw cannotListen(wanted, error, otherAddress(wanted))
    }
    const control = await serveControl(paths.socket, {
      'GET /board': () => gateway.board(),
      'POST /reload': async () => {
        const now = await readClass(wanted.lab)
        if (now) keeper.want(now)
        others.want((await readRoster(wanted.lab))?.elsewhere ?? [])
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
    await gateway.close()
  } finally {
    clearInterval(looking)
    keeper.stop()
    others.stop()
    await release()
  }
}
