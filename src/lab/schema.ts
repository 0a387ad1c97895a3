/**
 * The schema of a lab file: the only description of its fields. `Lab` (`lab.ts`) is inferred from what it reads, sizes
 * as bytes and durations as milliseconds. The rules that involve two fields (`rules.ts`) and the JSON Schema see the
 * file as its author wrote it.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { providerNames } from '../providers.js'
import { readyChecks } from '../ready/list.js'
import { projectRoot } from '../package.js'
import {
  defaults,
  text,
  list,
  mapping,
  duration,
  labelPattern,
  labelProblem,
  longestLabName,
  labNameProblem,
  subnet,
  sentence,
} from './fields.js'
import type { FaultName, FaultSpec, WrittenFault } from './fault-spec.js'
import { database, filesystem, kubernetes, machine, target } from './sections.js'
import { anyOf, shown } from './suggest.js'

/** What the schema needs to know of a fault: its fields besides `fault`, in the order in which editors offer them. */
export interface FaultWords {
  readonly name: FaultName
  /** What it does and how it heals. */
  readonly description: string
  readonly fields: z.ZodRawShape
}

/** The name of an experiment in a lab file, and a sentence about what it shows. */
export interface ExperimentWords {
  readonly name: string
  readonly description: string
}

/** The names in a lab file that other modules define. */
export interface Words {
  readonly faults: readonly FaultWords[]
  readonly experiments: readonly ExperimentWords[]
}

/** Each fault is healed by its undo; one that the provider does not support is refused before the scenario starts. */
const faultOf = (faults: readonly FaultWords[]): z.ZodType<FaultSpec, WrittenFault> => {
  const [first, ...others] = faults.map(({ name, description, fields }) =>
    z
      .strictObject({ fault: z.literal(name).meta({ description }), ...fields }, { error: 'a fault' })
      .meta({ description }),
  )
  if (!first) throw new Error('a lab file without any fault to name')
  // A list of records no longer says which name has which fields; `FaultFields` does.
  return z.discriminatedUnion('fault', [first, ...others], {
    error: `a fault: ${faults.map(({ name }) => name).join(', ')}`,
  }) as unknown as z.ZodType<FaultSpec, WrittenFault>
}

const budgets = {
  writeGap: duration('a budget', 'Longest time between two acknowledged writes.').optional(),
  readGap: duration('a budget', 'Longest time between two answered reads.').optional(),
  notReady: duration('a budget', 'From the fault until Kubernetes calls the node NotReady.').optional(),
  takeover: duration(
    'a budget',
    'From the fault until a server other than the one before it acknowledges a write.',
  ).optional(),
  apiGap: duration(
    'a budget',
    'Longest time between two acknowledged writes of ConfigMaps, in a lab whose API server has an address of its own.',
  ).optional(),
}

const scenarioOf = (faults: readonly FaultWords[]) =>
  mapping(
    {
      name: text('a name for the scenario, such as power-cut', (value) => labelProblem(value, 40), {
        description: 'Name of the scenario: lower-case letters, digits and hyphens, at most 40 characters.',
        pattern: labelPattern,
        maxLength: 40,
      }),
      description: sentence('What it shows, in a sentence.'),
      inject: list(faultOf(faults), 'a list of faults')
        .min(1, 'at least one fault')
        .max(16, 'at most 16 faults')
        .meta({ description: 'The faults, injected one after the other.' }),
      expect: mapping(budgets, `a mapping of ${Object.keys(budgets).join(', ')}`)
        .prefault({})
        .meta({
          description: 'Limits: the longest acceptable times. The others are measured as well.',
        }),
      heal: z.enum(['recovery', 'deadline'], { error: 'recovery or deadline' }).default('recovery').meta({
        description:
          'When the faults are undone: `recovery`, as soon as the database writes again; `deadline`, not before, to see what happens while they last.',
      }),
      deadline: duration(
        'a deadline',
        'Longest time from the first fault until the scenario heals, whatever has happened by then.',
      ).prefault(defaults.deadline),
    },
    'a scenario: name, inject',
  )

const storageClass = mapping(
  {
    class: text('a name for the class, such as standard', (value) => labelProblem(value, 40), {
      description: 'Name of the StorageClass.',
      pattern: labelPattern,
      maxLength: 40,
    }),
    kind: z.enum(['local', 'nfs'], { error: 'local or nfs' }).meta({
      description:
        'Where a volume is: `local`, a folder of the node whose pod first asks for it, and on no other node; `nfs`, a folder of the machine with the role nfs, which every node reaches.',
    }),
    default: z
      .boolean({ error: 'true or false' })
      .default(false)
      .meta({ description: 'Whether claims that name no class get this one.' }),
  },
  'a storage class: class, kind',
)

/** OWNER/NAME, as in Vagrant's catalogue. */
const boxPattern = '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}/[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$'

const filePattern = '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$'

const fileName = (wanted: string, description: string) =>
  text(
    wanted,
    (value) =>
      new RegExp(filePattern).test(value)
        ? undefined
        : `${shown(value)}: expected ${wanted}: letters, digits, "_", "-" and ".", at most 64, without a path`,
    { description, pattern: filePattern },
  )

const readyKinds = Object.keys(readyChecks)

export const workload = mapping(
  {
    manifest: fileName(
      'the name of a file, such as cassandra.yaml',
      'A file of the manifests folder; or a folder in it with a kustomization.yaml.',
    ),
    ready: list(
      text(
        'a kind and a name, such as statefulset/cassandra',
        (value) =>
          new RegExp(`^(${readyKinds.join('|')})/[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`).test(value)
            ? undefined
            : `${shown(value)}: expected ${anyOf(readyKinds.map((kind) => `${kind}/`))} and a name`,
        { description: 'Kind and name.', examples: ['statefulset/cassandra'] },
      ),
      'a list of what must be ready',
    )
      .min(1, 'at least one, since otherwise nothing shows that the workload is there')
      .meta({ description: 'What must have all its pods, in their latest version and ready.' }),
    within: duration('a deadline', 'Longest time until it is ready.').prefault('5min'),
  },
  'a workload: manifest, ready',
)

/** The name of an experiment, read as the experiment. */
const experimentOf = (experiments: readonly ExperimentWords[]) => {
  const names = experiments.map(({ name }) => name)
  const description = (wanted: string): string =>
    experiments.find(({ name }) => name === wanted)?.description ?? ''
  return z
    .enum(names, { error: `an experiment: ${names.join(', ')}` })
    .transform((name): ExperimentWords => ({ name, description: description(name) }))
}

const buildSchema = ({ faults, experiments }: Words) =>
  mapping(
    {
      apiVersion: z
        .literal('lab/v1', { error: 'lab/v1' })
        .meta({ description: 'Version of this format: lab/v1.' }),
      name: text('a name for the lab, such as my-lab', labNameProblem, {
        description: 'Name of the lab: an RFC 1123 label, at most 24 characters.',
        pattern: labelPattern,
        maxLength: longestLabName,
      }),
      description: sentence('What the lab shows, in a sentence.'),
      provider: z
        .enum(providerNames, { error: anyOf(providerNames) })
        .optional()
        .meta({
          description: 'What runs the machines. Default: the first provider that works on this host.',
        }),
      box: text(
        'the name of a box, such as debian/trixie64',
        (value) =>
          new RegExp(boxPattern).test(value)
            ? undefined
            : `${shown(value)}: expected the name of a box, such as debian/trixie64`,
        {
          description:
            "The Vagrant box that the machines are made of: Debian 12 or 13, or Ubuntu 22.04 to 26.04, from any publisher. `lab up` installs what each machine needs. Default: lab's own box, which has it all, and which only Linux can build. Needs `provider: virtualbox` or `provider: libvirt`.",
          pattern: boxPattern,
          examples: ['debian/trixie64', 'bento/ubuntu-24.04'],
        },
      ).optional(),
      network: mapping(
        {
          subnet: subnet('a subnet such as 192.168.56.0/24', 8, 28, {
            description: 'Private IPv4 subnet of the machines. Its first address belongs to the host.',
          }).default(defaults.subnet),
        },
        'a mapping: subnet',
      )
        .prefault({})
        .meta({ description: 'The network that joins the machines.' }),
      machines: list(machine, 'a list of machines')
        .min(1, 'at least one machine')
        .max(64, 'at most 64 machines')
        .meta({ description: 'The machines of the lab.' }),
      iscsi: mapping(
        {
          targets: list(target, 'a list of targets')
            .min(1, 'at least one target')
            .max(64, 'at most 64 targets')
            .meta({ description: 'The targets of the lab.' }),
        },
        'a mapping: targets',
      )
        .optional()
        .meta({ description: 'iSCSI: disks that machines reach over the network.' }),
      filesystems: list(filesystem, 'a list of file systems')
        .max(256, 'at most 256 file systems')
        .default([])
        .meta({ description: 'LUNs that a machine with the role initiator formats, mounts and unmounts.' }),
      kubernetes: kubernetes
        .optional()
        .meta({ description: 'The cluster that the nodes form, made by kubeadm.' }),
      database: database.optional().meta({
        description: 'A database in the cluster, with its data on a LUN, or on a volume of a storage class.',
      }),
      failover: z.enum(['default', 'fast'], { error: 'default or fast' }).default('default').meta({
        description:
          'How soon Kubernetes gives up a lost node: `default`, with its own settings, after minutes; `fast`, with shorter leases, grace periods and tolerations, after seconds.',
      }),
      fencing: z
        .enum(['none', 'storage', 'power'], { error: 'none, storage or power' })
        .default('none')
        .meta({
          description:
            'What makes sure that a lost node no longer writes before another takes over: `storage`, the target shuts it out; `power`, it is switched off; `none`, nothing does.',
        }),
      images: list(
        z.string({ error: 'the name of an image, such as nginx:1.26' }).meta({
          description: 'Its name with its version, as a manifest writes it in {{image "nginx:1.26"}}.',
          examples: ['nginx:1.26', 'cassandra:5.0'],
        }),
        'a list of images',
      )
        .max(64, 'at most 64 images')
        .default([])
        .meta({
          description:
            'Images that the nodes have in addition to those of Kubernetes and the database: nothing is pulled in a lab.',
        }),
      storage: list(storageClass, 'a list of storage classes')
        .max(8, 'at most 8 storage classes')
        .default([])
        .meta({ description: 'Storage classes; local-path-provisioner creates their volumes.' }),
      manifests: text(
        'the name of a folder, such as my-lab',
        (value) =>
          !new RegExp(filePattern).test(value)
            ? `${shown(value)}: expected the name of a folder: letters, digits, "_", "-" and ".", without a path`
            : // `up` keeps a copy next to its copy of the lab file.
              ['machines', 'rendered', 'runs', 'ssh'].includes(value)
              ? `${shown(value)} is a name that lab reserves; choose another`
              : undefined,
        {
          description: 'Folder next to the lab file with the manifests of its workloads and experiments.',
          pattern: filePattern,
        },
      ).optional(),
      workloads: list(workload, 'a list of workloads')
        .max(32, 'at most 32 workloads')
        .prefault([])
        .meta({ description: 'What `lab up` applies to the cluster, one after the other.' }),
      experiments: list(experimentOf(experiments), 'a list of experiments')
        .max(64, 'at most 64 experiments')
        .prefault([])
        .meta({ description: 'What `lab run` can do to the cluster and observe.' }),
      scenarios: list(scenarioOf(faults), 'a list of scenarios')
        .max(64, 'at most 64 scenarios')
        .prefault([])
        .meta({ description: 'Ways to break the lab on purpose, and what it should withstand.' }),
    },
    'a mapping that begins with apiVersion: lab/v1',
  )

const built = new WeakMap<Words, ReturnType<typeof buildSchema>>()

/**
 * The schema of a lab file that may name these faults and experiments. It is built once, since building it takes
 * longer than parsing a lab file.
 */
export const labSchemaOf = (words: Words): ReturnType<typeof buildSchema> => {
  const schema = built.get(words) ?? buildSchema(words)
  built.set(words, schema)
  return schema
}

/** The lab file as its author wrote it. */
export type LabFile = z.input<ReturnType<typeof labSchemaOf>>
/** The lab file as read: with defaults, bytes and milliseconds. */
export type CompleteLabFile = z.output<ReturnType<typeof labSchemaOf>>

/** The JSON Schema of the lab file, for editors. */
export const jsonSchema = (words: Words): object => ({
  ...z.toJSONSchema(labSchemaOf(words), { io: 'input', target: 'draft-7' }),
  title: 'A lab file of lab',
})

export const schemaFile = join(projectRoot, 'labs', 'lab.schema.json')

/** Writes `labs/lab.schema.json`, for `npm run generate`. */
export const writeSchema = (words: Words): void => {
  writeFileSync(schemaFile, `${JSON.stringify(jsonSchema(words), null, 2)}\n`)
}
