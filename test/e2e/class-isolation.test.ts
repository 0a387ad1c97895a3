/**
 * A student is root on the machines of the seat, and has no rights elsewhere. Each attempt would succeed if it were
 * allowed: the same command works at the student's own seat, or on the host.
 */
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { Classroom } from './classroom.js'

const root = process.getuid?.() === 0
const port = 8644
const [own, other] = ['01', '02'] as const

/** A shell function that prints whether a connection is accepted: `open`, or the error's code. */
const connects = (to: string): string =>
  `node -e 'require("net").connect(${to}).on("connect",function(){console.log("open");this.destroy()}).on("error",(e)=>console.log(e.code))'`

describe.runIf(root)(
  'a student at a seat',
  () => {
    let room: Classroom
    /** In a folder that everybody on the host can read. */
    let hosts: string
    const servers: Server[] = []

    beforeAll(async () => {
      hosts = await mkdtemp('/var/tmp/lab-host-')
      await writeFile(join(hosts, 'of-the-host'), 'of the host\n', { mode: 0o644 })
      room = await Classroom.open('iscsi', port)
      await room.ok('up', 'iscsi', '--count', '2', '--size', 'small', '--listen', `127.0.0.1:${String(port)}`)
    }, 300_000)
    afterAll(async () => {
      for (const server of servers) server.close()
      await room.close()
      await rm(hosts, { recursive: true, force: true })
    }, 120_000)

    /** The output of a script at the student's own seat, with its exit code as the last line. */
    const tries = async (script: string, seat: string = own): Promise<string> => {
      const { stdout, stderr, exitCode } = await room.student(seat, script)
      return `${stdout}\n${stderr}\nexit ${String(exitCode)}`
    }

    it('a student is root on the machines of the seat', async () => {
      for (const machine of ['target', 'initiator'])
        expect((await room.student(own, `lab exec iscsi ${machine} -- id -u`)).stdout).toContain('0')
    })

    it('a student reaches machines of the same name at no other seat', async () => {
      for (const machine of ['target', 'initiator'])
        await room.student(other, `lab exec iscsi ${machine} -- touch /root/of-the-other-seat`)
      expect(await tries('lab exec iscsi all -- ls /root', other)).toContain('of-the-other-seat')
      expect(await tries('lab exec iscsi all -- ls /root')).not.toContain('of-the-other-seat')
      // Their lab answers to its seat's number only.
      expect(await tries(`LAB_SEAT=${other} lab exec iscsi target -- ls /root`)).toMatch(/exit [1-9]/)
    })

    it('a student on a machine of the seat cannot reach the host', async () => {
      const from = (address: string): string =>
        `lab exec iscsi target -- timeout 5 bash -c '</dev/tcp/${address}/${String(port)}' && echo reached`
      expect(
        await tries('lab exec iscsi initiator -- bash -c "</dev/tcp/192.168.56.70/3260" && echo reached'),
      ).toContain('reached')
      for (const address of ['127.0.0.1', '192.168.56.1', ...hostAddresses()])
        expect(await tries(from(address)), address).not.toContain('reached')
    })

    it('a student sees the processes of the seat only, and cannot signal any other', async () => {
      const seen = await tries('ps -eo pid=,user= | sort -u')
      expect(seen).toContain('lab-is')
      const { stdout } = await room.student(own, 'ps -eo user:32= | sort -u')
      expect(stdout.trim().split('\n').sort()).toEqual(['lab-iscsi-01'])
      const theirs = await room.pidOf(other)
      expect(await tries(`kill -0 ${String(theirs)}; kill -0 $$ && echo mine`)).toMatch(
        /No such process[\s\S]*|mine/,
      )
      expect(await tries(`kill -0 ${String(theirs)}`)).toMatch(/exit [1-9]/)
      expect(await tries(`kill -0 ${String(process.pid)}`)).toMatch(/exit [1-9]/)
      process.kill(theirs, 0)
    })

    it('a student finds neither ports nor sockets of another seat or of the host', async () => {
      const server = createServer((socket) => socket.end()).listen(9731, '0.0.0.0')
      await once(server, 'listening')
      servers.push(server)
      const abstract = createServer((socket) => socket.end()).listen('\0of-the-host')
      await once(abstract, 'listening')
      servers.push(abstract)
      await room.student(
        other,
        `setsid node -e 'const n=require("net");n.createServer((s)=>s.end()).listen(9732,"0.0.0.0");n.createServer((s)=>s.end()).listen("\\0of-the-other-seat");n.createServer((s)=>s.end()).listen("/tmp/of-the-other-seat")' >/dev/null 2>&1 & sleep 1`,
      )
      const ports = (number: number): readonly string[] =>
        ['127.0.0.1', ...hostAddresses()].map((host) => `{host:"${host}",port:${String(number)}}`)
      for (const to of [
        '{host:"127.0.0.1",port:9732}',
        '"\\0of-the-other-seat"',
        '"/tmp/of-the-other-seat"',
      ]) {
        expect(await tries(connects(to), other), to).toContain('open')
        expect(await tries(connects(to)), to).toMatch(/ECONNREFUSED|ENOENT/)
      }
      for (const to of [...ports(9731), ...ports(port), '"\\0of-the-host"'])
        expect(await tries(connects(to)), to).toMatch(/ECONNREFUSED|ENETUNREACH/)
    })

    it('a student can fill the disk of the seat, but not that of the host', async () => {
      // Hosts that cannot mount files have no such limit, and class up says so.
      const { seatDisk } = await room.file()
      if (seatDisk === undefined) return
      const size = async (seat: string): Promise<number> =>
        Number((await room.student(seat, 'df --output=size --block-size=1 ~ | tail -n 1')).stdout)
      expect(await size(own)).toBeLessThan(seatDisk)
      expect(await tries(`fallocate --length ${String(seatDisk)} ~/big`)).toMatch(/No space left on device/)
      expect(await tries('lab verify iscsi')).toContain('exit 0')
    })

    it('a student finds no file of another seat, of the class or of the host', async () => {
      await room.student(
        other,
        'echo of the other seat > ~/of-the-other-seat; chmod -R a+rX ~; touch /tmp/of-the-other-seat /dev/shm/of-the-other-seat',
      )
      await room.student(own, 'touch ~/of-this-seat')
      const find =
        'find / -name "of-the*" -o -name "of-this*" -o -name class.json -o -name gateway.sock 2>/dev/null'
      expect((await room.student(other, find)).stdout).toMatch(/of-the-other-seat/)
      expect((await room.student(own, find)).stdout.trim().split('\n')).toEqual([
        '/home/lab-iscsi-01/of-this-seat',
      ])
      expect(await tries(`cat ${hosts}/of-the-host ${room.root}/class.json`)).toMatch(/exit [1-9]/)
      expect((await room.student(own, 'ls /home; cat /etc/passwd')).stdout).not.toContain('iscsi-02')
      // The root folder of a process of root would be another one; there is no such process.
      expect((await room.student(own, 'ls /proc/1/root/')).stdout).not.toContain('boot')
    })

    it('a student writes to nothing but the home folder and folders in memory', async () => {
      const places = [
        '/',
        '/etc',
        '/usr/bin',
        '/run/lab',
        '/run/lab/cache',
        '/run/lab/bin',
        '/home',
        '/dev',
        '/var',
      ]
      for (const place of [...places, process.cwd()]) {
        expect(await tries(`touch ${place}/x`), place).toMatch(/exit [1-9]/)
        // Also as root of a user namespace of the student's own.
        const asRoot = `mount -o remount,bind,rw ${place} ${place} 2>/dev/null; touch ${place}/x`
        expect(await tries(`unshare --user --map-root-user --mount sh -c '${asRoot}'`), place).toMatch(
          /exit [1-9]/,
        )
      }
      for (const place of ['~', '/tmp', '/var/tmp', '/dev/shm'])
        expect(await tries(`touch ${place}/x`), place).toContain('exit 0')
    })

    it('a student gains no right on the host', async () => {
      for (const script of [
        'mount -t tmpfs x /mnt || mount -t tmpfs x /tmp',
        'unshare --net true',
        'chroot / true',
        'mknod /tmp/disk b 254 0',
        'unshare --user --map-root-user mknod /tmp/disk b 254 0',
        'unshare --user --map-root-user --mount mount /dev/vda /tmp',
        'echo 1 > /proc/sys/kernel/sysrq',
        'unshare --user --map-root-user sh -c "echo 1 > /proc/sys/kernel/sysrq"',
        'echo b > /proc/sysrq-trigger',
        'hostname other',
        'date --set=12:00',
        'nsenter --target 1 --net ip link add dummy0 type dummy',
        'setpriv --reuid 0 true',
        'chown 0 ~/of-this-seat',
        'cp /bin/sh ~/sh && chmod u+s ~/sh && unshare --user --map-root-user chown 1:1 ~/sh',
      ])
        expect(await tries(script), script).toMatch(/exit [1-9]/)
      expect(await tries('su -c id </dev/null; sudo -n id; newuidmap $$ 0 0 1; id -u')).not.toMatch(
        /uid=0|^0$/m,
      )
      expect(
        (await room.student(own, 'grep -E "^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs)" /proc/self/status')).stdout,
      ).toMatch(/^CapPrm:\s0+\nCapEff:\s0+\nCapBnd:\s0+\nCapAmb:\s0+\nNoNewPrivs:\s1$/)
      expect((await room.student(own, 'bash -c "ulimit -u"')).stdout).toContain('4000')
    })

    it('a student sees only the own terminal, and nothing of the teacher', async () => {
      const [student, teacher] = [await room.cookie(own), await room.cookie('teacher')]
      for (const path of ['/page/board', '/board', '/board/events']) {
        expect([path, (await room.get(path, teacher)).status]).toEqual([path, 200])
        expect([path, (await room.get(path, student)).status]).toEqual([path, 404])
      }
      expect((await room.get('/me', student)).body).toContain('"who":"01"')
      const mac = student.slice(student.indexOf('.') + 1)
      for (const name of ['teacher', other, '03', ''])
        expect([name, (await room.get('/me', `__Host-seat=${name}.${mac}`)).status]).toEqual([name, 404])
      // What a student requests beyond that is not trusted.
      for (const query of [`?seat=${other}`, `?seat=${other}&mode=join`, `?seat=${other}&mode=watch`])
        expect([query, await seatShown(`/terminal${query}`, student)]).toEqual([query, 'seat-01'])
      expect(await seatShown(`/terminal?seat=${other}&mode=join`, teacher)).toBe('seat-02')
      expect(await seatShown('/terminal', student, 'https://elsewhere.example')).toBe('refused')
      expect(await seatShown('/terminal', '')).toBe('refused')
    })

    /** The seat of a terminal, according to its answer. */
    const seatShown = async (
      path: string,
      cookie: string,
      origin = `https://127.0.0.1:${String(port)}`,
    ): Promise<string> => {
      const socket = new WebSocket(`wss://127.0.0.1:${String(port)}${path}`, {
        ca: await room.certificate(),
        headers: { cookie, origin },
      })
      return new Promise((resolve, reject) => {
        let shown = ''
        const timer = setTimeout(() => {
          socket.terminate()
          reject(new Error(`the terminal shows ${shown}`))
        }, 30_000)
        const done = (what: string): void => {
          clearTimeout(timer)
          socket.terminate()
          resolve(what)
        }
        socket.on('error', () => done('refused'))
        socket.on('open', () => {
          socket.send(JSON.stringify({ columns: 100, rows: 30 }))
          // Split, so that the echo of the command is not mistaken for its output.
          setTimeout(() => socket.send(Buffer.from('clear; echo "sits"" at $LAB_SEAT."\r')), 1500)
        })
        socket.on('message', (data, binary) => {
          if (!binary) return
          shown += (data as Buffer).toString('utf8')
          const seat = /sits at (\d\d)\./.exec(shown)?.[1]
          if (seat !== undefined) done(`seat-${seat}`)
        })
      })
    }
  },
  300_000,
)

/** The addresses that this host has on its networks. */
const hostAddresses = (): readonly string[] =>
  Object.values(networkInterfaces())
    .flatMap((all) => all ?? [])
    .filter(({ internal, family }) => !internal && family === 'IPv4')
    .map(({ address }) => address)
