/**
 * Files in a lab's folder after a power cut, a full disk or a careless hand, and every kind of verb: whatever a file
 * contains, the verb works without it, or an error says where it is and what to type. Nothing is a stack trace.
 */
import { mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Writable } from 'node:stream'
import { beforeEach, expect, test, vi } from 'vitest'
import { runCommandLine } from '../../src/command-line/command-line.js'
import { fail } from '../../src/command-line/fail.js'
import type { Io } from '../../src/command-line/verb.js'
import { verbs } from '../../src/command/verbs.js'
import { LabError, systemError } from '../../src/error.js'
import { projectRoot } from '../../src/package.js'
import { temporaryFolder } from '../helpers/folder.js'

vi.setConfig({ testTimeout: 240_000 })

const at = '2026-11-30T08:00:00.000Z'
const snapshot = { name: 'one', taken: at, machines: ['target'], while: 'off', bytes: 1, pausedFor: 0 }
const undo = { kind: 'fault', by: 'x', fault: 'power-cut', undo: { do: 'switch-on', machine: 'target' } }

/** The files of a lab that is down, as far as verbs read them; undefined: usually there is none. */
const usual = async (): Promise<Readonly<Record<string, string | undefined>>> => ({
  provider: 'uml\n',
  'lab.yaml': await readFile(join(projectRoot, 'labs', 'iscsi.yaml'), 'utf8'),
  'lab.json': '{}',
  'secrets.json': JSON.stringify({ bootstrapToken: 'abcdef.0123456789abcdef', clusterKey: 'a'.repeat(64) }),
  'faults/1.json': JSON.stringify(undo),
  'fencing/state.json': '{}',
  'fencing/fenced.ndjson': '{}\n',
  'fencing/lock': '{}',
  'learn/progress.ndjson': '{}\n',
  'learn/open': undefined,
  'snapshots/one/snapshot.json': JSON.stringify(snapshot),
  'snapshots/one/disks/target/root.cow': 'x',
  restoring: undefined,
  kubeconfig: undefined,
  ssh_config: undefined,
  'ssh/id_ed25519': undefined,
  'ssh/known_hosts': undefined,
  'machines/target/base.json': JSON.stringify({ kernel: 'k', baseDisk: 'b' }),
  'api-port': '1',
  'redfish.json': '{}',
  'supervisor.sock': undefined,
  'events.ndjson': `${JSON.stringify({ time: at, type: 'x' })}\n`,
  'runs/latest/report.json': undefined,
  'hosts.json': undefined,
  'cluster.json': undefined,
  '../.iscsi.lock': undefined,
})

const damages: Readonly<Record<string, (path: string) => Promise<unknown>>> = {
  empty: (path) => writeFile(path, ''),
  'cut short': (path) => writeFile(path, '{"na'),
  binary: (path) => writeFile(path, Buffer.from([0xff, 0xfe, 0, 0x80, 10, 0xc3])),
  null: (path) => writeFile(path, 'null'),
  'a list': (path) => writeFile(path, '[null]'),
  'an empty object': (path) => writeFile(path, '{}'),
  'a folder': (path) => mkdir(path),
  'a link to itself': (path) => symlink(path, path),
}

const lines = [
  'status',
  'verify',
  'plan',
  'events',
  'report',
  'logs iscsi target',
  'snapshots',
  'restore iscsi one',
  'down',
]

let state: string
beforeEach(async () => {
  const folder = await temporaryFolder()
  state = join(folder, 'state')
  for (const [name, path] of Object.entries({ LAB_STATE: state, LAB_CACHE: 'cache', HOME: 'home' })) {
    vi.stubEnv(name, join(folder, path === state ? 'state' : path))
    await mkdir(process.env[name] ?? '', { recursive: true, mode: 0o700 })
  }
})

const put = async (file: string, write: (path: string) => Promise<unknown>): Promise<void> => {
  const path = join(state, 'iscsi', file)
  await rm(path, { recursive: true, force: true })
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  await write(path)
}

/** What a verb printed, as if it were a process of its own. */
const lab = async (line: string): Promise<{ readonly printed: string; readonly error: unknown }> => {
  let printed = ''
  const stream = (): NodeJS.WriteStream =>
    new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        printed += chunk.toString()
        done()
      },
    }) as unknown as NodeJS.WriteStream
  const { signal } = new AbortController()
  const io: Io = {
    stdin: process.stdin,
    stdout: stream(),
    stderr: stream(),
    signal,
    orphaned: () => signal,
    verbs: [],
  }
  try {
    await runCommandLine(line.split(' '), verbs, '0.1.0', io)
    return { printed, error: undefined }
  } catch (error) {
    fail(io, error)
    return { printed, error }
  }
}

test.each(Object.keys(await usual()))(
  'every verb works with a damaged %s, or says where it is and what to type',
  async (file) => {
    const found: string[] = []
    for (const [damage, write] of Object.entries(damages))
      for (const line of lines) {
        await rm(state, { recursive: true, force: true })
        for (const [name, text] of Object.entries(await usual()))
          if (text !== undefined) await put(name, (path) => writeFile(path, text))
        await put(file, write)
        const { printed, error } = await lab(line.includes(' ') ? line : `${line} iscsi`)
        const shown = error && (systemError(error) ?? error)
        if (shown !== undefined && !(shown instanceof LabError && shown.hint !== undefined))
          found.push(`lab ${line}, ${file} ${damage}: ${printed}`)
        if (/This is a defect|\n {4,}at |\bundefined\b|\bNaN\b|\[object /.test(printed))
          found.push(`lab ${line}, ${file} ${damage}: ${printed}`)
      }
    expect(found).toEqual([])
  },
)
