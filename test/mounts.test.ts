/** Reading what is mounted where. */
import { expect, test } from 'vitest'
import { mounts, mountsBelow, mountsIn } from '../src/mounts.js'

const table = `/dev/root / ext4 rw,relatime 0 0
/dev/loop0 /var/my\\040labs:\\011a\\134b/seats/01/home ext4 rw,nosuid 0 0
tmpfs /var/my tmpfs rw,noexec 0 0
tmpfs /var/\\303\\274bung tmpfs rw 0 0
`

test('the path of a mount point may have a space, a tab, a backslash and letters beyond ASCII', () => {
  expect(mountsIn(table).map(({ point }) => point)).toEqual([
    '/',
    '/var/my labs:\ta\\b/seats/01/home',
    '/var/my',
    '/var/übung',
  ])
})

test('the mounts below a folder include its own, and none of a folder whose name only begins alike', () => {
  const points = (folder: string): readonly string[] =>
    mountsBelow(folder, mountsIn(table)).map(({ point }) => point)
  expect(points('/var/my')).toEqual(['/var/my'])
  expect(points('/var/my labs:\ta\\b')).toEqual(['/var/my labs:\ta\\b/seats/01/home'])
})

test.skipIf(process.platform !== 'linux')('the root of this host is among its mounts', () => {
  expect(mounts().map(({ point }) => point)).toContain('/')
})
