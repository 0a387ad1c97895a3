#!/usr/bin/env node
/**
 * `npm run soak:disk -- --seconds 300`: a pod on the LUN appends a line and syncs, once a second, on a running
 * cluster; prints the longest gap. The kernel without parts/kernel/lost-interrupt.patch shows 25 to 32 s here.
 */
import { parseArgs } from 'node:util'
import { lab, must, tidy, whole } from './lab.mjs'

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '300' } } })
const seconds = whole('seconds', values.seconds, 86_400)
await must(['up', 'iscsi-ha'])
const pod = (
  await must(['kubectl', 'iscsi-ha', '--', 'get', 'pods', '-l', 'app=mysql-server', '-o', 'name'])
).stdout.trim()
const script = `for i in $(seq ${seconds}); do date +%s.%N >> /var/lib/mysql/soak; sync /var/lib/mysql/soak; sleep 1; done; cat /var/lib/mysql/soak; rm /var/lib/mysql/soak`
const { stdout } = await must(['kubectl', 'iscsi-ha', '--', 'exec', pod, '--', 'bash', '-c', script])
const times = stdout.trim().split('\n').map(Number)
const gaps = times.slice(1).map((time, index) => time - times[index])
await lab(['down', 'iscsi-ha'])
tidy()
console.log(
  `${times.length} lines synced in ${(times.at(-1) - times[0]).toFixed(0)} s; longest gap ${Math.max(...gaps).toFixed(2)} s; over 2 s: ${gaps.filter((gap) => gap > 2).length}`,
)
