/** The LUN guard: a kubelet asks the other nodes before it uses a LUN, and its node answers them. */
import { type Lab, type MachineSpec, machinesWith } from '../lab/lab.js'
import { lunGuardFolder, lunGuardPort } from '../machine/files.js'
import { shell } from '../machine/sh.js'
import type { Check, Step } from '../context.js'
import { render } from '../render.js'
import { apply, machineCheck } from './checks.js'

/** Checks that the kubelet runs the programs that ask first, and that the node answers other nodes. */
const guardCheck = (lab: Lab, { name, address }: MachineSpec): Check =>
  machineCheck({
    id: `${name}-lun-guard`,
    title: `${name} asks the other nodes before it uses a LUN, and answers them`,
    machine: name,
    within: 30,
    hint: `lab up ${lab.name}`,
    command: shell`tr '\0' '\n' < /proc/"$(systemctl show --property=MainPID --value kubelet)"/environ | grep ^PATH=; timeout 10 bash -c ${`cat < /dev/tcp/${address}/${String(lunGuardPort)}`} | tail -n 1`,
    judge: (output) => {
      const [path = '', last = ''] = output.split('\n')
      const asks = path.startsWith(`PATH=${lunGuardFolder}:`)
      return {
        ok: asks && last === 'done',
        saw: `${asks ? 'asks' : `its kubelet does not ask: ${path}`}, ${last === 'done' ? 'answers' : 'does not answer'}`,
      }
    },
  })

/** Starts the guard on every worker, before any pod uses a LUN. */
export const guardLuns = (lab: Lab): Step => {
  const workers = machinesWith(lab, 'worker').filter(({ iqn }) => iqn !== undefined)
  const [first] = workers
  if (!first) throw new Error(`${lab.name} has no worker with LUNs`)
  return {
    id: 'guard-luns',
    title: 'Let one node at a time use a LUN',
    phase: 'kubernetes',
    needs: ['init-control-plane', ...workers.map(({ name }) => `join-${name}`)],
    apply: async (context) => {
      await apply(context, render('manifests/lun-guard.yaml', {}))
      await Promise.all(
        workers.map(async ({ name }) =>
          context
            .machine(name)
            .run(
              shell`systemctl daemon-reload; systemctl start lab-lun-guard.socket; tr '\0' '\n' < /proc/"$(systemctl show --property=MainPID --value kubelet)"/environ | grep -q ${`^PATH=${lunGuardFolder}:`} || systemctl restart kubelet`,
              { signal: context.signal, timeout: 60 },
            ),
        ),
      )
    },
    checks: [
      {
        id: 'nodes-visible',
        title: 'a node may ask whether another one is well',
        within: 20,
        hint: `lab up ${lab.name}`,
        probe: async ({ kubectl }) => {
          const said = await kubectl
            .run([
              'auth',
              'can-i',
              'get',
              'nodes',
              `--as=system:node:${first.name}`,
              '--as-group=system:nodes',
            ])
            .catch(() => 'no')
          return { ok: said.trim() === 'yes', saw: said.trim() }
        },
      },
      ...workers.map((worker) => guardCheck(lab, worker)),
    ],
  }
}
