import { expect, test } from 'vitest'
import { ringStates, rowsIn } from '../../src/course/cassandra.js'
import { isFile, titleOf, uploadedTo } from '../../src/course/wordpress.js'
import { valueIn } from '../../src/course/zookeeper-servers.js'

test('nodetool status does not count a member that is down or joining as up and normal', () => {
  const status = `Datacenter: DC1-K8Demo
======================
Status=Up/Down
|/ State=Normal/Leaving/Joining/Moving
--  Address      Load       Tokens  Owns (effective)  Host ID                               Rack
UN  10.244.21.3  83.57 KiB  16      100.0%            e2dd09e6-d9d3-477e-96c5-45094c08db0f  Rack1-K8Demo
DN  10.244.22.3  101.04 KiB 16      100.0%            f89d6835-3a42-4419-92b3-0e62cae1479c  Rack1-K8Demo
UJ  10.244.23.3  84.74 KiB  16      ?                 a6a1e8c2-3dc5-4417-b1a0-26507af2aaad  Rack1-K8Demo
`
  expect(ringStates(status)).toEqual(['UN', 'DN', 'UJ'])
  expect(ringStates('error: Connection refused')).toEqual([])
})

test('rows are parsed as cqlsh prints them', () => {
  const output = `Consistency level set to QUORUM.

 id | text
----+---------
  5 | after-5
  0 |  before

(2 rows)`
  expect([...rowsIn(output)]).toEqual([
    [5, 'after-5'],
    [0, 'before'],
  ])
  expect(rowsIn('NoHostAvailable').size).toBe(0)
})

test('a value is parsed from the output of zkCli.sh, and not from the echoed question', () => {
  expect(valueIn('Connecting to localhost:2181\nWATCHER::\nworld-1\n', 'world-1')).toBe(true)
  expect(valueIn('create /lab-hello world-1\nNode does not exist: /lab-hello\n', 'world-1')).toBe(false)
})

test('a page is described by its title, or by where it redirects', () => {
  expect(
    titleOf({ status: 200, body: '<title>WordPress &rsaquo; Installation</title>', location: undefined }),
  ).toBe('200, WordPress Installation')
  expect(titleOf({ status: 302, body: '', location: '/wp-admin/install.php' })).toBe(
    '302 to /wp-admin/install.php',
  )
  expect(titleOf({ status: 500, body: 'oops', location: undefined })).toBe('500, no title')
})

test('an uploaded file is described by its address, or as refused', () => {
  const page = (status: number, body: string) => ({ status, body, location: undefined })
  const taken =
    '{"id":7,"source_url":"http:\\/\\/192.168.56.21:31234\\/wp-content\\/uploads\\/2026\\/01\\/lab.txt"}'
  expect(uploadedTo(page(201, taken))).toBe('/wp-content/uploads/2026/01/lab.txt')
  expect(uploadedTo(page(200, taken))).toBeUndefined()
  expect(uploadedTo(page(500, '{"code":"rest_upload_unknown_error"}'))).toBeUndefined()
  expect(uploadedTo(page(201, '<html>'))).toBeUndefined()
})

test('a site that lost its volume runs and shows its posts but does not serve the file', () => {
  const content = 'Uploaded: 1234\n'
  const page = (status: number, body: string, location?: string) => ({ status, body, location })
  expect(isFile(page(200, content), content).ok).toBe(true)
  expect(isFile(page(404, '<title>Page not found</title>'), content)).toEqual({
    ok: false,
    saw: '404, Page not found',
  })
  expect(isFile(page(200, '<html><title>A lab</title>'), content).ok).toBe(false)
  expect(isFile(page(200, ''), content).ok).toBe(false)
  expect(isFile(page(302, content, '/'), content).ok).toBe(false)
})
