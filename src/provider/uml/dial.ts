#!/usr/bin/env node
/** ssh's ProxyCommand: joins standard input and output to HOST:PORT inside a lab's network. */
import { connectThrough } from './tunnel.js'

const [socket, host, port] = process.argv.slice(2)
if (!socket || !host || !port) {
  process.stderr.write('usage: dial SOCKET HOST PORT\n')
  process.exit(2)
}
try {
  const tunnel = await connectThrough(socket, host, Number(port))
  process.stdin.pipe(tunnel).pipe(process.stdout)
  tunnel.on('close', () => process.exit(0))
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(1)
}
