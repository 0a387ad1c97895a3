/** The iSCSI target: LIO, as the kernel's configfs shows it. */
import { fencedNodes } from '../fencing/known.js'
import { initiatorsOf, type Lab, machineNamed, portalOf, type TargetSpec } from '../lab/lab.js'
import { numbering } from '../lab/names.js'
import { serialOf, sha256, targetFolders } from '../machine/files.js'
import { shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../plan/step.js'
import { equals, machineCheck } from './checks.js'

const phase = 'iscsi'

const configfs = '/sys/kernel/config/target'

const groupOf = (target: TargetSpec): string => `${configfs}/iscsi/${target.iqn}/tpgt_1`

/** The last part of an iSCSI name in kebab case, for ids. */
const lastPart = (iqn: string): string =>
  (iqn.split(':').at(-1) ?? '')
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '') || 'target'

/** `target00`, and `target00-2` for another target of the lab whose name ends alike. */
export const shortName = (lab: Lab, { iqn }: TargetSpec): string => {
  const distinct = numbering()
  const names = new Map(lab.targets.map((target) => [target.iqn, distinct(lastPart(target.iqn))]))
  return names.get(iqn) ?? lastPart(iqn)
}

/** One look at all targets of a machine: each of them alone would not notice that there is one too many. */
const nothingElse = (lab: Lab, machine: string, hint: string): Check => {
  const wanted = targetFolders(lab, machineNamed(lab, machine))
  const groups = 'iscsi/*/tpgt_*'
  const patterns = ['core/iblock_*/*', groups, ...['np', 'lun', 'acls'].map((kind) => `${groups}/${kind}/*`)]
  return machineCheck({
    id: `${machine}-targets`,
    title: `${machine} serves what the lab file says, and nothing else`,
    machine,
    hint,
    command: {
      text: `cd ${configfs} && { ls -d ${patterns.map((pattern) => `${pattern}/`).join(' ')} 2>/dev/null; true; }`,
      shown: `ls ${configfs}`,
    },
    judge: (output) => {
      const seen = output
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => line.replace(/\/$/, ''))
      const missing = wanted.filter((folder) => !seen.includes(folder)).map((folder) => `missing: ${folder}`)
      const left = seen.filter((folder) => !wanted.includes(folder)).map((folder) => `left over: ${folder}`)
      const wrong = [...left, ...missing]
      return { ok: wrong.length === 0, saw: wrong.join('; ') || 'all as wanted' }
    },
  })
}

/** Initiators that the target lets in nowhere, each a file of its name: see the target's script. */
const fencedFolder = '/var/lib/lab/fenced'

/** The initiators of nodes that are fenced now. */
const fencedNow = async (lab: Lab): Promise<readonly string[]> => {
  const nodes = await fencedNodes(lab.name)
  return lab.machines.flatMap(({ name, iqn }) => (iqn !== undefined && nodes.includes(name) ? [iqn] : []))
}

/** A fence that nobody remembers would let an initiator in until the next boot of the target, and then no more. */
const nobodyFenced = (lab: Lab, machine: string): Check => ({
  id: `${machine}-fenced`,
  title: `${machine} shuts nobody out`,
  machine,
  hint: `lab up ${lab.name}`,
  probe: async (context) => {
    const listed = await context
      .machine(machine)
      .run(shell`ls ${fencedFolder} 2>/dev/null || true`, { signal: context.signal })
    const shutOut = listed.split('\n').filter((name) => name !== '')
    const known = await fencedNow(lab)
    return {
      ok: shutOut.length === 0,
      saw:
        shutOut
          .map(
            (name) =>
              `${name} is shut out${known.includes(name) ? ': it is fenced' : ', though nobody fenced it'}`,
          )
          .join('; ') || 'nobody',
    }
  },
})

/** Forgets fences that are in no journal: nothing would ever undo them. */
const forgetFences = async (context: Context, machine: string): Promise<void> => {
  const known = await fencedNow(context.lab)
  await context
    .machine(machine)
    .run(
      shell`exec 9>/run/lab-target.lock; flock 9; cd ${fencedFolder} 2>/dev/null || exit 0; for name in *; do case ${` ${known.join(' ')} `} in *" $name "*) ;; *) rm -f "$name" ;; esac; done`,
      { signal: context.signal },
    )
}

export const serveTarget = (lab: Lab, target: TargetSpec): Step => {
  const machine = target.machine
  const portal = portalOf(lab, target)
  const group = groupOf(target)
  const id = shortName(lab, target)
  // Without -x, which would print the password.
  const hint = `lab exec ${lab.name} ${machine} -- /etc/lab/boot.d/50-target`
  const initiators = initiatorsOf(lab)
    .map(({ iqn }) => iqn)
    .sort()
  const listening = machineCheck({
    id: `${id}-portal`,
    title: `${target.iqn} listens on ${portal}`,
    machine,
    within: 10,
    hint,
    command: shell`cd ${group} && cat enable && ls np && ss --no-header -ltn sport = ${target.port}`,
    judge: (output) => {
      const [enable = '', ...rest] = output.split('\n')
      const portals = rest.filter((line) => !line.startsWith('LISTEN'))
      const listens = rest.filter((line) => line.startsWith('LISTEN'))
      return {
        ok: enable === '1' && portals.includes(portal) && listens.some((line) => line.includes(portal)),
        saw: `enable=${enable}; ${portals.join(', ') || 'no portal'}; ${listens.join(', ') || 'nothing listens'}`,
      }
    },
  })
  const luns = target.luns.map(({ lun, size }) =>
    machineCheck({
      id: `${id}-lun-${String(lun)}`,
      title: `LUN ${String(lun)} of ${target.iqn} has ${String(size)} bytes and its serial number`,
      machine,
      hint,
      command: shell`test -d ${group}/lun/lun_${lun}/store/ || { echo no backing device >&2; exit 1; }; cd ${group}/lun/lun_${lun}/store && blockdev --getsize64 "$(cat udev_path)" && sed 's/.*: //' wwn/vpd_unit_serial`,
      judge: equals(`${String(size)}\n${serialOf(target, lun)}`, (output) =>
        output.replace('\n', ' bytes, serial number '),
      ),
    }),
  )
  const acls = machineCheck({
    id: `${id}-acl`,
    title: `only ${initiators.length === 1 ? 'its initiator' : `its ${String(initiators.length)} initiators`} may log in`,
    machine,
    hint,
    command: shell`cat ${group}/attrib/generate_node_acls; ls ${group}/acls; find ${group}/acls -maxdepth 3 -type l | wc -l`,
    judge: (output) => {
      const [generated, ...rest] = output.split('\n')
      const mapped = Number(rest.pop())
      const saw = `${rest.join(', ') || 'nobody'}; ${String(mapped)} LUNs mapped${generated === '1' ? '; and anybody else' : ''}`
      return {
        ok:
          generated === '0' &&
          rest.sort().join() === initiators.join() &&
          mapped === initiators.length * target.luns.length,
        saw,
      }
    },
  })
  const chap: Check = machineCheck({
    id: `${id}-chap`,
    title: `${target.iqn} demands CHAP with the lab file's name and password`,
    machine,
    hint,
    // Hashes: neither the secret nor its length shows in a report.
    command: shell`cat ${group}/attrib/authentication; for acl in ${group}/acls/*/; do for key in userid password; do printf %s "$(cat "$acl"/auth/$key)" | sha256sum; done; done | sort -u | cut -c1-64`,
    judge: (output) => {
      const [required, ...seen] = output.split('\n')
      const wanted = [target.chap.username, target.chap.password].map(sha256)
      const same =
        new Set(seen).size === new Set(wanted).size && seen.every((value) => wanted.includes(value))
      return {
        ok: required === '1' && same,
        saw: `authentication=${required ?? ''}, ${same ? 'credentials as wanted' : 'credentials differ'}`,
      }
    },
  })
  return {
    id: `serve-${id}`,
    title: `Serve ${target.iqn}`,
    phase,
    machine,
    needs: [`configure-${machine}`],
    apply: async (context) => {
      await forgetFences(context, machine)
      await context.machine(machine).run(shell`/etc/lab/boot.d/50-target`, { signal: context.signal })
    },
    checks: [
      listening,
      ...luns,
      acls,
      chap,
      ...(lab.targets.find((first) => first.machine === machine) === target
        ? [nothingElse(lab, machine, hint), nobodyFenced(lab, machine)]
        : []),
    ],
  }
}

/** Exit code of iscsiadm for a login that the target refused: ISCSI_ERR_LOGIN_AUTH_FAILED in open-iscsi. */
const refusedByTarget = 24

/** Where open-iscsi keeps its records: Debian 13 in the second place, others in the first. */
const recordFolders = ['/etc/iscsi/nodes', '/etc/iscsi/ifaces', '/var/lib/iscsi']

/**
 * Tries a login that must not succeed. Its records live in a mount namespace that ends with it, and it has an
 * interface of its own, so neither records nor sessions of the machine are touched.
 */
const refuses = (
  lab: Lab,
  target: TargetSpec,
  initiator: string,
  how: 'wrong password' | 'no password',
): Check => {
  const face = how === 'wrong password' ? 'lab-wrong' : 'lab-open'
  const node = ['-m', 'node', '-T', target.iqn, '-p', portalOf(lab, target), '-I', face]
  const credentials =
    how === 'wrong password'
      ? [
          '-n',
          'node.session.auth.authmethod',
          '-v',
          'CHAP',
          '-n',
          'node.session.auth.username',
          '-v',
          'nobody',
        ].concat(['-n', 'node.session.auth.password', '-v', 'not-the-password'])
      : ['-n', 'node.session.auth.authmethod', '-v', 'None']
  const script = [
    shell`for folder in ${recordFolders}; do test ! -d $folder || mount -t tmpfs none $folder; done`,
    shell`mkdir -p /var/lib/iscsi/nodes /var/lib/iscsi/ifaces; exec 2>&1`,
    shell`iscsiadm -m iface -I ${face} -o new >/dev/null && iscsiadm ${node} -o new >/dev/null`,
    shell`iscsiadm ${node} -o update ${credentials} && timeout 20 iscsiadm ${node} --login; code=$?`,
    shell`test $code != 0 || iscsiadm ${node} --logout; exit $code`,
  ]
    .map(({ text }) => text)
    .join('\n')
  return {
    id: `${shortName(lab, target)}-refuses-${how.replace(' ', '-')}`,
    title: `${target.iqn} refuses ${how === 'wrong password' ? 'a wrong password' : 'a login without CHAP'}`,
    machine: initiator,
    within: 20,
    hint: `lab exec ${lab.name} ${target.machine} -- dmesg`,
    probe: async (context) => {
      const result = await context
        .machine(initiator)
        .try(shell`unshare --mount sh -c ${script}`, { signal: context.signal })
      const said = result.stdout.trim().split('\n').at(-1) ?? ''
      return {
        ok: result.exitCode === refusedByTarget,
        saw: `iscsiadm exit code ${String(result.exitCode)}: ${said}`,
      }
    },
  }
}

/** A step that only looks: the lock on the door works. */
export const proveRefusal = (lab: Lab, target: TargetSpec): Step | undefined => {
  const initiator = initiatorsOf(lab)[0]
  const name = shortName(lab, target)
  return (
    initiator && {
      id: `prove-refusal-${name}`,
      title: `See that ${target.iqn} refuses strangers`,
      phase,
      machine: initiator.name,
      needs: [`serve-${name}`, `prepare-initiator-${initiator.name}`],
      checks: [
        refuses(lab, target, initiator.name, 'wrong password'),
        refuses(lab, target, initiator.name, 'no password'),
      ],
    }
  )
}
