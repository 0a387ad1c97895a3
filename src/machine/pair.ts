/**
 * The files of two machines that serve one target: DRBD, Corosync and Pacemaker; and of the third machine, which
 * votes.
 */
import { createHmac } from 'node:crypto'
import { parseSubnet } from '../lab/address.js'
import {
  type Lab,
  machineNamed,
  type MachineSpec,
  type PairedTarget,
  pairsOf,
  pairWith,
  peerOf,
} from '../lab/lab.js'
import { render } from '../render.js'
import type { MachineFile } from './machine-file.js'

/** TCP port that connects the two copies of the disks. */
export const replicationPort = 7788

/** TCP port of the machine that votes (corosync-qnetd). */
export const votingPort = 5403

/**
 * Milliseconds of silence after which Corosync considers a machine lost; its default is 3000. It notices after 2.2
 * times that.
 */
const token = 2000

/** Milliseconds within which the machine that votes must answer; corosync-qdevice's default is 10000. */
const voting = 3000

/** Seconds for which DRBD assumes that a machine that Pacemaker has switched off is still off. */
const fenceTolerance = 8

/**
 * With the name of a machine, the id of a constraint in Pacemaker's configuration: the copy of that machine is outdated,
 * and must not be served.
 */
export const outdatedMark = 'outdated-'

/** The resource of DRBD, and part of the cluster's name. */
export const resourceOf = (target: PairedTarget): string => `r-${target.pair.machines.join('-')}`

export const clusterOf = (lab: Lab, target: PairedTarget): string => `${lab.name}-${resourceOf(target)}`

/** A key for one purpose, derived from the one that the lab has for its clusters. */
const keyFor = (secret: string, purpose: string): string =>
  createHmac('sha512', secret).update(purpose).digest('hex')

const membersOf = (lab: Lab, { pair }: PairedTarget) =>
  pair.machines.map((name, index) => ({
    name,
    number: index + 1,
    address: machineNamed(lab, name).address,
  }))

/**
 * Between DRBD and a disk is a layer of the device mapper, which passes everything on. Only so can a disk fail on
 * purpose (`disk-error`) while DRBD has it open. Its device has the number of the volume: a target has no other layers.
 */
export const copyLayer = (number: number): string => `copy-${String(number)}`
export const layerDevice = (number: number): string => `/dev/dm-${String(number)}`

/** The volumes of DRBD: one for each LUN, in the order of the lab file. */
const volumesOf = (target: PairedTarget, lunDevice: (index: number) => string) =>
  target.luns.map(({ lun, size }, number) => ({
    lun,
    number,
    disk: lunDevice(number),
    layer: copyLayer(number),
    layerDevice: layerDevice(number),
    sectors: size / 512,
  }))

/** The block device of a pair's n-th LUN, on the machine that serves it. */
export const mirrorDevice = (index: number): string => `/dev/drbd${String(index)}`

/** Pacemaker's configuration, as XML for `cibadmin`. @param power address and credentials of the switches */
export const clusterConfiguration = (
  lab: Lab,
  target: PairedTarget,
  power: { readonly gateway: string; readonly username: string },
): string =>
  render('machine/pair/cluster.xml', {
    cluster: clusterOf(lab, target),
    name: resourceOf(target),
    machines: membersOf(lab, target),
    address: target.pair.address,
    prefix: parseSubnet(lab.network.subnet)?.prefix ?? 24,
    ...power,
  })

export const pairFolder = '/etc/lab/pair'

interface Scripts {
  /** Makes the kernel's target match the lab file. */
  readonly serve: string
  /** Makes it serve nothing. */
  readonly serveNothing: string
}

const memberFiles = (
  lab: Lab,
  target: PairedTarget,
  machine: MachineSpec,
  {
    lunDevice,
    secret,
    slowdown,
    scripts,
  }: {
    readonly lunDevice: (index: number) => string
    readonly secret: string
    readonly slowdown: number
    readonly scripts: Scripts
  },
): readonly MachineFile[] => {
  const machines = membersOf(lab, target)
  const name = resourceOf(target)
  const cluster = clusterOf(lab, target)
  const volumes = volumesOf(target, lunDevice)
  const peer = peerOf(target, machine.name)
  const data = {
    machines,
    name,
    cluster,
    volumes,
    peer,
    self: machine.name,
    mark: outdatedMark,
    lock: '/run/lab-outdated.lock',
    port: replicationPort,
    secret: keyFor(secret, `${cluster} replication`).slice(0, 48),
    quorum: machineNamed(lab, target.pair.quorum).address,
    token: Math.round(token * slowdown),
    voting: Math.round(voting * slowdown),
    votingSync: Math.round(5 * voting * slowdown),
    tolerance: fenceTolerance,
    iqn: target.iqn,
    portal: `${target.pair.address}:${String(target.port)}`,
  }
  return [
    { path: '/etc/drbd.conf', content: '# Written by lab.\ninclude "/etc/drbd.d/lab.res";\n' },
    { path: '/etc/drbd.d/lab.res', content: render('machine/pair/drbd.res', data), mode: 0o600 },
    { path: '/etc/corosync/corosync.conf', content: render('machine/pair/corosync.conf', data) },
    // In the form of corosync-keygen: 256 bytes are the most that it accepts.
    { path: '/etc/corosync/authkey', content: keyFor(secret, `${cluster} corosync`), mode: 0o400 },
    // fence_redfish accepts only this certificate.
    {
      path: '/etc/default/pacemaker',
      content: `# Written by lab.\nPCMK_logfile=none\nREQUESTS_CA_BUNDLE=${pairFolder}/power.pem\n`,
    },
    // The target listens at an address that is added after it.
    { path: '/etc/sysctl.d/91-lab-pair.conf', content: 'net.ipv4.ip_nonlocal_bind = 1\n' },
    {
      path: '/usr/lib/ocf/resource.d/lab/target',
      content: render('machine/pair/resource.sh', data),
      mode: 0o755,
    },
    { path: `${pairFolder}/fence-peer`, content: render('machine/pair/fence-peer.sh', data), mode: 0o755 },
    {
      path: `${pairFolder}/unfence-peer`,
      content: render('machine/pair/unfence-peer.sh', data),
      mode: 0o755,
    },
    { path: `${pairFolder}/configure`, content: render('machine/pair/configure.sh', data), mode: 0o755 },
    { path: `${pairFolder}/serve`, content: scripts.serve, mode: 0o700 },
    { path: `${pairFolder}/serve-nothing`, content: scripts.serveNothing, mode: 0o700 },
    { path: '/etc/lab/boot.d/50-pair', content: render('machine/pair/start.sh', data), mode: 0o755 },
  ]
}

/** @returns the files of a machine that is in a pair, or that votes */
export const pairFiles = (
  lab: Lab,
  machine: MachineSpec,
  {
    lunDevice,
    secret,
    slowdown = 1,
    scripts,
  }: {
    readonly lunDevice: ((index: number) => string) | undefined
    readonly secret: string
    readonly slowdown?: number | undefined
    readonly scripts: () => Scripts
  },
): readonly MachineFile[] => {
  const target = pairWith(lab, machine.name)
  if (target && lunDevice)
    return memberFiles(lab, target, machine, { lunDevice, secret, slowdown, scripts: scripts() })
  if (!pairsOf(lab).some(({ pair }) => pair.quorum === machine.name)) return []
  return [
    // Without TLS: the machines of a lab are in their own network, and the only service is a vote.
    { path: '/etc/default/corosync-qnetd', content: '# Written by lab.\nCOROSYNC_QNETD_OPTIONS="-s off"\n' },
    {
      path: '/etc/lab/boot.d/50-quorum',
      content: '#!/bin/sh\n# Written by lab.\nexec systemctl --no-block start corosync-qnetd\n',
      mode: 0o755,
    },
  ]
}
