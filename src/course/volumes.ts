/**
 * Compares persistent volume claims: that a claim of the same name exists does not prove that it has the same volume.
 */
import type { Verdict } from '../plan/step.js'
import type { ExperimentContext } from '../trial/experiment-context.js'

export interface VolumeClaim {
  readonly name: string
  readonly uid: string
  readonly bound: boolean
  /** The volume that it is bound to. */
  readonly volume: string
}

interface ClaimObject {
  readonly metadata: { readonly name: string; readonly uid: string }
  readonly spec: { readonly volumeName?: string }
  readonly status: { readonly phase: string }
}

export const volumeClaims = async (
  context: ExperimentContext,
  ...args: readonly string[]
): Promise<readonly VolumeClaim[]> =>
  (await context.get<{ items: ClaimObject[] }>('persistentvolumeclaims', ...args)).items
    .map(({ metadata, spec, status }) => ({
      name: metadata.name,
      uid: metadata.uid,
      bound: status.phase === 'Bound',
      volume: spec.volumeName ?? '',
    }))
    .sort((one, other) => one.name.localeCompare(other.name))

const listed = (claims: readonly VolumeClaim[]): string =>
  claims.map(({ name, bound }) => `${name}${bound ? '' : ', not bound'}`).join(', ') || 'none'

/** Exactly these claims exist, and they are bound. */
export const boundClaims = (claims: readonly VolumeClaim[], names: readonly string[]): Verdict => ({
  ok:
    claims.every(({ bound, volume }) => bound && volume !== '') &&
    claims
      .map(({ name }) => name)
      .sort()
      .join() === [...names].sort().join(),
  saw: listed(claims),
})

/** The claims are the same as before, each with the same volume. */
export const sameVolumes = (before: readonly VolumeClaim[], after: readonly VolumeClaim[]): Verdict => {
  const other = before.find(
    (one) => !after.some(({ uid, volume, bound }) => uid === one.uid && volume === one.volume && bound),
  )
  if (other) {
    const now = after.find(({ name }) => name === other.name)
    return {
      ok: false,
      saw: now
        ? `${other.name} is another claim or has another volume: ${now.volume || 'none'} and not ${other.volume}`
        : `${other.name} is gone`,
    }
  }
  return before.length === after.length && before.length > 0
    ? { ok: true, saw: `${listed(after)}: bound to the volumes that they had` }
    : { ok: false, saw: `${listed(before)} before, ${listed(after)} now` }
}
