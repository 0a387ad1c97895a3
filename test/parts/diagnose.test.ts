import { describe, expect, test } from 'vitest'
import { diagnose } from '../../src/parts/diagnose.js'

test('a suite that is gone from a mirror is explained, with the place to which Debian moves old suites', () => {
  const said = [
    'Err:2 http://deb.debian.org/debian bookworm Release',
    '  404  Not Found [IP: 151.101.2.132 80]',
    "E: The repository 'http://deb.debian.org/debian bookworm Release' does not have a Release file.",
  ]
  expect(diagnose(said)).toMatchObject({
    code: 'debian-suite',
    hint: expect.stringMatching('archive.debian.org') as unknown,
  })
  // A mirror that cannot be reached gives the same message.
  expect(diagnose([said[0] ?? '', '  Could not connect to deb.debian.org:80', said[2] ?? ''])?.code).toBe(
    'debian-mirror',
  )
})

/** The real output of programs. */
test.each<{ said: string; code: string; reason: RegExp; hint: RegExp }>([
  {
    said: "cp: error writing '/lab/out/linux': No space left on device",
    code: 'disk-full',
    reason: /^the disk is full$/,
    hint: /LAB_CACHE=/,
  },
  {
    said: 'dpkg: error processing archive x.deb (--unpack): failed to write (No space left on device)',
    code: 'disk-full',
    reason: /full/,
    hint: /room/,
  },
  {
    said: 'tar: linux-7.2: Cannot mkdir: Disk quota exceeded',
    code: 'disk-full',
    reason: /full/,
    hint: /room/,
  },
  {
    said: 'go: k8s.io/kubernetes: /usr/lib/go/pkg/tool/compile: signal: killed',
    code: 'out-of-memory',
    reason: /memory/,
    hint: /4 GiB/,
  },
  {
    said: 'digest mismatch: https://dl.k8s.io/kubelet has sha256 1, pinned is 2',
    code: 'digest-mismatch',
    reason: /^https:\/\/dl.k8s.io\/kubelet has sha256 1, pinned is 2$/,
    hint: /another server/,
  },
  {
    said: 'go: github.com/x/y@v1.0.0: reading https://proxy.golang.org/github.com/x/y/@v/v1.0.0.zip: 404 Not Found',
    code: 'withdrawn',
    reason: /^what is pinned is no longer published: go: github.com/,
    hint: /GOPROXY/,
  },
  {
    said: 'ERROR: No matching distribution found for click==8.5.1',
    code: 'withdrawn',
    reason: /click==8.5.1/,
    hint: /pip.conf/,
  },
  { said: 'fork: Cannot allocate memory', code: 'out-of-memory', reason: /memory/, hint: /free -h/ },
  {
    said: 'runtime: out of memory: cannot allocate 4194304-byte block',
    code: 'out-of-memory',
    reason: /memory/,
    hint: /free -h/,
  },
  {
    said: 'E: Failed to fetch http://deb.debian.org/debian/dists/trixie/InRelease  Could not connect to deb.debian.org:80',
    code: 'debian-mirror',
    reason: /could not be reached: E: Failed to fetch http:\/\/deb\.debian\.org/,
    hint: /http_proxy.*LAB_DEBIAN_MIRROR=/,
  },
  {
    said: "W: Failed to fetch http://x/InRelease  Temporary failure resolving 'x'",
    code: 'debian-mirror',
    reason: /Temporary failure resolving/,
    hint: /network/,
  },
  {
    said: 'Err:1 http://deb.debian.org/debian trixie InRelease',
    code: 'debian-mirror',
    reason: /Err:1/,
    hint: /network/,
  },
  {
    said: "E: The repository 'http://deb.debian.org/debian trixie InRelease' is not signed.",
    code: 'debian-keyring',
    reason: /signatures/,
    hint: /debian-archive-keyring/,
  },
  {
    said: 'E: Unable to locate package golang-1.26-go',
    code: 'debian-package',
    reason: /^Debian no longer has a package: Unable to locate package golang-1\.26-go$/,
    hint: /parts\/parts\.yaml/,
  },
  {
    said: "E: Package 'linux-source-7.2' has no installation candidate",
    code: 'debian-package',
    reason: /linux-source-7\.2/,
    hint: /packages\.debian\.org/,
  },
  {
    said: 'unshare: unshare failed: Operation not permitted',
    code: 'no-user-namespace',
    reason: /may not create a user namespace/,
    hint: /as root.*uidmap/,
  },
  {
    said: 'newuidmap: uid range [0-1) -> [1000-1001) not allowed',
    code: 'no-user-namespace',
    reason: /newuidmap/,
    hint: /\/etc\/subuid/,
  },
])('$code is explained as: $said', ({ said, code, reason, hint }) => {
  const found = diagnose(['make: Entering directory', said, 'make: *** [all] Error 1'])
  expect(found).toEqual({ code, reason: expect.stringMatching(reason), hint: expect.stringMatching(hint) })
})

describe('of several lines', () => {
  test('a full disk is named as the cause, and not the missing files that follow from it', () => {
    const tail = ['E: Failed to fetch http://x/y.deb', 'E: Write error - write (28: No space left on device)']
    expect(diagnose(tail)?.code).toBe('disk-full')
  })

  test('the first line that explains the failure is quoted, cut to a readable length', () => {
    const reason =
      diagnose([`E: Failed to fetch http://first/${'x'.repeat(1000)}`, 'E: Failed to fetch http://second/'])
        ?.reason ?? ''
    expect(reason).toContain('http://first/')
    expect(reason.length).toBeLessThan(300)
  })
})

test.each(['ENOSPC', 'ENOMEM'])('%s that Node itself reports is recognized by its code', (code) => {
  expect(diagnose(['something failed, write'], code)?.code).toBe(
    code === 'ENOSPC' ? 'disk-full' : 'out-of-memory',
  )
})

test.each([
  [[]],
  [['']],
  [['checking whether the disk is full... no', "gcc: error: unrecognized command-line option '-x'"]],
  [['I: downloading packages with apt...', 'Get:1 http://deb.debian.org/debian trixie InRelease']],
])('output without a known cause is not explained: %j', (tail) => {
  expect(diagnose(tail)).toBeUndefined()
})
