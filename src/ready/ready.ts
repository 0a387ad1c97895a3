/**
 * A check that a lab file can name, such as `deployment/web` in `workloads[].ready`. The word before the slash is a
 * kind of object, as in kubectl; a check judges an object from the API server.
 */
import type { Verdict } from '../plan/step.js'

export interface ReadyCheck {
  /** A fact in the present tense. @param what `deployment/web` */
  readonly title: (what: string) => string
  /** @param object what `kubectl get deployment/web -o json` prints */
  readonly judge: (object: unknown) => Verdict
}
