#!/usr/bin/env node
/**
 * A stand-in for VBoxManage, for hosts on which VirtualBox has no kernel driver and so can neither start a machine nor
 * make a host-only interface. It leaves everything else to the real VBoxManage (LAB_REAL_VBOXMANAGE): VirtualBox itself
 * keeps the machines with their disks, ports, memory, network cards and forwarded ports.
 *
 * The stand-in itself handles:
 *   startvm, controlvm     QEMU runs the machine that `showvminfo` describes, on its real disks for LUNs, and on a copy
 *                          of its root disk, because QEMU cannot read the differencing images of a linked clone. The
 *                          messages are those of VBoxManageMisc.cpp and VBoxManageControlVM.cpp of VirtualBox 7.
 *   VBox.log               the first lines of VirtualBox's log, with the time at which it was opened.
 *   VMState, runningvms    the state of that QEMU: `running`, `paused`, `poweroff`.
 *   hostonlyif, hostonlyifs  a bridge of this network namespace. The messages are those of VBoxManageHostonly.cpp and
 *                          VBoxManageList.cpp of VirtualBox 7, and the numbers those of Vagrant's own tests.
 *   --version              7.0, because Debian's Vagrant refuses newer versions of VirtualBox.
 *   warning about the missing kernel driver, with which Debian's VBoxManage begins every answer: removed, because
 *                          Vagrant would take it for a network card.
 * So these tests do not show that VirtualBox boots these machines, nor how fast.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const real = process.env.LAB_REAL_VBOXMANAGE
const folder = process.env.LAB_STAND_IN_FOLDER
mkdirSync(folder, { recursive: true })
const args = process.argv.slice(2)

/** The output of the real VBoxManage. */
const ask = (...words) => {
  const said = spawnSync(real, words, { encoding: 'utf8' })
  return { ...said, stdout: said.stdout.replace(/^WARNING: The character device [^]*? is fixed\.\n/, '') }
}
/** Answers like the real VBoxManage. */
const pass = (change = (stdout) => stdout) => {
  const { status, stdout, stderr } = ask(...args)
  process.stdout.write(change(stdout))
  process.stderr.write(stderr)
  process.exitCode = status
}
const fail = (message) => {
  console.error(`VBoxManage: error: ${message}`)
  process.exit(1)
}
/** `showvminfo` as a map. */
const infoOf = (vm) => {
  const { status, stdout, stderr } = ask('showvminfo', vm, '--machinereadable')
  if (status !== 0) {
    process.stderr.write(stderr)
    process.exit(status)
  }
  return new Map(
    stdout.split('\n').flatMap((line) => {
      const [, key, value] = /^"?([^"=]+)"?="?(.*?)"?$/.exec(line) ?? []
      return key === undefined ? [] : [[key, value]]
    }),
  )
}

const pidFile = (uuid) => join(folder, `${uuid}.pid`)
const alive = (uuid) => {
  if (!existsSync(pidFile(uuid))) return undefined
  const pid = Number(readFileSync(pidFile(uuid), 'utf8'))
  try {
    // A zombie is still a process, but not a running machine.
    const [, state] = /^\d+ \(.*\) (\S)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))
    return state === 'Z' ? undefined : { pid, state: state === 'T' ? 'paused' : 'running' }
  } catch {
    return undefined
  }
}
const ip = (...words) => execFileSync('ip', words, { encoding: 'utf8' })

const rootDisk = (uuid, info) => {
  const copy = join(folder, `${uuid}-root.vdi`)
  if (!existsSync(copy)) {
    const source = [...info].find(([key]) => /^VirtIO Controller-0-0$/.test(key))?.[1]
    if (!source || source === 'none') fail('the machine has no disk at the VirtIO Controller')
    const made = ask('clonemedium', 'disk', source, copy, '--format', 'VDI')
    if (made.status !== 0) fail(made.stderr)
    ask('closemedium', 'disk', copy)
  }
  return copy
}

const start = (vm) => {
  const info = infoOf(vm)
  const uuid = info.get('UUID')
  if (alive(uuid))
    fail(`The machine '${info.get('name')}' is already locked by a session (or being locked or unlocked)`)
  const words = [
    ...['-name', info.get('name'), '-machine', 'pc,accel=tcg', '-cpu', 'qemu64,-cx16', '-display', 'none'],
    ...['-monitor', 'none', '-m', info.get('memory'), '-smp', info.get('cpus')],
    ...['-device', 'virtio-scsi-pci,id=root', '-device', 'scsi-hd,bus=root.0,drive=root,bootindex=1'],
    ...['-drive', `if=none,id=root,format=vdi,file=${rootDisk(uuid, info)}`],
    ...['-device', 'ahci,id=lab'],
  ]
  for (const [key, path] of info) {
    const port = /^lab disks-(\d+)-0$/.exec(key)?.[1]
    if (port === undefined || path === 'none') continue
    const name = `VBoxInternal/Devices/ahci/0/Config/Port${port}/SerialNumber`
    const serial = /^Value: (.*)$/m.exec(ask('getextradata', uuid, name).stdout)?.[1] ?? ''
    // VirtualBox's AHCI has 30 ports, QEMU's six.
    words.push('-drive', `if=none,id=lun${port},format=vdi,file=${path}`)
    words.push('-device', `ide-hd,bus=lab.${port},drive=lun${port},serial=${serial},model=VBOX HARDDISK`)
  }
  for (let nic = 1; nic <= 8; nic++) {
    const kind = info.get(`nic${nic}`)
    if (!kind || kind === 'none') continue
    if (info.get(`nictype${nic}`) !== 'virtio')
      fail(`nic${nic} is ${info.get(`nictype${nic}`)}; it should be virtio`)
    const mac = info.get(`macaddress${nic}`).match(/../g).join(':')
    if (kind === 'nat') {
      const forwards = [...info]
        .filter(([key]) => /^Forwarding\(\d+\)$/.test(key))
        .map(([, rule]) => rule.split(','))
        .map(([, protocol, host, port, guest, to]) => `,hostfwd=${protocol}:${host}:${port}-${guest}:${to}`)
      words.push('-netdev', `user,id=n${nic}${forwards.join('')}`)
    } else if (kind === 'hostonly') {
      const tap = `t${uuid.slice(0, 8)}${nic}`
      spawnSync('ip', ['tuntap', 'add', 'mode', 'tap', 'name', tap])
      ip('link', 'set', tap, 'master', info.get(`hostonlyadapter${nic}`), 'up')
      words.push('-netdev', `tap,id=n${nic},ifname=${tap},script=no,downscript=no`)
    } else fail(`the stand-in knows no network '${kind}'`)
    words.push('-device', `virtio-net-pci,netdev=n${nic},mac=${mac}`)
  }
  // VirtualBox keeps the logs of earlier runs under other names.
  mkdirSync(info.get('LogFldr'), { recursive: true })
  writeFileSync(
    join(info.get('LogFldr'), 'VBox.log'),
    `00:00:00.000100 VirtualBox VM 7.0.26 r168464 linux.amd64 release log\n00:00:00.000200 Log opened ${new Date().toISOString()}\n`,
  )
  const console = /^file,(.*)$/.exec(info.get('uartmode1') ?? '')?.[1]
  words.push('-serial', console ? `file:${console}` : 'none')
  const log = openSync(join(folder, `${uuid}.log`), 'a')
  const child = spawn('qemu-system-x86_64', words, { detached: true, stdio: ['ignore', log, log] })
  writeFileSync(pidFile(uuid), String(child.pid))
  child.unref()
  process.stdout.write(
    `Waiting for VM "${info.get('name')}" to power on...\nVM "${info.get('name')}" has been successfully started.\n`,
  )
}

const control = (vm, what) => {
  const uuid = infoOf(vm).get('UUID')
  const machine = alive(uuid)
  if (!machine) fail(`Machine '${vm}' is not currently running.`)
  const signals = { poweroff: 'SIGKILL', pause: 'SIGSTOP', resume: 'SIGCONT' }
  if (!signals[what]) fail(`the stand-in knows no controlvm ${what}`)
  process.kill(machine.pid, signals[what])
  while (what === 'poweroff' && alive(uuid)) spawnSync('sleep', ['0.05'])
  process.stdout.write('0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%\n')
}

/** The bridges that stand in for host-only interfaces. */
const interfaces = () =>
  JSON.parse(ip('-json', 'address', 'show', 'type', 'bridge')).filter(({ ifname }) =>
    /^vboxnet\d+$/.test(ifname ?? ''),
  )

const netmask = (length) =>
  [24, 16, 8, 0].map((shift) => ((2 ** 32 - 2 ** (32 - length)) / 2 ** shift) & 255).join('.')

const hostOnly = ([what, name, ...rest]) => {
  const option = (key) => rest[rest.indexOf(key) + 1]
  if (what === 'create') {
    let number = 0
    while (interfaces().some(({ ifname }) => ifname === `vboxnet${number}`)) number++
    ip('link', 'add', `vboxnet${number}`, 'type', 'bridge')
    ip('link', 'set', `vboxnet${number}`, 'up')
    process.stdout.write(
      `0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%\nInterface 'vboxnet${number}' was successfully created\n`,
    )
  } else if (what === 'ipconfig') {
    ip('address', 'flush', 'dev', name)
    const length = option('--netmask')
      .split('.')
      .map((part) => Number(part).toString(2))
      .join('')
      .replaceAll('0', '').length
    ip('address', 'add', `${option('--ip')}/${length}`, 'dev', name)
  } else if (what === 'remove') ip('link', 'delete', name)
  else fail(`the stand-in knows no hostonlyif ${what}`)
}

const listHostOnly = () => {
  for (const { ifname, address, addr_info: addresses } of interfaces()) {
    const own = addresses.find(({ family }) => family === 'inet')
    process.stdout.write(
      `Name:            ${ifname}
GUID:            786f6276-656e-4074-8000-0a0027000000
DHCP:            Disabled
IPAddress:       ${own?.local ?? '192.168.56.1'}
NetworkMask:     ${netmask(own?.prefixlen ?? 24)}
IPV6Address:     ${''}
IPV6NetworkMaskPrefixLength: 0
HardwareAddress: ${address}
MediumType:      Ethernet
Wireless:        No
Status:          Up
VBoxNetworkName: HostInterfaceNetworking-${ifname}

`,
    )
  }
}

/** Replaces the state by the machine's actual state. */
const withState = (stdout) => {
  const uuid = /^(?:UUID="?|UUID: +)([0-9a-f-]+)/m.exec(stdout)?.[1]
  const machine = uuid && alive(uuid)
  return machine
    ? stdout
        .replace(/^VMState="\w+"/m, `VMState="${machine.state}"`)
        .replace(/^State: .*$/m, `State:           ${machine.state}`)
    : stdout
}

const [command, ...rest] = args
if (command === '--version' || command === '-v') process.stdout.write('7.0.26r168464\n')
else if (command === 'startvm') start(rest[0])
else if (command === 'controlvm') control(rest[0], rest[1])
else if (command === 'hostonlyif') hostOnly(rest)
else if (command === 'list' && rest.includes('hostonlyifs')) listHostOnly()
else if (command === 'list' && rest.includes('runningvms'))
  process.stdout.write(
    ask('list', 'vms')
      .stdout.split('\n')
      .filter((line) => alive(/\{([0-9a-f-]+)\}$/.exec(line)?.[1]))
      .map((line) => `${line}\n`)
      .join(''),
  )
else if (command === 'showvminfo') pass(withState)
else if (command === 'unregistervm') {
  const uuid = infoOf(rest[0]).get('UUID')
  if (alive(uuid)) fail(`Cannot unregister the machine '${rest[0]}' while it is locked`)
  for (const name of [`${uuid}-root.vdi`, `${uuid}.log`, `${uuid}.pid`])
    rmSync(join(folder, name), { force: true })
  pass()
} else pass()
