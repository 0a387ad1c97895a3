/**
 * A provider of machines that exist already and answer SSH: it cannot make, switch or pause them, and has no network
 * and no disks. Every machine of its labs is the one SSH server at `LAB_TEST_SSH`, a Unix socket.
 */
import { once } from 'node:events'
import { connect } from 'node:net'
import { totalmem } from 'node:os'
import type { ProviderName } from '../../src/lab/lab.js'
import type { Provider } from '../../src/provider/provider.js'
import { pathsOf, removeState } from '../../src/state.js'
import { existsSync } from 'node:fs'

export const makeProvider = (name: ProviderName): Provider => ({
  name,
  probe: () => Promise.resolve({ usable: true, evidence: 'whoever has SSH can use it' }),
  preflight: (lab) =>
    Promise.resolve(
      lab.machines
        .filter(({ memory }) => memory > totalmem())
        .map((machine) => ({ problem: `${machine.name} has less memory than that`, hint: 'free -h' })),
    ),
  prepare: () => Promise.resolve(),
  states: (lab) =>
    Promise.resolve(
      lab.machines.map((machine) => ({ name: machine.name, status: 'running', detail: 'answers' })),
    ),
  dial: async () => {
    const socket = connect(process.env['LAB_TEST_SSH'] ?? '')
    await once(socket, 'connect')
    return socket
  },
  destroy: (lab) => removeState(pathsOf(lab)),
  leftovers: (lab) =>
    Promise.resolve(
      existsSync(pathsOf(lab).root) ? [{ kind: 'file', what: pathsOf(lab).root } as const] : [],
    ),
})
