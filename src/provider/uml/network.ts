/** The namespaces of a lab, and the supervisor in them, as seen from the host. */
import { type LabId } from '../../identity.js'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, open, readFile, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { fileURLToPath } from 'node:url'
import { setTimeout as delay } from 'node:timers/promises'
import { LabError } from '../../error.js'
import { apiAddressOf, type Lab } from '../../lab/lab.js'
import { pathsOf, writePrivate } from '../../state.js'
import { selfSigned } from './certificate.js'
import { endOf } from './console.js'
import { redfishService, type RedfishService } from './redfish.js'
import type { RunningMachine } from './requests.js'
import { callSupervisor, SupervisorRefusal } from './tunnel.js'
import { addressText, parseSubnet, type Subnet } from '../../lab/address.js'

/** @throws for an invalid subnet; the loader has checked it */
export const subnetOf = (lab: Lab): Subnet => {
  const subnet = parseSubnet(lab.network.subnet)
  if (!subnet) throw new Error(`${lab.network.subnet} is not a subnet`)
  return subnet
}

/** The bridge's address in the lab's network: the first of the subnet. */
export const gatewayOf = (lab: Lab): string => addressText(subnetOf(lab).base + 1)

const supervisorScript = fileURLToPath(new URL('./supervisor.js', import.meta.url))

export const socketOf = (lab: LabId): string => pathsOf(lab).uml.socket

/** The port to which the host's 127.0.0.1 leads in the lab: that of the API server. */
export const portFile = (lab: LabId): string => pathsOf(lab).uml.apiPort

/**
 * Seconds for the namespaces and the bridge: 0.2 s were measured, and more than 15 s on two processors with a load of 40.
 */
const supervisorDeadline = 60

/** Seconds until a supervisor that is ending accepts no more connections; it takes milliseconds. */
const endDeadline = 5

const isRoot = (): boolean => process.getuid?.() === 0

/** Own namespaces: network, processes, mounts; and users, unless we are root. */
export const unshareArgs = (): readonly string[] => [
  ...(isRoot() ? [] : ['--user', '--map-root-user']),
  '--net',
  '--pid',
  '--mount',
  '--fork',
  '--kill-child=SIGKILL',
  '--mount-proc',
]

/**
 * A machine's memory is a file that User-Mode Linux maps: it must be on a tmpfs, since its pages would otherwise be
 * written to disk, and on one that allows execution, which a host's /dev/shm may not.
 */
export const inNamespace = 'mount -t tmpfs -o mode=1777,size=100% lab /dev/shm && exec "$@"'

export const lastLine = async (path: string): Promise<string> => {
  const text = await endOf(path)
  const lines = text.trimEnd().split('\n')
  const panic = lines.findLast((line) => line.includes('Kernel panic'))
  return (panic ?? lines.at(-1) ?? '').trim()
}

export const runningMachines = async (lab: LabId): Promise<readonly RunningMachine[] | undefined> => {
  for (const until = Date.now() + endDeadline * 1000; ;) {
    try {
      return await callSupervisor<RunningMachine[]>(socketOf(lab), 'GET', '/machines')
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code
      if (code === 'ENOENT' || code === 'ECONNREFUSED') return undefined
      // A supervisor that is ending closes a connection that it has accepted; it refuses the next one.
      if ((code !== 'ECONNRESET' && code !== 'EPIPE') || Date.now() > until) throw error
      await delay(50)
    }
  }
}

/** Listens on the previous port, so that a kubeconfig stays valid, or on another one if that is in use. */
const listenOnLoopback = async (lab: Lab): Promise<Server> => {
  const kept = Number(await readFile(portFile(lab), 'utf8').catch(() => '0'))
  const listen = (port: number): Promise<Server> =>
    new Promise((resolve, reject) => {
      const server = createServer()
      server.once('error', reject)
      server.listen({ host: '127.0.0.1', port }, () => resolve(server))
    })
  const server = await listen(kept).catch(() => listen(0))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('a TCP server without a port')
  await writePrivate(portFile(lab), String(address.port))
  return server
}

export const redfishFile = (lab: LabId): string => pathsOf(lab).uml.redfish

/** Credentials and certificate of the lab's power switches: created once, and kept as long as the lab exists. */
export const redfishOf = async (lab: Lab): Promise<RedfishService> => {
  const kept = await readFile(redfishFile(lab), 'utf8').catch(() => '')
  try {
    const service = redfishService(JSON.parse(kept))
    if (service) return service
  } catch {
    // The file is missing, or a power cut has emptied it.
  }
  const service = {
    username: 'lab',
    password: randomBytes(16).toString('base64url'),
    ...selfSigned(`power switches of ${lab.name}`, gatewayOf(lab)),
  }
  await writePrivate(redfishFile(lab), JSON.stringify(service, null, 2))
  return service
}

/** Directs the port on the host's loopback to the API server. */
const forwardApi = async (lab: Lab): Promise<void> => {
  if (lab.kubernetes)
    await callSupervisor(socketOf(lab), 'PUT', '/forward', { host: apiAddressOf(lab), port: 6443 })
}

/** The wrong address to which that port leads, if the lab's API server has another one by now; otherwise undefined. */
export const wrongForward = async (lab: Lab): Promise<string | undefined> => {
  if (!lab.kubernetes) return undefined
  const { host } = await callSupervisor<{ host?: string }>(socketOf(lab), 'GET', '/forward').catch(
    (error: unknown) => {
      // A supervisor of an earlier version: it leads to the only control plane, and so does the lab file.
      if (error instanceof SupervisorRefusal && error.status === 404) return { host: undefined }
      throw error
    },
  )
  return host === undefined || host === apiAddressOf(lab) ? undefined : host
}

/**
 * Why the supervisor cannot be used.
 * @param said the last line of its log
 */
export const whyNoSupervisor = (ended: boolean, said: string): string =>
  ended
    ? said || 'its supervisor ended and said nothing'
    : [`its supervisor did not answer within ${String(supervisorDeadline)} s`, said]
        .filter(Boolean)
        .join(': ')

export const createNetwork = async (lab: Lab): Promise<void> => {
  if (await runningMachines(lab)) return forwardApi(lab)
  const root = pathsOf(lab).root
  await mkdir(root, { recursive: true, mode: 0o700 })
  await rm(socketOf(lab), { force: true })
  const listener = await listenOnLoopback(lab)
  const log = await open(pathsOf(lab).uml.log, 'a', 0o600)
  // Not through execa, which would tie the process to this one; it must outlive this one.
  const child = spawn(
    'unshare',
    [
      ...unshareArgs(),
      'sh',
      '-c',
      inNamespace,
      'lab',
      process.execPath,
      supervisorScript,
      socketOf(lab),
      `${gatewayOf(lab)}/${String(subnetOf(lab).prefix)}`,
      pathsOf(lab).uml.log,
    ],
    { stdio: ['ignore', log.fd, log.fd, 'ipc'], detached: true, cwd: '/' },
  )
  child.unref()
  // If it has already ended, there is no process to tell, and its output is in the log.
  child.send('listener', listener, () => undefined)
  const until = Date.now() + supervisorDeadline * 1000
  let ended = false as boolean
  child.once('error', () => (ended = true)).once('exit', () => (ended = true))
  try {
    while (!(await runningMachines(lab))) {
      if (ended || Date.now() > until)
        throw new LabError(
          'namespace-failed',
          `the lab's network: ${whyNoSupervisor(ended, await lastLine(pathsOf(lab).uml.log))}`,
          { hint: 'lab doctor', log: pathsOf(lab).uml.log },
        )
      await delay(20)
    }
  } finally {
    listener.close()
    if (child.connected) child.disconnect()
    await log.close()
  }
  await forwardApi(lab)
  await callSupervisor(socketOf(lab), 'PUT', '/redfish', await redfishOf(lab))
}

/** The supervisor was started by an earlier version of `lab`, which runs machines differently. */
export const needNewSupervisor = async (lab: Lab): Promise<void> => {
  try {
    await callSupervisor(socketOf(lab), 'GET', '/version')
  } catch (error) {
    if (!(error instanceof SupervisorRefusal) || error.status !== 404) throw error
    throw new LabError(
      'earlier-version',
      `the network of ${lab.name} was made by an earlier version of lab, which starts machines differently`,
      { hint: `lab stop ${lab.name}, then lab up ${lab.name}` },
    )
  }
}

/** It may answer before it ends, or not at all: the caller checks whether it is gone. */
export const endSupervisor = (lab: LabId): Promise<unknown> =>
  callSupervisor(socketOf(lab), 'DELETE', '/').catch(() => undefined)
