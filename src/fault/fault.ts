/** What a fault is: one record with its fields, its rules, its act, its signs and its undo. */
import type { z } from 'zod'
import type { Draft, DraftFile, Found, Path } from '../lab/draft.js'
import { type FaultSpec, type MachineSpec, type Role, roles } from '../lab/lab.js'
import type { DraftFault, FaultForm } from '../lab/vocabulary.js'
import { lasting, machinesAt, rolesAt, where, whereProblem } from '../lab/where.js'
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
  /** To be written down before it acts. */
  readonly undo: readonly Undo[]
  /**
   * Throws where this lab, here and now, cannot have it; and notes what its signs are compared with. Asked before
   * anything is touched.
   */
  readonly possible?: (context: Context) => Promise<void>
  /** That it throws nothing proves nothing: what it did is seen by its sign. */
  readonly act: (context: Context) => Promise<void>
  readonly acting: Sign
  /** Asked once it is undone. */
  readonly gone: Sign
}

/** Where the database runs, and which fault of the run this is, from 0: names of tables are made of that. */
export interface AimAt {
  readonly server: string
  readonly index: number
}

export interface FaultRecord extends FaultForm {
  /** Why a provider cannot have it; undefined: it can. Known before anything is touched. */
  readonly refusal?: (provider: Provider) => string | undefined
  readonly aim: (context: Context, spec: FaultSpec, at: AimAt) => Promise<AimedFault>
  /** Every kind of undo that it may write into the journal. */
  readonly undos: readonly UndoAct[]
  /** It sets clocks: what its machines date by them is not believed. */
  readonly setsClocks?: boolean
}

/** Machines that are hit by a fault, and what a fault wants to know of them. */
export interface Hit<Spec> {
  readonly context: Context
  readonly spec: Spec
  readonly machines: readonly MachineSpec[]
  readonly on: readonly string[]
  /** `worker1, worker2` */
  readonly names: string
  /** A name for a table of its own on them. */
  readonly table: string
  readonly each: (run: (machine: MachineSpec) => Promise<unknown>) => Promise<void>
  /** The undo of each machine. */
  readonly undo: (of: (machine: string) => Undo) => readonly Undo[]
}

interface Definition<Fields extends z.ZodRawShape, Spec> {
  readonly name: string
  /** What it does, and how it is healed, for the schema of the lab file. */
  readonly description: string
  /** Its fields beside `machine` and `for`, as they are written. */
  readonly fields: Fields
  /** Whether it may last for a time of its own; it then has the field `for`. */
  readonly lasts: boolean
  /** What the fields mean: percentages as numbers, durations as milliseconds. Absent: what is written. */
  readonly complete?: (written: z.output<z.ZodObject<Fields>>) => Spec
  /** The roles of machines for which it makes sense, and why it does not for others. */
  readonly sensible?: readonly [roles: readonly Role[], why: string]
  /** What else is wrong with where it is. */
  readonly rules?: (
    file: DraftFile,
    fault: Draft<z.input<z.ZodObject<Fields>>> & { readonly machine: string },
    path: Path,
  ) => Found
  /** Whether it leaves the machine's kubelet unheard. */
  readonly silences?: (fault: Draft<z.input<z.ZodObject<Fields>>>) => boolean
  readonly refusal?: FaultRecord['refusal']
  readonly undos: readonly UndoAct[]
  readonly setsClocks?: boolean
  readonly aim: (hit: Hit<Spec>) => Promise<Omit<AimedFault, 'on'>> | Omit<AimedFault, 'on'>
}

/** The role of a machine that a word stands for, and that is none of those wanted. */
export const otherRole = (file: DraftFile, word: string, wanted: readonly Role[]): Role | undefined =>
  rolesAt(file, word).find((role) => !wanted.includes(role))

/** A fault of the machines that one word stands for. */
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
      // The schema of the lab file has made sure that these are the fields.
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
    aim: async (context, spec, { server, index }) => {
      const machines = machinesAt(context.lab, String(spec['machine']), server)
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

/** The name of a table of our own, which nobody else's rules know of. */
export const tableOf = (index: number): string => `lab_fault_${String(index)}`
