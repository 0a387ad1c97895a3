import { stripVTControlCharacters } from 'node:util'

/** Applies a function to every text in a value, including its keys. */
export const mapTexts = <T>(value: T, change: (text: string) => string): T => {
  if (typeof value === 'string') return change(value) as T
  if (Array.isArray(value)) return value.map((item: unknown) => mapTexts(item, change)) as T
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [change(key), mapTexts(item, change)]),
  ) as T
}

/**
 * Replaces characters that no XML file can hold, escaped or not, by `\ufffd`, and removes terminal escape sequences.
 */
export const printable = (text: string): string =>
  stripVTControlCharacters(text)
    .replace(/[^\P{Cc}\n\t]/gu, '\ufffd')
    .replace(/[\ufffe\uffff\p{Cs}]/gu, '\ufffd')
