/**
 * A check that a lab file can name: `deployment/web` in `workloads[].ready`. The word before the slash is a kind of
 * object, as kubectl knows it; a check judges such an object as the API server gives it.
 */
import type { Verdict } from '../plan/step.js'

export interface ReadyCheck {
  /** A fact in the present tense. @param what `deployment/web` */
  readonly title: (what: string) => string
  /** @param object what `kubectl get deployment/web -o json` prints */
  readonly judge: (object: unknown) => Verdict
}
