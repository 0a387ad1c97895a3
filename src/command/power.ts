import { exitCodes, type ExitCode, LabError } from '../error.js'
import { readJournal } from '../journal.js'
import { groupOf, lacksSwitch, type MachineState, type Provider } from '../provider/provider.js'
import type { Lab } from '../lab/lab.js'
import type { LockPurpose } from '../lock.js'
import type { Session } from '../session.js'
import { maskKnown } from '../view/secrets.js'
import type { View } from '../view/view.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { printJson } from '../command-line/json.js'
import { machineOf } from '../command-line/machines.js'
import { providerOf } from '../lifecycle/provider-in-use.js'
import { asJson, type Io, type Options, type Verb, withWait } from '../command-line/verb.js'
import { withLab } from '../command-line/with-lab.js'

const actions = ['on', 'off', 'cycle', 'status'] as const
type Action = (typeof actions)[number]

const isAction = (word: string): word is Action => (actions as readonly string[]).includes(word)

const stateOf = async (lab: Lab, provider: Provider, name: string): Promise<MachineState> =>
  (await provider.states(lab)).find((state) => state.name === name) ?? {
    name,
    status: 'absent',
    detail: 'the provider does not know the machine',
  }

/** Cuts the power. The undo is on disk first. */
const switchOff = async ({ lab, provider }: Session, name: string): Promise<void> => {
  const { noteUndo } = await import('../journal.js')
  const { switchingOn } = await import('../fault/power.js')
  const noted = (await readJournal(lab)).some(({ kind, undo }) => kind === 'hand' && undo.machine === name)
  if (!noted)
    await noteUndo(lab, `lab power ${lab.name} ${name} off`, 'power', [switchingOn.of(name, {})], 'hand')
  await groupOf(provider, 'power').cut(lab, name)
}

/**
 * Switches a machine on, and returns when it runs, before it answers SSH. The entry of its switching off is removed,
 * and a fence that hit the machine while it was off is undone.
 */
const switchOn = async (session: Session, view: View, name: string): Promise<void> => {
  const { lab, signal } = session
  const { settleFences } = await import('../fencing/fence.js')
  const { undoAll } = await import('../trial/undo.js')
  const { registry } = await import('../registry.js')
  const power = await import('../fault/power.js')
  await settleFences(lab, signal)
  const concerned = (await readJournal(lab)).filter(
    ({ kind, undo }) => undo.machine === name && (kind === 'hand' || kind === 'fence'),
  )
  const ids = new Set(concerned.map(({ id }) => id))
  if (concerned.some(({ kind }) => kind === 'fence'))
    view.notice(`${name} was fenced while it was off: it comes back with a fresh boot`)
  const failed = await undoAll(session, registry, ({ id }) => ids.has(id))
  if (failed.length > 0) throw new LabError('not-undone', failed.join('\n'), { hint: `lab heal ${lab.name}` })
  if ((await stateOf(lab, session.provider, name)).status !== 'running') await power.switchOn(session, name)
}

/**
 * A worker that a person switches off must be fenced, as in a scenario. During a change, the fencing agent would take
 * it for a machine that is off on purpose, and would not fence it afterwards either.
 */
export const lockPurposeOf = (action: 'on' | 'off' | 'cycle'): LockPurpose =>
  action === 'off' ? 'run' : 'change'

/** The power switch of one machine, by hand. */
const run = async (
  nameOrPath: string,
  machine: string,
  action: string,
  options: Options,
  io: Io,
): Promise<ExitCode> => {
  if (!isAction(action))
    throw new LabError('bad-action', `${action}: expected ${actions.slice(0, -1).join(', ')} or status`, {
      hint: `lab power ${nameOrPath} ${machine} status`,
      exitCode: exitCodes.usage,
    })
  const lab = await loadRunning(nameOrPath)
  const { name } = machineOf(lab, machine)
  const provider = await providerOf(lab)
  const tell = async (did: string): Promise<ExitCode> => {
    const { status, detail, paused } = await stateOf(lab, provider, name)
    const power = status === 'running' ? 'on' : 'off'
    const offered = action === 'status' ? await provider.power?.redfish?.(lab) : undefined
    const redfish = offered && { url: `${offered.url}/Systems/${name}`, file: offered.file }
    if (options.output === 'json')
      printJson(io, 'lab.power/v1', {
        name: lab.name,
        machine: name,
        power,
        paused: paused ?? false,
        detail,
        redfish: redfish ?? null,
      })
    else
      io.stdout.write(
        [
          `${name} is ${power}${paused ? ', paused' : ''} (${maskKnown(did || detail)})`,
          ...(redfish
            ? [`for programs in the lab: ${redfish.url}; user and password are in ${redfish.file}`]
            : []),
          '',
        ].join('\n'),
      )
    return exitCodes.ok
  }
  if (action === 'status') return tell('')
  const problem = lacksSwitch(provider)
  if (problem !== undefined)
    throw new LabError('not-offered', `${name} cannot be switched ${action}: ${problem}`, {
      exitCode: exitCodes.host,
    })
  if (provider.power?.onlyReboots?.(name) === true) {
    const { staysOff, switchHint } = await import('../fault/power-cut.js')
    throw new LabError('not-offered', staysOff([name]), {
      hint: `lab exec ${lab.name} ${name} -- systemctl reboot; or ${switchHint}`,
      exitCode: exitCodes.host,
    })
  }
  const purpose = lockPurposeOf(action)
  return withLab(lab, { io, options, lock: 'power', purpose, keepEvents: true }, async ({ view, open }) => {
    const before = await stateOf(lab, provider, name)
    if (before.status === 'absent')
      throw new LabError('no-machine', `${name} is not made yet`, { hint: `lab up ${lab.name}` })
    const session = await open(lab, provider)
    const changes = action === 'cycle' || (action === 'off') === (before.status === 'running')
    if (action !== 'on' && before.status === 'running') {
      view.notice(`${name}: power cut by hand`)
      await switchOff(session, name)
    }
    if (action !== 'off') {
      await switchOn(session, view, name)
      if (changes) view.notice(`${name}: switched on by hand`)
    }
    await view.close()
    const heal = action === 'off' ? `; to switch it on: lab power ${lab.name} ${name} on` : ''
    return tell(`${changes ? 'by hand' : 'no change'}${heal}`)
  })
}

export const verb: Verb = {
  words: { machine: 'its name', action: actions.join(', ') },
  options: [asJson, withWait],
  run,
}
