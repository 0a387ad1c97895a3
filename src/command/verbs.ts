import { line, type VerbLine } from './verb.js'

/** Every verb, in the order of `lab --help`. A new verb is a module and a line here. */
export const verbs: readonly VerbLine[] = [
  line(
    'up [options] <lab>',
    'bring a lab up, or change it to what its file now says',
    () => import('./up.js'),
  ),
  line(
    'down [options] <lab>',
    'end a lab, with its disks, and see that nothing is left',
    () => import('./down.js'),
  ),
  line('stop [options] <lab>', 'switch the machines off; disks stay', () => import('./stop.js')),
  line('start [options] <lab>', 'switch the machines of a stopped lab on again', () => import('./start.js')),
  line('snapshot [options] <lab> <name>', 'keep a copy of a whole lab', () => import('./snapshot.js')),
  line('snapshots [options] <lab>', 'the copies that are kept of a lab', () => import('./snapshots.js')),
  line(
    'restore [options] <lab> <name>',
    'put a lab back to a copy, and bring it up',
    () => import('./restore.js'),
  ),
  line(
    'power [options] <lab> <machine> <action>',
    'switch a machine on or off by hand, without telling it',
    () => import('./power.js'),
  ),
  line(
    'run [options] <lab> [scenarios...]',
    'break a lab on purpose, and say what it lost and how long it took',
    () => import('./run.js'),
  ),
  line(
    'heal [options] <lab>',
    'undo the faults of a run that was killed, and bring the lab back',
    () => import('./heal.js'),
  ),
  line('report [options] <lab>', 'the report of the last run of scenarios', () => import('./report.js')),
  line(
    'status [options] <lab>',
    'what is there now, and where kubeconfig and ssh_config are',
    () => import('./status.js'),
  ),
  line('verify [options] <lab>', 'ask every check of a running lab', () => import('./verify.js')),
  line('plan [options] <lab>', 'what up would do now, and why', () => import('./plan.js')),
  line('list [options]', 'the labs there are', () => import('./list.js')),
  line('validate [options] <lab>', 'check a lab file; nothing is made', () => import('./validate.js')),
  line('init [options] <name>', 'write NAME.yaml, a lab file to edit', () => import('./init.js')),
  line(
    'render [options] <lab> [folder]',
    'write every generated file, the Vagrantfile included, into a folder',
    () => import('./render.js'),
  ),
  line(
    'prepare [options] [lab]',
    'build and fetch, beforehand, all that a lab is made of',
    () => import('./prepare.js'),
  ),
  line(
    'hosts',
    'machines that exist already: write and check hosts.yaml, which says how they are reached',
    () => import('./hosts.js'),
  ),
  line(
    'bundle',
    'all that labs are made of, as plain files: for a room without internet',
    () => import('./bundle.js'),
  ),
  line('box', 'boxes for Vagrant: Debian with all that a lab needs', () => import('./box.js')),
  line(
    'doctor [options]',
    'which providers work here, and what would make the others work',
    () => import('./doctor.js'),
  ),
  line('ssh <lab> <machine> [command...]', 'a shell, or one command, on a machine', () => import('./ssh.js')),
  line(
    'exec [options] <lab> <who> <command...>',
    'a command on one machine, a role, or all',
    () => import('./exec.js'),
  ),
  line('cp <lab> <paths...>', 'copy files to and from machines: MACHINE:PATH', () => import('./cp.js')),
  line('kubectl <lab> [words...]', "kubectl with the lab's kubeconfig", () => import('./kubectl.js')),
  line('logs [options] <lab> <machine>', "the end of a machine's console", () => import('./logs.js')),
  line(
    'events [options] <lab>',
    'what commands and the fencing agent did to a lab',
    () => import('./events.js'),
  ),
  line(
    'forward [options] <lab> <machine:port>',
    "a port of the lab on this host's 127.0.0.1, until Ctrl-C",
    () => import('./forward.js'),
  ),
  line('fencing-agent <lab>', '', () => import('./fencing-agent.js')),
  line('schema', 'the JSON schema of lab files', () => import('./schema.js')),
  line('completion <shell>', 'a completion script for a shell', () => import('./completion.js')),
]
