/** Explains a failure to the person who has to fix it. */
export interface Diagnosis {
  readonly code: string
  readonly reason: string
  readonly hint: string | undefined
}

interface Known {
  readonly pattern: RegExp
  /** A second line that must also be present. */
  readonly beside?: RegExp
  readonly diagnosis: (line: string) => Diagnosis
}

/** Other programs explain their failures only as text. The first match is the cause. */
const known: readonly Known[] = [
  {
    // Printed by lab's own scripts.
    pattern: /^digest mismatch: /,
    diagnosis: (line) => ({
      code: 'digest-mismatch',
      reason: line.slice('digest mismatch: '.length),
      hint: 'the server, or something between it and this host, delivers data that differs from the pinned: use another server',
    }),
  },
  {
    pattern: /No space left on device|ENOSPC|Disk quota exceeded/,
    diagnosis: () => ({
      code: 'disk-full',
      reason: 'the disk is full',
      hint: 'make room, or use another disk: LAB_CACHE=/path/to/folder',
    }),
  },
  {
    pattern: /Cannot allocate memory|out of memory|signal: killed|ENOMEM/i,
    diagnosis: () => ({
      code: 'out-of-memory',
      reason: 'there was not enough memory to build it',
      hint: 'free -h; about 4 GiB must be available',
    }),
  },
  {
    pattern: /^E: The repository .* (does not have|no longer has) a Release file/,
    beside: /\b404\b/,
    diagnosis: (line) => ({
      code: 'debian-suite',
      reason: `the mirror no longer has this Debian: ${line.slice(3, 203)}`,
      hint: 'Debian moves old releases: LAB_DEBIAN_MIRROR=http://archive.debian.org/debian LAB_DEBIAN_SECURITY_MIRROR=http://archive.debian.org/debian-security',
    }),
  },
  {
    pattern:
      /^(E: Failed to fetch|(E|W): .*(Could not (resolve|connect)|Temporary failure resolving|Unable to connect)|Err:\d+ )/,
    diagnosis: (line) => ({
      code: 'debian-mirror',
      reason: `the Debian mirror could not be reached: ${line.slice(0, 200)}`,
      hint: 'check the network and http_proxy, or name another mirror: LAB_DEBIAN_MIRROR=http://… LAB_DEBIAN_SECURITY_MIRROR=http://…',
    }),
  },
  {
    pattern: /^E: .*(NO_PUBKEY|is not signed|signatures couldn't be verified|no signed-by)/i,
    diagnosis: (line) => ({
      code: 'debian-keyring',
      reason: `this host cannot check Debian's signatures: ${line.slice(0, 200)}`,
      hint: 'apt-get install debian-archive-keyring',
    }),
  },
  {
    pattern: /^E: Unable to locate package|^E: Package .* has no installation candidate/,
    diagnosis: (line) => ({
      code: 'debian-package',
      reason: `Debian no longer has a package: ${line.slice(3)}`,
      hint: 'see https://packages.debian.org, then edit parts/parts.yaml',
    }),
  },
  {
    // Printed about a reachable module proxy, and about PyPI.
    pattern:
      /: reading https?:\/\/\S+: (404|410) |^ERROR: (No matching distribution|Could not find a version)/,
    diagnosis: (line) => ({
      code: 'withdrawn',
      reason: `what is pinned is no longer published: ${line.trim().slice(0, 200)}`,
      hint: 'use a server that still has it, with GOPROXY=https://… or a mirror in /etc/pip.conf; or pin another version in parts/',
    }),
  },
  {
    pattern: /unshare: .*(Operation not permitted|Permission denied)|newuidmap: /,
    diagnosis: (line) => ({
      code: 'no-user-namespace',
      reason: `this user may not create a user namespace: ${line.slice(0, 200)}`,
      hint: 'run lab as root; or install uidmap, give the user a range in /etc/subuid and /etc/subgid, and allow kernel.unprivileged_userns_clone',
    }),
  },
]

/** @param code an errno, if Node itself failed */
export const diagnose = (tail: readonly string[], code = ''): Diagnosis | undefined => {
  for (const { pattern, beside, diagnosis } of known) {
    if (beside && !tail.some((line) => beside.test(line))) continue
    const line = [...tail, code].find((candidate) => pattern.test(candidate))
    if (line !== undefined) return diagnosis(line)
  }
  return undefined
}
