/**
 * The line with which a Raspberry Pi's firmware starts the kernel: `cmdline.txt` on the boot partition. The firmware
 * switches the memory controller off, without which there is no kubelet; words in this line switch it on.
 */

/** Where the file is: since Debian 12, and before. What Debian 12 leaves at the old place is no such line. */
export const bootLineFiles = ['/boot/firmware/cmdline.txt', '/boot/cmdline.txt'] as const

/** In which every boot line differs from a note about where the file has gone. */
export const bootLineHas = 'root='

const off = 'cgroup_disable=memory'
const on = ['cgroup_enable=memory', 'cgroup_memory=1'] as const

/**
 * The content of cmdline.txt with the memory controller switched on. The firmware reads only the first line. All other
 * bytes stay, even those that are no text in any encoding.
 */
export const withMemory = (content: Buffer): Buffer => {
  // One character for each byte.
  const [line = '', ...rest] = content.toString('latin1').split('\n')
  const others = line
    .split(/[ \t\r]+/)
    .filter((word) => word !== '' && word !== off && !/^cgroup_(?:enable=memory|memory=.*)$/.test(word))
  return Buffer.from([[...others, ...on].join(' '), ...(rest.length > 0 ? rest : [''])].join('\n'), 'latin1')
}

/** Kernels that take `cgroup_enable=memory`: those of Raspberry Pi OS, and Ubuntu's for Raspberry Pis. */
const takesWords = (kernel: string): boolean => /[-+](?:rpi|rpt|raspi|v8)\b/.test(kernel)

/** How a host without a memory controller gets one. */
export type MemoryFix =
  /** `up` edits this file, and restarts the host. */
  | { readonly by: 'lab'; readonly file: string }
  /** Only its owner can do it. */
  | { readonly by: 'owner'; readonly why: string; readonly fix: string }

/** What a host says about its start. */
export interface BootFacts {
  /** Its release: `6.12.47+rpt-rpi-v8`. */
  readonly kernel: string
  /** Controllers of cgroup v2; empty without cgroup v2. */
  readonly controllers: readonly string[]
  /** The file with the kernel's command line, which a Raspberry Pi's firmware reads; empty if there is none. */
  readonly bootFile: string
  /** Its first line. */
  readonly bootLine: string
  /** The command line with which the kernel was started, in words. */
  readonly bootWords: readonly string[]
}

/** Undefined: it has one. */
export const memoryFix = (facts: BootFacts): MemoryFix | undefined => {
  const { controllers, bootFile, bootLine, bootWords, kernel } = facts
  if (controllers.includes('memory')) return undefined
  if (controllers.length === 0)
    return {
      by: 'owner',
      why: 'no cgroup v2',
      fix: `remove systemd.unified_cgroup_hierarchy=0 from ${bootFile || 'GRUB_CMDLINE_LINUX in /etc/default/grub, run update-grub'}, then reboot`,
    }
  const wasAsked = on.some((word) => bootWords.includes(word))
  if (bootFile !== '' && (bootLine.split(/\s+/).includes(off) || (takesWords(kernel) && !wasAsked)))
    return { by: 'lab', file: bootFile }
  if (bootFile === '' && bootWords.includes(off))
    return {
      by: 'owner',
      why: `it was started with ${off}`,
      fix: `remove ${off} from GRUB_CMDLINE_LINUX in /etc/default/grub; update-grub; reboot`,
    }
  return {
    by: 'owner',
    why: bootWords.includes(off)
      ? `the firmware starts it with ${off}, and ${kernel} ignores ${on[0]}`
      : `${kernel} was built without it`,
    fix: 'use the kernel of Raspberry Pi OS, or another one of the distribution',
  }
}
