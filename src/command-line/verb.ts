import { Option } from 'commander'
import type { ProviderName } from '../lab/lab.js'
import { providerNames } from '../providers.js'

/** Options that every command has. */
export interface Options {
  readonly output?: 'text' | 'json'
  readonly events?: boolean
  readonly provider?: ProviderName
  readonly wait?: boolean
  /** A hosts.yaml: the machines are those, and are not made. */
  readonly hosts?: string
  /** A kubeconfig: that cluster is used, and none is made. */
  readonly kubeconfig?: string
  /** A context of that kubeconfig; default: its current one. */
  readonly context?: string
  /** The storage class of claims on that cluster; default: the cluster's own. */
  readonly storageClass?: string
  /** All questions are answered with yes. */
  readonly yes?: boolean
  /** A bundle, as a folder or URL, from which parts are taken before any are built. */
  readonly from?: string
  /** The fingerprint of its maker. */
  readonly maker?: string
  /** Nothing is built or fetched from elsewhere. */
  readonly offline?: boolean
}

/** The parts of the process that a command may use. */
export interface Io {
  readonly stdin: NodeJS.ReadStream
  readonly stdout: NodeJS.WriteStream
  readonly stderr: NodeJS.WriteStream
  /** Aborted by Ctrl-C, SIGTERM, or closing the terminal. */
  readonly signal: AbortSignal
  /** Asks the person at the terminal; absent if there is none. */
  readonly ask?: (question: string) => Promise<boolean>
  /** Asks for a line that is not shown while it is typed; undefined if there is no terminal. */
  readonly askSecret?: (question: string) => Promise<string>
  /** Aborted when the parent process, if it is connected by an IPC channel, has ended. */
  readonly orphaned: () => AbortSignal
  /** The names of all verbs, for completion. */
  readonly verbs: readonly string[]
}

/** The `verb` that each module of this folder exports. */
export interface Verb {
  /** Descriptions of the arguments, by name; obvious ones are left out. `lab` is described in one place. */
  readonly words?: Readonly<Record<string, string>>
  /** Default values of arguments, by name. */
  readonly defaults?: Readonly<Record<string, string>>
  readonly options?: readonly Option[]
  /** The remaining arguments are the command line of another program, with options of its own. */
  readonly passThrough?: boolean
  /** The command changes nothing, so Ctrl-C ends it at once without cleaning up. */
  readonly looks?: boolean
  /**
   * @param given the arguments in order, the options, and the process's `Io`
   * @returns the exit code
   */
  readonly run: (...given: never[]) => Promise<number> | number
}

/** What the command line knows of a verb before its module is loaded. */
export interface VerbLine {
  /** Its name and arguments as `lab --help` shows them: `run [options] <lab> [scenarios...]`. */
  readonly usage: string
  /** Its description for `lab --help`; empty for an internal verb, which is not shown. */
  readonly does: string
  /** Loads its module, or the module of a group such as `lab box`. */
  readonly load: () => Promise<{ readonly verb: Verb } | { readonly verbs: readonly VerbLine[] }>
}

export const line = (usage: string, does: string, load: VerbLine['load']): VerbLine => ({ usage, does, load })

export const asJson = new Option('-o, --output <format>', 'how to print data')
  .choices(['text', 'json'])
  .default('text')
export const withProvider = new Option(
  '--provider <name>',
  'the provider of the machines; default: the first that works',
).choices(providerNames)
export const withHosts = new Option(
  '--hosts <file>',
  'machines that exist already: a hosts.yaml (lab hosts init writes one)',
)
export const withCluster: readonly Option[] = [
  new Option('--kubeconfig <file>', 'a cluster that exists already; lab works in its own namespaces'),
  new Option('--context <name>', 'the context of that kubeconfig; default: its current one'),
  new Option(
    '--storage-class <name>',
    'the storage class of claims there; default: the default class of the cluster',
  ),
]
export const withEvents = new Option('--events', 'print events as NDJSON while they happen')
export const withWait = new Option('--wait', 'wait while another lab command holds the lab')
export const withYes = new Option('--yes', 'answer every question with yes')

/** The sources of parts, for verbs that may have to make some. */
export const withSource: readonly Option[] = [
  new Option('--from <bundle>', 'a folder or URL with parts, which are taken before any are built').env(
    'LAB_PARTS',
  ),
  new Option('--maker <fingerprint>', 'the maker of the bundle, as lab bundle make printed it'),
  new Option('--offline', 'build and download nothing; name everything that is missing'),
]

/** The command line for another program, with or without a leading `--`. */
export const theirs = (words: readonly string[]): readonly string[] =>
  words[0] === '--' ? words.slice(1) : words
