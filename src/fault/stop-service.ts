import { z } from 'zod'
import type { Role } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import { lasting, where } from '../lab/fault-machines.js'
import { faultOfMachine, otherRole } from './fault.js'
import { ofAll, printed, reunion, type Sign, soon } from './sign.js'
import { enablingTargets, withoutTargets } from './targets.js'
import { onRunning, undoAct } from './undo-act.js'

/** Seconds for the command that stops a service. */
const timeout = 30

type Service = 'kubelet' | 'containerd' | 'iscsid' | 'target'

const runsOn: Readonly<Record<Service, readonly Role[]>> = {
  kubelet: ['control-plane', 'worker'],
  containerd: ['control-plane', 'worker'],
  iscsid: ['worker', 'initiator'],
  target: ['target'],
}

/** The unit to stop and the one to start again: iscsid is started by its socket on demand. */
const units = {
  kubelet: { stop: ['kubelet'], start: 'kubelet' },
  containerd: { stop: ['containerd'], start: 'containerd' },
  iscsid: { stop: ['iscsid.socket', 'iscsid'], start: 'iscsid.socket' },
} as const

const startingService = undoAct('start-service', { service: z.string() }, (context, { machine, service }) =>
  onRunning(context, machine, shell`systemctl start ${service}`),
)

const unitStates = async (
  context: Context,
  machine: string,
  units: readonly string[],
): Promise<readonly string[]> =>
  (await printed(context, machine, shell`systemctl is-active ${units}`)).split('\n')

const isStopped = (names: readonly string[], units: readonly string[]): Sign => ({
  title: `${units.join(', ')} of ${names.join(', ')} is not running`,
  within: soon,
  probe: (context) =>
    ofAll(names, async (name) => {
      const states = await unitStates(context, name, units)
      return {
        ok:
          states.length === units.length &&
          states.every((state) => state === 'inactive' || state === 'failed'),
        saw: `${name}: ${states.join(', ')}`,
      }
    }),
})

const isRunning = (names: readonly string[], unit: string): Sign => ({
  title: `${unit} of ${names.join(', ')} runs`,
  within: reunion,
  probe: (context) =>
    ofAll(names, async (name) => {
      const states = await unitStates(context, name, [unit])
      return { ok: states.join() === 'active', saw: `${name}: ${states.join(', ')}` }
    }),
})

const fields = {
  machine: where(),
  service: z
    .enum(['kubelet', 'containerd', 'iscsid', 'target'], {
      error: 'kubelet, containerd, iscsid or target',
    })
    .meta({ description: 'Which service; `target` is the iSCSI target.' }),
  for: lasting,
}

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    'stop-service': typeof fields
  }
}

export const stopService = faultOfMachine({
  name: 'stop-service',
  description: 'Stops a service of a machine. Healed by starting it.',
  fields,
  *rules(file, { machine, service }, path) {
    const role = service && otherRole(file, machine, runsOn[service])
    if (service && role)
      yield {
        path: [...path, 'service'],
        message: `${service} does not run on ${machine}, whose role is ${role}; expected a machine with the role ${runsOn[service].join(' or ')}`,
      }
  },
  silences: ({ service }) => service === 'kubelet' || service === 'containerd',
  undos: [startingService, enablingTargets],
  aim: (hit) => {
    const { service } = hit.spec
    if (service === 'target') return withoutTargets(hit, `targets of ${hit.names} stopped`)
    const { on, names, each, undo } = hit
    const { stop, start } = units[service]
    return {
      detail: `${service} of ${names} stopped`,
      undo: undo((machine) => startingService.of(machine, { service: start })),
      act: (context) =>
        each(({ name }) => context.machine(name).run(shell`systemctl stop ${stop}`, { timeout })),
      acting: isStopped(on, stop),
      gone: isRunning(on, start),
    }
  },
})
