import { distance } from 'fastest-levenshtein'

/** The candidate that a mistyped word probably means; undefined if none is close. */
export const nearest = (word: string, candidates: readonly string[]): string | undefined => {
  // No typing error is this long, and the distance takes length x length steps.
  if (word.length > 100) return undefined
  const typed = word.toLowerCase()
  const near = candidates
    .map((candidate) => ({ candidate, edits: distance(typed, candidate.toLowerCase()) }))
    .filter(
      ({ candidate, edits }) =>
        edits <= Math.max(1, Math.floor(candidate.length / 3)) ||
        (typed.length >= 3 && candidate.toLowerCase().startsWith(typed)),
    )
    .sort((a, b) => a.edits - b.edits)
  return near[0]?.candidate
}

/** `; did you mean cpus?`, or nothing. */
export const didYouMean = (word: string, candidates: readonly string[]): string => {
  const candidate = nearest(word, candidates)
  return candidate === undefined ? '' : `; did you mean ${candidate}?`
}

/** `uml, libvirt or virtualbox`. */
export const anyOf = (names: readonly string[]): string =>
  names.length > 1 ? `${names.slice(0, -1).join(', ')} or ${names.at(-1) ?? ''}` : (names[0] ?? '')

/** How a value looks inside a message: quoted, on one line, and never long. */
export const shown = (value: string): string => {
  const quoted = JSON.stringify(value).replace(
    /[\u007f-\u009f\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
  return quoted.length > 62 ? `${quoted.slice(0, 60)}…"` : quoted
}
