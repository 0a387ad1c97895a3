/** The ledger of an experiment: of a database whose members may all accept writes, and which not every lab has. */
import { setTimeout as delay } from 'node:timers/promises'
import { messageOf } from '../error.js'
import { noteUndo, strike } from '../journal.js'
import { machinesWith } from '../lab/lab.js'
import { ledgerClient, runName } from './client.js'
import type { ExperimentContext, Members } from './experiment-context.js'
import type { CommonFacts } from './facts.js'
import type { PodSeen } from './history.js'
import { judge, type Judgement } from './judge.js'
import { createLedger } from './ledger-file.js'
import type { LedgerRecord, ReadBack } from './ledger.js'
import type { Store } from './store.js'
import { type DiskProof, scalingBack } from './read-back.js'
import type { Trial } from './trial.js'

/** Seconds for a store to accept the first write, and to return all of them. */
const answerDeadline = 60
/** Milliseconds of undisturbed writing before anything is done. */
const baseline = 3000

export class StoreLedger {
  readonly #experiment: ExperimentContext
  readonly #trial: Trial
  readonly #records: LedgerRecord[] = []
  #readBack: readonly ReadBack[] | undefined
  #diskProof: DiskProof | undefined

  constructor(experiment: ExperimentContext, trial: Trial) {
    this.#experiment = experiment
    this.#trial = trial
  }

  facts(): Pick<CommonFacts, 'diskProof' | 'ledger'> {
    return {
      diskProof: this.#diskProof,
      ledger: this.#records.length === 0 ? undefined : { records: this.#records, judgement: this.#judgement },
    }
  }

  get #judgement(): Judgement {
    return judge(this.#records, this.#readBack, undefined, 'many')
  }

  /** Ends all members at once and starts them again: one that stays up could give the others data from its memory. */
  async #endAll({ workload, replicas, are, within }: Members): Promise<void> {
    const begun = performance.now()
    const scale = (count: number): Promise<string> =>
      this.#experiment.kubectl(['scale', workload, `--replicas=${String(count)}`])
    const members = (): readonly PodSeen[] => this.#experiment.history.pods.filter(are)
    const said = (): string =>
      members()
        .map(({ name, node, ready, phase }) => `${name} on ${node ?? 'no node'}, ${ready ? 'ready' : phase}`)
        .join('; ') || 'none'
    const machine = machinesWith(this.#experiment.lab, 'control-plane')[0]?.name ?? ''
    const noted = await noteUndo(
      this.#experiment.lab,
      this.#trial.by,
      'read-back',
      [scalingBack.of(machine, { workload, replicas })],
      'run',
    )
    await this.#experiment.act('end every member, before what was acknowledged is read back', () => scale(0))
    await this.#experiment.until('no member is left that could answer from its memory', within, () => ({
      ok: members().length === 0,
      saw: said(),
    }))
    await this.#experiment.act('start them again', () => scale(replicas))
    for (const entry of noted) await strike(this.#experiment.lab, entry)
    await this.#experiment.until('as many others are ready', within, () => ({
      ok: members().length === replicas && members().every(({ ready }) => ready),
      saw: said(),
    }))
    this.#diskProof = {
      ok: true,
      saw: `all of ${workload} had ended; others answered: ${said()}`,
      seconds: Math.round(performance.now() - begun) / 1000,
    }
  }

  /**
   * Keeps a ledger while something is done, and reads back and judges everything that was acknowledged.
   * @param storeOf given the name to use for what is written
   * @param members all of them end before reading back; absent: their answers may come from memory
   */
  async keep(storeOf: (run: string) => Store, during: () => Promise<void>, members?: Members): Promise<void> {
    const { ledgerPath, notice } = this.#trial.request
    const store = storeOf(runName(this.#trial.started))
    const soon = (): AbortSignal => AbortSignal.timeout(answerDeadline * 1000)
    const file = await createLedger(ledgerPath)
    const client = ledgerClient({
      stores: [store],
      ledger: file,
      seen: (record) => this.#records.push(record),
    })
    const acknowledged = (): boolean => this.#records.some(({ type }) => type === 'acknowledged')
    try {
      await store.create(AbortSignal.any([this.#experiment.signal, soon()]))
      await client.mark('begin')
      client.start()
      await this.#experiment.until('a client outside the cluster is answered', answerDeadline, () => ({
        ok: acknowledged(),
        saw: acknowledged() ? 'the first write was acknowledged' : 'nothing was acknowledged',
      }))
      await delay(baseline, undefined, { signal: this.#experiment.signal })
      await client.mark('fault')
      await during()
      await client.mark('end')
      await client.stop()
      if (members) await this.#endAll(members)
    } finally {
      await client.stop().finally(() => file.close())
      try {
        if (this.#records.length > 0) {
          const begun = performance.now()
          this.#readBack = await store.readBack(soon())
          const seconds = Math.round(performance.now() - begun) / 1000
          if (store.source !== undefined) this.#diskProof ??= { ok: false, saw: store.source, seconds }
        }
        // Incorrect data is kept for inspection.
        if (this.#judgement.findings.length === 0) await store.remove(soon())
      } catch (error) {
        notice(`ledger: ${messageOf(error)}`)
      }
    }
    const gap = this.#judgement.gaps
      .filter(({ operation }) => operation === 'write')
      .reduce((longest, { length }) => Math.max(longest, length), 0)
    this.#experiment.figure('longest time without an acknowledged write', gap)
  }
}
