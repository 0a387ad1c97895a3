import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { LabError, tooBusy } from '../../src/error.js'
import {
  askingOnce,
  type Kubectl,
  kubectlWith,
  type Sight,
  type WatchEvent,
} from '../../src/machine/kubectl.js'
import { temporaryFolder } from '../helpers/folder.js'

/** A program in place of kubectl: the body of a shell script. */
const kubectlThat = async (
  body: string,
  signal = new AbortController().signal,
  slowdown?: number,
): Promise<Kubectl> => {
  const path = join(await temporaryFolder(), 'kubectl')
  await writeFile(path, `#!/bin/sh\n${body}\n`, { mode: 0o755 })
  return kubectlWith(path, '/state/demo/kubeconfig', signal, slowdown)
}

const errorOf = async (promise: Promise<unknown>): Promise<LabError> => {
  const error: unknown = await promise.catch((reason: unknown) => reason)
  if (!(error instanceof LabError)) throw error
  return error
}

describe('kubectl', () => {
  test('kubectl gets the kubeconfig, a timeout and the arguments unchanged', async () => {
    const kubectl = await kubectlThat(`for word in "$@"; do echo "[$word]"; done`)
    expect((await kubectl.run(['patch', '--patch', '{"a": "b c"}'], { timeout: 7 })).split('\n')).toEqual([
      '[--kubeconfig]',
      '[/state/demo/kubeconfig]',
      '[--request-timeout=7s]',
      '[patch]',
      '[--patch]',
      '[{"a": "b c"}]',
    ])
  })

  test('kubectl waits longer on slower machines', async () => {
    const kubectl = await kubectlThat('echo "$3"', new AbortController().signal, 20)
    expect(await kubectl.run(['version'], { timeout: 7 })).toBe('--request-timeout=140s')
    expect(await kubectl.run(['version'])).toBe('--request-timeout=600s')
  })

  test("kubectl reads a manifest from standard input, and never from lab's own", async () => {
    const kubectl = await kubectlThat('cat; echo end')
    expect(await kubectl.run(['apply'], { input: 'kind: Secret\n' })).toBe('kind: Secret\nend')
    expect(await kubectl.run(['apply'])).toBe('end')
  })

  test('an error names a failed command by its first line, and not by the whole script for a pod', async () => {
    const kubectl = await kubectlThat('echo no answer >&2; exit 1')
    const { message } = await errorOf(kubectl.run(['exec', 'a', '--', 'sh', '-c', 'echo one\necho two']))
    expect(message).toBe('kubectl exec a -- sh -c echo one …: no answer')
  })

  test('watch reports every event and starts again when a watch ends, until it is aborted', async () => {
    const ending = new AbortController()
    const kubectl = await kubectlThat(
      `echo '{"type": "ADDED", "object": {"metadata": {"name": "worker1"}}}'; echo '{"type": "MODIFIED", '; exit 1`,
    )
    const seen: string[] = []
    await kubectl.watch(
      ['nodes'],
      ({ type, object }) => {
        seen.push(`${type} ${object.metadata.name}`)
        if (seen.length === 2) ending.abort()
      },
      ending.signal,
    )
    expect(seen).toEqual(['ADDED worker1', 'ADDED worker1'])
  })

  /** Follows with a program in place of kubectl until the pod `c` is seen: the events, and how much was seen. */
  const followUntilC = async (body: string): Promise<readonly string[]> => {
    const ending = new AbortController()
    const kubectl = await kubectlThat(body)
    const seen: string[] = []
    const done = new Promise<void>((resolve) => {
      const tell = ({ type, object }: WatchEvent): void => {
        seen.push(`${type} ${object.metadata.name}`)
        if (object.metadata.name === 'c') resolve()
      }
      const sight: Sight = {
        lost: (reason) => seen.push(`lost: ${(reason as LabError).message}`),
        back: () => seen.push('back'),
        missed: (reason) => seen.push(`missed: ${(reason as LabError).message}`),
      }
      void kubectl
        .follow('/api/v1/namespaces/x/pods', tell, ending.signal, sight)
        .then(() => seen.push('the list was told'))
    })
    await done
    ending.abort()
    return seen
  }

  const podOf = (name: string, resourceVersion = '1') =>
    JSON.stringify({ metadata: { name, uid: `uid-${name}`, resourceVersion } })

  test('follow lists first, and continues a watch that ended from the last change or bookmark, without a gap', async () => {
    expect(
      await followUntilC(`
case "$*" in
  *watch=1*resourceVersion=7*) echo '{"type":"ADDED","object":${podOf('b', '8')}}'
    echo '{"type":"BOOKMARK","object":${podOf('x', '12')}}' ;;
  *watch=1*resourceVersion=12*) echo '{"type":"ADDED","object":${podOf('c')}}'; exec sleep 10 ;;
  *watch=1*) exit 1 ;;
  *) echo '{"metadata":{"resourceVersion":"7"},"items":[${podOf('a')}]}' ;;
esac`),
    ).toEqual(['ADDED a', 'the list was told', 'ADDED b', 'ADDED c'])
  })

  test.each([
    [
      'an event',
      `echo '{"type":"ERROR","object":{"metadata":{},"code":410,"message":"too old"}}'`,
      'too old',
    ],
    [
      'an error',
      `echo 'Error from server (Expired): too old resource version: 8 (9)' >&2; exit 1`,
      'Error from server (Expired): too old resource version: 8 (9)',
    ],
  ])(
    'follow says that changes were missed if %s says that the API server no longer has them, and lists again',
    async (_, end, why) => {
      const folder = await temporaryFolder()
      const seen = await followUntilC(`
case "$*" in
  *watch=1*resourceVersion=7*) echo '{"type":"ADDED","object":${podOf('b', '8')}}'; ${end} ;;
  *watch=1*resourceVersion=8*) ${end} ;;
  *watch=1*resourceVersion=9*) echo '{"type":"ADDED","object":${podOf('c')}}'; exec sleep 10 ;;
  *) if [ -e ${folder}/again ]; then echo '{"metadata":{"resourceVersion":"9"},"items":[${podOf('b', '9')}]}'
    else touch ${folder}/again; echo '{"metadata":{"resourceVersion":"7"},"items":[${podOf('a')}]}'; fi ;;
esac`)
      const missed = expect.stringMatching(/^missed: kubectl get --raw .*/) as string
      expect(seen).toEqual([
        'ADDED a',
        'the list was told',
        'ADDED b',
        missed,
        'DELETED a',
        'MODIFIED b',
        'ADDED c',
      ])
      expect(seen[3]).toContain(why)
    },
  )

  test('follow says when the API server does not answer, and when it answers again, before what happened meanwhile', async () => {
    const folder = await temporaryFolder()
    const seen = await followUntilC(`
case "$*" in
  *watch=1*) [ -e ${folder}/down ] || { touch ${folder}/down; echo 'error: refused' >&2; exit 1; }
    echo '{"type":"ADDED","object":${podOf('c')}}'; exec sleep 10 ;;
  *) if [ -e ${folder}/down ] && [ ! -e ${folder}/up ]; then touch ${folder}/up; echo 'error: still' >&2; exit 1; fi
    echo '{"metadata":{"resourceVersion":"7"},"items":[]}' ;;
esac`)
    expect(seen).toEqual([
      'the list was told',
      expect.stringMatching(/^lost: kubectl get --raw .*watch.*: error: refused$/),
      'lost: kubectl get --raw /api/v1/namespaces/x/pods: error: still',
      'back',
      'ADDED c',
    ])
  })

  test('watch says why what happens is not seen, and nothing when a watch only ends', async () => {
    const once = join(await temporaryFolder(), 'once')
    const kubectl = await kubectlThat(
      `[ -e '${once}' ] || { : > '${once}'; exit 0; }; echo 'error: certificate has expired' >&2; exit 1`,
    )
    const ending = new AbortController()
    const reason = new Promise<unknown>((resolve) => {
      void kubectl.watch(['pods'], () => undefined, ending.signal, resolve)
    })
    expect(await reason).toMatchObject({
      code: 'kubectl-failed',
      message: expect.stringMatching(/^kubectl get .*watch.*: error: certificate has expired$/),
    })
    ending.abort()
  })

  test('a watch asks a silent API server after 5 s whether it is there, and later on slower machines', async () => {
    const patienceOf = async (slowdown: number) => {
      const ending = new AbortController()
      const kubectl = await kubectlThat(
        `echo "{\\"type\\":\\"ADDED\\",\\"object\\":{\\"metadata\\":{\\"name\\":\\"$HTTP2_READ_IDLE_TIMEOUT_SECONDS $HTTP2_PING_TIMEOUT_SECONDS\\"}}}"`,
        undefined,
        slowdown,
      )
      return new Promise<string>((resolve) => {
        const seen = ({ object }: WatchEvent): void => {
          resolve(object.metadata.name)
          ending.abort()
        }
        void kubectl.watch(['nodes'], seen, ending.signal)
      })
    }
    expect([await patienceOf(1), await patienceOf(20)]).toEqual(['5 5', '100 100'])
  })

  test('follow reports nothing when the list cannot be read', async () => {
    const kubectl = await kubectlThat('echo forbidden >&2; exit 1')
    const { signal } = new AbortController()
    expect((await errorOf(kubectl.follow('/api/v1/pods', () => undefined, signal))).code).toBe(
      'kubectl-failed',
    )
  })

  test('get returns objects', async () => {
    const kubectl = await kubectlThat(`echo '{"metadata": {"name": "worker1"}}'`)
    expect(await kubectl.get('node', 'worker1')).toEqual({ metadata: { name: 'worker1' } })
  })

  test('an error contains the command and the end of its output', async () => {
    const kubectl = await kubectlThat('echo one >&2; echo two >&2; echo three >&2; exit 1')
    expect(await errorOf(kubectl.run(['get', 'nodes']))).toMatchObject({
      code: 'kubectl-failed',
      message: 'kubectl get nodes: two | three',
    })
  })

  test.each([
    'Error from server: etcdserver: request timed out',
    'Error from server (Timeout): the server was unable to return a response in the time allotted, but may still be processing the request (get nodes worker1)',
    'Unable to connect to the server: net/http: TLS handshake timeout',
    'Unable to connect to the server: stream error: stream ID 1; INTERNAL_ERROR; received from peer',
    'Unable to connect to the server: net/http: request canceled (Client.Timeout exceeded while awaiting headers)',
  ])('an overloaded API server is recognized: %s', async (words) => {
    const kubectl = await kubectlThat(`echo '${words}' >&2; exit 1`)
    expect(await errorOf(kubectl.run(['get', 'nodes']))).toMatchObject({
      code: tooBusy,
      message: `kubectl get nodes: ${words}`,
    })
  })

  test('a request for something that is not there has a code of its own', async () => {
    const kubectl = await kubectlThat(
      `echo 'Error from server (NotFound): pods "web-9" not found' >&2; exit 1`,
    )
    expect((await errorOf(kubectl.run(['get', 'pod', 'web-9']))).code).toBe('not-there')
  })

  test.each([
    [
      'sh: 1: pgrep: not found\ncommand terminated with exit code 127',
      ['exec', 'db', '--', 'sh', '-c', 'pgrep x'],
    ],
    [
      'Unable to connect to the server: getting credentials: exec: executable gke-gcloud-auth-plugin not found',
      ['get', 'nodes'],
    ],
    ['error: unable to upgrade connection: container not found ("mariadb")', ['exec', 'db', '--', 'true']],
  ])('a program that is not found is no object that is not there: %s', async (words, args) => {
    const kubectl = await kubectlThat(`printf '%s\n' '${words}' >&2; exit 1`)
    expect((await errorOf(kubectl.run(args))).code).toBe('kubectl-failed')
  })

  test.each([
    [1, 'command-failed'],
    [137, 'command-failed'],
    [126, 'kubectl-failed'],
    [127, 'kubectl-failed'],
  ])('a command in a container that ends with exit code %i has the code %s', async (exitCode, code) => {
    const kubectl = await kubectlThat(
      `echo 'ERROR 1146 (42S02)' >&2; echo 'command terminated with exit code ${exitCode}' >&2; exit ${exitCode}`,
    )
    expect(await errorOf(kubectl.run(['exec', 'db', '--', 'mariadb']))).toMatchObject({
      code,
      message: `kubectl exec db -- mariadb: ERROR 1146 (42S02) | command terminated with exit code ${exitCode}`,
    })
  })

  test('a missing kubectl is an error that names it', async () => {
    const kubectl = kubectlWith('/nowhere/kubectl', '/state/demo/kubeconfig', new AbortController().signal)
    const error = await errorOf(kubectl.run(['get', 'nodes']))
    expect(error.code).toBe('kubectl-failed')
    expect(error.message).toContain('ENOENT')
  })

  test('a kubectl that a signal ended has failed', async () => {
    const kubectl = await kubectlThat('kill -9 $$')
    expect((await errorOf(kubectl.run(['get', 'nodes']))).code).toBe('kubectl-failed')
  })

  test('an interrupt ends kubectl at once', async () => {
    const abort = new AbortController()
    const kubectl = await kubectlThat('exec sleep 60', abort.signal)
    const running = errorOf(kubectl.run(['get', 'nodes']))
    await delay(100)
    const since = performance.now()
    abort.abort()
    expect((await running).code).toBe('interrupted')
    expect(performance.now() - since).toBeLessThan(10_000)
  })

  test('an output of many megabytes is returned whole', async () => {
    const kubectl = await kubectlThat('head -c 20000000 /dev/zero | tr "\\0" x')
    expect((await kubectl.run(['get', 'pods'])).length).toBe(20_000_000)
  })

  test('an examination asks each question once, and different questions separately', async () => {
    const asked: string[] = []
    const kubectl = askingOnce({
      ...(await kubectlThat('exit 1')),
      run: (args, options) => {
        asked.push([...args, options?.input ?? ''].join(' '))
        return Promise.resolve('{}')
      },
    })
    await Promise.all([kubectl.get('nodes'), kubectl.get('nodes')])
    await kubectl.run(['get', '-o', 'json', 'nodes'])
    await kubectl.run(['create', '-f', '-'], { input: 'one' })
    await kubectl.run(['create', '-f', '-'], { input: 'another' })
    await kubectl.run(['create', '-f', '-'], { input: 'one' })
    expect(asked).toEqual(['get -o json nodes ', 'create -f - one', 'create -f - another'])
  })
})
