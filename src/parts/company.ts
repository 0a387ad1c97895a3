/** The builds that share the processors with a build: what its pace so far says about the rest depends on them. */
import type { Part } from './part.js'

export interface Company {
  /** Builds that run at the same time. */
  readonly beside: number
  /** Builds that may begin before this one ends. */
  readonly coming: number
}

/** Whether one part is needed, directly or not, by another. @param parts each listed after its inputs */
export const precedence = (parts: readonly Part[]): ((a: Part, b: Part) => boolean) => {
  const before = new Map<string, ReadonlySet<string>>()
  for (const { id, needs } of parts)
    before.set(id, new Set(needs.flatMap((need) => [need, ...(before.get(need) ?? [])])))
  return (a, b) => before.get(b.id)?.has(a.id) ?? false
}

/**
 * One part of each lane is built at a time, so only a lane in which nothing is built can bring another build.
 * @param running the builds that run, with this part
 * @param missing every part that must still be built, each listed after its inputs
 */
export const companyOf = (part: Part, running: readonly Part[], missing: readonly Part[]): Company => {
  const busy = new Set([part, ...running].map(({ lane }) => lane))
  const comesBefore = precedence(missing)
  const later = missing.filter((other) => !busy.has(other.lane) && !comesBefore(part, other))
  return {
    beside: running.filter((other) => other !== part).length,
    coming: new Set(later.map(({ lane }) => lane)).size,
  }
}
