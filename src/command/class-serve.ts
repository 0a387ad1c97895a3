/** The process that keeps a class: the gateway, and the keeper of the seats. Started by `lab class up`. */
import { once } from 'node:events'
import { certificateFor } from '../class/certificate.js'
import { classPaths, readClass, theClass } from '../class/class.js'
import { serveControl } from '../class/control-socket.js'
import { openGateway } from '../class/gateway.js'
import { Keeper } from '../class/keeper.js'
import { exitCodes, type ExitCode, LabError, messageOf } from '../error.js'
import { takeLock } from '../lock.js'
import type { Io } from '../command-line/verb.js'

export const serve = async (options: { readonly lab?: string }, io: Io): Promise<ExitCode> => {
  const wanted = await theClass(options.lab)
  const paths = classPaths(wanted.lab)
  const release = await takeLock(paths.gatewayLock, {
    command: `lab class serve ${wanted.lab}`,
    purpose: 'change',
    signal: io.signal,
  })
  const keeper = new Keeper(wanted)
  const stop = new AbortController()
  try {
    const gateway = openGateway(keeper, await certificateFor(wanted.lab, wanted.address))
    try {
      await gateway.app.listen({ host: wanted.host, port: wanted.port })
    } catch (error) {
      throw new LabError('cannot-listen', `${wanted.host}:${String(wanted.port)}: ${messageOf(error)}`, {
        hint: `lab class up ${wanted.lab} --count ${String(wanted.seats.length)} --listen ADDRESS:PORT`,
        exitCode: exitCodes.host,
        cause: error,
      })
    }
    const control = await serveControl(paths.socket, {
      'GET /board': () => gateway.board(),
      'POST /reload': async () => {
        const now = await readClass(wanted.lab)
        if (now) keeper.want(now)
      },
      'POST /reset': (body) => keeper.reset(String((body as { seat?: unknown }).seat)),
      'POST /stop': () => stop.abort(),
    })
    keeper.start()
    const ended = AbortSignal.any([io.signal, stop.signal])
    if (!ended.aborted) await once(ended, 'abort')
    keeper.stop()
    control.close()
    control.closeAllConnections()
    await gateway.close()
    return exitCodes.ok
  } finally {
    keeper.stop()
    await release()
  }
}
