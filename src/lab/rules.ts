/**
 * The rules of a lab file that involve more than one field. They run on drafts (`draft.ts`), so that one run reports
 * every problem.
 */
import { type DraftFile, type Found, type Path, items, pathText, Taken } from './draft.js'
import type { Role } from './lab.js'
import { clusterRules, databaseRules, kubernetesRules, type Supported } from './cluster-rules.js'
import { filesystemRules, initiatorRules, lunInitiatorRules, lunRules, targetRules } from './iscsi-rules.js'
import { boxRules } from './box-rules.js'
import { pairRules } from './pair-rules.js'
import { scenarioRules } from './scenario-rules.js'
import { addressProblem } from './subnets.js'
import type { Vocabulary } from './vocabulary.js'
import { bytesOf, sizeText } from './units.js'

type File = DraftFile

/** The least memory of a machine by role, in bytes, and what would suffer with less. */
const leastMemory: Readonly<Record<Role, { readonly bytes: number; readonly why: string }>> = {
  'control-plane': { bytes: 1536 * 1024 ** 2, why: 'with less, the API server and etcd run out of memory' },
  worker: { bytes: 768 * 1024 ** 2, why: 'with less, the kubelet, containerd and a database do not fit' },
  target: { bytes: 128 * 1024 ** 2, why: 'with less, its operating system does not fit' },
  initiator: { bytes: 128 * 1024 ** 2, why: 'with less, its operating system does not fit' },
  nfs: { bytes: 192 * 1024 ** 2, why: 'with less, its operating system and its cache do not fit' },
}

/** What a name already means to commands and to the machines, which prevents its use for a machine of this role. */
const meaningOf = (name: string, role: Role | undefined): string | undefined =>
  name === 'all'
    ? 'every machine in lab exec'
    : name in leastMemory && role !== undefined && role !== name
      ? `every machine with the role ${name} in lab exec`
      : undefined

function* machineRules(file: File): Found {
  const names = new Taken<string>()
  const addresses = new Taken<string>()
  for (const [index, { name, address, role, memory }] of items(file.machines)) {
    const at = (field: string): Path => ['machines', index, field]
    const sameName = name === undefined ? undefined : names.by(name, at('name'))
    if (sameName)
      yield {
        path: at('name'),
        message: `${String(name)} is taken by ${pathText(sameName)}; choose another name`,
      }
    const means = name === undefined ? undefined : meaningOf(name, role)
    if (means !== undefined)
      yield { path: at('name'), message: `${String(name)} means ${means}; choose another name` }
    if (address !== undefined) {
      const same = addresses.by(address, at('address'))
      if (same)
        yield {
          path: at('address'),
          message: `${address} is taken by ${pathText(same)}; choose another address`,
        }
      const problem = addressProblem(file, address)
      if (problem !== undefined) yield { path: at('address'), message: problem }
    }
    const bytes = memory === undefined ? undefined : bytesOf(memory)
    const least = role && leastMemory[role]
    if (bytes !== undefined && least && bytes < least.bytes) {
      yield {
        path: at('memory'),
        message: `${String(memory)} is too little for the role ${role}, which needs at least ${sizeText(least.bytes)}: ${least.why}`,
      }
    } else if (bytes !== undefined && bytes > 1024 ** 4) {
      yield {
        path: at('memory'),
        message: `${String(memory)} is more than any host has; expected at most 1TiB`,
      }
    }
  }
}

/** Everything that is wrong with a file beyond single fields. */
export function* crossCheck(file: File, supported: Supported, vocabulary: Vocabulary): Found {
  yield* machineRules(file)
  yield* targetRules(file)
  yield* pairRules(file)
  yield* boxRules(file)
  yield* initiatorRules(file)
  yield* filesystemRules(file)
  yield* lunRules(file)
  yield* lunInitiatorRules(file)
  yield* kubernetesRules(file, supported)
  yield* clusterRules(file, supported)
  yield* databaseRules(file)
  yield* scenarioRules(file, vocabulary)
}
