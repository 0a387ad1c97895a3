import type { LabFile } from './schema.js'
import { shown } from './suggest.js'

/**
 * A lab file that may have bad fields: a bad value is `undefined` under a key that is there, and a rule that
 * would need it stays silent.
 */

export type Path = readonly (string | number)[]

export interface Problem {
  readonly path: Path
  /** What is wrong and what was wanted; the place is put before it. */
  readonly message: string
  /** The place is the key, not the value. */
  readonly atKey?: boolean
}

export type Draft<T> = T extends readonly (infer Item)[]
  ? readonly (Draft<Item> | undefined)[]
  : T extends object
    ? { readonly [Key in keyof T]?: Draft<T[Key]> | undefined }
    : T

export type DraftFile = Draft<LabFile>
export type Found = Generator<Problem, void>

/** Items that are known, with their places in the list. */
export const items = <T>(
  list: readonly (T | undefined)[] | undefined,
): (readonly [index: number, item: T])[] =>
  (list ?? []).flatMap((item, index) => (item === undefined ? [] : [[index, item] as const]))

/** Not even a bad one is there. */
export const lacks = (owner: object, key: string): boolean => !(key in owner)

/** The second and later users of a name, an address or a number, each with the place of the first. */
export class Taken<T> {
  readonly #first = new Map<T, Path>()
  /** The place that has the value already; otherwise remembers this one. */
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
