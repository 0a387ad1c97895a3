/** The workloads of a lab file: manifests of its folder are applied and become ready. */
import { existsSync, readdirSync, statSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { LabError } from '../error.js'
import { imageReference, imagesOf } from '../lab/images.js'
import { type Lab, nodesOf, type WorkloadSpec } from '../lab/lab.js'
import type { Context, Step } from '../context.js'
import { readyChecks } from '../ready/list.js'
import type { ReadyCheck } from '../ready/ready.js'
import { renderFile } from '../render.js'
import { pathsOf } from '../state.js'

const phase = 'workloads'

/**
 * A manifest of the lab's folder as it is passed to kubectl, with `{{image "nginx:1.26"}}` replaced by the reference
 * of that image.
 * @param data other values for the template
 * @throws LabError if the lab has no such manifest
 */
export const manifestText = (lab: Lab, name: string, data: object = {}): string => {
  const path = lab.manifests === undefined ? undefined : join(lab.manifests, name)
  if (path === undefined || !existsSync(path))
    throw new LabError('no-manifest', `${path ?? name}: there is no such manifest`, {
      hint: `lab validate ${lab.file}`,
    })
  return renderFile(path, { lab, ...data }, { image: imageReference })
}

const isFolder = (lab: Lab, name: string): boolean =>
  lab.manifests !== undefined && statSync(join(lab.manifests, name)).isDirectory()

/** The files of a manifest, which may be a folder: paths in the lab's folder of manifests. */
const filesOf = (lab: Lab, name: string): readonly string[] =>
  isFolder(lab, name) ? readdirSync(join(lab.manifests ?? '', name)).map((file) => join(name, file)) : [name]

/** What `lab up` applies to the cluster, file by file, for people to read; storage classes are in `storageManifest`. */
export const workloadManifests = (lab: Lab): readonly { readonly path: string; readonly text: string }[] =>
  lab.workloads.flatMap(({ manifest }) =>
    filesOf(lab, manifest).map((path) => ({ path, text: manifestText(lab, path) })),
  )

/** `-f FILE` or `-k FOLDER` for a manifest that was rendered into the lab's state. */
export const renderedManifest = async (lab: Lab, name: string): Promise<readonly [string, string]> => {
  const to = join(pathsOf(lab).rendered, name)
  const folder = isFolder(lab, name)
  await rm(to, { recursive: true, force: true })
  await mkdir(folder ? to : pathsOf(lab).rendered, { recursive: true, mode: 0o700 })
  for (const path of filesOf(lab, name))
    await writeFile(join(pathsOf(lab).rendered, path), manifestText(lab, path), { mode: 0o600 })
  return [folder ? '-k' : '-f', to]
}

/** The check for `deployment/web`; the loader has validated the kind. */
const readyCheck = (what: string): ReadyCheck => {
  const found = readyChecks[what.split('/')[0] ?? '']
  if (!found) throw new Error(`it is not defined when ${what} is ready`)
  return found
}

export const deployWorkload = (lab: Lab, workload: WorkloadSpec, before: string | undefined): Step => {
  const name = workload.manifest.replace(/\.ya?ml$/, '').replaceAll(/[^a-z0-9-]+/gi, '-')
  const [first, ...others] = workload.ready.map((what) => ({
    id: `${what.replaceAll(/[/.]/g, '-')}-ready`,
    title: readyCheck(what).title(what),
    within: workload.within / 1000,
    hint: `lab kubectl ${lab.name} -- describe ${what}`,
    probe: async ({ kubectl }: Context) => readyCheck(what).judge(await kubectl.get<unknown>(what)),
  }))
  if (!first) throw new Error(`${workload.manifest} defines no ready condition`)
  return {
    id: `deploy-${name}`,
    title: `Deploy ${workload.manifest}`,
    phase,
    needs: [
      'install-dns',
      ...nodesOf(lab).flatMap((machine) => [
        `ready-${machine.name}`,
        ...(imagesOf(lab).length > 0 ? [`load-images-${machine.name}`] : []),
      ]),
      ...(lab.storage.length > 0 ? ['provide-storage'] : []),
      ...(before === undefined ? [] : [before]),
    ],
    apply: async ({ kubectl }) => {
      await kubectl.run(
        ['apply', '--server-side', '--force-conflicts', ...(await renderedManifest(lab, workload.manifest))],
        {
          timeout: 60,
        },
      )
    },
    checks: [first, ...others],
  }
}
