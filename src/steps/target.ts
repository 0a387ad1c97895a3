/** The iSCSI target: LIO, as shown by the kernel's configfs. */
import {
  accessTo,
  type Chap,
  discoveryChapOf,
  type Lab,
  machineNamed,
  portalOf,
  type TargetSpec,
} from '../lab/lab.js'
import { numbering } from '../plan/names.js'
import { serialOf, sha256 } from '../machine/digest.js'
import { targetFolders } from '../machine/files.js'
import { shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import { fencedFolder } from '../fencing/access.js'
import { forgetUnknownFences, keptOutAt } from '../fencing/fence.js'
import { equals, machineCheck, type Place, shared } from './checks.js'

const phase = 'iscsi'

const configfs = '/sys/kernel/config/target'

const groupOf = (target: TargetSpec): string => `${configfs}/iscsi/${target.iqn}/tpgt_1`

/** The last part of an iSCSI name in kebab case, for ids. */
const lastPart = (iqn: string): string =>
  (iqn.split(':').at(-1) ?? '')
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '') || 'target'

/** `target00`, or `target00-2` for another target of the lab whose name ends in the same way. */
export const shortName = (lab: Lab, { iqn }: TargetSpec): string => {
  const distinct = numbering()
  const names = new Map(lab.targets.map((target) => [target.iqn, distinct(lastPart(target.iqn))]))
  return names.get(iqn) ?? lastPart(iqn)
}

/** Where a target is asked, and the ids of its checks. */
export interface Served {
  readonly place: Place
  /** The first part of the ids of checks about a whole machine, and the subject of their titles. */
  readonly id: string
  readonly by: string
  readonly hint: string
}

const whereOf = async (context: Context, { machine, at }: Place): Promise<string> =>
  at ? at(context) : machine

/** Checks all targets of a machine together: a check of one target would not notice a superfluous one. */
const nothingElse = (
  wanted: readonly string[],
  { place, id, by, hint }: Served,
  serves = 'serves what the lab file says, and nothing else',
): Check => {
  const groups = 'iscsi/*/tpgt_*'
  const patterns = [
    'core/iblock_*/*',
    groups,
    ...['np', 'lun', 'acls', 'acls/*'].map(
      (kind) => `${groups}/${kind}/${kind === 'acls/*' ? 'lun_*' : '*'}`,
    ),
  ]
  return machineCheck({
    id: `${id}-targets`,
    title: `${by} ${serves}`,
    ...place,
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
      return { ok: wrong.length === 0, saw: wrong.join('; ') || 'all correct' }
    },
  })
}

/** `LUN 0`, or `LUNs 0, 3`. */
const lunsText = (luns: readonly (number | string)[]): string =>
  luns.length === 0 ? 'no LUN' : `${luns.length === 1 ? 'LUN' : 'LUNs'} ${luns.join(', ')}`

/** Who may log in to a target, and what they see. */
interface Access {
  /** Whether initiators without an ACL may log in or discover the target. */
  readonly open: boolean
  /** By the initiator's name: its LUNs, `3`, or `3 (LUN 0 of the target)` where the numbers differ. */
  readonly lists: ReadonlyMap<string, readonly string[]>
  readonly fenced: ReadonlySet<string>
}

const readAccess = (output: string): Access => {
  const lists = new Map<string, string[]>()
  const fenced = new Set<string>()
  const readOnly = new Set<string>()
  const open: string[] = []
  const maps: string[][] = []
  for (const [kind = '', ...words] of output.split('\n').map((line) => line.split(' '))) {
    if (kind === 'open') open.push(words[0] ?? '')
    if (kind === 'acl') lists.set(words[0] ?? '', [])
    if (kind === 'fenced') fenced.add(words[0] ?? '')
    if (kind === 'read-only')
      readOnly.add((words[0] ?? '').replace(/^acls\//, '').replace(/\/write_protect$/, ''))
    if (kind === 'map') maps.push(words)
  }
  for (const [map = '', to = ''] of maps) {
    const [name = '', folder = ''] = map.split('/')
    const seen = folder.replace('lun_', '')
    const served = (to.split('/').at(-1) ?? '').replace('lun_', '')
    lists
      .get(name)
      ?.push(
        `${seen}${served === seen ? '' : ` (LUN ${served} of the target)`}${readOnly.has(`${name}/${folder}`) ? ' (read-only)' : ''}`,
      )
  }
  return { open: open.join() !== '0,0', lists, fenced }
}

/** Reads the access of all initiators with one command, since there may be many. */
const accessSeen = (target: TargetSpec, place: Place): ((context: Context) => Promise<Access>) =>
  shared(async (context) =>
    readAccess(
      await context
        .machine(await whereOf(context, place))
        .run(
          shell`cd ${groupOf(target)} && sed 's/^/open /' attrib/generate_node_acls attrib/demo_mode_discovery && find acls -maxdepth 3 -type l -printf 'map %P %l\n' -o -type d -path 'acls/*' ! -path 'acls/*/*' -printf 'acl %f\n' && { grep -l 1 acls/*/lun_*/write_protect 2>/dev/null | sed 's/^/read-only /'; ls ${fencedFolder} 2>/dev/null | sed 's/^/fenced /'; true; }`,
          { signal: context.signal, timeout: 30 },
        ),
    ),
  )

const accessChecks = (lab: Lab, target: TargetSpec, { place, hint }: Served): readonly Check[] => {
  const id = shortName(lab, target)
  const about = place.machine === undefined ? { hint } : { machine: place.machine, hint }
  const allowed = accessTo(lab, target)
  const wanted = allowed.map(({ initiator }) => initiator.iqn)
  const seen = accessSeen(target, place)
  const who =
    wanted.length === 0
      ? 'no initiator'
      : `only ${wanted.length === 1 ? 'its initiator' : `its ${String(wanted.length)} initiators`}`
  return [
    {
      id: `${id}-acl`,
      title: `${who} may log in`,
      ...about,
      probe: async (context) => {
        const { open, lists, fenced } = await seen(context)
        const names = [...lists.keys()].sort()
        const wrong = [
          ...(open ? ['every initiator may log in, or discover it'] : []),
          ...names.filter((name) => !wanted.includes(name)).map((name) => `left over: ${name}`),
          ...wanted
            .filter((name) => !lists.has(name))
            .map((name) => (fenced.has(name) ? `fenced: ${name}` : `missing: ${name}`)),
        ]
        const listed = names.join(', ') || 'no initiator'
        return wrong.length === 0
          ? { ok: true, saw: listed }
          : { ok: false, saw: [...wrong, `may log in now: ${listed}`].join('; ') }
      },
    },
    ...allowed.map(({ initiator: { name, iqn }, luns }): Check => ({
      id: `${id}-acl-${name}`,
      title: `${name} sees ${lunsText(luns)} of ${target.iqn}, and no other`,
      ...about,
      probe: async (context) => {
        const { lists, fenced } = await seen(context)
        const list = lists.get(iqn)
        if (fenced.has(iqn))
          return {
            ok: false,
            saw: `fenced${list ? ', but still on the list' : ''}; lab heal ${lab.name} gives it access again`,
          }
        const has = [...(list ?? [])].sort((a, b) => Number.parseInt(a) - Number.parseInt(b))
        return {
          ok: has.join() === luns.join(),
          saw: list ? lunsText(has) : 'is on no list',
        }
      },
    })),
  ]
}

/** The files of names and passwords. They are read as hashes: no report shows a secret or its length. */
const chapFiles = (chap: Chap): readonly string[] => [
  'userid',
  'password',
  ...(chap.mutual ? ['userid_mutual', 'password_mutual'] : []),
]

/** The hashes that `sha256sum` prints if the values are correct; the kernel ends each value with a newline. */
const chapHashes = (chap: Chap): readonly string[] =>
  [chap.username, chap.password, ...(chap.mutual ? [chap.mutual.username, chap.mutual.password] : [])].map(
    (value) => sha256(`${value}\n`),
  )

const mutualText = (chap: Chap): string => (chap.mutual ? ', and answers with its own' : '')

/** Discovery credentials are the same for all targets of a machine. */
const discoveryCheck = (chap: Chap, { place, id, by, hint }: Served): Check => {
  const files = chapFiles(chap)
  return machineCheck({
    id: `${id}-discovery`,
    title: `${by} demands CHAP for discovery${mutualText(chap)}`,
    ...place,
    hint,
    command: shell`cd ${configfs}/iscsi/discovery_auth && cat enforce_discovery_auth authenticate_target && sha256sum ${files} | cut -c1-64`,
    judge: (output) => {
      const [enforced, mutual, ...seen] = output.split('\n')
      const same = seen.join() === chapHashes(chap).join() && mutual === (chap.mutual ? '1' : '0')
      return {
        ok: enforced === '1' && same,
        saw: `enforce_discovery_auth=${enforced ?? ''}, ${same ? 'credentials correct' : 'credentials wrong'}`,
      }
    },
  })
}

/** A fence that is not in the journal would deny an initiator after the next boot of the target. */
const nobodyKeptOut = (lab: Lab, machine: string): Check => ({
  id: `${machine}-fenced`,
  title: `${machine} shuts no initiator out`,
  machine,
  hint: `lab up ${lab.name}`,
  probe: async (context) => {
    const out = await keptOutAt(context, machine)
    return {
      ok: out.length === 0,
      saw:
        out
          .map(
            ({ initiator, noted }) =>
              `${initiator} is ${noted ? 'fenced' : 'shut out, although it was not fenced'}`,
          )
          .join('; ') || 'no initiator',
    }
  },
})

/** What initiators find at the portal of a target. */
export const targetChecks = (lab: Lab, target: TargetSpec, served: Served): readonly [Check, ...Check[]] => {
  const { place, hint } = served
  const portal = portalOf(lab, target)
  const group = groupOf(target)
  const id = shortName(lab, target)
  const listening = machineCheck({
    id: `${id}-portal`,
    title: `${target.iqn} listens on ${portal}`,
    ...place,
    within: 10,
    hint,
    command: shell`cd ${group} && cat enable && ls np && ss --no-header -ltn sport = ${target.port}`,
    judge: (output) => {
      const [enable = '', ...rest] = output.split('\n')
      const portals = rest.filter((line) => !line.startsWith('LISTEN'))
      const listens = rest.filter((line) => line.startsWith('LISTEN'))
      return {
        ok:
          enable === '1' &&
          portals.includes(portal) &&
          listens.some((line) => line.split(/\s+/).includes(portal)),
        saw: `enable=${enable}; ${portals.join(', ') || 'no portal'}; ${listens.join(', ') || 'nothing listens'}`,
      }
    },
  })
  const luns = target.luns.map(({ lun, size }) =>
    machineCheck({
      id: `${id}-lun-${String(lun)}`,
      title: `LUN ${String(lun)} of ${target.iqn} has ${String(size)} bytes and its serial number`,
      ...place,
      hint,
      command: shell`test -d ${group}/lun/lun_${lun}/store/ || { echo no backing device >&2; exit 1; }; cd ${group}/lun/lun_${lun}/store && blockdev --getsize64 "$(cat udev_path)" && sed 's/.*: //' wwn/vpd_unit_serial`,
      judge: equals(`${String(size)}\n${serialOf(target, lun)}`, (output) =>
        output.replace('\n', ' bytes, serial number '),
      ),
    }),
  )
  const chap: Check = machineCheck({
    id: `${id}-chap`,
    title: `${target.iqn} demands CHAP with the lab file's name and password${mutualText(target.chap)}`,
    ...place,
    hint,
    // A list of file names, and one process for all of them: with 29 initiators, one for each took 30 s.
    command: shell`cd ${group} && cat attrib/authentication; set --; for acl in acls/*/auth; do test ! -d "$acl" || for file in ${['authenticate_target', ...chapFiles(target.chap)]}; do set -- "$@" "$acl/$file"; done; done; test $# = 0 || sha256sum "$@" | cut -c1-64`,
    judge: (output) => {
      const [required, ...seen] = output.split('\n')
      const wanted = [sha256(target.chap.mutual ? '1\n' : '0\n'), ...chapHashes(target.chap)]
      const same =
        seen.length % wanted.length === 0 &&
        seen.every((value, index) => value === wanted[index % wanted.length])
      return {
        ok: required === '1' && same,
        saw: `authentication=${required ?? ''}, ${same ? 'credentials correct' : 'credentials wrong'}`,
      }
    },
  })
  return [listening, ...luns, ...accessChecks(lab, target, served), chap]
}

/** Everything that a machine serves. @param machine any machine that has disks of targets */
export const machineChecks = (lab: Lab, machine: string, served: Served): readonly Check[] => [
  discoveryCheck(discoveryChapOf(lab, machine), served),
  nothingElse(targetFolders(lab, machineNamed(lab, machine)), served),
]

/** A machine that has disks of targets serves nothing at the moment. */
export const servesNothing = (served: Served): Check => nothingElse([], served, 'serves nothing')

export const serveTarget = (lab: Lab, target: TargetSpec): Step => {
  const { machine } = target
  const id = shortName(lab, target)
  // Without -x, which would print the password.
  const hint = `lab exec ${lab.name} ${machine} -- /etc/lab/boot.d/50-target`
  const served: Served = { place: { machine }, id: machine, by: machine, hint }
  const first = lab.targets.find((each) => each.machine === machine) === target
  return {
    id: `serve-${id}`,
    title: `Serve ${target.iqn}`,
    phase,
    machine,
    needs: [`configure-${machine}`],
    apply: async (context) => {
      await forgetUnknownFences(context, machine)
      await context.machine(machine).run(shell`/etc/lab/boot.d/50-target`, { signal: context.signal })
    },
    checks: [
      ...targetChecks(lab, target, served),
      ...(first ? [...machineChecks(lab, machine, served), nobodyKeptOut(lab, machine)] : []),
    ],
  }
}
