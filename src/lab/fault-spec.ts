/**
 * The type of a fault in a lab file: a union over all faults. Each file of src/fault adds the fields of its fault to
 * `FaultFields` (`declare module`), so the union is closed, and no module here knows a fault by name.
 */
import type { z } from 'zod'
import type { ReadOnly } from './read-only.js'

/** The fields of each fault, by its name. */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type -- each fault adds its own
export interface FaultFields {}

export type FaultName = keyof FaultFields

type ObjectOf<Name extends FaultName> = z.ZodObject<FaultFields[Name]>

/** One fault, complete: durations are milliseconds, percentages are numbers. */
export type SpecOf<Name extends FaultName> = ReadOnly<z.output<ObjectOf<Name>>> & { readonly fault: Name }

/** One fault as its author wrote it. */
export type WrittenOf<Name extends FaultName> = z.input<ObjectOf<Name>> & { fault: Name }

/** A fault of a scenario. */
export type FaultSpec = { [Name in FaultName]: SpecOf<Name> }[FaultName]

/** The same as its author wrote it. */
export type WrittenFault = { [Name in FaultName]: WrittenOf<Name> }[FaultName]
