/** The faults of one run: how each is undone is written down before it happens, and afterwards what became of it. */
import type { Context } from '../context.js'
import { exitCodes, LabError, messageOf } from '../error.js'
import type { AimedFault, FaultRecord } from '../fault/fault.js'
import { see, type Seen } from '../fault/sign.js'
import type { LabId } from '../identity.js'
import { type JournalEntry, noteUndo, readJournal } from '../journal.js'
import type { FaultSpec } from '../lab/lab.js'
import type { FaultFact } from './facts.js'
import type { Registry } from './registry.js'
import { undoAll } from './undo.js'

/** @throws LabError where this program has no fault of that name */
export const faultNamed = ({ faults }: Registry, name: string): FaultRecord => {
  const record = faults.find((candidate) => candidate.name === name)
  if (!record)
    throw new LabError('fault-impossible', `no fault is named ${name}`, { exitCode: exitCodes.usage })
  return record
}

/** A fault that was aimed, whether or not it has happened. */
export interface Injection {
  readonly record: FaultRecord
  readonly fault: AimedFault
  /** Milliseconds after which it is undone; absent: when the trial heals. */
  readonly lasts?: number | undefined
  injected?: Date
  /** When it was injected, on this host's monotonic clock. */
  injectedMs?: number
  /** What was seen of its acting. */
  acting?: Seen
  healed?: Date
  /** What was seen of it after it was undone. */
  gone?: Seen
  /** The look at whether it is gone, while it goes on. */
  looking?: Promise<void>
  error?: string
  /** What is in the way of undoing it. */
  undoing?: string
  /** What the journal calls its undos. */
  ids: readonly string[]
}

export class Injections {
  readonly #lab: LabId
  readonly #by: string
  readonly #registry: Registry
  readonly #all: Injection[] = []

  /** @param by the command that the journal names as who did it */
  constructor(lab: LabId, by: string, registry: Registry) {
    this.#lab = lab
    this.#by = by
    this.#registry = registry
  }

  get all(): readonly Injection[] {
    return this.#all
  }

  /** Those that have happened and are not undone. */
  get open(): readonly Injection[] {
    return this.#all.filter(({ injected, healed }) => injected !== undefined && healed === undefined)
  }

  /** @param server the machine of the database, for faults that are aimed at it */
  async aim(context: Context, spec: FaultSpec, server: string): Promise<Injection> {
    const record = faultNamed(this.#registry, spec.fault)
    const injection: Injection = {
      record,
      fault: await record.aim(context, spec, { server, index: this.#all.length }),
      lasts: spec.for,
      ids: [],
    }
    this.#all.push(injection)
    return injection
  }

  /**
   * Lets it happen, and looks whether it did.
   * @param before called when nothing is in the way any more, right before it happens
   * @returns whether it is seen to act: what was only typed is not known to have happened
   */
  async inject(context: Context, injection: Injection, before: () => Promise<void>): Promise<boolean> {
    const { fault, record } = injection
    const entries = await noteUndo(this.#lab, this.#by, record.name, fault.undo, 'fault')
    injection.ids = entries.map(({ id }) => id)
    context.signal.throwIfAborted()
    await before()
    injection.injected = new Date()
    injection.injectedMs = performance.now()
    await fault.act(context).catch((error: unknown) => {
      injection.error = messageOf(error)
    })
    context.signal.throwIfAborted()
    if (injection.error !== undefined) return false
    injection.acting = await see(fault.acting, context)
    return injection.acting.ok
  }

  /** Looks whether those that were undone are gone, those that nobody has looked at yet. */
  async seeGone(healer: Context, which: (injection: Injection) => boolean = () => true): Promise<void> {
    await Promise.all(
      this.#all
        .filter((injection) => injection.healed !== undefined && which(injection))
        .map((injection) => (injection.looking ??= this.#seeGone(healer, injection))),
    )
  }

  async #seeGone(healer: Context, injection: Injection): Promise<void> {
    injection.gone = await see(injection.fault.gone, healer)
  }

  /** Undoes what the journal says, and notes which of these faults are undone now. */
  async undo(healer: Context, which: (entry: JournalEntry) => boolean): Promise<void> {
    const failed = await undoAll(healer, this.#registry, which)
    const left = new Set((await readJournal(this.#lab)).map(({ id }) => id))
    for (const injection of this.open) {
      if (!injection.ids.some((id) => left.has(id))) {
        injection.healed = new Date()
        delete injection.undoing
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
