/** Builds the command line from the list of verbs, and loads the module of the one that was typed. */
import { Command, CommanderError } from 'commander'
import { exitCodes, unlessAborted } from '../error.js'
import { maskKnown } from '../view/secrets.js'
import type { Io, Verb, VerbLine } from './verb.js'

const meaningOfLab = 'a shipped name (lab list), or the path of a lab file'

/** The verb in the arguments, and what follows it: `help up` is about `up`. */
const meant = (words: readonly string[]): { readonly name?: string; readonly rest: readonly string[] } => {
  const at = words.findIndex((word) => !word.startsWith('-') && word !== 'help')
  return at < 0 ? { rest: [] } : { name: words[at] ?? '', rest: words.slice(at + 1) }
}

/** Adds the options of a verb, which are unknown before its module is loaded. */
const fill = (command: Command, verb: Verb, io: Io, ended: (exitCode: number) => void): void => {
  for (const argument of command.registeredArguments) {
    const name = argument.name()
    argument.description = verb.words?.[name] ?? (name === 'lab' ? meaningOfLab : '')
    if (verb.defaults?.[name] !== undefined) argument.default(verb.defaults[name])
  }
  for (const option of verb.options ?? []) command.addOption(option)
  if (verb.passThrough) command.passThroughOptions()
  command.action(async (...given: unknown[]) => {
    // Commander passes the command itself as the last argument.
    const run = verb.run as (...given: unknown[]) => Promise<number> | number
    const running = Promise.resolve(run(...given.slice(0, -1), io))
    ended(await (verb.looks ? unlessAborted(io.signal, running) : running))
  })
}

/** Adds the verbs to a command and loads only the module of the typed one, so that `lab status` is fast. */
const addVerbs = async (
  parent: Command,
  verbs: readonly VerbLine[],
  words: readonly string[],
  io: Io,
  ended: (exitCode: number) => void,
): Promise<void> => {
  const { name, rest } = meant(words)
  const terms = new Map<Command, string>()
  parent.configureHelp({
    ...parent.configureHelp(),
    subcommandTerm: (command) => terms.get(command) ?? 'help [command]',
  })
  for (const { usage, does, load } of verbs) {
    const command = parent
      .command(usage.replace(' [options]', ''), { hidden: does === '' })
      .description(does)
      .exitOverride()
    terms.set(command, usage)
    if (command.name() !== name) continue
    const loaded = await load()
    if ('verb' in loaded) fill(command, loaded.verb, io, ended)
    else await addVerbs(command, loaded.verbs, rest, io, ended)
  }
}

/**
 * Runs a command line, given without the program's own name.
 * @returns the exit code
 * @throws whatever the verb throws; commander itself has reported errors in the arguments
 */
export const runCommandLine = async (
  words: readonly string[],
  verbs: readonly VerbLine[],
  version: string,
  io: Io,
): Promise<number> => {
  const program = new Command('lab')
    .description(
      'A real Kubernetes high-availability lab on this machine: made, broken on purpose, measured.',
    )
    .version(version)
    .enablePositionalOptions()
    .showHelpAfterError('(lab --help shows the commands)')
    .exitOverride()
    .configureHelp({ sortSubcommands: false, showGlobalOptions: false })
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      writeErr: (text) => void io.stderr.write(maskKnown(text)),
    })
  let exitCode: number = exitCodes.ok
  await addVerbs(program, verbs, words, io, (ended) => {
    exitCode = ended
  })
  try {
    await program.parseAsync(words, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage
  }
  return exitCode
}
