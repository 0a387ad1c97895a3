/**
 * The list of all checks that a lab file can name, by the word before the slash. To add one, add its file and its
 * line.
 */
import { daemonset } from './daemonset.js'
import { deployment } from './deployment.js'
import type { ReadyCheck } from './ready.js'
import { statefulset } from './statefulset.js'

export const readyChecks: Readonly<Record<string, ReadyCheck>> = { deployment, statefulset, daemonset }
