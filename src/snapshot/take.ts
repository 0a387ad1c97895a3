/** Takes a snapshot: the machines are off, or are kept from writing while their disks are copied. */
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Context } from '../context.js'
import { exitCodes, LabError } from '../error.js'
import { hang } from '../fault/hang.js'
import { noteUndo, readJournal, strike } from '../journal.js'
import type { Lab } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import { groupOf, lacks, type Provider } from '../provider/provider.js'
import { pathsOf, syncFolder, writePrivate } from '../state.js'
import {
  about,
  copyEntries,
  folderOf,
  hasSnapshot,
  keepSizes,
  refuseFull,
  refuseName,
  type Snapshot,
} from './snapshot.js'

/** Seconds for a machine to write its memory's data to disk. */
const syncDeadline = 30

/** @throws LabError if the lab is broken on purpose, or partly off */
const refuseUnlessWhole = async (lab: Lab, provider: Provider): Promise<'off' | 'running'> => {
  const faults = await readJournal(lab)
  if (faults.length > 0)
    throw new LabError(
      'fault-open',
      `${lab.name}: faults must be undone first: ${[...new Set(faults.map(({ fault, undo }) => `${fault} on ${undo.machine}`))].join(', ')}; a copy would keep the fault without its undo`,
      { hint: `lab heal ${lab.name}` },
    )
  const states = await provider.states(lab)
  const running = states.filter(({ status }) => status === 'running')
  if (running.length === 0) {
    const absent = states.filter(({ status }) => status === 'absent').map(({ name }) => name)
    if (absent.length === 0) return 'off'
    throw new LabError('not-made', `${lab.name}: never made: ${absent.join(', ')}`, {
      hint: `lab up ${lab.name}`,
    })
  }
  const off = states.filter(({ status, paused }) => status !== 'running' || paused === true)
  if (off.length > 0)
    throw new LabError(
      'partly-up',
      `${lab.name}: ${off.map(({ name, paused }) => `${name} is ${paused === true ? 'paused' : 'off'}`).join(', ')}: either all machines must run, or none`,
      { hint: `lab up ${lab.name}, or lab stop ${lab.name}` },
    )
  return 'running'
}

/**
 * Keeps the machines from writing while `copy` works: they write their memory's data to disk, and then all are paused.
 * In the copy, all machines seem to have lost their power at one moment, which their file systems and databases can
 * handle.
 * @returns the seconds for which they were paused
 */
const whilePaused = async (context: Context, copy: () => Promise<void>): Promise<number> => {
  const { lab, provider, signal } = context
  const pause = groupOf(provider, 'pause')
  const names = lab.machines.map(({ name }) => name)
  await Promise.all(
    names.map((name) => context.machine(name).run(shell`sync`, { signal, timeout: syncDeadline })),
  )
  const [resuming] = hang.undos
  const notes = await noteUndo(
    lab,
    `lab snapshot ${lab.name}`,
    'snapshot',
    names.map((name) => ({ do: resuming?.do ?? 'resume', machine: name })),
    'run',
  )
  const since = performance.now()
  try {
    await Promise.all(names.map((name) => pause.begin(lab, name)))
    await copy()
  } finally {
    const ended = await Promise.allSettled(names.map((name) => pause.end(lab, name)))
    for (const [index, note] of notes.entries())
      if (ended[index]?.status === 'fulfilled') await strike(lab, note)
  }
  return (performance.now() - since) / 1000
}

/**
 * Takes a snapshot of a lab that is off or running. The caller holds the lab's lock.
 * @param replace whether a snapshot of the same name may be replaced
 * @throws LabError if the provider cannot do it, a fault is active, or there is no space; then nothing has changed
 */
export const takeSnapshot = async (
  context: Context,
  name: string,
  { replace = false }: { readonly replace?: boolean } = {},
): Promise<Snapshot> => {
  const { lab, provider, signal } = context
  refuseName(name)
  const group = groupOf(provider, 'snapshots')
  if (!replace && hasSnapshot(lab, name))
    throw new LabError('snapshot-exists', `${lab.name} already has a snapshot called ${name}`, {
      hint: `lab snapshot ${lab.name} ${name} --replace`,
      exitCode: exitCodes.usage,
    })
  const state = await refuseUnlessWhole(lab, provider)
  const why = state === 'running' ? lacks(provider, 'pause') : undefined
  if (why !== undefined)
    throw new LabError('not-offered', `${why}, so the lab must be off for a snapshot`, {
      hint: `lab stop ${lab.name}`,
      exitCode: exitCodes.host,
    })
  const bytes = await group.size(lab)
  await refuseFull(lab, bytes)
  const folder = folderOf(lab)
  const next = join(folder, `.${name}.new`)
  const disks = pathsOf(lab).snapshotDisks(`.${name}.new`)
  await rm(next, { recursive: true, force: true })
  await mkdir(disks, { recursive: true, mode: 0o700 })
  try {
    const copy = async (): Promise<void> => {
      await group.save(lab, disks)
      await copyEntries(pathsOf(lab).root, next)
    }
    let pausedFor = 0
    if (state === 'running') pausedFor = await whilePaused(context, copy)
    else await copy()
    signal.throwIfAborted()
    // Not while the machines are paused: writing everything to disk takes longer than copying it.
    await syncAll(disks)
    await keepSizes(lab, `.${name}.new`)
    const snapshot: Snapshot = {
      name,
      taken: new Date().toISOString(),
      machines: lab.machines.map((machine) => machine.name),
      while: state === 'running' ? 'paused' : 'off',
      bytes,
      pausedFor: Math.round(pausedFor * 1000) / 1000,
    }
    await writePrivate(join(next, about), JSON.stringify(snapshot, null, 2))
    if (await stat(join(folder, name)).catch(() => undefined)) {
      const old = join(folder, `.${name}.old`)
      await rm(old, { recursive: true, force: true })
      await rename(join(folder, name), old)
      await rename(next, join(folder, name))
      await rm(old, { recursive: true, force: true })
    } else await rename(next, join(folder, name))
    await syncFolder(folder)
    return snapshot
  } catch (error) {
    await rm(next, { recursive: true, force: true })
    throw error
  }
}

const syncAll = async (folder: string): Promise<void> => {
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const file = await open(join(entry.parentPath, entry.name), 'r')
    try {
      await file.sync()
    } finally {
      await file.close()
    }
  }
}
