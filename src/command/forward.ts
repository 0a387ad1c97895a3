import { Option } from 'commander'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { exitCodes, LabError, messageOf } from '../error.js'
import { fail } from '../command-line/fail.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { providerOf } from '../lifecycle/provider-in-use.js'
import { printJson } from '../command-line/json.js'
import { machineOf } from '../command-line/machines.js'
import { asJson, type Io, type Options, type Verb } from '../command-line/verb.js'

const isPort = (text: string): boolean => /^\d{1,5}$/.test(text) && Number(text) < 65_536

/** Forwards a port of the lab to 127.0.0.1 of this host, until Ctrl-C. */
const run = async (
  nameOrPath: string,
  where: string,
  options: Options & { readonly port?: string },
  io: Io,
): Promise<number> => {
  const lab = await loadRunning(nameOrPath)
  const provider = await providerOf(lab)
  const [, name = '', port = ''] = /^([^:]+):(\d+)$/.exec(where) ?? []
  if (name === '' || !isPort(port) || port === '0')
    throw new LabError('bad-port', `${where} is not MACHINE:PORT`, {
      hint: `lab forward ${lab.name} ${lab.machines[0]?.name ?? 'machine'}:22`,
      exitCode: exitCodes.usage,
    })
  const { address } = machineOf(lab, name)
  const wanted = options.port ?? port
  if (!isPort(wanted))
    throw new LabError(
      'bad-port',
      `--port ${wanted}: expected a port from 0 to 65535; 0 takes any free port`,
      {
        exitCode: exitCodes.usage,
      },
    )
  const server = createServer((near) => {
    provider.dial(lab, address, Number(port)).then(
      (far) => {
        near.pipe(far).pipe(near)
        near.on('error', () => far.destroy())
        far.on('error', () => near.destroy())
      },
      (error: unknown) => {
        fail(io, new LabError('no-connection', `${where}: ${messageOf(error)}`, { cause: error }))
        near.destroy()
      },
    )
  })
  try {
    server.listen(Number(wanted), '127.0.0.1')
    await once(server, 'listening')
  } catch (error) {
    throw new LabError('port-taken', `127.0.0.1:${wanted}: ${(error as Error).message}`, {
      hint: `another one: lab forward ${lab.name} ${where} --port 0`,
    })
  }
  const at = server.address()
  const shown = at !== null && typeof at === 'object' ? `127.0.0.1:${String(at.port)}` : ''
  if (options.output === 'json') printJson(io, 'lab.forward/v1', { name: lab.name, listen: shown, to: where })
  else io.stdout.write(`${shown} leads to ${where} in ${lab.name}; Ctrl-C ends it\n`)
  await new Promise<void>((resolve) => {
    io.signal.addEventListener('abort', () => {
      resolve()
    })
  })
  server.close()
  return exitCodes.ok
}

export const verb: Verb = {
  options: [
    new Option('-p, --port <port>', 'the port on this host; default: the same port; 0: any free port'),
    asJson,
  ],
  run,
}
