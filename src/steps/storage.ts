/** Volumes: the NFS server and its clients, the images that nodes need, and the provisioner of claims. */
import { readFile } from 'node:fs/promises'
import { LabError } from '../error.js'
import { commonImages, imageReference, imagesOf, imagesUsedOn, storageImages } from '../lab/images.js'
import { type Lab, type MachineSpec, nfsServerOf, nodesOf } from '../lab/lab.js'
import { sha256 } from '../machine/digest.js'
import { nfsFolder } from '../machine/files.js'
import { shell } from '../machine/sh.js'
import type { Context, Step } from '../context.js'
import { equips, type Provider } from '../provider/provider.js'
import { render } from '../render.js'
import { apply, machineCheck } from './checks.js'
import { describePod, isReady, pods } from './pods.js'

const phase = 'storage'

export const serveNfs = (lab: Lab, machine: MachineSpec): Step => ({
  id: `serve-nfs-${machine.name}`,
  title: `Serve ${nfsFolder} over NFS on ${machine.name}`,
  phase,
  machine: machine.name,
  needs: [`configure-${machine.name}`],
  apply: async (context) => {
    await context.machine(machine.name).run(shell`/etc/lab/boot.d/50-nfs`, { signal: context.signal })
  },
  checks: [
    machineCheck({
      id: `${machine.name}-nfs`,
      title: `${machine.name} serves ${nfsFolder} to ${lab.network.subnet}`,
      machine: machine.name,
      within: 60,
      hint: `lab exec ${lab.name} ${machine.name} -- systemctl status nfs-server`,
      command: shell`exportfs | tr -s '\n\t ' ' '; cat /proc/fs/nfsd/threads`,
      judge: (output) => ({
        ok:
          output.includes(`${nfsFolder} ${lab.network.subnet}`) &&
          Number(output.split('\n').at(-1)?.split(' ').at(-1)) > 0,
        saw: output.replaceAll('\n', ', ') || 'no exports',
      }),
    }),
  ],
})

/** Each node writes a file, which the next check of any other node reads: they share one file system. */
export const mountNfs = (lab: Lab, machine: MachineSpec): Step => {
  const server = nfsServerOf(lab)
  if (!server) throw new Error(`${lab.name} has no NFS machine`)
  return {
    id: `mount-nfs-${machine.name}`,
    title: `Mount ${server.name}'s file system on ${machine.name}`,
    phase,
    machine: machine.name,
    needs: [`configure-${machine.name}`, `serve-nfs-${server.name}`],
    apply: async (context) => {
      await context
        .machine(machine.name)
        .run(shell`systemctl daemon-reload; /etc/lab/boot.d/40-nfs`, { signal: context.signal })
    },
    checks: [
      machineCheck({
        id: `${machine.name}-nfs-mounted`,
        title: `${machine.name} reaches ${server.name}'s file system at ${nfsFolder}`,
        machine: machine.name,
        within: 60,
        hint: `lab exec ${lab.name} ${machine.name} -- systemctl status srv-nfs.mount`,
        command: shell`timeout 10 stat ${nfsFolder}/. >/dev/null && findmnt --noheadings --types nfs4 --output SOURCE,OPTIONS ${nfsFolder}`,
        judge: (output) => ({
          ok: output.startsWith(`${server.address}:/`) && output.includes('vers=4.2'),
          saw: output.replaceAll(/\s+/g, ' ').slice(0, 120) || 'not mounted',
        }),
      }),
    ],
  }
}

/**
 * Loads images that a node's base disk lacks, because the lab was up before its file asked for them, and common
 * images that somebody removed: a node without them cannot take over.
 */
export const loadImages = (lab: Lab, machine: MachineSpec, provider: Provider): Step => {
  const wanted = equips(provider, lab)
    ? imagesUsedOn(lab, machine)
    : [...new Set([...commonImages(), ...imagesOf(lab)])]
  const missing = async (context: Context): Promise<readonly string[]> => {
    const names = await context
      .machine(machine.name)
      .run(shell`ctr --namespace k8s.io images ls -q`, { signal: context.signal, timeout: 30 })
    return wanted.filter((reference) => !names.split('\n').includes(reference))
  }
  return {
    id: `load-images-${machine.name}`,
    title: `Load the lab's images on ${machine.name}`,
    phase: 'kubernetes',
    machine: machine.name,
    needs: [`start-containerd-${machine.name}`],
    apply: async (context, progress) => {
      for (const reference of await missing(context)) {
        const archive = await context.provider.images?.archive(reference, lab, machine.name)
        if (archive === undefined)
          throw new LabError('no-image', `${reference} is not built`, { hint: `lab prepare ${lab.name}` })
        progress(reference)
        await context
          .machine(machine.name)
          .run(shell`ctr --namespace k8s.io images import --local --discard-unpacked-layers -`, {
            input: await readFile(archive),
            signal: context.signal,
            timeout: 600,
          })
      }
    },
    checks: [
      {
        id: `${machine.name}-images`,
        title: `${machine.name} has the ${String(wanted.length)} images of the lab`,
        machine: machine.name,
        within: 30,
        hint: `lab up ${lab.name}`,
        probe: async (context) => {
          const lacks = await missing(context)
          return { ok: lacks.length === 0, saw: lacks.length === 0 ? 'all' : `missing: ${lacks.join(', ')}` }
        },
      },
    ],
  }
}

/** The provisioner's settings, and the classes. */
const storageData = (lab: Lab): object => {
  const config = JSON.stringify({
    storageClassConfigs: Object.fromEntries(
      lab.storage.map((storage) => [
        storage.class,
        storage.kind === 'nfs'
          ? { sharedFileSystemPath: nfsFolder }
          : {
              nodePathMap: [
                { node: 'DEFAULT_PATH_FOR_NON_LISTED_NODES', paths: [`/opt/local-path-provisioner`] },
              ],
            },
      ]),
    ),
  })
  return {
    config,
    configHash: sha256(config).slice(0, 12),
    provisioner: imageReference(storageImages.provisioner),
    helper: imageReference(storageImages.helper),
    classes: lab.storage.map((storage) => ({ ...storage, local: storage.kind === 'local' })),
  }
}

/** The manifest of the provisioner and its classes, for people to read. */
export const storageManifest = (lab: Lab): string => render('manifests/storage.yaml', storageData(lab))

interface StorageClass {
  readonly metadata: { readonly name: string; readonly annotations?: Readonly<Record<string, string>> }
  readonly provisioner: string
}

export const provideStorage = (lab: Lab): Step => ({
  id: 'provide-storage',
  title: `Install local-path-provisioner and ${lab.storage.map((storage) => storage.class).join(', ')}`,
  phase,
  needs: [
    'init-control-plane',
    ...nodesOf(lab).flatMap(({ name }) => [
      `load-images-${name}`,
      ...(lab.storage.some(({ kind }) => kind === 'nfs') ? [`mount-nfs-${name}`] : []),
    ]),
  ],
  apply: (context) => apply(context, storageManifest(lab)),
  checks: [
    {
      id: 'storage-classes',
      title: `the storage classes are ${lab.storage.map((storage) => storage.class).join(', ')}, and no others`,
      within: 20,
      hint: `lab kubectl ${lab.name} -- get storageclasses`,
      probe: async ({ kubectl }) => {
        const { items } = await kubectl.get<{ items: StorageClass[] }>('storageclasses')
        const text = (name: string, isDefault: boolean): string => `${name}${isDefault ? ' (default)' : ''}`
        const found = items
          .map(({ metadata }) =>
            text(
              metadata.name,
              metadata.annotations?.['storageclass.kubernetes.io/is-default-class'] === 'true',
            ),
          )
          .sort()
        const wanted = lab.storage.map((storage) => text(storage.class, storage.default)).sort()
        return { ok: found.join() === wanted.join(), saw: found.join(', ') || 'none' }
      },
    },
    {
      id: 'provisioner',
      title: 'local-path-provisioner is ready',
      within: 120,
      hint: `lab kubectl ${lab.name} -- -n local-path-storage describe pods`,
      probe: async (context) => {
        const found = (await pods(context)).filter(
          ({ metadata }) =>
            metadata.namespace === 'local-path-storage' &&
            metadata.labels?.['app'] === 'local-path-provisioner',
        )
        return {
          ok: found.filter(isReady).length === 1,
          saw: found.map(describePod).join('; ') || 'no such pod',
        }
      },
    },
  ],
})
