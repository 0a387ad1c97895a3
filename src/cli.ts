#!/usr/bin/env node
/** argv to command; the only place that touches the process, its signals and its exit code. */
import { closeSync, openSync } from 'node:fs'
import { isatty } from 'node:tty'
import { Command, CommanderError, Option } from 'commander'
import { exitCodes, Interrupted, unlessAborted } from './error.js'
import type { Io, Options } from './commands/common.js'
import { version } from './version.js'

const abort = new AbortController()
// A terminal that does not know its width says 0, and listr2 writes a letter a line then.
if (process.stdout.columns === 0) process.stdout.columns = 80

/** Anything but a no, and an end of input, is a yes: whoever presses return wants to go on. */
const ask = async (question: string): Promise<boolean> => {
  const { createInterface } = await import('node:readline/promises')
  // The terminal stays as it is: Ctrl-C is the signal that it always is.
  const lines = createInterface({ input: process.stdin, output: process.stderr, terminal: false })
  const ended = new Promise<string>((resolve) => lines.once('close', () => resolve('no')))
  try {
    const answer = lines.question(`${question} [Y/n] `, { signal: abort.signal })
    return !/^\s*n/i.test(await Promise.race([answer, ended]))
  } finally {
    lines.close()
  }
}
const io: Io = {
  stdout: process.stdout,
  stderr: process.stderr,
  signal: abort.signal,
  ...(process.stdin.isTTY && process.stderr.isTTY ? { ask } : {}),
}

/** Which of our three files are terminals; of one that is gone, nobody could tell any more. */
const terminals = [0, 1, 2].filter((fd) => isatty(fd))

/**
 * Ends the process. Node gives a terminal its settings back at its end, and aborts where that terminal is gone; so
 * other files take its place.
 */
const exit = (code: number): never => {
  if (hungUp)
    for (const fd of terminals) {
      closeSync(fd)
      openSync('/dev/null', 'r+')
    }
  process.exit(code)
}

/**
 * Ctrl-C lets the step that is under way end and tidies up; a second one does not wait for that. A terminal that is
 * closed ends the work in the same way, but never counts as the second: it may say so more than once, and whoever
 * logs out is often sent both signals.
 */
let asked = false
let hungUp = false as boolean
const onSignal = (signal: NodeJS.Signals): void => {
  if (signal === 'SIGHUP') hungUp = true
  else if (asked) exit(exitCodes.interrupted)
  else asked = true
  if (abort.signal.aborted) return
  process.stderr.write('\ninterrupted: stopping; once more to stop at once\n')
  abort.abort(new Interrupted())
}

const program = new Command('lab')
  .description('A real Kubernetes high-availability lab on this machine: made, broken on purpose, measured.')
  .version(version)
  .enablePositionalOptions()
  .showHelpAfterError('(lab --help shows the commands)')
  .exitOverride()
  .configureHelp({ sortSubcommands: false, showGlobalOptions: false })

const asJson = new Option('-o, --output <format>', 'how to print data')
  .choices(['text', 'json'])
  .default('text')
const withProvider = new Option(
  '--provider <name>',
  'where machines come from; default: the first that works',
).choices(['uml', 'virtualbox', 'libvirt'])
const withEvents = new Option('--events', 'print what happens, while it happens, as NDJSON')
const withWait = new Option('--wait', 'wait where another lab command holds the lab')
const withYes = new Option('--yes', 'answer every question with yes')
const labArgument = ['<lab>', 'a shipped name (lab list), or the path of a lab file'] as const

/** What comes behind the names is another program's, with or without `--` before it. */
const theirs = (words: readonly string[]): readonly string[] => (words[0] === '--' ? words.slice(1) : words)

let exitCode: number = exitCodes.ok
const command = (name: string, description: string): Command =>
  program.command(name).description(description).exitOverride()
/** Commander's action with our exit code; modules are loaded by the command that needs them: `lab status` is quick. */
const run =
  <A extends unknown[]>(action: (...args: A) => Promise<number> | number) =>
  async (...args: A): Promise<void> => {
    exitCode = await action(...args)
  }

/** The same for a command that changes nothing: there is nothing to tidy up, and nothing to wait for. */
const look = <A extends unknown[]>(action: (...args: A) => Promise<number> | number) =>
  run((...args: A) => unlessAborted(abort.signal, Promise.resolve(action(...args))))

command('up', 'bring a lab up, or change it to what its file now says')
  .argument(...labArgument)
  .addOption(withProvider)
  .addOption(asJson)
  .addOption(withEvents)
  .addOption(withWait)
  .addOption(withYes)
  .action(
    run(async (lab: string, options: Options) => (await import('./commands/up.js')).up(lab, options, io)),
  )

command('down', 'end a lab, with its disks, and see that nothing is left')
  .argument(...labArgument)
  .addOption(asJson)
  .addOption(withWait)
  .action(
    run(async (lab: string, options: Options) => (await import('./commands/down.js')).down(lab, options, io)),
  )

command('stop', 'switch the machines off; disks stay')
  .argument(...labArgument)
  .addOption(asJson)
  .addOption(withWait)
  .action(
    run(async (lab: string, options: Options) => (await import('./commands/down.js')).stop(lab, options, io)),
  )

command('start', 'switch the machines of a stopped lab on again')
  .argument(...labArgument)
  .addOption(asJson)
  .addOption(withEvents)
  .addOption(withWait)
  .action(
    run(async (lab: string, options: Options) => (await import('./commands/up.js')).start(lab, options, io)),
  )

command('run', 'break a lab on purpose, and say what it lost and how long it took')
  .argument(...labArgument)
  .argument('[scenarios...]', 'names of scenarios of the lab file')
  .option('--all', 'every scenario of the lab file, one after the other, in one report')
  .option('--on <lab>', 'the machines of another lab that is up, instead of its own: for experiments')
  .option('--fence', 'switch a node that went off for certain, then let it be replaced (as fencing: power)')
  .addOption(asJson)
  .addOption(withWait)
  .action(
    run(
      async (
        lab: string,
        scenarios: string[],
        options: Options & { all?: boolean; fence?: boolean; on?: string },
      ) => (await import('./commands/run.js')).run(lab, scenarios, options, io),
    ),
  )

command('heal', 'undo the faults of a run that was killed, and bring the lab back')
  .argument(...labArgument)
  .addOption(asJson)
  .addOption(withEvents)
  .addOption(withWait)
  .action(
    run(async (lab: string, options: Options) => (await import('./commands/run.js')).heal(lab, options, io)),
  )

command('report', 'the report of the last run of scenarios')
  .argument(...labArgument)
  .option('--compare <runs...>', 'two folders of runs, in one table')
  .addOption(asJson)
  .action(
    run(async (lab: string, options: Options & { compare?: string[] }) =>
      (await import('./commands/run.js')).report(lab, options, io),
    ),
  )

command('status', 'what is there now, and where kubeconfig and ssh_config are')
  .argument(...labArgument)
  .addOption(asJson)
  .action(
    look(async (lab: string, options: Options) =>
      (await import('./commands/look.js')).status(lab, options, io),
    ),
  )

command('verify', 'ask every check of a running lab')
  .argument(...labArgument)
  .addOption(asJson)
  .addOption(withEvents)
  .action(
    run(async (lab: string, options: Options) =>
      (await import('./commands/look.js')).verify(lab, options, io),
    ),
  )

command('plan', 'what up would do now, and why')
  .argument(...labArgument)
  .addOption(withProvider)
  .addOption(asJson)
  .action(
    run(async (lab: string, options: Options) => (await import('./commands/look.js')).plan(lab, options, io)),
  )

command('list', 'the labs there are')
  .addOption(asJson)
  .action(look(async (options: Options) => (await import('./commands/look.js')).list(options, io)))

command('validate', 'check a lab file; nothing is made')
  .argument(...labArgument)
  .addOption(asJson)
  .action(
    look(async (lab: string, options: Options) =>
      (await import('./commands/files.js')).validate(lab, options, io),
    ),
  )

command('init', 'write NAME.yaml, a lab file to edit')
  .argument('<name>', 'the name of the new lab')
  .option('--from <lab>', 'start from a shipped lab')
  .option('--force', 'replace a file that is there')
  .action(
    look(async (name: string, options: Options & { from?: string; force?: boolean }) =>
      (await import('./commands/files.js')).init(name, options, io),
    ),
  )

command('render', 'write every generated file, the Vagrantfile included, into a folder')
  .argument(...labArgument)
  .argument('[folder]', 'where to; default: ./rendered')
  .addOption(withProvider)
  .addOption(asJson)
  .action(
    look(async (lab: string, folder: string | undefined, options: Options) =>
      (await import('./commands/files.js')).render(lab, folder ?? 'rendered', options, io),
    ),
  )

command('prepare', 'build and fetch, beforehand, all that a lab is made of')
  .argument('[lab]', labArgument[1], 'iscsi-ha')
  .addOption(withProvider)
  .addOption(withEvents)
  .addOption(withWait)
  .option('--prune', 'then remove what earlier versions built')
  .action(
    run(async (lab: string, options: Options & { prune?: boolean }) =>
      (await import('./commands/files.js')).prepare(lab, options, io),
    ),
  )

const boxCommand = command('box', 'boxes for Vagrant: Debian with all that a lab needs')
boxCommand
  .command('build')
  .description('build the box that machines of VirtualBox or libvirt are made of')
  .exitOverride()
  .addOption(
    new Option('--arch <name>', "the machines' processor; default: this host's").choices(['amd64', 'arm64']),
  )
  .addOption(
    new Option('--provider <name>', 'who runs the machines')
      .choices(['libvirt', 'virtualbox'])
      .default('libvirt'),
  )
  .addOption(asJson)
  .addOption(withEvents)
  .action(
    run(async (options: Options & { provider: 'libvirt' | 'virtualbox'; arch?: 'amd64' | 'arm64' }) =>
      (await import('./commands/box.js')).build(options, io),
    ),
  )

command('doctor', 'which providers work here, and what would make the others work')
  .addOption(asJson)
  .action(look(async (options: Options) => (await import('./commands/look.js')).doctor(options, io)))

command('ssh', 'a shell, or one command, on a machine')
  .argument(...labArgument)
  .argument('<machine>')
  .argument('[command...]')
  .passThroughOptions()
  .action(
    run(async (lab: string, machine: string, words: string[]) =>
      (await import('./commands/reach.js')).ssh(lab, machine, theirs(words), io),
    ),
  )

command('exec', 'a command on one machine, a role, or all')
  .argument(...labArgument)
  .argument('<who>', 'a machine, control-plane, worker, target, initiator, or all')
  .argument('<command...>')
  .addOption(asJson)
  .passThroughOptions()
  .action(
    run(async (lab: string, who: string, words: string[], options: Options) =>
      (await import('./commands/reach.js')).exec(lab, who, theirs(words), options, io),
    ),
  )

command('cp', 'copy files to and from machines: MACHINE:PATH')
  .argument(...labArgument)
  .argument('<paths...>', 'from … to')
  .action(
    run(async (lab: string, paths: string[]) => (await import('./commands/reach.js')).cp(lab, paths, io)),
  )

command('kubectl', "kubectl with the lab's kubeconfig")
  .argument(...labArgument)
  .argument('[words...]')
  .passThroughOptions()
  .action(
    run(async (lab: string, words: string[]) =>
      (await import('./commands/reach.js')).kubectl(lab, theirs(words), io),
    ),
  )

command('logs', "the end of a machine's console")
  .argument(...labArgument)
  .argument('<machine>')
  .option('-n, --lines <count>', 'how many lines', '40')
  .option('--journal', "the machine's journal instead")
  .action(
    look(async (lab: string, machine: string, options: Options & { lines: string; journal?: boolean }) =>
      (await import('./commands/look.js')).logs(lab, machine, options, io),
    ),
  )

command('forward', "a port of the lab on this host's 127.0.0.1, until Ctrl-C")
  .argument(...labArgument)
  .argument('<machine:port>')
  .option('-p, --port <port>', 'the port on this host; default: the same; 0: any')
  .addOption(asJson)
  .action(
    run(async (lab: string, where: string, options: Options & { port?: string }) =>
      (await import('./commands/reach.js')).forward(lab, where, options, io),
    ),
  )

/** Aborted when the process that started this one, and can send it messages, has ended. */
const orphaned = (): AbortSignal => {
  const gone = new AbortController()
  process.once('disconnect', () => gone.abort())
  return gone.signal
}

// Not for people: `up` starts it.
program
  .command('fencing-agent', { hidden: true })
  .argument('<lab>')
  .option('--watch', 'the agent itself, which its keeper starts')
  .action(
    run(async (lab: string, options: { watch?: boolean }) =>
      (await import('./commands/fencing-agent.js')).fencingAgent(lab, options, io, orphaned()),
    ),
  )

command('schema', 'the JSON schema of lab files').action(
  run(async () => (await import('./commands/files.js')).schema(io)),
)

command('completion', 'a completion script for a shell')
  .argument('<shell>', 'bash, zsh or fish')
  .action(
    run(async (shell: string) => (await import('./commands/completion.js')).completion(shell, program, io)),
  )

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal)
/**
 * Why what was asked for could not be written. A reader that went away (`lab list | head -1`) is no reason, and
 * neither is a terminal that was closed.
 */
let lost: Error | undefined
const onLost = (error?: NodeJS.ErrnoException | null): void => {
  if (error?.code === 'EIO') hungUp = true
  if (error && error.code !== 'EPIPE' && !(error.code === 'EIO' && process.stdout.isTTY)) lost ??= error
}
process.stdout.on('error', onLost)
process.stderr.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EIO') hungUp = true
})

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.usage
  } else {
    const [{ printError }, { wantsColor }, { LabError, systemError }] = await Promise.all([
      import('./view/errors.js'),
      import('./view/view.js'),
      import('./error.js'),
    ])
    const shown = abort.signal.aborted ? new Interrupted() : (systemError(error) ?? error)
    process.stderr.write(`${printError(shown, wantsColor(process.stderr))}\n`)
    exitCode = shown instanceof LabError ? shown.exitCode : exitCodes.failed
  }
}
// Nothing that is written to a terminal that is gone is ever said to have left.
if (hungUp) exit(exitCode)
// What is written to a pipe must have left before the process ends.
process.stdout.write('', (error) => {
  onLost(error)
  if (lost && exitCode === exitCodes.ok) {
    process.stderr.write(`✖ standard output: ${lost.message}\n`)
    exitCode = exitCodes.failed
  }
  process.stderr.write('', () => exit(exitCode))
})
