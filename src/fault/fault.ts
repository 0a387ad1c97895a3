/** The record of a fault: its fields, rules, action, signs and undo. */
import { LabError } from '../error.js'
import { type Draft, type DraftFile, type Found, items, type Path } from '../lab/draft.js'
import type { FaultFields, FaultName, FaultSpec, SpecOf, WrittenOf } from '../lab/fault-spec.js'
import { type MachineSpec, type PairedTarget, pairWith } from '../lab/lab.js'
import { type Role, roles } from '../lab/roles.js'
import type { FaultForm } from '../lab/vocabulary.js'
import { machinesAt, type Roles, rolesAt, type where, whereProblem } from '../lab/fault-machines.js'
import type { Context } from '../context.js'
import { lacksSsh, type Provider } from '../provider/provider.js'
import type { Sign } from './sign.js'
import type { UndoAct } from './undo-act.js'
import type { Undo } from '../journal.js'

/** A fault aimed at machines of a running lab. */
export interface AimedFault {
  /** Names of the machines. */
  readonly on: readonly string[]
  /** For people: `power of worker1 cut`. */
  readonly detail: string
  /** Recorded before the fault acts. */
  readonly undo: readonly Undo[]
  /**
   * Throws if this lab cannot have the fault now, and records what the signs are compared with. Called before
   * anything is touched.
   */
  readonly possible?: (context: Context) => Promise<void>
  /** Success of the call proves nothing: the sign shows whether the fault acts. */
  readonly act: (context: Context) => Promise<void>
  readonly acting: Sign
  /** Checked after the undo. */
  readonly gone: Sign
}

/**
 * Which machine has which job when the fault is aimed, and the index of the fault in its run, from 0, which becomes
 * part of table names.
 */
export interface AimAt extends Roles {
  readonly index: number
}

/** What the engine does with a fault in addition to reading it. */
interface Doing {
  /** Why the provider does not support the fault; undefined if it does. Known before anything is touched. */
  readonly refusal?: (provider: Provider) => string | undefined
  /** It acts only through kubectl, so its machines need not answer SSH. */
  readonly byKubectl?: boolean
  /** Every kind of undo that the fault may record in the journal. */
  readonly undos: readonly UndoAct[]
  /** The fault sets clocks, so timestamps of its machines are not trusted. */
  readonly setsClocks?: boolean
}

/** A fault of which only its name says what fields it has. */
export interface FaultRecord extends FaultForm, Doing {
  readonly aim: (context: Context, spec: FaultSpec, at: AimAt) => Promise<AimedFault>
}

/** The fields of one fault as rules see them: each may be invalid. */
type DraftOf<Name extends FaultName> = Draft<WrittenOf<Name>>

interface Definition<Name extends FaultName> extends Doing {
  readonly name: Name
  /** What it does and how it heals, for the schema of the lab file. */
  readonly description: string
  readonly fields: FaultFields[Name]
  readonly rules: (file: DraftFile, fault: DraftOf<Name>, path: Path) => Found
  readonly touches: (fault: DraftOf<Name>) => readonly (string | undefined)[]
  readonly silences: (fault: DraftOf<Name>, file: DraftFile) => boolean
  readonly aim: (context: Context, spec: SpecOf<Name>, at: AimAt) => Promise<AimedFault>
}

/** Defines a fault. Callers look it up by the name in a lab file, so it gets its own fields and no others. */
export const faultOf = <Name extends FaultName>(definition: Definition<Name>): FaultRecord =>
  definition as unknown as FaultRecord

/** The machines that a fault hits, and what the fault needs to know about them. */
export interface Hit<Spec> {
  readonly context: Context
  readonly spec: Spec
  readonly machines: readonly MachineSpec[]
  readonly on: readonly string[]
  /** `worker1, worker2` */
  readonly names: string
  /** The name of an nftables table of the fault's own. */
  readonly table: string
  readonly each: (run: (machine: MachineSpec) => Promise<unknown>) => Promise<void>
  /** The undo of each machine. */
  readonly undo: (of: (machine: string) => Undo) => readonly Undo[]
}

/** Why the provider does not support a fault; undefined if it does. */
export const refusalOf = (
  { refusal, byKubectl }: Pick<FaultRecord, 'refusal' | 'byKubectl'>,
  provider: Provider,
): string | undefined => refusal?.(provider) ?? (byKubectl ? undefined : lacksSsh(provider))

/** The faults with a field `machine`. */
type FaultOfMachine = {
  [Name in FaultName]: FaultFields[Name] extends { readonly machine: ReturnType<typeof where> } ? Name : never
}[FaultName]

interface DefinitionOfMachine<Name extends FaultOfMachine>
  extends Doing, Pick<Definition<Name>, 'name' | 'description' | 'fields'> {
  /** The roles of machines for which it makes sense, and why it does not for others. */
  readonly sensible?: readonly [roles: readonly Role[], why: string]
  /** Further rules about the machines it hits. */
  readonly rules?: (file: DraftFile, fault: DraftOf<Name> & { readonly machine: string }, path: Path) => Found
  /** Whether the control plane stops hearing the machine's kubelet. */
  readonly silences?: (fault: DraftOf<Name>) => boolean
  readonly aim: (hit: Hit<SpecOf<Name>>) => Promise<Omit<AimedFault, 'on'>> | Omit<AimedFault, 'on'>
}

/** The role of a machine that a word stands for, if it is not one of the allowed ones. */
export const otherRole = (file: DraftFile, word: string, wanted: readonly Role[]): Role | undefined =>
  rolesAt(file, word).find((role) => !wanted.includes(role))

/** A rule of faults that need two machines with one target. */
export function* lacksPair(
  file: DraftFile,
  { machine: word }: { readonly machine: string },
  path: Path,
): Found {
  const paired = items(file.iscsi?.targets).flatMap(([, { machines }]) =>
    items(machines).map(([, name]) => name),
  )
  const alone = items(file.machines).find(
    ([, { name, role }]) => (name === word || role === word) && name !== undefined && !paired.includes(name),
  )
  if (alone)
    yield {
      path: [...path, 'machine'],
      message: `${String(alone[1].name)} serves its target alone; name one of two machines that serve a target together`,
    }
}

/** @throws LabError if the machine belongs to no pair: the loader has checked it, but the lab file may have changed */
export const pairOf = (context: Context, machine: string): PairedTarget => {
  const pair = pairWith(context.lab, machine)
  if (pair) return pair
  throw new LabError('fault-impossible', `${machine} is not one of two machines that serve a target`)
}

/** Defines a fault of the machines that one word stands for. */
export const faultOfMachine = <Name extends FaultOfMachine>(
  definition: DefinitionOfMachine<Name>,
): FaultRecord => {
  const { name } = definition
  const [wanted, why] = definition.sensible ?? [roles, '']
  const wordOf = (fault: object): string | undefined => (fault as { machine?: string }).machine
  return faultOf<Name>({
    ...definition,
    *rules(file, fault, path) {
      const word = wordOf(fault)
      if (word === undefined) return
      const message = whereProblem(file, word)
      const role = otherRole(file, word, wanted)
      if (message) yield { path: [...path, 'machine'], message }
      else if (role)
        yield {
          path: [...path, 'machine'],
          message: `${name} makes no sense for ${word}, whose role is ${role}: ${why}`,
        }
      else if (definition.rules)
        yield* definition.rules(file, fault as typeof fault & { readonly machine: string }, path)
    },
    touches: (fault) => [wordOf(fault)],
    silences: (fault) => definition.silences?.(fault) ?? false,
    aim: async (context, spec, { index, ...at }) => {
      const machines = machinesAt(context.lab, wordOf(spec) ?? '', at)
      const on = machines.map((machine) => machine.name)
      const aimed = await definition.aim({
        context,
        spec,
        machines,
        on,
        names: on.join(', '),
        table: tableOf(index),
        each: async (run) => {
          await Promise.all(machines.map(run))
        },
        undo: (of) => on.map(of),
      })
      return { on, ...aimed }
    },
  })
}

/** The name of a table that cannot clash with anybody else's rules. */
export const tableOf = (index: number): string => `lab_fault_${String(index)}`
