import { Option } from 'commander'
import type { ProviderName } from '../lab/lab.js'
import { providerNames } from '../providers.js'

/** Options that every command has. */
export interface Options {
  readonly output?: 'text' | 'json'
  readonly events?: boolean
  readonly provider?: ProviderName
  readonly wait?: boolean
  /** Questions are answered with yes. */
  readonly yes?: boolean
}

/** What a command may touch of the process it runs in. */
export interface Io {
  readonly stdout: NodeJS.WriteStream
  readonly stderr: NodeJS.WriteStream
  /** Aborted by Ctrl-C, SIGTERM, and a terminal that is closed. */
  readonly signal: AbortSignal
  /** Asks whoever sits at the terminal; absent: nobody does. */
  readonly ask?: (question: string) => Promise<boolean>
  /** Asks for a line that is not shown while it is typed; absent: nobody sits there. */
  readonly askSecret?: (question: string) => Promise<string>
  /** Aborted when the process that started this one, and can send it messages, has ended. */
  readonly orphaned: () => AbortSignal
  /** The names of all verbs, for completion. */
  readonly verbs: readonly string[]
}

/** What a module of this folder exports as `verb`. */
export interface Verb {
  /** What its words mean, by name; those that are not named here explain themselves. `lab` is known. */
  readonly words?: Readonly<Record<string, string>>
  /** What a word is where it was not typed, by name. */
  readonly defaults?: Readonly<Record<string, string>>
  readonly options?: readonly Option[]
  /** The words end with the command line of another program: options among them are its own. */
  readonly passThrough?: boolean
  /** It changes nothing, so Ctrl-C ends it at once: there is nothing to tidy up, and nothing to wait for. */
  readonly looks?: boolean
  /** @param given the words in their order, the options, and the process's `Io`; @returns the exit code */
  readonly run: (...given: never[]) => Promise<number> | number
}

/** A verb as the command line knows it before its module is loaded. */
export interface VerbLine {
  /** Its name, and its words as `lab --help` shows them: `run [options] <lab> [scenarios...]`. */
  readonly usage: string
  /** What it does, for `lab --help`; empty: it is not for people, and not shown. */
  readonly does: string
  /** Loads its module, or that of a group, as `lab box` is. */
  readonly load: () => Promise<{ readonly verb: Verb } | { readonly verbs: readonly VerbLine[] }>
}

export const line = (usage: string, does: string, load: VerbLine['load']): VerbLine => ({ usage, does, load })

export const asJson = new Option('-o, --output <format>', 'how to print data')
  .choices(['text', 'json'])
  .default('text')
export const withProvider = new Option(
  '--provider <name>',
  'where machines come from; default: the first that works',
).choices(providerNames)
export const withEvents = new Option('--events', 'print what happens, while it happens, as NDJSON')
export const withWait = new Option('--wait', 'wait where another lab command holds the lab')
export const withYes = new Option('--yes', 'answer every question with yes')

/** The words of another program's command line, with or without `--` before it. */
export const theirs = (words: readonly string[]): readonly string[] =>
  words[0] === '--' ? words.slice(1) : words
