/** A visit to a seat, whose gateway is a small server with a real shell behind it, and whose `lab` is a script. */
import { spawn } from 'node:child_process'
import { createServer, type Server } from 'node:https'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execa } from 'execa'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { WebSocketServer } from 'ws'
import { visitSeat } from '../../src/class/visit.js'

let folder: string
let server: Server
let cert: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lab-'))
  await mkdir(join(folder, 'bin'))
  const [key, certificate] = [join(folder, 'key'), join(folder, 'cert')]
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1']
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1']
  await execa('openssl', ['req', '-x509', ...curve, ...names, '-keyout', key, '-out', certificate])
  cert = await readFile(certificate, 'utf8')
  server = createServer({ key: await readFile(key, 'utf8'), cert }, (_, response) =>
    response.writeHead(303, { 'set-cookie': 'seat=1', location: '/page/desk' }).end(),
  )
  new WebSocketServer({ server }).on('connection', (socket) => {
    const shell = spawn('bash', ['--norc', '--noediting'], {
      env: { PATH: `${join(folder, 'bin')}:/usr/bin:/bin` },
    })
    const show = (data: Buffer | string): void =>
      socket.send(Buffer.from(String(data).replaceAll('\n', '\r\n')))
    shell.stdout.on('data', show)
    shell.stderr.on('data', show)
    socket.on('message', (data: Buffer, binary) => {
      if (!binary) {
        show('$ ')
        return
      }
      // A terminal shows what is typed.
      show(data.toString().replaceAll('\r', '\n'))
      shell.stdin.write(data.toString().replaceAll('\r', '\n'))
    })
    socket.on('close', () => shell.kill())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
})

afterAll(async () => {
  server.closeAllConnections()
  server.close()
  await rm(folder, { recursive: true, force: true })
})

/** Visits a seat at which `lab` prints this and ends with this code. */
const visit = async (prints: string, code: number) => {
  const program = join(folder, 'bin', 'lab')
  await writeFile(program, `#!/bin/sh\ncat <<'END'\n${prints}\nEND\nexit ${String(code)}\n`)
  await chmod(program, 0o755)
  const url = `https://127.0.0.1:${String((server.address() as AddressInfo).port)}/some-words`
  return visitSeat(url, cert, 'iscsi', 20_000, new AbortController().signal)
}

const step = (
  title: string,
  checks: readonly { title: string; ok: boolean; saw: string }[],
  failed = false,
) => ({
  title,
  outcome: failed ? 'failed' : 'ok',
  reason: failed ? 'it ended with 1' : null,
  checks,
  notAsked: [],
})
const report = (...results: readonly object[]): string =>
  JSON.stringify({ schema: 'lab.report/v1', results }, null, 2)

test('a visit finds a seat ready when lab verify succeeds there', async () => {
  const good = report(step('Serve the target', [{ title: 'the portal listens', ok: true, saw: ':3260' }]))
  expect(await visit(good, 0)).toMatchObject({ ok: true, saw: 'ready', failed: [] })
})

test('a visit says which checks of lab verify failed at the seat, and what they saw', async () => {
  const failed = (title: string) => ({ title, ok: false, saw: 'nothing {there}' })
  const several = report(
    step('Serve the target', [{ title: 'good', ok: true, saw: 'yes' }, failed('one'), failed('two')]),
    step('Mount the LUN', [], true),
    step('Write a file', [failed('four')]),
  )
  const { ok, saw, failed: all } = await visit(several, 1)
  expect(ok).toBe(false)
  expect(saw).toBe('one: nothing {there}; two: nothing {there}; Mount the LUN: it ended with 1; and 1 more')
  expect(all).toHaveLength(4)
})

test('a visit says in one line what a check saw on several', async () => {
  const bad = { title: 'the portal listens', ok: false, saw: 'refused\n  \u001b[31mtwice\u001b[0m' }
  expect((await visit(report(step('Look', [bad])), 1)).saw).toBe('the portal listens: refused twice')
})

test('a visit reads a report longer than 20,000 characters', async () => {
  const many = Array.from({ length: 500 }, (_, at) => ({
    title: `check ${String(at)}`,
    ok: at > 0,
    saw: 'x'.repeat(80),
  }))
  expect((await visit(report(step('Look', many)), 1)).failed).toEqual([`check 0: ${'x'.repeat(80)}`])
})

test('a visit gives the error of lab verify, or else its exit code', async () => {
  expect((await visit('✖ iscsi does not run\n  lab up iscsi', 2)).saw).toBe('iscsi does not run')
  expect((await visit('Killed', 137)).saw).toBe('lab verify iscsi ended with 137')
  expect((await visit('', 137)).saw).toBe('lab verify iscsi ended with 137')
})
