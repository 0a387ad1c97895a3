/** What Corosync, DRBD and Pacemaker report about a pair of machines. */
import { outdatedMark } from '../machine/pair.js'
import type { Verdict } from '../plan/step.js'

/** @param output of `corosync-quorumtool -s` @param machines that must be members, in addition to the quorum device */
export const votesIn = (output: string, machines: readonly string[]): Verdict => {
  const value = (name: string): string =>
    new RegExp(`^${name}: +(.*)$`, 'm').exec(output)?.[1]?.trim() ?? 'unknown'
  // `1 1 A,V,NMW target1 (local)`: its number, its votes, alive and voting, its name; `0 1 Qdevice`.
  const lines = output.split('\n').map((line) => line.trim().split(/ +/))
  const votes = (name: string): boolean =>
    lines.some(
      (words) =>
        words.includes(name) &&
        words[1] === '1' &&
        (name === 'Qdevice' || (words[2] ?? '').startsWith('A,V')),
    )
  const missing = [...machines, 'Qdevice'].filter((name) => !votes(name))
  return {
    ok: missing.length === 0 && value('Quorate') === 'Yes' && value('Total votes') === '3',
    saw: `quorate: ${value('Quorate')}; votes: ${value('Total votes')} of ${value('Expected votes')}${missing.length > 0 ? `; without a vote: ${missing.join(', ')}` : ''}`,
  }
}

/** A copy of a disk, as a line of /proc/drbd has it. */
export interface Copy {
  /** `Connected`, `WFConnection`, `SyncTarget`, `StandAlone`; see drbd.conf(5). */
  readonly connection: string
  /** Own and other role: `Primary/Secondary`. */
  readonly roles: string
  /** Own and other state: `UpToDate/UpToDate`. */
  readonly disks: string
  /** For people. */
  readonly text: string
}

/** @param output of /proc/drbd of the driver 8.4 */
export const copiesIn = (output: string): readonly Copy[] => {
  const synced = /sync'ed: *([\d.]+%)/.exec(output)?.[1]
  return [...output.matchAll(/^ *(\d+): cs:(\S+) ro:(\S+) ds:(\S+)/gm)].map(
    ([, number = '', connection = '', roles = '', disks = '']) => ({
      connection,
      roles,
      disks,
      text: `volume ${number}: ${connection}, ${roles}, ${disks}${connection.startsWith('Sync') && synced !== undefined ? `, ${synced}` : ''}`,
    }),
  )
}

export interface ClusterState {
  readonly nodes: readonly { readonly name: string; readonly well: boolean; readonly standby: boolean }[]
  readonly resources: readonly {
    readonly id: string
    readonly role: string
    readonly failed: boolean
    readonly on: readonly string[]
  }[]
  /** One sentence for each. */
  readonly failures: readonly string[]
}

/** The attributes of a tag. */
const attributesOf = (text: string): ReadonlyMap<string, string> =>
  new Map([...text.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, name = '', value = '']) => [name, value]))

/** @param xml of `crm_mon --output-as=xml` */
export const readClusterState = (xml: string): ClusterState => {
  const between = (tag: string): string => new RegExp(`<${tag}>([\\s\\S]*?)</${tag}>`).exec(xml)?.[1] ?? ''
  const nodes = [...between('nodes').matchAll(/<node ([^>]*)>/g)].map(([, text = '']) => {
    const is = attributesOf(text)
    return {
      name: is.get('name') ?? '',
      standby: is.get('standby') === 'true',
      well:
        is.get('online') === 'true' &&
        is.get('unclean') === 'false' &&
        is.get('standby') === 'false' &&
        is.get('maintenance') === 'false',
    }
  })
  const resources = [
    ...between('resources').matchAll(/<resource ([^>]*?)(?:\/>|>([\s\S]*?)<\/resource>)/g),
  ].map(([, text = '', inside = '']) => {
    const is = attributesOf(text)
    return {
      id: is.get('id') ?? '',
      role: is.get('role') ?? '',
      failed: is.get('failed') === 'true' || is.get('blocked') === 'true',
      on: [...inside.matchAll(/<node [^>]*?name="([^"]*)"/g)].map(([, name = '']) => name),
    }
  })
  const failures = [
    ...[...between('failures').matchAll(/<failure ([^>]*)>/g)].map(([, text = '']) => {
      const is = attributesOf(text)
      return `${is.get('op_key') ?? 'an action'} on ${is.get('node') ?? 'a machine'}: ${is.get('exitstatus') ?? ''} ${is.get('exitreason') ?? ''}`.trim()
    }),
  ]
  return { nodes, resources, failures }
}

/** The tags of a text, each with its attributes in order of their names. */
const tagsIn = (xml: string): readonly string[] =>
  [...xml.matchAll(/<([a-z_]+)((?:\s+[\w-]+="[^"]*")+)\s*\/?>/g)].map(([, tag = '', text = '']) =>
    [tag, ...[...attributesOf(text)].map(([name, value]) => `${name}=${value}`).sort()].join(' '),
  )

/** Parts of the configuration that Pacemaker writes itself. */
const itsOwn = (tag: string): boolean =>
  tag.includes('id=cib-bootstrap-options') ||
  tag.startsWith('configuration') ||
  // It is left, without a value in it, when a machine is no longer standby.
  /^instance_attributes id=nodes-\d+$/.test(tag)

/** A part of the configuration that does not belong there, for people. */
const leftOver = (tag: string): string => {
  const machine = new RegExp(`^rsc_location id=${outdatedMark}(\\S+)`).exec(tag)?.[1]
  return machine === undefined
    ? `left over: ${tag}`
    : `the copy of ${machine} is outdated, and is not served until it has caught up`
}

/** Compares a configuration with the expected one, element by element. */
export const configurationDiffers = (wanted: string, has: string): Verdict => {
  const [there, should] = [tagsIn(has), tagsIn(wanted)]
  const missing = should.filter((tag) => !there.includes(tag)).map((tag) => `missing: ${tag}`)
  const left = there.filter((tag) => !should.includes(tag) && !itsOwn(tag)).map(leftOver)
  const wrong = [...missing, ...left]
  return { ok: wrong.length === 0 && there.length > 0, saw: wrong.slice(0, 5).join('; ') || 'as wanted' }
}
