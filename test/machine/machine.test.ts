import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { exitCodes, LabError, tooBusy } from '../../src/error.js'
import { CommandError, Machine } from '../../src/machine/machine.js'
import { secret, shell } from '../../src/machine/sh.js'
import { sshTransport } from '../../src/machine/ssh.js'
import { temporaryFolder } from '../helpers/folder.js'
import { TestSshServer } from '../helpers/ssh-server.js'

const machineOf = async (): Promise<{ server: TestSshServer; machine: Machine }> => {
  const server = await TestSshServer.start()
  const machine = new Machine('worker1', sshTransport(server.endpoint()))
  onTestFinished(() => machine.close())
  return { server, machine }
}

const failureOf = async (promise: Promise<unknown>): Promise<CommandError> => {
  const error: unknown = await promise.catch((reason: unknown) => reason)
  if (!(error instanceof CommandError)) throw error
  return error
}

describe('run', () => {
  test('run returns the output without surrounding blanks', async () => {
    const { machine } = await machineOf()
    expect(await machine.run(shell`printf '\n a  b \n\n'`)).toBe('a  b')
  })

  test('run throws with everything the command printed', async () => {
    const { machine } = await machineOf()
    const error = await failureOf(
      machine.run(shell`echo out; for n in 1 2 3 4 5; do echo line $n >&2; done; exit 7`),
    )
    expect(error).toBeInstanceOf(LabError)
    expect(error).toMatchObject({
      name: 'CommandError',
      code: 'command-failed',
      exitCode: exitCodes.failed,
      machine: 'worker1',
      result: { exitCode: 7, stdout: 'out\n', stderr: 'line 1\nline 2\nline 3\nline 4\nline 5\n' },
    })
    expect(error.message).toMatch(/^worker1: echo out; .*: exit code 7: line 3 \| line 4 \| line 5$/)
  })

  test('run recognizes that the other side was too busy', async () => {
    const { machine } = await machineOf()
    const words =
      'Get "https://192.168.56.11:6443/": net/http: request canceled (Client.Timeout exceeded while awaiting headers)'
    expect(await failureOf(machine.run(shell`echo ${words} >&2; exit 1`))).toMatchObject({ code: tooBusy })
  })

  test('run quotes standard output when standard error is empty, and nothing when both are', async () => {
    const { machine } = await machineOf()
    expect((await failureOf(machine.run(shell`echo why; exit 1`))).message).toBe(
      'worker1: echo why; exit 1: exit code 1: why',
    )
    expect((await failureOf(machine.run(shell`exit 1`))).message).toBe('worker1: exit 1: exit code 1')
  })

  test('run masks the secrets of a command in an error', async () => {
    const { machine } = await machineOf()
    const error = await failureOf(machine.run(shell`test ${secret("hush 'hush'")} = ${'other'}`))
    expect(error.message).toBe('worker1: test *** = other: exit code 1')
    expect(error.command).not.toContain('hush')
  })
})

test('try returns a failure as an answer', async () => {
  const { machine } = await machineOf()
  expect(await machine.try(shell`exit 9`)).toEqual({ exitCode: 9, stdout: '', stderr: '' })
})

describe('write', () => {
  test.each([
    ['nothing', ''],
    ['a line', 'one line\n'],
    ['no newline at the end', 'x'],
    ['what a shell would take for its own', `'"$HOME \`id\` \\ %s\n`],
    ['other alphabets', 'パスワード 🔑\n'],
    ['megabytes', 'ä1234567\n'.repeat(300_000)],
  ])('write writes %s byte for byte', async (_, content) => {
    const { machine } = await machineOf()
    const path = join(await temporaryFolder(), 'file')
    await machine.write(path, { content })
    expect((await readFile(path, 'utf8')) === content).toBe(true)
  })

  test('write makes missing folders with any name', async () => {
    const { machine } = await machineOf()
    const folder = await temporaryFolder()
    const path = join(folder, "it's a", '$HOME', 'file')
    await machine.write(path, { content: 'x' })
    expect(await readFile(path, 'utf8')).toBe('x')
  })

  test('write sets the requested mode on new and existing files', async () => {
    const { machine } = await machineOf()
    const path = join(await temporaryFolder(), 'file')
    await writeFile(path, 'old', { mode: 0o644 })
    await machine.write(path, { content: 'new', mode: 0o600 })
    expect((await stat(path)).mode & 0o7777).toBe(0o600)
    await machine.write(path, { content: 'newer' })
    expect((await stat(path)).mode & 0o7777).toBe(0o644)
    await machine.write(path, { content: '#!/bin/sh\n', mode: 0o755 })
    expect((await stat(path)).mode & 0o7777).toBe(0o755)
  })

  test('write replaces a file as a whole, and readers of the old file keep it', async () => {
    const { machine } = await machineOf()
    const folder = await temporaryFolder()
    const path = join(folder, 'file')
    await writeFile(path, 'old')
    const { ino } = await stat(path)
    await machine.write(path, { content: 'new' })
    expect((await stat(path)).ino).not.toBe(ino)
    expect(await readdir(folder)).toEqual(['file'])
  })

  test('a write that fails leaves the old file unchanged', async () => {
    const { server, machine } = await machineOf()
    const path = join(await temporaryFolder(), 'file')
    await writeFile(path, 'old')
    // The connection drops when half of the content is sent: for the machine, that looks like its end.
    const writing = expect(machine.write(path, { content: 'x'.repeat(50_000_000) })).rejects.toMatchObject({
      code: 'ssh-lost',
    })
    await vi.waitFor(() => expect(server.ran).toHaveLength(1), { interval: 5 })
    server.drop()
    await writing
    await vi.waitFor(() => expect(server.ran[0]?.process.exitCode).not.toBe(null))
    expect(await readFile(path, 'utf8')).toBe('old')
  })
})
