import type { LabFile } from './schema.js'
import { shown } from './suggest.js'

/**
 * A lab file with possibly invalid fields: an invalid value is `undefined` under a key that exists, and rules that
 * need it are skipped.
 */

export type Path = readonly (string | number)[]

export interface Problem {
  readonly path: Path
  /** What is wrong and what is expected; the place is prepended. */
  readonly message: string
  /** Report the problem at the key instead of the value. */
  readonly atKey?: boolean
}

export type Draft<T> = T extends readonly (infer Item)[]
  ? readonly (Draft<Item> | undefined)[]
  : T extends object
    ? { readonly [Key in keyof T]?: Draft<T[Key]> | undefined }
    : T

export type DraftFile = Draft<LabFile>
export type Found = Generator<Problem, void>

/** The valid items of a list, with their places. */
export const items = <T>(
  list: readonly (T | undefined)[] | undefined,
): (readonly [index: number, item: T])[] =>
  (list ?? []).flatMap((item, index) => (item === undefined ? [] : [[index, item] as const]))

/** Whether a key is absent, rather than present with an invalid value. */
export const lacks = (owner: object, key: string): boolean => !(key in owner)

/** Finds the second and later users of a name, address or number, with the place of the first. */
export class Taken<T> {
  readonly #first = new Map<T, Path>()
  /** Returns the place that already has the value, or else remembers this one. */
  by(value: T, path: Path): Path | undefined {
    const first = this.#first.get(value)
    if (!first) this.#first.set(value, path)
    return first
  }
}

/** `machines[0].name`, or `a["b c"]` for a key that is not a word. */
export const pathText = (path: Path): string =>
  path
    .map((part, index) => {
      if (typeof part === 'number') return `[${String(part)}]`
      if (!/^[A-Za-z0-9_-]{1,60}$/.test(part)) return `[${shown(part)}]`
      return index === 0 ? part : `.${part}`
    })
    .join('')
