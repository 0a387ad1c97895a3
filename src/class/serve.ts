/** The process that keeps a class: the gateway, and the keeper of the seats. Started by `lab class up`. */
import { once } from 'node:events'
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

/** Keeps a class until the signal, or until a command ends it. */
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
    keeper.stop()
    others.stop()
    await release()
  }
}
