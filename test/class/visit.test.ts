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

test('a visit finds a seat ready when lab verify succeeds there', async () => {
  expect(await visit('Target\n  ✔ the portal listens  192.168.56.70:3260\n\n1 passed', 0)).toMatchObject({
    ok: true,
    saw: 'ready',
    failed: [],
  })
})

test('a visit says which checks of lab verify failed at the seat, and what they saw', async () => {
  const failed = (name: string): string => `  ✖ ${name.padEnd(40)}  nothing there`
  const table = ['Target', '  ✔ good  yes', ...['one', 'two', 'three', 'four'].map(failed), '', '1 passed']
  const { ok, saw, failed: all } = await visit(table.join('\n'), 1)
  expect(ok).toBe(false)
  expect(saw).toBe('one: nothing there; two: nothing there; three: nothing there; and 1 more')
  expect(all).toHaveLength(4)
})

test('a visit gives the error of lab verify, or else its exit code', async () => {
  expect((await visit('✖ iscsi does not run\n  lab up iscsi', 2)).saw).toBe('iscsi does not run')
  expect((await visit('Killed', 137)).saw).toBe('lab verify iscsi ended with 137')
})
