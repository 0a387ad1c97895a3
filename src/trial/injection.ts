/** The faults of one run: each undo is recorded before its fault acts, and its result afterwards. */
import type { Context } from '../context.js'
import { exitCodes, LabError, messageOf } from '../error.js'
import type { AimedFault, FaultRecord } from '../fault/fault.js'
import { see, type Seen } from '../fault/sign.js'
import type { LabId } from '../identity.js'
import { type JournalEntry, noteUndo, readJournal } from '../journal.js'
import { type FaultSpec, pairsOf, peerOf } from '../lab/lab.js'
import type { Roles } from '../lab/fault-machines.js'
import type { FaultFact } from './facts.js'
import type { Registry } from './registry.js'
import { holdersOf } from '../steps/endpoint.js'
import { leaderOf } from '../steps/etcd.js'
import { servingMachine } from '../steps/pair-members.js'
import type { TrialEvent, TrialEventName } from './trial-event.js'
import { undoAll } from './undo.js'

/** The machines that a word of a fault can mean at this moment. */
const rolesNow = async (context: Context, server: string): Promise<Roles> => {
  const { lab } = context
  const [pair] = pairsOf(lab)
  const [leader, [holder], serving] = await Promise.all([
    lab.kubernetes?.endpoint === undefined ? undefined : leaderOf(context),
    lab.kubernetes?.endpoint === undefined ? [] : holdersOf(context),
    pair && servingMachine(context, pair),
  ])
  const waiting = pair && serving !== undefined ? peerOf(pair, serving) : undefined
  return {
    server,
    ...(leader === undefined ? {} : { 'etcd-leader': leader }),
    ...(holder === undefined ? {} : { endpoint: holder }),
    ...(serving === undefined ? {} : { 'target-serving': serving }),
    ...(waiting === undefined ? {} : { 'target-waiting': waiting }),
  }
}

/** @throws LabError for an unknown fault */
export const faultNamed = ({ faults }: Registry, name: string): FaultRecord => {
  const record = faults.find((candidate) => candidate.name === name)
  if (!record)
    throw new LabError('fault-impossible', `no fault is named ${name}`, { exitCode: exitCodes.usage })
  return record
}

/** A fault with its machines, whether or not it has been injected. */
export interface Injection {
  readonly record: FaultRecord
  readonly fault: AimedFault
  /** Milliseconds until it is undone; absent: when the trial heals. */
  readonly lasts?: number | undefined
  injected?: Date
  /** When it was injected, on this host's monotonic clock. */
  injectedMs?: number
  /** The observation that it acts. */
  acting?: Seen
  healed?: Date
  /** The observation after its undo. */
  gone?: Seen
  /** The pending observation whether it is gone. */
  looking?: Promise<void>
  error?: string
  /** What prevents its undo. */
  undoing?: string
  /** The journal ids of its undos. */
  ids: readonly string[]
}

type Tell = (
  what: TrialEventName,
  detail: string,
  more: Pick<TrialEvent, 'fault' | 'machines'> & { readonly ok?: boolean },
) => void

export class Injections {
  readonly #lab: LabId
  readonly #by: string
  readonly #registry: Registry
  readonly #all: Injection[] = []
  readonly #tell: Tell

  /** @param by the command, for the journal @param tell called with every moment of each fault */
  constructor(lab: LabId, by: string, registry: Registry, tell: Tell) {
    this.#tell = tell
    this.#lab = lab
    this.#by = by
    this.#registry = registry
  }

  get all(): readonly Injection[] {
    return this.#all
  }

  /** The faults that act and are not undone. */
  get open(): readonly Injection[] {
    return this.#all.filter(({ injected, healed }) => injected !== undefined && healed === undefined)
  }

  /** @param server the machine of the database, for faults that hit it */
  async aim(context: Context, spec: FaultSpec, server: string): Promise<Injection> {
    const record = faultNamed(this.#registry, spec.fault)
    const injection: Injection = {
      record,
      fault: await record.aim(context, spec, {
        ...(await rolesNow(context, server)),
        index: this.#all.length,
      }),
      lasts: 'for' in spec ? spec.for : undefined,
      ids: [],
    }
    this.#all.push(injection)
    return injection
  }

  /**
   * Injects a fault and observes whether it acts.
   * @param before called right before it, when nothing prevents it any more
   * @returns whether it was observed to act: the command alone proves nothing
   */
  async inject(context: Context, injection: Injection, before: () => Promise<void>): Promise<boolean> {
    const { fault, record } = injection
    const entries = await noteUndo(this.#lab, this.#by, record.name, fault.undo, 'fault')
    injection.ids = entries.map(({ id }) => id)
    context.signal.throwIfAborted()
    await before()
    const about = { fault: record.name, machines: fault.on }
    this.#tell('fault-started', fault.detail, about)
    injection.injected = new Date()
    injection.injectedMs = performance.now()
    await fault.act(context).catch((error: unknown) => {
      injection.error = messageOf(error)
    })
    context.signal.throwIfAborted()
    if (injection.error === undefined) injection.acting = await see(fault.acting, context)
    const ok = injection.acting?.ok ?? false
    this.#tell('fault-acting', injection.error ?? injection.acting?.saw ?? '', { ...about, ok })
    return ok
  }

  /** Observes whether the undone faults are gone, as far as nobody has observed it yet. */
  async seeGone(healer: Context, which: (injection: Injection) => boolean = () => true): Promise<void> {
    await Promise.all(
      this.#all
        .filter((injection) => injection.healed !== undefined && which(injection))
        .map((injection) => (injection.looking ??= this.#seeGone(healer, injection))),
    )
  }

  async #seeGone(healer: Context, injection: Injection): Promise<void> {
    const { record, fault } = injection
    injection.gone = await see(fault.gone, healer)
    const { ok, saw } = injection.gone
    this.#tell('fault-gone', saw, { fault: record.name, machines: fault.on, ok })
  }

  /** Undoes entries of the journal, and records which of these faults are undone. */
  async undo(healer: Context, which: (entry: JournalEntry) => boolean): Promise<void> {
    const failed = await undoAll(healer, this.#registry, which)
    const left = new Set((await readJournal(this.#lab)).map(({ id }) => id))
    for (const injection of this.open) {
      if (!injection.ids.some((id) => left.has(id))) {
        injection.healed = new Date()
        delete injection.undoing
        const { record, fault } = injection
        this.#tell('fault-undone', fault.detail, { fault: record.name, machines: fault.on })
      } else if (failed.length > 0) injection.undoing = failed.join('; ')
    }
  }

  facts(): readonly FaultFact[] {
    return this.#all.map(({ record, fault, injected, injectedMs, acting, healed, gone, error, undoing }) => ({
      fault: record.name,
      on: fault.on,
      detail: fault.detail,
      injected,
      injectedMs,
      acting,
      healed,
      gone,
      error: error ?? undoing,
    }))
  }
}
