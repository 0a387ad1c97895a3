/** The addresses at which this computer serves something to others. */
import { once } from 'node:events'
import type { Server } from 'node:net'
import { networkInterfaces } from 'node:os'
import { exitCodes, LabError, messageOf } from './error.js'

export interface ListenAddress {
  readonly host: string
  readonly port: number
}

/** `0.0.0.0:8080`, `[::]:8080`, `8080`. @throws LabError `bad-listen` */
export const listenAddress = (text: string): ListenAddress => {
  const [, bracketed, plain, digits = ''] =
    /^(?:\[([0-9a-fA-F:]+)\]:|([0-9A-Za-z.-]+):)?(\d{1,5})$/.exec(text) ?? []
  const port = Number(digits)
  if (digits === '' || port > 65_535)
    throw new LabError('bad-listen', `${text}: no ADDRESS:PORT`, {
      hint: '--listen 127.0.0.1:8080, or --listen 0.0.0.0:8080 for everybody in the network',
      exitCode: exitCodes.usage,
    })
  return { host: bracketed ?? plain ?? '127.0.0.1', port }
}

/** The addresses at which other computers reach a server that listens there. */
export const reachableAt = (host: string): readonly string[] => {
  if (host !== '0.0.0.0' && host !== '::') return [host]
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(
      ({ internal, family, scopeid }) => !internal && (family === 'IPv4' || (host === '::' && scopeid === 0)),
    )
    .map(({ address }) => address)
}

/** @param cause why the system does not let a server listen there */
export const cannotListen = ({ host, port }: ListenAddress, cause: unknown, hint: string): LabError =>
  new LabError('cannot-listen', `${host}:${String(port)}: ${messageOf(cause)}`, {
    hint,
    exitCode: exitCodes.host,
    cause,
  })

/**
 * Listens there, and returns the port, which the system chooses if the given one is 0.
 * @throws LabError `cannot-listen` with this hint
 */
export const listenAt = async (server: Server, where: ListenAddress, hint: string): Promise<number> => {
  try {
    server.listen(where.port, where.host)
    await once(server, 'listening')
  } catch (error) {
    throw cannotListen(where, error, hint)
  }
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : where.port
}
