import type { LabId } from '../identity.js'
import { takeLock } from '../lock.js'
import type { Lab } from '../lab/lab.js'
import type { Provider } from '../provider/provider.js'
import type { Session } from '../session.js'
import { keptSecrets, pathsOf } from '../state.js'
import { keepSecret, maskKnown } from '../view/secrets.js'
import { eventFile } from '../view/event-file.js'
import { createView, type View, wantsColor } from '../view/view.js'
import type { Io, Options } from './verb.js'

/**
 * Progress goes to stderr, so that standard output is what the command was asked for.
 * @param changed the lab that the command changes: what happens is kept in its folder, too
 */
export const viewFor = (io: Io, options: Options, changed?: LabId): View =>
  createView({
    stream: io.stderr,
    color: wantsColor(io.stderr),
    interactive: io.stderr.isTTY,
    events: options.events ?? false,
    eventsStream: io.stdout,
    keep: changed && eventFile(pathsOf(changed).events),
    mask: maskKnown,
  })

export const lockFor = (lab: LabId, command: string, options: Options, io: Io, view: View) =>
  takeLock(pathsOf(lab).lock, {
    command: `lab ${command} ${lab.name}`,
    purpose: command === 'run' ? 'run' : 'change',
    wait: options.wait ? (who) => view.notice(`waiting for ${who}`) : undefined,
    signal: io.signal,
  })

/** A session with the lab's machines; its kubectl is the one that was built for the lab, else the host's own. */
export const sessionFor = async (lab: Lab, provider: Provider, signal: AbortSignal): Promise<Session> => {
  const [{ builtKubectl }, { openSession }] = await Promise.all([
    import('../parts/parts.js'),
    import('../session.js'),
  ])
  keepSecret(Object.values((await keptSecrets(pathsOf(lab))) ?? {}))
  return openSession(lab, provider, signal, builtKubectl() ?? 'kubectl')
}

/**
 * Undoes the faults that a run which was killed has left: what changes a lab starts from one that is whole.
 * @returns whether there were any; then machines may be on their way up
 */
export const healFirst = async (session: Session, view: View): Promise<boolean> => {
  // Loaded here: `lab status` comes through this file, has nothing to heal, and must be quick.
  const { readJournal, refuseWhileFenced } = await import('../journal.js')
  const { settleFences } = await import('../fencing/fence.js')
  await settleFences(session.lab, session.signal)
  const open = await readJournal(session.lab)
  if (open.length === 0) return false
  const fenced = open.filter(({ kind }) => kind === 'fence')
  const left = open.filter(({ kind }) => kind !== 'fence')
  for (const by of new Set(left.map((entry) => entry.by)))
    view.notice(`${by} was killed: undoing what it left`)
  for (const node of new Set(fenced.map(({ undo }) => undo.machine)))
    view.notice(`${node} was fenced: it comes back by a fresh boot`)
  const { undoAll } = await import('../trial/undo.js')
  const { registry } = await import('../registry.js')
  for (const problem of await undoAll(session, registry)) view.notice(`not undone: ${problem}`)
  await refuseWhileFenced(session.lab)
  return true
}
