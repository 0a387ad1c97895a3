import type { LabId } from '../identity.js'
import { type LockPurpose, takeLock } from '../lock.js'
import type { Lab } from '../lab/lab.js'
import type { Preparation } from '../parts/preparation.js'
import type { Provider } from '../provider/provider.js'
import type { Session } from '../session.js'
import { keptSecrets, pathsOf } from '../state.js'
import { keepSecret, maskKnown } from '../view/secrets.js'
import { eventFile } from '../view/event-file.js'
import { createView, type View, wantsColor } from '../view/view.js'
import type { Io, Options } from './verb.js'

/**
 * The view that shows progress on stderr, since standard output is for the result of the command.
 * @param changed the lab that the command changes: its folder also keeps the events
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

/** How something long that the user has requested is prepared: progress is shown, and no question is asked. */
export const preparationOf = (io: Io, view: View): Preparation => ({
  signal: io.signal,
  notice: (text) => view.notice(text),
  progress: (part) => view.part(part),
})

const lockFor = (
  lab: LabId,
  command: string,
  options: Options,
  io: Io,
  view: View,
  purpose: LockPurpose = command === 'run' ? 'run' : 'change',
) =>
  takeLock(pathsOf(lab).lock, {
    command: `lab ${command} ${lab.name}`,
    purpose,
    wait: options.wait ? (who) => view.notice(`waiting for ${who}`) : undefined,
    signal: io.signal,
  })

/**
 * A session with the lab's machines. It uses the kubectl that was built for the lab, or else the host's own. The
 * caller closes it.
 */
export const sessionFor = async (lab: Lab, provider: Provider, signal: AbortSignal): Promise<Session> => {
  const [{ builtKubectl }, { openSession }] = await Promise.all([
    import('../parts/parts.js'),
    import('../session.js'),
  ])
  keepSecret(Object.values((await keptSecrets(pathsOf(lab))) ?? {}))
  return openSession(lab, provider, signal, builtKubectl() ?? 'kubectl')
}

/** What a command needs while it works on a lab. */
export interface Needs {
  readonly io: Io
  readonly options: Options
  /** The verb for which the lab's lock is taken; absent: the command takes no lock. */
  readonly lock?: string
  /** What the lock is held for; default: `run` for the verb `run`, `change` for others. */
  readonly purpose?: LockPurpose
  /** Whether the lab's folder keeps the events of this command. */
  readonly keepEvents: boolean
}

/** What a command holds while it works on a lab. Everything is released when the command ends. */
export interface Held {
  readonly view: View
  /**
   * Opens a session with the lab's machines. A command calls it when it knows the provider, which may be long after
   * it took the lock.
   * @param signal ends the session's work; default: Ctrl-C
   */
  readonly open: (lab: Lab, provider: Provider, signal?: AbortSignal) => Promise<Session>
  /** Takes the lab's lock from now on, and waits for its holder: for a command that let others work until now. */
  readonly hold: (command: string) => Promise<void>
}

/**
 * Runs `body` with a view of the lab and, if requested, its lock. Afterwards, also on an error, it closes the view,
 * then the sessions that `body` opened in reverse order, and then releases the lock: nobody else may change the lab
 * while a session is open.
 * @throws what `body` throws, or else the first error of a release; no error prevents the other releases
 */
export const withLab = async <T>(
  lab: LabId,
  { io, options, lock, purpose, keepEvents }: Needs,
  body: (held: Held) => Promise<T>,
): Promise<T> => {
  const view = viewFor(io, options, keepEvents ? lab : undefined)
  const releases: (() => Promise<void>)[] = []
  const open: Held['open'] = async (lab, provider, signal = io.signal) => {
    const session = await sessionFor(lab, provider, signal)
    releases.unshift(() => session.close())
    return session
  }
  const hold: Held['hold'] = async (command) => {
    const wait = { ...options, wait: true }
    const { signal } = new AbortController()
    releases.unshift(await lockFor(lab, command, wait, { ...io, signal }, view))
  }
  const work = async (): Promise<T> => {
    if (lock !== undefined) releases.unshift(await lockFor(lab, lock, options, io, view, purpose))
    return body({ view, open, hold })
  }
  const [done] = await Promise.allSettled([work()])
  const released: PromiseSettledResult<void>[] = []
  for (const release of [() => view.close(), ...releases])
    released.push(...(await Promise.allSettled([release()])))
  if (done.status === 'rejected') throw done.reason
  const kept = released.find((result) => result.status === 'rejected')
  if (kept) throw kept.reason
  return done.value
}
