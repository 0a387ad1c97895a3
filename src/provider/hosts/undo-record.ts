/**
 * The state of a host before `lab` changed it, kept on the host itself: `/var/lib/lab/undo/NNN.json`, written and
 * synced before each change. `lab down` undoes the entries from the last to the first and removes each once it is
 * undone, so that it may be interrupted at any moment, by `kill -9` or a power cut, and continue later.
 */
import { LabError } from '../../error.js'
import type { CommandResult, Transport } from '../../machine/machine.js'
import { quote } from '../../machine/sh.js'

/** The folder with everything that belongs to lab on a host. */
export const hostFolder = '/var/lib/lab'
export const undoFolder = `${hostFolder}/undo`

/** The state before a change, as the undo needs it. */
export type Before =
  /** Files and folders with their content. Those that existed are saved in NNN.tar. */
  | { readonly kind: 'files'; readonly saved: readonly string[]; readonly absent: readonly string[] }
  /** Packages that will be installed, and the users and groups that existed. */
  | {
      readonly kind: 'packages'
      readonly names: readonly string[]
      readonly users: readonly string[]
      readonly groups: readonly string[]
    }
  | { readonly kind: 'units'; readonly units: readonly UnitState[] }
  | { readonly kind: 'sysctls'; readonly values: readonly (readonly [name: string, value: string])[] }
  /** Modules that will be loaded, and those that were loaded. */
  | { readonly kind: 'modules'; readonly names: readonly string[]; readonly loaded: readonly string[] }
  | { readonly kind: 'hostname'; readonly name: string }
  /**
   * The file with the kernel's command line. Without what lab added to it, the kernel had no memory controller.
   * In base64, since its bytes need not be text.
   */
  | { readonly kind: 'boot-line'; readonly file: string; readonly base64: string }
  | { readonly kind: 'swap'; readonly devices: readonly string[] }
  /** What the kernel serves over iSCSI, and the files behind it, did not exist. */
  | { readonly kind: 'target' }
  /** Sessions with these targets did not exist. */
  | { readonly kind: 'sessions'; readonly targets: readonly string[] }
  /** There were no containers; and these network interfaces, nftables tables, and mounts. */
  | {
      readonly kind: 'containers'
      readonly interfaces: readonly string[]
      readonly tables: readonly string[]
      readonly mounts: readonly string[]
    }

export interface UnitState {
  readonly name: string
  /** The output of `systemctl is-enabled`: `enabled`, `masked`, `not-found`. */
  readonly enabled: string
  readonly active: boolean
}

/** One file of the record. */
export interface Entry {
  /** Defines the order, and names the file: `007`. */
  readonly number: string
  /** The subject: the same change is recorded once. */
  readonly key: string
  readonly before: Before
}

/** Runs a script as root. @throws LabError with the end of its output, if it fails */
export const runAsRoot = async (
  root: Transport,
  script: string,
  { timeout = 60, input, what }: { timeout?: number; input?: string | Buffer; what: string },
): Promise<string> => {
  const result: CommandResult = await root.exec(
    `PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C; export PATH LC_ALL\n${script}`,
    { timeout, input },
  )
  if (result.exitCode === 0) return result.stdout
  const said = (result.stderr.trim() || result.stdout.trim()).split('\n').slice(-4).join(' | ')
  throw new LabError(
    'host-failed',
    `${root.address}: ${what}: ${said || `exit code ${String(result.exitCode)}`}`,
  )
}

/** The bytes of a file of the host. Sent as base64, since what a command prints is read as text. */
export const bytesOf = async (root: Transport, file: string): Promise<Buffer> =>
  Buffer.from(await runAsRoot(root, `base64 --wrap=0 ${quote(file)}`, { what: `reading ${file}` }), 'base64')

/**
 * The script that replaces a file without which the host may not start: at each moment it has its old content or its
 * new one, and always its owner and mode. Sends the content along, since standard input may be in use.
 */
export const replaceFile = (file: string, content: Buffer): string =>
  `set -e; [ ! -e ${quote(file)} ] || cp -p ${quote(file)} ${quote(`${file}.new`)}; echo ${content.toString('base64')} | base64 -d > ${quote(`${file}.new`)}; sync ${quote(`${file}.new`)}; mv ${quote(`${file}.new`)} ${quote(file)}; sync -f ${quote(file)}`

/** Exit code 0 if the kernel has the memory controller of cgroup v2. */
export const hasMemoryController = 'grep -qw memory /sys/fs/cgroup/cgroup.controllers'

export const words = (list: readonly string[]): string => list.map(quote).join(' ')
const linesOf = (text: string): readonly string[] => text.split('\n').filter((line) => line !== '')

const isText = (value: unknown): boolean => typeof value === 'string'
const isBase64 = (value: unknown): boolean =>
  typeof value === 'string' && value.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(value)
const areTexts = (value: unknown): boolean => Array.isArray(value) && value.every(isText)
const listOf =
  (isOne: (value: unknown) => boolean) =>
  (value: unknown): boolean =>
    Array.isArray(value) && value.every(isOne)

const isUnit = (value: unknown): boolean => {
  const unit = value as Partial<Record<keyof UnitState, unknown>> | null
  return isText(unit?.name) && isText(unit?.enabled) && typeof unit?.active === 'boolean'
}
const isPair = (value: unknown): boolean => areTexts(value) && (value as readonly string[]).length === 2

/** What the undo of each kind relies on. */
const fieldsOf: Readonly<Record<Before['kind'], Readonly<Record<string, (value: unknown) => boolean>>>> = {
  files: { saved: areTexts, absent: areTexts },
  packages: { names: areTexts, users: areTexts, groups: areTexts },
  units: { units: listOf(isUnit) },
  sysctls: { values: listOf(isPair) },
  modules: { names: areTexts, loaded: areTexts },
  hostname: { name: isText },
  'boot-line': { file: isText, base64: isBase64 },
  swap: { devices: areTexts },
  target: {},
  sessions: { targets: areTexts },
  containers: { interfaces: areTexts, tables: areTexts, mounts: areTexts },
}

/**
 * The entry in a file of the record, or why it is none. The undo runs as root on somebody's machine, so it follows
 * nothing that is only half there; and it names files by the number, which must be that of the file itself.
 */
const entryIn = (name: string, text: string): Entry | string => {
  if (text.trim() === '') return 'it is empty'
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return 'it is not JSON'
  }
  const { number, key, before } = (value ?? {}) as Partial<Record<keyof Entry, unknown>>
  if (!isText(number) || !/^\d{3,}\.json$/.test(name) || name !== `${String(number)}.json`)
    return 'its number is not that of its name'
  if (!isText(key)) return 'it does not say what it is about'
  const { kind } = (before ?? {}) as { readonly kind?: unknown }
  const fields = Object.entries(fieldsOf).find(([known]) => known === kind)?.[1]
  if (!fields) return 'it is of a kind that this version of lab does not know'
  const wrong = Object.entries(fields).find(
    ([field, isWhole]) => !isWhole((before as Readonly<Record<string, unknown>>)[field]),
  )
  return wrong ? `its ${wrong[0]} cannot be read` : (value as Entry)
}

const damaged = ({ address }: Transport, path: string, why: string): LabError =>
  new LabError('bad-record', `${address}: ${path} does not say what lab changed: ${why}`, {
    hint: `look at it there, undo by hand what it may be about, then type there: rm -r ${path}`,
  })

/**
 * The record of a host, in the order of the changes.
 * @throws LabError `bad-record` if any of it is damaged: the host would otherwise be given back with changes left
 */
export const readRecord = async (root: Transport): Promise<readonly Entry[]> => {
  // In base64: a damaged file may contain anything, and a newline in it must not look like another file.
  const text = await runAsRoot(
    root,
    `if [ -e ${undoFolder} ] || [ -L ${undoFolder} ]; then
  [ -d ${undoFolder} ] || echo .
  for file in ${undoFolder}/*.json; do
    [ -e "$file" ] || [ -L "$file" ] || continue
    printf '%s ' "\${file##*/}"; base64 --wrap=0 "$file" 2>/dev/null || printf '!'; echo
  done
fi`,
    { what: 'reading the record', timeout: 120 },
  )
  return linesOf(text)
    .map((line): Entry => {
      if (line === '.') throw damaged(root, undoFolder, 'it is not a folder')
      const space = line.lastIndexOf(' ')
      const [name, content] = [line.slice(0, space), line.slice(space + 1)]
      const entry = content.endsWith('!')
        ? 'it cannot be read'
        : entryIn(name, Buffer.from(content, 'base64').toString('utf8'))
      if (typeof entry === 'string') throw damaged(root, `${undoFolder}/${name}`, entry)
      return entry
    })
    .sort((a, b) => Number(a.number) - Number(b.number))
}

const numberOf = (entries: readonly Entry[]): string =>
  String(Math.max(0, ...entries.map(({ number }) => Number(number))) + 1).padStart(3, '0')

/** The record of one host, while a command works on it. */
export class Recorder {
  readonly #root: Transport
  #entries: readonly Entry[]

  private constructor(root: Transport, entries: readonly Entry[]) {
    this.#root = root
    this.#entries = entries
  }

  static async open(root: Transport): Promise<Recorder> {
    return new Recorder(root, await readRecord(root))
  }

  #ask(script: string): Promise<string> {
    return runAsRoot(this.#root, script, { what: 'reading the present state', timeout: 120 })
  }

  /** Records the state before a change: once, however often it is called. It is on disk when this returns. */
  async #keep(key: string, look: (number: string) => Promise<Before>): Promise<void> {
    if (this.#entries.some((entry) => entry.key === key)) return
    const number = numberOf(this.#entries)
    const entry: Entry = { number, key, before: await look(number) }
    const file = `${undoFolder}/${number}.json`
    await runAsRoot(
      this.#root,
      `set -e; mkdir -p ${undoFolder}; cat > ${file}.new; sync ${file}.new; mv ${file}.new ${file}; sync ${undoFolder}`,
      { input: `${JSON.stringify(entry)}\n`, what: 'saving the record' },
    )
    this.#entries = [...this.#entries, entry]
  }

  /**
   * Files that will be written, and folders in which anything may appear. Those that are already recorded are left
   * out.
   */
  async files(what: string, paths: readonly string[]): Promise<void> {
    const known = new Set(
      this.#entries.flatMap(({ before }) =>
        before.kind === 'files' ? [...before.saved, ...before.absent] : [],
      ),
    )
    const fresh = paths.filter(
      (path) => !known.has(path) && ![...known].some((above) => path.startsWith(`${above}/`)),
    )
    if (fresh.length === 0) return
    await this.#keep(`files: ${what}: ${fresh.join(' ')}`, async (number) => {
      const script = `
for path in ${words(fresh)}; do
  if [ -e "$path" ] || [ -L "$path" ]; then echo "there $path"; continue; fi
  # If its folder does not exist either, record the topmost missing folder.
  while above=$(dirname "$path"); [ ! -e "$above" ]; do path=$above; done
  echo "absent $path"
done`
      const found = [...new Set(linesOf(await this.#ask(script)))]
      const of = (kind: string): readonly string[] =>
        found.filter((line) => line.startsWith(`${kind} `)).map((line) => line.slice(kind.length + 1))
      const saved = of('there')
      if (saved.length > 0)
        await runAsRoot(
          this.#root,
          `set -e; mkdir -p ${undoFolder}; umask 077; tar --create --absolute-names --acls --xattrs --file=${undoFolder}/${number}.tar ${words(saved)}; sync ${undoFolder}/${number}.tar`,
          { what: 'keeping files', timeout: 300 },
        )
      return { kind: 'files', saved, absent: of('absent') }
    })
  }

  /**
   * Folders that may appear: they are removed with everything in them. Existing ones are neither touched nor saved.
   */
  newFolders(what: string, paths: readonly string[]): Promise<void> {
    return this.#keep(`files: ${what}`, async () => ({
      kind: 'files',
      saved: [],
      absent: linesOf(
        await this.#ask(`for path in ${words(paths)}; do [ -e "$path" ] || echo "$path"; done`),
      ),
    }))
  }

  /** @param names packages that will be installed, together with everything that they bring */
  packages(names: readonly string[]): Promise<void> {
    return this.#keep(`packages: ${names.join(' ')}`, async () => {
      const said = await this.#ask(
        "cut -d: -f1 /etc/passwd | sed 's/^/u /'; cut -d: -f1 /etc/group | sed 's/^/g /'",
      )
      const of = byKind(said)
      return { kind: 'packages', names, users: of('u'), groups: of('g') }
    })
  }

  units(names: readonly string[]): Promise<void> {
    return this.#keep(`units: ${names.join(' ')}`, async () => {
      const said = await this.#ask(
        `for unit in ${words(names)}; do echo "$unit $(systemctl is-enabled "$unit" 2>/dev/null || true) $(systemctl is-active "$unit" || true)"; done`,
      )
      return {
        kind: 'units',
        units: linesOf(said).map((line) => {
          const [name = '', ...states] = line.split(' ').filter(Boolean)
          return {
            name,
            enabled: states.length > 1 ? (states[0] ?? '') : 'not-found',
            active: states.at(-1) === 'active',
          }
        }),
      }
    })
  }

  sysctls(names: readonly string[]): Promise<void> {
    return this.#keep(`sysctls: ${names.join(' ')}`, async () => ({
      kind: 'sysctls',
      values: linesOf(await this.#ask(`sysctl ${words(names)} 2>/dev/null || true`)).map((line) => {
        const [name = '', value = ''] = line.split(' = ')
        return [name, value] as const
      }),
    }))
  }

  modules(names: readonly string[]): Promise<void> {
    return this.#keep(`modules: ${names.join(' ')}`, async () => ({
      kind: 'modules',
      names,
      loaded: linesOf(await this.#ask("cut -d' ' -f1 /proc/modules 2>/dev/null || true")),
    }))
  }

  get hasBootLine(): boolean {
    return this.#entries.some(({ before }) => before.kind === 'boot-line')
  }

  bootLine(file: string): Promise<void> {
    return this.#keep(`boot-line: ${file}`, async () => ({
      kind: 'boot-line',
      file,
      base64: (await bytesOf(this.#root, file)).toString('base64'),
    }))
  }

  hostname(): Promise<void> {
    return this.#keep('hostname', async () => ({
      kind: 'hostname',
      name: (await this.#ask('hostname')).trim(),
    }))
  }

  swap(): Promise<void> {
    return this.#keep('swap', async () => ({
      kind: 'swap',
      devices: linesOf(await this.#ask("awk 'NR > 1 { print $1 }' /proc/swaps 2>/dev/null || true")),
    }))
  }

  target(): Promise<void> {
    return this.#keep('target', () => Promise.resolve({ kind: 'target' }))
  }

  sessions(targets: readonly string[]): Promise<void> {
    return this.#keep(`sessions: ${targets.join(' ')}`, () => Promise.resolve({ kind: 'sessions', targets }))
  }

  containers(): Promise<void> {
    return this.#keep('containers', async () => {
      const said = await this.#ask(
        "ls /sys/class/net | sed 's/^/i /'; nft list tables 2>/dev/null | sed 's/^table /t /'; awk '{ print \"m\", $5 }' /proc/self/mountinfo",
      )
      const of = byKind(said)
      return { kind: 'containers', interfaces: of('i'), tables: of('t'), mounts: of('m') }
    })
  }
}

/** The lines of an answer whose first letter is this kind. */
const byKind =
  (said: string) =>
  (kind: string): readonly string[] =>
    linesOf(said)
      .filter((line) => line.startsWith(`${kind} `))
      .map((line) => line.slice(2))
