import { line, type VerbLine } from '../command-line/verb.js'

/** Every verb, in the order of `lab --help`. A new verb is a module and a line here. */
export const verbs: readonly VerbLine[] = [
  line(
    'up [options] <lab>',
    'bring a lab up, or update a running one to match its file',
    () => import('./up.js'),
  ),
  line(
    'down [options] <lab>',
    'remove a lab with its disks, and verify that nothing is left',
    () => import('./down.js'),
  ),
  line('stop [options] <lab>', 'shut the machines down; disks are kept', () => import('./stop.js')),
  line('start [options] <lab>', 'start the machines of a stopped lab', () => import('./start.js')),
  line('snapshot [options] <lab> <name>', 'save a snapshot of a whole lab', () => import('./snapshot.js')),
  line('snapshots [options] <lab>', 'list the snapshots of a lab', () => import('./snapshots.js')),
  line(
    'restore [options] <lab> <name>',
    'restore a lab from a snapshot, and bring it up',
    () => import('./restore.js'),
  ),
  line(
    'power [options] <lab> <machine> <action>',
    'switch one machine on or off, without an orderly shutdown',
    () => import('./power.js'),
  ),
  line(
    'run [options] <lab> [scenarios...]',
    'break a lab on purpose, and report what was lost and how long recovery took',
    () => import('./run.js'),
  ),
  line(
    'heal [options] <lab>',
    'undo the faults of a run that was killed, and repair the lab',
    () => import('./heal.js'),
  ),
  line(
    'watch [options] <lab>',
    'record what a person does to a lab, until Ctrl-C, and say what was lost',
    () => import('./watch.js'),
  ),
  line(
    'learn [options] <lab> [exercise]',
    'exercises: what is to be done, whether it is done, and hints',
    () => import('./learn.js'),
  ),
  line('report [options] <lab>', 'show the report of the last run', () => import('./report.js')),
  line(
    'status [options] <lab>',
    'show the state of a lab, and where kubeconfig and ssh_config are',
    () => import('./status.js'),
  ),
  line('verify [options] <lab>', 'run every check on a running lab', () => import('./verify.js')),
  line('plan [options] <lab>', 'show what lab up would do now, and why', () => import('./plan.js')),
  line('list [options]', 'list all labs', () => import('./list.js')),
  line('validate [options] <lab>', 'check a lab file without making anything', () => import('./validate.js')),
  line('init [options] <name>', 'write NAME.yaml, a lab file to edit', () => import('./init.js')),
  line(
    'render [options] <lab> [folder]',
    'write every generated file, the Vagrantfile included, into a folder',
    () => import('./render.js'),
  ),
  line(
    'prepare [options] [lab]',
    'build and fetch the parts of a lab in advance',
    () => import('./prepare.js'),
  ),
  line(
    'hosts',
    'use machines that exist already: write and check hosts.yaml, which says how to reach them',
    () => import('./hosts.js'),
  ),
  line(
    'class',
    'give each student a seat on this host, with cards, terminals in browsers and a board',
    () => import('./class.js'),
  ),
  line(
    'bundle',
    'put everything that labs are made of into plain files, for a room without internet',
    () => import('./bundle.js'),
  ),
  line('box', 'build boxes for Vagrant: Debian with everything that a lab needs', () => import('./box.js')),
  line(
    'doctor [options]',
    'say which providers work here, and what the others lack',
    () => import('./doctor.js'),
  ),
  line(
    'ssh <lab> <machine> [command...]',
    'open a shell or run one command on a machine',
    () => import('./ssh.js'),
  ),
  line(
    'exec [options] <lab> <who> <command...>',
    'run a command on one machine, a role, or all',
    () => import('./exec.js'),
  ),
  line('cp <lab> <paths...>', 'copy files to and from machines: MACHINE:PATH', () => import('./cp.js')),
  line('kubectl <lab> [words...]', "run kubectl with the lab's kubeconfig", () => import('./kubectl.js')),
  line('logs [options] <lab> <machine>', "print the end of a machine's console", () => import('./logs.js')),
  line(
    'events [options] <lab>',
    'print what commands and the fencing agent did to a lab',
    () => import('./events.js'),
  ),
  line(
    'forward [options] <lab> <machine:port>',
    "forward a port of the lab to this host's 127.0.0.1, until Ctrl-C",
    () => import('./forward.js'),
  ),
  line('fencing-agent <lab>', '', () => import('./fencing-agent.js')),
  line('fencing-keeper <lab>', '', () => import('./fencing-keeper.js')),
  line('schema', 'print the JSON Schema of lab files', () => import('./schema.js')),
  line('completion <shell>', 'print a completion script for a shell', () => import('./completion.js')),
]
