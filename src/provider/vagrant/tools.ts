/** Runs other programs (vagrant, virsh, VBoxManage) and explains their errors. */
import { spawn } from 'node:child_process'
import { appendFile, rename, stat } from 'node:fs/promises'
import type { LabId } from '../../identity.js'
import { LabError } from '../../error.js'
import { quote } from '../../machine/sh.js'
import { dotVagrant, hasRecords, type VagrantKind } from './hypervisor.js'

interface Known {
  readonly pattern: RegExp
  readonly code: string
  readonly reason: string
  /** A command to type. `LAB` stands for the lab's name. */
  readonly hint: string
}

const removeKvm =
  'sudo modprobe -r kvm_intel kvm_amd kvm   # stop its machines first; not needed in VirtualBox 7.2.10 and newer'

/**
 * The first match is the cause. The texts are those of VirtualBox 7.2, libvirt 9 and Vagrant 2.3 and 2.4. Missing or
 * old guest additions are never the cause, since nothing here uses them.
 */
const known: readonly Known[] = [
  {
    pattern: /VERR_SVM_HOST_SVME_NOT_ENABLED/,
    code: 'virtualization-off',
    reason:
      'the kernel was told not to switch virtualisation on, but this VirtualBox relies on the kernel to do so',
    hint: 'grep -rl enable_virt_at_load /etc/modprobe.d   # remove that line, then reboot',
  },
  {
    pattern:
      /VERR_VMX_IN_VMX_ROOT_MODE|VERR_SVM_IN_USE|VERR_VMX_ROOT_ACTIVE|VT-x is being used by another hypervisor|AMD-V is being used by another hypervisor/,
    code: 'virtualization-busy',
    reason: 'another hypervisor, such as KVM, holds the virtualisation of the processor',
    hint: removeKvm,
  },
  {
    pattern:
      /VERR_VMX_MSR_ALL_VMX_DISABLED|VERR_VMX_MSR_VMX_DISABLED|VERR_SVM_DISABLED|VERR_VMX_NO_VMX|VERR_SVM_NO_SVM|VERR_CPUM_RAW_MODE_NOT_SUPPORTED|VERR_NEM_NOT_AVAILABLE/,
    code: 'virtualization-off',
    reason: 'the processor has no virtualisation, or the firmware (BIOS) has switched it off',
    hint: "grep -cE 'vmx|svm' /proc/cpuinfo   # 0: switch VT-x or AMD-V on in the firmware; or: lab up LAB --provider uml",
  },
  {
    pattern:
      /VERR_VM_DRIVER_NOT_INSTALLED|VERR_VM_DRIVER_VERSION_MISMATCH|kernel module is not loaded|Kernel driver not installed/,
    code: 'no-driver',
    reason: "VirtualBox's kernel driver is not loaded, so it can start no machine",
    hint: 'sudo modprobe vboxdrv || sudo /sbin/vboxconfig',
  },
  {
    pattern: /failed to open \/dev\/vboxnetctl|Failed to create the host-only adapter/,
    code: 'no-driver',
    reason: "VirtualBox's network drivers are not loaded",
    hint: 'sudo modprobe -a vboxnetadp vboxnetflt',
  },
  {
    pattern:
      /not within the\s+(?:\S+\s+)?allowed\s+(?:range|network)|E_ACCESSDENIED[^]*(?:hostonly|HostNetworkInterface)|networks\.conf/i,
    code: 'host-only-range',
    reason:
      "VirtualBox allows host-only networks only in certain ranges, and the lab's subnet is in none of them",
    hint: 'lab plan LAB --provider virtualbox   # prints the lines that /etc/vbox/networks.conf needs',
  },
  {
    pattern:
      /version of VirtualBox installed\s+that is not supported|VirtualBox .* is not supported by this version of Vagrant/,
    code: 'version-too-new',
    reason: 'this Vagrant does not support this version of VirtualBox; Vagrant 2.4.9 supports up to 7.2',
    hint: 'lab doctor   # says where to get a newer Vagrant',
  },
  {
    pattern:
      /box ['‘].*['’] could not be found|The box you're attempting to add|box you are attempting to use .* could not|Box .* could not be found/,
    code: 'no-box',
    reason: 'Vagrant does not have the box that the machines are made of',
    hint: 'lab up LAB   # offers to build it',
  },
  {
    pattern:
      /[Cc]annot register the hard disk[^]*already exists|UUID \{?[0-9a-f-]+\}? of the medium .* does not match|hard disk .* with UUID .* already exists/,
    code: 'disk-clash',
    reason: "VirtualBox still has a disk of an earlier lab registered under this disk's UUID or path",
    hint: 'lab down LAB   # closes and removes the disks of that lab',
  },
  {
    pattern:
      /is already taken|domain '.*' already exists|storage volume '.*' exists already|[Mm]achine with the name .* already exists|VERR_ALREADY_EXISTS|Machine settings file '.*' already exists|network '.*' already exists/,
    code: 'name-clash',
    reason: "something of that name already exists, from an earlier lab or another user's",
    hint: 'lab down LAB',
  },
  {
    pattern: /Network is already in use by interface (\S+)|network .* is already in use/i,
    code: 'network-clash',
    reason: "another network of this host has the lab's addresses",
    hint: 'ip -br address; remove the lab or network that has them, or give the lab another network.subnet',
  },
  {
    pattern:
      /Failed to connect socket to '.*libvirt.*': Permission denied|no polkit agent|authentication unavailable|access denied by policy/,
    code: 'libvirt-denied',
    reason: 'this user may not use libvirt',
    hint: 'sudo adduser "$USER" libvirt   # then log in again',
  },
  {
    pattern:
      /Failed to connect socket to '.*libvirt|[Uu]nable to connect to libvirt|Error while connecting to Libvirt|failed to connect to the hypervisor/,
    code: 'libvirt-silent',
    reason: 'libvirt does not answer',
    hint: 'sudo systemctl enable --now libvirtd',
  },
  {
    pattern:
      /could not find capabilities for domaintype=kvm|KVM kernel module|Could not access KVM|failed to initialize kvm|does not support virt type 'kvm'/i,
    code: 'no-kvm',
    reason: 'KVM is present but does not work',
    hint: 'LAB_EMULATE=1 lab up LAB --provider libvirt   # emulated, many times slower',
  },
  {
    pattern: /another process is already executing an action|cannot be run from multiple processes/,
    code: 'vagrant-busy',
    reason: 'another vagrant process is working on this machine',
    hint: 'ps aux | grep [v]agrant',
  },
  {
    pattern: /VERR_DISK_FULL|No space left on device|VERR_FILE_AIO_LIMIT.*space/,
    code: 'disk-full',
    reason: 'the disk is full',
    hint: 'df -h',
  },
  {
    pattern: /[Cc]annot allocate memory|VERR_NO_MEMORY|cannot set up guest memory/,
    code: 'out-of-memory',
    reason: 'there is not enough memory for the machine',
    hint: 'free -h; reduce memory: of some machines, or stop another lab',
  },
  {
    pattern: /Timed out while waiting for the machine to boot|Fog::Errors::TimeoutError/,
    code: 'boot-timeout',
    reason: 'the machine started, but did not answer in time',
    hint: 'lab up LAB   # continues with it; lab logs LAB MACHINE shows its console',
  },
  {
    pattern: /The provider '?\w+'? could not be found|No usable default provider/,
    code: 'no-plugin',
    reason: 'Vagrant has no plugin for this provider',
    hint: 'lab doctor',
  },
]

/**
 * VBoxManage prints this warning before every answer if its kernel driver is not loaded, so it may have nothing to do
 * with the failure.
 */
const standingWarning =
  /WARNING: The (?:character device|vboxdrv kernel module)[^]*?until this problem is fixed\.?/g

/** A line of a Ruby stack trace; the message is on the line before. */
const backtrace = /^from \S+:\d+:in /

/** The telling lines: those that match a known cause, or else the last ones. */
const ownWords = (said: string, pattern: RegExp | undefined): string => {
  const lines = said
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !backtrace.test(line))
  const telling = pattern ? lines.filter((line) => pattern.test(line)) : []
  const chosen = telling.length > 0 ? telling : lines.slice(-4)
  const words = chosen.join(' ')
  return words.length > 500 ? `${words.slice(0, 499)}…` : words
}

/** Explains a failed command of one of these programs: its own words, the reason, and what to type. */
export const explain = (
  program: string,
  everything: string,
  { lab, machine, log }: { lab: string; machine?: string; log?: string },
): LabError => {
  const said = everything.replaceAll(standingWarning, '')
  const found =
    known.find(({ pattern }) => pattern.test(said)) ??
    // The standing warning explains only why a machine failed to start.
    (said === everything || !said.includes('terminated unexpectedly')
      ? undefined
      : known.find(({ code }) => code === 'no-driver'))
  const where = machine ?? lab
  const words = ownWords(said, found?.pattern) || 'it printed nothing'
  return new LabError(
    found?.code ?? 'provider-failed',
    `${where}: ${found ? `${found.reason}; ` : ''}${program} says: ${words}`,
    {
      hint: (found?.hint ?? 'lab doctor')
        .replaceAll('LAB', (_, offset: number, text: string) =>
          // LAB_EMULATE is a name of its own.
          text[offset + 3] === '_' ? 'LAB' : lab,
        )
        .replaceAll('MACHINE', machine ?? 'MACHINE'),
      log,
    },
  )
}

export interface Said {
  readonly ok: boolean
  readonly stdout: string
  /** Both outputs, in the order of arrival. */
  readonly all: string
  /** The program is not installed. */
  readonly missing?: true
}

/** Seconds. */
const toolDeadline = 60

/**
 * Runs one of the hypervisor's tools. A failure is an answer, and so is its absence. It uses Node's own functions:
 * `lab status` asks one question, and loading a library would take longer than the answer.
 */
export const ask = (
  program: string,
  args: readonly string[],
  { timeout = toolDeadline, cwd }: { timeout?: number; cwd?: string } = {},
): Promise<Said> =>
  new Promise((resolve) => {
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: timeout * 1000,
      cwd,
      env: { ...process.env, LC_ALL: 'C' },
    })
    const stdout: Buffer[] = []
    const all: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => {
      stdout.push(chunk)
      all.push(chunk)
    })
    child.stderr.on('data', (chunk: Buffer) => all.push(chunk))
    const text = (chunks: readonly Buffer[]): string => Buffer.concat(chunks).toString('utf8').trimEnd()
    child.once('error', (error: NodeJS.ErrnoException) => {
      resolve({
        ok: false,
        stdout: '',
        all: error.message,
        ...(error.code === 'ENOENT' ? { missing: true } : {}),
      })
    })
    child.once('close', (code, signal) => {
      const late = signal === null ? '' : `\nno answer within ${String(timeout)} s`
      resolve({ ok: code === 0, stdout: text(stdout), all: text(all) + late })
    })
  })

/**
 * Like `ask`, but a failure is an error.
 * @throws LabError in the words of `explain`
 */
export const must = async (
  lab: string,
  program: string,
  args: readonly string[],
  options: { timeout?: number; machine?: string } = {},
): Promise<string> => {
  const said = await ask(program, args, options)
  if (!said.ok)
    throw explain(program, said.all, {
      lab,
      ...(options.machine === undefined ? {} : { machine: options.machine }),
    })
  return said.stdout
}

/**
 * The answer to a question about what a lab has. A question that failed is an error, because no answer does not mean
 * that there is nothing.
 * @returns undefined if the program is not installed and Vagrant has no record of the lab's machines
 * @throws LabError in the words of `explain`
 */
export const answer = async (
  lab: LabId,
  kind: VagrantKind,
  program: string,
  args: readonly string[],
): Promise<string | undefined> => {
  const said = await ask(program, args)
  if (said.ok) return said.stdout
  if (!said.missing) throw explain(program, said.all, { lab: lab.name })
  if (!(await hasRecords(lab, kind))) return undefined
  throw new LabError(
    'no-program',
    `${lab.name}: ${program} is not installed, so nothing is known about the machines that ${kind} has of this lab`,
    {
      hint: `lab doctor   # says how to install it; only if its machines are gone: rm -r ${quote(dotVagrant(lab))}`,
    },
  )
}

/** Seconds: four emulated machines at once take half an hour, and Vagrant has timeouts of its own. */
const vagrantDeadline = 7200

/** Size in bytes at which a log of Vagrant is rotated. */
const mostLog = 4 * 1024 ** 2

/** Runs Vagrant with the Vagrantfile of a folder, and also logs its output. */
export const vagrant = async (
  folder: string,
  args: readonly string[],
  { log, timeout = vagrantDeadline }: { log: string; timeout?: number },
): Promise<Said> => {
  const { execa } = await import('execa')
  // Bounded: this log and the previous one.
  if (((await stat(log).catch(() => undefined))?.size ?? 0) > mostLog) await rename(log, `${log}.1`)
  await appendFile(log, `\n--- ${new Date().toISOString()} vagrant ${args.join(' ')}\n`, { mode: 0o600 })
  const result = await execa('vagrant', args, {
    cwd: folder,
    reject: false,
    all: true,
    stdin: 'ignore',
    timeout: timeout * 1000,
    // On SIGINT, it ends the boot of its machines in an orderly way; a SIGTERM would leave its locks behind.
    killSignal: 'SIGINT',
    env: {
      // The user's settings for other projects must not have an effect here.
      VAGRANT_CWD: folder,
      VAGRANT_VAGRANTFILE: 'Vagrantfile',
      VAGRANT_DOTFILE_PATH: '.vagrant',
      VAGRANT_CHECKPOINT_DISABLE: '1',
      VAGRANT_NO_COLOR: '1',
    },
  })
  const said = result.exitCode === undefined ? `${result.all}\n${result.originalMessage ?? ''}` : result.all
  await appendFile(log, `${said}\n--- exit code ${String(result.exitCode)}\n`)
  return { ok: !result.failed, stdout: result.stdout, all: said }
}
