/** Pod routing: every node has a route to the pods of every other node. */
import { type Lab, type MachineSpec, nodesOf, podRangeOf } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Check, Step } from '../context.js'
import { machineCheck } from './checks.js'

const phase = 'kubernetes'

const routesCheck = (lab: Lab, machine: MachineSpec): Check => {
  const wanted = nodesOf(lab)
    .filter((other) => other !== machine)
    .map((other) => `${podRangeOf(lab, other)} via ${other.address}`)
    .sort()
  return machineCheck({
    id: `${machine.name}-routes`,
    title: `${machine.name} has a route to every other node's pods`,
    machine: machine.name,
    hint: `lab exec ${lab.name} ${machine.name} -- /etc/lab/boot.d/10-routes`,
    command: shell`ip -4 route show proto 86`,
    judge: (output) => {
      const seen = output
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => line.split(' ').slice(0, 3).join(' '))
        .sort()
      const missing = wanted.filter((route) => !seen.includes(route)).map((route) => `missing: ${route}`)
      const left = seen.filter((route) => !wanted.includes(route)).map((route) => `left over: ${route}`)
      const wrong = [...missing, ...left]
      return { ok: wrong.length === 0, saw: (wrong.length === 0 ? seen : wrong).join('; ') || 'none' }
    },
  })
}

export const routePods = (lab: Lab, machine: MachineSpec): Step => ({
  id: `route-pods-${machine.name}`,
  title: `Route other nodes' pods on ${machine.name}`,
  phase,
  machine: machine.name,
  needs: [`configure-${machine.name}`],
  apply: async (context) => {
    await context.machine(machine.name).run(shell`/etc/lab/boot.d/10-routes`, { signal: context.signal })
  },
  checks: [routesCheck(lab, machine)],
})
