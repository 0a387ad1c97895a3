/**
 * An HTTP proxy that gives machines in a namespace access to a package mirror. Two processes share a Unix socket,
 * because a process is in one network namespace only:
 *   mirror.mjs outside SOCKET FOLDER   fetches from the web, and keeps packages, which never change, in FOLDER
 *   mirror.mjs inside SOCKET ADDRESS   listens there, on port 3142, and passes everything on
 */
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream, existsSync, mkdirSync, renameSync } from 'node:fs'
import { createServer, request } from 'node:http'
import { connect, createServer as createTcpServer } from 'node:net'
import { join } from 'node:path'

const [where, socket, place] = process.argv.slice(2)

if (where === 'inside') {
  createTcpServer((near) => {
    const far = connect(socket)
    for (const [one, other] of [
      [near, far],
      [far, near],
    ])
      one.on('error', () => other.destroy()).on('close', () => other.destroy())
    near.pipe(far).pipe(near)
  }).listen(3142, place, () => console.log('ready'))
} else {
  mkdirSync(place, { recursive: true })
  let made = 0
  createServer((asked, answer) => {
    const fail = (error) => answer.headersSent || answer.writeHead(502).end(error.message)
    const kept = /\.deb$/.test(asked.url)
      ? join(place, createHash('sha256').update(asked.url).digest('hex'))
      : undefined
    if (kept && existsSync(kept)) {
      createReadStream(kept).on('error', fail).pipe(answer)
      return
    }
    const headers = { ...asked.headers }
    delete headers['proxy-connection']
    request(asked.url, { method: asked.method, headers }, (said) => {
      answer.writeHead(said.statusCode, said.headers)
      said.pipe(answer)
      if (!kept || said.statusCode !== 200) return
      const next = `${kept}.${process.pid}-${made++}`
      const file = createWriteStream(next)
      said.pipe(file)
      file.on('finish', () => said.complete && renameSync(next, kept))
    })
      .on('error', fail)
      .end()
  }).listen(socket, () => console.log('ready'))
}
