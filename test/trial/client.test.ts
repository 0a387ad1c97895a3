/** The client with servers that speak MySQL's protocol, and with the silences of real ones. */
import { readdir, writeFile } from 'node:fs/promises'
import { connect, createServer as createTcpServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, expect, test, vi } from 'vitest'
import { loadLab } from '../../src/registry.js'
import type { Lab } from '../../src/lab/lab.js'
import { ledgerClient } from '../../src/trial/client.js'
import type { LedgerRecord } from '../../src/trial/ledger.js'
import { createLedger, type LedgerFile, readLedger } from '../../src/trial/ledger-file.js'
import {
  connectAnywhere,
  databaseDoor,
  fileStore,
  type Dialer,
  rowStore,
  type Store,
  type StoreOptions,
} from '../../src/trial/store.js'
import { databaseServer, type Mood } from '../helpers/database.js'
import { temporaryFolder } from '../helpers/folder.js'
import { ledgerServer } from '../helpers/ledger-server.js'

vi.setConfig({ testTimeout: 20_000 })

const cleanUp: (() => void)[] = []
afterEach(() => {
  for (const each of cleanUp.splice(0)) each()
})

const serverOf = async (pod: string, moodOf: () => Mood = () => 'answers'): Promise<number> => {
  const { port, close } = await databaseServer(() => pod, moodOf)
  cleanUp.push(close)
  return port
}

/** Accepts connections and never answers: a node port that leads to a pod that is gone. */
const silentServer = async (): Promise<number> => {
  const server = createTcpServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanUp.push(() => server.close())
  return (server.address() as AddressInfo).port
}

const lab = await loadLab('iscsi-ha')
const database = lab.database!
const endpoint = databaseDoor(database)

/** @param ports the port behind the address of each node; undefined: it does not answer at all */
const dialerOf = (ports: Readonly<Record<string, number | undefined>>): Dialer => ({
  lab,
  provider: {
    dial: (_lab: Lab, host: string): Promise<Duplex> =>
      new Promise((resolve, reject) => {
        const port = ports[host]
        if (port === undefined) return
        const socket = connect(port, '127.0.0.1', () => resolve(socket))
        socket.once('error', reject)
        cleanUp.push(() => socket.destroy())
      }),
  } as unknown as Dialer['provider'],
})

const [master, worker1, worker2] = ['192.168.56.11', '192.168.56.21', '192.168.56.22'] as const
const never = new AbortController().signal

test('the first server that completes a handshake wins, whether others are silent or unreachable', async () => {
  const dialer = dialerOf({
    [master]: undefined,
    [worker1]: await silentServer(),
    [worker2]: await serverOf('pod-2'),
  })
  const begun = performance.now()
  const { address, connection } = await connectAnywhere(dialer, endpoint, never)
  expect(address).toBe('192.168.56.22:32306')
  // Two addresses were tried before, 200 ms each.
  expect(performance.now() - begun).toBeLessThan(1500)
  connection.destroy()
})

test('connecting is retried until a server answers', async () => {
  const ports: Record<string, number | undefined> = { [master]: await silentServer() }
  const dialer = dialerOf(ports)
  const connecting = connectAnywhere(dialer, endpoint, never)
  await delay(1000)
  ports[worker1] = await serverOf('pod-1')
  const { address, connection } = await connecting
  expect(address).toBe('192.168.56.21:32306')
  connection.destroy()
})

test('connecting stops when it is interrupted', async () => {
  const ending = new AbortController()
  const connecting = connectAnywhere(dialerOf({}), endpoint, ending.signal)
  ending.abort()
  await expect(connecting).rejects.toThrow('interrupted')
})

const optionsWith = (ports: Readonly<Record<string, number | undefined>>): StoreOptions => ({
  dialer: dialerOf(ports),
  database,
  run: 'lab_run_1',
  nodeOf: () => 'worker1',
})

const runFor = async (ms: number, store: Store) => {
  const path = join(await temporaryFolder(), 'ledger.ndjson')
  const ledger = await createLedger(path)
  const client = ledgerClient({ stores: [store], ledger, seen: () => {} })
  await client.mark('begin')
  client.start()
  await delay(ms)
  await client.mark('end')
  await client.stop()
  await ledger.close()
  return (await readLedger(path)).records
}

test('every write is recorded before it is sent, and its answer with the server that gave it', async () => {
  const records = await runFor(1200, rowStore(optionsWith({ [master]: await serverOf('pod-1') })))
  const ofAll = records.filter((record) => record.type !== 'mark' && record.operation === 'write')
  const writes = ofAll.filter((record) => record.type !== 'mark' && record.client === 'writer-1')
  const acknowledged = writes.filter((record) => record.type === 'acknowledged')
  expect(acknowledged.length).toBeGreaterThan(4)
  expect(acknowledged[0]).toMatchObject({ seq: 1, server: { pod: 'pod-1', node: 'worker1' } })
  const sent = writes.filter((record) => record.type === 'sent')
  expect(sent.map(({ seq }) => seq)).toEqual(sent.map((_, index) => index + 1))
  const allSent = ofAll.filter((record) => record.type === 'sent')
  expect(allSent.length).toBeGreaterThan(sent.length)
  expect(new Set(allSent.map(({ seq }) => seq)).size).toBe(allSent.length)
  expect(new Set(allSent.map(({ content }) => content)).size).toBe(allSent.length)
})

test('clients go on while the disk of the ledger is busy, and nothing counts before it is on that disk', async () => {
  const store = rowStore(optionsWith({ [master]: await serverOf('pod-1') }))
  const asked: LedgerRecord[] = []
  const counted: LedgerRecord[] = []
  let write: () => void = () => undefined
  const disk = new Promise<void>((resolve) => (write = resolve))
  const ledger: LedgerFile = {
    append: (entry) => {
      asked.push(entry)
      return disk
    },
    close: () => Promise.resolve(),
  }
  const client = ledgerClient({ stores: [store], ledger, seen: (entry) => void counted.push(entry) })
  client.start()
  const acknowledged = () =>
    asked.filter((entry) => entry.type === 'acknowledged' && entry.client === 'writer-1')
  await vi.waitFor(() => expect(acknowledged().length).toBeGreaterThan(4), { timeout: 10_000 })
  expect(counted).toEqual([])
  write()
  await client.stop()
  expect(counted).toEqual(asked)
})

test('a run ends with the error of a ledger that cannot be written', async () => {
  const store = rowStore(optionsWith({ [master]: await serverOf('pod-1') }))
  const counted: LedgerRecord[] = []
  const ledger: LedgerFile = {
    append: () => Promise.reject(new Error('disk full')),
    close: () => Promise.resolve(),
  }
  const client = ledgerClient({ stores: [store], ledger, seen: (entry) => void counted.push(entry) })
  client.start()
  await delay(500)
  await expect(client.stop()).rejects.toThrow('disk full')
  expect(counted).toEqual([])
})

test('a roaming client asks every node in turn, so that a second server cannot stay hidden', async () => {
  const options = optionsWith({ [master]: await serverOf('pod-1'), [worker1]: await serverOf('pod-2') })
  const records = await runFor(2600, rowStore(options))
  const podsOf = (wanted: string): ReadonlySet<string> =>
    new Set(
      records.flatMap((record) =>
        record.type === 'acknowledged' && record.client === wanted ? [record.server.pod] : [],
      ),
    )
  expect([...podsOf('writer-1')]).toEqual(['pod-1'])
  expect([...podsOf('writer-2')].sort()).toEqual(['pod-1', 'pod-2'])
})

test('a client whose node falls silent goes on through another node at once when its request has timed out', async () => {
  let mood: Mood = 'answers'
  const ports: Record<string, number | undefined> = { [master]: await serverOf('pod-1', () => mood) }
  const other = await serverOf('pod-1')
  const running = runFor(4500, rowStore(optionsWith(ports)))
  await delay(800)
  // As after a power cut of two nodes: neither the open connection nor a new one is answered.
  mood = 'is silent'
  ports[master] = undefined
  ports[worker2] = other
  const records = (await running).filter((record) => record.type !== 'mark')
  const ofOne = records.filter(({ client }) => client === 'writer-1')
  const gaveUp = ofOne.findIndex(({ type }) => type === 'failed')
  const next = ofOne.slice(gaveUp).find(({ type }) => type === 'acknowledged')
  expect(next).toMatchObject({ address: '192.168.56.22:32306' })
  // Two other addresses come first, and each takes 200 ms.
  expect(next!.ms - ofOne[gaveUp]!.ms).toBeLessThan(300)
})

test.each<Mood>(['refuses', 'is silent'])('no number is reused after a server that %s', async (mood) => {
  let asked = 0
  const port = await serverOf('pod-1', () => (asked++ < 4 ? mood : 'answers'))
  const records = await runFor(5000, rowStore(optionsWith({ [master]: port })))
  const writes = records.filter((record) => record.type !== 'mark' && record.operation === 'write')
  expect(writes.some(({ type }) => type === 'failed')).toBe(true)
  const sent = writes.flatMap((record) => (record.type === 'sent' ? [record.seq] : []))
  expect(new Set(sent).size).toBe(sent.length)
  expect(writes.some(({ type }) => type === 'acknowledged')).toBe(true)
})

test('a missing table is read back as no rows, not as unreadable', async () => {
  const store = rowStore(optionsWith({ [master]: await serverOf('pod-1', () => 'has no table') }))
  expect(await store.readBack(never)).toEqual([])
})

test('reading back is retried until it is aborted, and reports the reason', async () => {
  const store = rowStore(optionsWith({ [master]: await serverOf('pod-1', () => 'refuses') }))
  await expect(store.readBack(AbortSignal.timeout(1500))).rejects.toThrow('disk full')
})

test("a file's lines are acknowledged by the pod that wrote them, read back in order, and removed", async () => {
  const folder = await temporaryFolder()
  const first = await ledgerServer(folder, 'pod-1')
  const ports: Record<string, number | undefined> = { [worker1]: first.port }
  const store = fileStore(optionsWith(ports))
  const running = runFor(4000, store)
  await delay(1500)
  await first.stop()
  ports[worker1] = (await ledgerServer(folder, 'pod-2')).port
  const records = (await running).filter((record) => record.type !== 'mark')
  const acknowledged = records.filter((record) => record.type === 'acknowledged')
  for (const wanted of ['file-writer', 'file-reader']) {
    const ofOne = acknowledged.filter(({ client }) => client === wanted)
    expect(new Set(ofOne.map(({ server }) => server.pod))).toEqual(new Set(['pod-1', 'pod-2']))
    // Half as many as fit, on a host that is busy with other things.
    expect(ofOne.length).toBeGreaterThan(4)
  }
  expect(records[0]).toMatchObject({
    type: 'sent',
    client: 'file-writer',
    medium: 'file',
    address: '192.168.56.21:32307',
  })
  const there = await store.readBack(never)
  const writes = records.filter(({ operation }) => operation === 'write')
  const sent = new Map(writes.flatMap((record) => (record.type === 'sent' ? [[record.seq, record]] : [])))
  expect(there.map(({ seq, content }) => [seq, content])).toEqual(
    there.map(({ seq }) => [seq, sent.get(seq)?.content]),
  )
  const seqs = there.map(({ seq }) => seq)
  expect(seqs).toEqual([...seqs].sort((a, b) => a - b))
  const written = writes.flatMap(({ type, seq }) => (type === 'acknowledged' ? [seq] : []))
  expect(seqs).toEqual(expect.arrayContaining(written))
  expect(there.at(-1)?.server).toEqual({ pod: 'pod-2', node: 'worker1' })
  await store.remove(never)
  expect(await readdir(folder)).toEqual([])
  expect(await store.readBack(never)).toEqual([])
})

test('a partial line of a file yields no number, and an unexpected line is reported', async () => {
  const folder = await temporaryFolder()
  const { port } = await ledgerServer(folder, 'pod-1')
  await writeFile(
    join(folder, 'lab_run_1'),
    '1 pod-1 line 1 a\n2 pod-1 line 2\n12\n13 pod\nwhat is this?\n\0\0\n4 pod-1 line 4 d\n5',
  )
  const there = await fileStore(optionsWith({ [master]: port })).readBack(never)
  expect(there.map(({ seq, content }) => `${String(seq)} ${content}`)).toEqual([
    '1 line 1 a',
    '2 line 2',
    '0 what is this?',
    '0 \0\0',
    '4 line 4 d',
  ])
})
