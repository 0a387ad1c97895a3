/** A LUN as a volume of pods: its CHAP Secret, and a pod that writes to it and reads it back. */
import {
  type DatabaseSpec,
  type DatabaseVolume,
  discoveryChapOf,
  type Lab,
  machinesWith,
  portalOf,
  type TargetSpec,
  targetNamed,
} from '../lab/lab.js'
import type { Step } from '../context.js'
import { render } from '../render.js'
import { apply } from './checks.js'
import { deploymentExists, images } from './database-pods.js'
import { describePod, pods } from './pods.js'
import { shortName } from './target.js'

const phase = 'database'

export type OnLun = Extract<DatabaseVolume, { kind: 'lun' }>

export const iscsiVolume = (lab: Lab, volume: OnLun): object => {
  const target = targetNamed(lab, volume.target)
  return {
    targetPortal: portalOf(lab, target),
    iqn: target.iqn,
    lun: volume.lun,
    fsType: 'ext4',
    readOnly: false,
    chapAuthDiscovery: true,
    chapAuthSession: true,
    secretRef: { name: 'chap-secret' },
  }
}

/** Keys and values of chap-secret, which the kubelet gives to open-iscsi. */
const secretValues = (lab: Lab, { chap, machine }: TargetSpec): Readonly<Record<string, string>> =>
  Object.assign(
    {},
    ...Object.entries({
      'discovery.sendtargets.auth': discoveryChapOf(lab, machine),
      'node.session.auth': chap,
    }).map(([section, { username, password, mutual }]) => ({
      [`${section}.username`]: username,
      [`${section}.password`]: password,
      ...(mutual && {
        [`${section}.username_in`]: mutual.username,
        [`${section}.password_in`]: mutual.password,
      }),
    })),
  ) as Readonly<Record<string, string>>

export const secretManifest = (lab: Lab, target: TargetSpec): string =>
  render('manifests/chap-secret.yaml', { values: secretValues(lab, target) })

export const createSecret = (lab: Lab, target: TargetSpec): Step => ({
  id: 'create-chap-secret',
  title: 'Put the CHAP name and password into chap-secret',
  phase,
  needs: ['init-control-plane'],
  apply: (context) => apply(context, secretManifest(lab, target)),
  checks: [
    {
      id: 'chap-secret',
      title: 'chap-secret contains what the lab file says',
      within: 20,
      hint: `lab up ${lab.name}`,
      probe: async ({ kubectl }) => {
        const { type, data } = await kubectl.get<{ type: string; data: Record<string, string> }>(
          'secret',
          'chap-secret',
        )
        const wanted = secretValues(lab, target)
        const keys = [...Object.keys(wanted), ...Object.keys(data)]
        const same = keys.every(
          (key) => Buffer.from(data[key] ?? '', 'base64').toString('utf8') === wanted[key],
        )
        return {
          ok: same && type === 'kubernetes.io/iscsi-chap',
          saw: `${type}, ${same ? 'correct' : 'wrong values'}`,
        }
      },
    },
  ],
})

export const proveVolume = (lab: Lab, database: DatabaseSpec, volume: OnLun): Step => ({
  id: 'prove-volume',
  title: 'Check that a pod writes to the LUN and reads it back',
  phase,
  needs: [
    'create-chap-secret',
    'guard-luns',
    `serve-${shortName(lab, targetNamed(lab, volume.target))}`,
    ...machinesWith(lab, 'worker').flatMap(({ name }) => [`prepare-initiator-${name}`]),
    // One worker is enough to begin.
    `ready-${machinesWith(lab, 'worker')[0]?.name ?? ''}`,
  ],
  apply: async (context) => {
    // Leave a LUN alone that a database uses: two pods must never use one disk.
    if (await deploymentExists(context, database)) return
    await context.kubectl.run(['delete', 'pod', 'ubuntu-initiator', '--ignore-not-found', '--grace-period=1'])
    await apply(
      context,
      render('manifests/ubuntu-initiator.yaml', { image: images.ubuntu, volume: iscsiVolume(lab, volume) }),
    )
  },
  checks: [
    {
      id: 'volume-used',
      title: 'a pod has used the LUN through the CHAP login, as ext4',
      within: 120,
      hint: `lab kubectl ${lab.name} -- describe pod ubuntu-initiator`,
      probe: async (context) => {
        const pod = (await pods(context)).find(({ metadata }) => metadata.name === 'ubuntu-initiator')
        if (pod?.status.phase === 'Succeeded') {
          const said = (await context.kubectl.run(['logs', 'ubuntu-initiator'])).trim()
          return {
            ok: said.startsWith('ext') && said.endsWith('file read back'),
            saw: said || 'it printed nothing',
          }
        }
        if (await deploymentExists(context, database))
          return { ok: true, saw: 'the database uses it: see its own checks' }
        return {
          ok: false,
          saw: pod ? describePod(pod) : 'no such pod',
          final: pod?.status.phase === 'Failed',
        }
      },
    },
  ],
})
