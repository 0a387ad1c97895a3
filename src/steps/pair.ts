/**
 * Two machines that serve one target: Corosync knows which of them are alive, DRBD copies the disks, and Pacemaker
 * moves disks, target and address together. Before one takes over, the other is switched off.
 */
import type { Check, Context, Step } from '../context.js'
import { type Lab, machineNamed, type PairedTarget, peerOf } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import { clusterConfiguration, pairFolder, resourceOf } from '../machine/pair.js'
import { groupOf, type RedfishEndpoint } from '../provider/provider.js'
import type { Verdict } from '../plan/step.js'
import { eventually, machineCheck, serviceCheck } from './checks.js'
import { askEither, clusterState, servingMachine } from './pair-members.js'
import { configurationDiffers, copiesIn, votesIn } from './pair-state.js'
import { machineChecks, type Served, servesNothing, shortName, targetChecks } from './target.js'

const phase = 'iscsi'

/** Seconds until both copies are identical again: 1 GiB takes half a minute on a slow host. */
const resyncDeadline = 600

/** Seconds until Pacemaker has moved or started everything. */
const clusterDeadline = 120

const redfishOf = async (context: Context): Promise<RedfishEndpoint> => {
  const offered = await groupOf(context.provider, 'power').redfish?.(context.lab)
  if (!offered) throw new Error(`${context.provider.name} has no power switches for programs in the lab`)
  return offered
}

const gatewayOf = ({ url }: RedfishEndpoint): string => new URL(url).hostname

const wantedConfiguration = async (context: Context, target: PairedTarget): Promise<string> => {
  const power = await redfishOf(context)
  return clusterConfiguration(context.lab, target, { gateway: gatewayOf(power), username: power.username })
}

/** Corosync and Pacemaker run on both, and all three votes are there. */
const formCluster = (lab: Lab, target: PairedTarget): Step => {
  const id = shortName(lab, target)
  const { machines, quorum } = target.pair
  return {
    id: `form-cluster-${id}`,
    title: `Join ${machines.join(' and ')}, with ${quorum} to vote`,
    phase,
    needs: [...machines, quorum].map((name) => `configure-${name}`),
    apply: async (context) => {
      const { signal } = context
      await context.machine(quorum).run(shell`systemctl start corosync-qnetd`, { signal, timeout: 30 })
      await Promise.all(
        machines.map((name) =>
          context.machine(name).run(shell`/etc/lab/boot.d/50-pair`, { signal, timeout: 60 }),
        ),
      )
    },
    checks: [
      serviceCheck(lab, machineNamed(lab, quorum), 'corosync-qnetd'),
      ...machines.map((name) =>
        machineCheck({
          id: `${name}-votes`,
          title: `${name} sees ${peerOf(target, name)}, and all three votes are present, including that of ${quorum}`,
          machine: name,
          within: 60,
          hint: `lab exec ${lab.name} ${name} -- corosync-quorumtool -s`,
          // It exits with 2 without a quorum.
          command: shell`corosync-quorumtool -s || test $? = 2`,
          judge: (output) => votesIn(output, machines),
        }),
      ),
    ],
  }
}

const copiesCheck = (lab: Lab, target: PairedTarget, name: string): Check =>
  machineCheck({
    id: `${name}-copies`,
    title: `the disks of ${name} are connected to those of ${peerOf(target, name)}, and both are up to date`,
    machine: name,
    within: resyncDeadline,
    hint: `lab exec ${lab.name} ${name} -- drbdadm status`,
    command: shell`cat /proc/drbd`,
    judge: (output) => {
      const copies = copiesIn(output)
      const saw = copies.map(({ text }) => text).join('; ') || 'DRBD is down'
      return {
        ok:
          copies.length === target.luns.length &&
          copies.every(
            ({ connection, disks }) => connection === 'Connected' && disks === 'UpToDate/UpToDate',
          ),
        saw: copies.some(({ connection }) => connection === 'StandAlone')
          ? `${saw}; the two copies have diverged (split brain), or do not know each other: see docs/troubleshooting.md`
          : saw,
      }
    },
  })

/** MiB at the start of a disk that a file system would have written to. */
const blankMebibytes = 8

/**
 * If both copies are new, there is nothing to copy: they are declared identical, which saves copying every block.
 * @throws if one has data, because it is then unknown which one is right
 */
const declareSame = async (context: Context, target: PairedTarget): Promise<void> => {
  const { signal } = context
  const name = resourceOf(target)
  const [first] = target.pair.machines
  await Promise.all(
    target.pair.machines.map((machine) =>
      context
        .machine(machine)
        .run(
          shell`for disk in $(drbdadm sh-ll-dev ${name}); do dd if="$disk" bs=1M count=${blankMebibytes} status=none iflag=direct | cmp -s -n ${blankMebibytes * 1024 ** 2} - /dev/zero || { echo "$disk of $(hostname) has no notes of DRBD, and is not empty" >&2; exit 1; }; done`,
          { signal, timeout: 60 },
        ),
    ),
  )
  for (const number of target.luns.keys())
    await context
      .machine(first)
      .run(shell`drbdadm --clear-bitmap new-current-uuid ${`${name}/${String(number)}`}`, {
        signal,
        timeout: 30,
      })
}

const mirrorDisks = (lab: Lab, target: PairedTarget): Step => {
  const id = shortName(lab, target)
  const { machines } = target.pair
  const name = resourceOf(target)
  return {
    id: `mirror-${id}`,
    title: `Mirror the disks of ${target.iqn} on ${machines.join(' and ')}`,
    phase,
    needs: [`form-cluster-${id}`],
    apply: async (context, progress) => {
      const { signal } = context
      await Promise.all(
        machines.map((machine) =>
          // If it runs already, this connects what is not connected, and applies changes of the lab file.
          context.machine(machine).run(shell`drbdadm adjust ${name}`, { signal, timeout: 60 }),
        ),
      )
      const copies = await eventually(context, 30, async () => {
        const found = copiesIn(
          await context.machine(machines[0]).run(shell`cat /proc/drbd`, { signal, timeout: 30 }),
        )
        if (found.length < target.luns.length || found.some(({ disks }) => disks.includes('Unknown')))
          throw new Error(found.map(({ text }) => text).join('; ') || 'DRBD is down')
        return found
      })
      if (copies.every(({ disks }) => disks === 'Inconsistent/Inconsistent')) {
        progress('both copies are new and empty')
        await declareSame(context, target)
      }
    },
    checks: [copiesCheck(lab, target, machines[0]), copiesCheck(lab, target, machines[1])],
  }
}

/** Whether a machine of the pair can use the power switch of the other, as Pacemaker would. */
const powerCheck = (lab: Lab, target: PairedTarget, name: string): Check => {
  const peer = peerOf(target, name)
  return {
    id: `${name}-fences-${peer}`,
    title: `${name} reaches the power switch of ${peer}, which reports it as on`,
    machine: name,
    within: 60,
    hint: `lab power ${lab.name} ${peer} status`,
    probe: async (context): Promise<Verdict> => {
      const power = await redfishOf(context)
      const { exitCode, stdout, stderr } = await context
        .machine(name)
        .try(
          shell`REQUESTS_CA_BUNDLE=${`${pairFolder}/power.pem`} fence_redfish --ip=${gatewayOf(power)} --username=${power.username} --password-script=${`${pairFolder}/power-password`} --redfish-uri=/redfish/v1 --systems-uri=${`/redfish/v1/Systems/${peer}`} --action=status`,
          { signal: context.signal, timeout: 30 },
        )
      const said = stdout.trim() || (stderr.trim().split('\n').at(-1) ?? '')
      const saw = said === '' ? `exit code ${String(exitCode)}` : said
      return { ok: exitCode === 0 && saw === 'Status: ON', saw }
    },
  }
}

/** Pacemaker's configuration, and its switches. */
const directCluster = (lab: Lab, target: PairedTarget): Step => {
  const id = shortName(lab, target)
  const { machines } = target.pair
  return {
    id: `direct-cluster-${id}`,
    title: `Configure Pacemaker to serve ${target.iqn} on one of ${machines.join(' and ')}`,
    phase,
    needs: [`mirror-${id}`],
    apply: async (context) => {
      const { signal } = context
      const { password, certificate } = await redfishOf(context)
      await Promise.all(
        machines.map(async (name) => {
          const machine = context.machine(name)
          await machine.run(
            shell`umask 077; mkdir -p ${pairFolder}; cat > ${pairFolder}/power-password && chmod 700 ${pairFolder}/power-password`,
            { input: `#!/bin/sh\necho '${password.replaceAll("'", `'\\''`)}'\n`, signal },
          )
          await machine.run(shell`cat > ${pairFolder}/power.pem`, { input: certificate, signal })
        }),
      )
      const configuration = await wantedConfiguration(context, target)
      await eventually(context, 60, async () => {
        // DRBD marks an outdated copy at the machine that serves, and waits there while the configuration is replaced.
        const at = await servingMachine(context, target).catch(() => machines[0])
        await context
          .machine(at)
          .run(shell`${`${pairFolder}/configure`}`, { input: configuration, signal, timeout: 30 })
      })
    },
    checks: [
      {
        id: `${id}-cluster`,
        title: `Pacemaker is configured as the lab file says, and nothing else`,
        within: 30,
        hint: `lab exec ${lab.name} ${machines[0]} -- cibadmin --query --scope configuration`,
        probe: async (context) =>
          configurationDiffers(
            await wantedConfiguration(context, target),
            await askEither(context, target, shell`cibadmin --query --scope=configuration`),
          ),
      },
      ...machines.map((name) => powerCheck(lab, target, name)),
    ],
  }
}

/** Pacemaker's view: both are members, each resource is where it should be, and nothing has failed. */
const resourcesCheck = (lab: Lab, target: PairedTarget): Check => ({
  id: `${shortName(lab, target)}-resources`,
  title: `disks, target and address of ${target.iqn} are on one machine, and each of the two monitors the other's switch`,
  within: clusterDeadline,
  hint: `lab exec ${lab.name} ${target.pair.machines[0]} -- crm_mon -1`,
  probe: async (context) => {
    const { nodes, resources } = await clusterState(context, target)
    const at = (id: string, role: string): readonly string[] =>
      resources.filter((each) => each.id === id && each.role === role && !each.failed).flatMap(({ on }) => on)
    const { machines } = target.pair
    const absent = machines.filter((name) => !nodes.some((node) => node.name === name && node.well))
    const [serving, ...more] = at('disk', 'Promoted')
    const other = machines.find((name) => name !== serving)
    const wrong = [
      ...absent.map((name) => `${name} is not online`),
      ...(serving === undefined || more.length > 0 ? ['no single machine has the disks'] : []),
      ...(at('disk', 'Unpromoted').join() === other ? [] : [`${String(other)} has no second copy`]),
      ...['target', 'address']
        .filter((id) => at(id, 'Started').join() !== serving)
        .map((id) => `${id} is elsewhere`),
      ...machines
        .filter((name) => at(`power-${name}`, 'Started').join() !== peerOf(target, name))
        .map((name) => `no machine monitors the switch of ${name}`),
    ]
    return {
      ok: wrong.length === 0,
      saw:
        [
          ...wrong,
          ...resources.map(
            ({ id, role, on }) => `${id} ${role.toLowerCase()}${on.length > 0 ? ` on ${on.join(', ')}` : ''}`,
          ),
        ].join('; ') || 'no resource',
    }
  },
})

const failuresCheck = (lab: Lab, target: PairedTarget): Check => ({
  id: `${shortName(lab, target)}-failures`,
  title: 'Pacemaker remembers no failed action',
  within: 30,
  hint: `lab up ${lab.name}`,
  probe: async (context) => {
    const { failures } = await clusterState(context, target)
    return { ok: failures.length === 0, saw: failures.join('; ') || 'none' }
  },
})

/** Pacemaker starts everything by itself, in its own time; earlier failures are cleared first. */
const startResources = (lab: Lab, target: PairedTarget): Step => {
  const id = shortName(lab, target)
  return {
    id: `start-resources-${id}`,
    title: `Wait until Pacemaker has started everything that serves ${target.iqn}`,
    phase,
    needs: [`direct-cluster-${id}`],
    apply: async (context) => {
      const { failures } = await clusterState(context, target)
      if (failures.length > 0) await askEither(context, target, shell`crm_resource --cleanup >/dev/null 2>&1`)
    },
    checks: [resourcesCheck(lab, target), failuresCheck(lab, target)],
  }
}

const servePair = (lab: Lab, target: PairedTarget): Step => {
  const id = shortName(lab, target)
  const { machines } = target.pair
  const hint = `lab exec ${lab.name} ${machines[0]} -- crm_mon -1`
  const serving: Served = {
    place: { at: (context) => servingMachine(context, target) },
    id,
    by: 'the active machine',
    hint,
  }
  const waiting: Served = {
    place: { at: async (context) => peerOf(target, await servingMachine(context, target)) },
    id: `${id}-waiting`,
    by: 'the standby machine',
    hint,
  }
  return {
    id: `serve-${id}`,
    title: `Serve ${target.iqn}`,
    phase,
    needs: [`start-resources-${id}`],
    apply: async (context) => {
      const active = await servingMachine(context, target)
      await context
        .machine(active)
        .run(shell`${`${pairFolder}/serve`}`, { signal: context.signal, timeout: 60 })
    },
    checks: [
      ...targetChecks(lab, target, serving),
      ...machineChecks(lab, machines[0], serving),
      servesNothing(waiting),
    ],
  }
}

export const pairSteps = (lab: Lab, target: PairedTarget): readonly Step[] => [
  formCluster(lab, target),
  mirrorDisks(lab, target),
  directCluster(lab, target),
  startResources(lab, target),
  servePair(lab, target),
]
