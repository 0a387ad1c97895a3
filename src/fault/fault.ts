/** The record of a fault: its fields, rules, action, signs and undo. */
import type { z } from 'zod'
import type { Draft, DraftFile, Found, Path } from '../lab/draft.js'
import { type FaultSpec, type MachineSpec, type Role, roles } from '../lab/lab.js'
import type { DraftFault, FaultForm } from '../lab/vocabulary.js'
import { lasting, machinesAt, type Roles, rolesAt, where, whereProblem } from '../lab/where.js'
import type { Context } from '../context.js'
import type { Provider } from '../provider/provider.js'
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
 * Who does what when the fault is aimed, and the index of the fault in its run, from 0, which becomes part of table
 * names.
 */
export interface AimAt extends Roles {
  readonly index: number
}

export interface FaultRecord extends FaultForm {
  /** Why the provider does not support the fault; undefined if it does. Known before anything is touched. */
  readonly refusal?: (provider: Provider) => string | undefined
  readonly aim: (context: Context, spec: FaultSpec, at: AimAt) => Promise<AimedFault>
  /** Every kind of undo that the fault may record in the journal. */
  readonly undos: readonly UndoAct[]
  /** The fault sets clocks, so timestamps of its machines are not trusted. */
  readonly setsClocks?: boolean
}

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

interface Definition<Fields extends z.ZodRawShape, Spec> {
  readonly name: string
  /** What it does and how it heals, for the schema of the lab file. */
  readonly description: string
  /** Its fields besides `machine` and `for`, as written in the lab file. */
  readonly fields: Fields
  /** Whether its duration can be set with the field `for`. */
  readonly lasts: boolean
  /** Converts the fields: percentages to numbers, durations to milliseconds. Absent: the fields are used as written. */
  readonly complete?: (written: z.output<z.ZodObject<Fields>>) => Spec
  /** The roles of machines for which it makes sense, and why it does not for others. */
  readonly sensible?: readonly [roles: readonly Role[], why: string]
  /** Further rules about the machines it hits. */
  readonly rules?: (
    file: DraftFile,
    fault: Draft<z.input<z.ZodObject<Fields>>> & { readonly machine: string },
    path: Path,
  ) => Found
  /** Whether the control plane stops hearing the machine's kubelet. */
  readonly silences?: (fault: Draft<z.input<z.ZodObject<Fields>>>) => boolean
  readonly refusal?: FaultRecord['refusal']
  readonly undos: readonly UndoAct[]
  readonly setsClocks?: boolean
  readonly aim: (hit: Hit<Spec>) => Promise<Omit<AimedFault, 'on'>> | Omit<AimedFault, 'on'>
}

/** The role of a machine that a word stands for, if it is not one of the allowed ones. */
export const otherRole = (file: DraftFile, word: string, wanted: readonly Role[]): Role | undefined =>
  rolesAt(file, word).find((role) => !wanted.includes(role))

/** Defines a fault of the machines that one word stands for. */
export const faultOfMachine = <Fields extends z.ZodRawShape, Spec = z.output<z.ZodObject<Fields>>>(
  definition: Definition<Fields, Spec>,
): FaultRecord => {
  const { name, description, fields, lasts, refusal, undos, setsClocks } = definition
  const [wanted, why] = definition.sensible ?? [roles, '']
  return {
    name,
    description,
    fields: { machine: where(), ...fields, ...(lasts ? { for: lasting } : {}) },
    complete: (written) => ({
      ...written,
      // The schema of the lab file has validated the fields.
      ...(definition.complete?.(written as never) ?? {}),
    }),
    *rules(file, fault, path) {
      const word = fault['machine'] as string | undefined
      if (word === undefined) return
      const message = whereProblem(file, word)
      const role = otherRole(file, word, wanted)
      if (message) yield { path: [...path, 'machine'], message }
      else if (role)
        yield {
          path: [...path, 'machine'],
          message: `${name} makes no sense for ${word}, whose role is ${role}: ${why}`,
        }
      else if (definition.rules) yield* definition.rules(file, fault as never, path)
    },
    touches: (fault: DraftFault) => [fault['machine'] as string | undefined],
    silences: (fault) => definition.silences?.(fault as never) ?? false,
    ...(refusal ? { refusal } : {}),
    undos,
    ...(setsClocks ? { setsClocks } : {}),
    aim: async (context, spec, { index, ...at }) => {
      const machines = machinesAt(context.lab, String(spec['machine']), at)
      const on = machines.map((machine) => machine.name)
      const aimed = await definition.aim({
        context,
        spec: spec as unknown as Spec,
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
  }
}

/** The name of a table that cannot clash with anybody else's rules. */
export const tableOf = (index: number): string => `lab_fault_${String(index)}`
