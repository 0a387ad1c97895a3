import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { execa } from 'execa'
import { onTestFinished } from 'vitest'
import { shipped } from '../helpers/shipped.js'

/** The real programs that these tests run; Debian's vagrant depends on ruby. */
const programs = ['vagrant', 'ruby'] as const

const missing = programs.filter(
  (name) => !(process.env['PATH'] ?? '').split(delimiter).some((folder) => existsSync(join(folder, name))),
)

const plugin = '/usr/share/vagrant-plugins/plugins.d/vagrant-libvirt.json'

/** On a developer's machine, tests are skipped without Vagrant; in CI they fail instead, through `needVagrant`. */
export const skipWithoutVagrant = missing.length > 0 && process.env['CI'] !== 'true'

/** Debian packages the plugin as well. `vagrant plugin install` would put it elsewhere, and takes minutes. */
export const skipWithoutPlugin = !existsSync(plugin) && process.env['CI'] !== 'true'

if (skipWithoutVagrant || skipWithoutPlugin)
  console.warn(
    'Left out: what needs vagrant and vagrant-libvirt. apt-get install -y --no-install-recommends vagrant vagrant-libvirt',
  )

export const needVagrant = (): void => {
  if (missing.length > 0)
    throw new Error(
      `${missing.join(' and ')} not found: .ci/run has to install it: apt-get install -y --no-install-recommends vagrant vagrant-libvirt`,
    )
}

export const temporaryFolder = async (): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'lab-vagrant-test-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** A folder with a Vagrantfile, and a home folder that Vagrant may write to. */
export const vagrantFolder = async (vagrantfile: string): Promise<string> => {
  const folder = await temporaryFolder()
  await mkdir(join(folder, 'home'))
  await writeFile(join(folder, 'Vagrantfile'), vagrantfile)
  return folder
}

/** A developer's own settings must not have an effect. */
const neutral = {
  LAB_BOX: undefined,
  LAB_EMULATE: undefined,
  VAGRANT_DEFAULT_PROVIDER: undefined,
  VAGRANT_DOTFILE_PATH: undefined,
  VAGRANT_CHECKPOINT_DISABLE: '1',
  VAGRANT_NO_COLOR: '1',
}

export interface Outcome {
  readonly exitCode: number | undefined
  readonly output: string
}

export const run = async (
  folder: string,
  command: readonly [string, ...string[]],
  env: Readonly<Record<string, string>> = {},
): Promise<Outcome> => {
  const [program, ...args] = command
  const { exitCode, all } = await execa(program, args, {
    cwd: folder,
    reject: false,
    all: true,
    stdin: 'ignore',
    timeout: 60_000,
    env: { ...neutral, HOME: join(folder, 'home'), ...env },
  })
  return { exitCode, output: all }
}

/** Until the test ends. */
export const setEnvironment = (values: Readonly<Record<string, string>>): void => {
  const before = Object.keys(values).map((name) => [name, process.env[name]] as const)
  Object.assign(process.env, values)
  onTestFinished(() => {
    for (const [name, value] of before) {
      if (value === undefined) Reflect.deleteProperty(process.env, name)
      else process.env[name] = value
    }
  })
}

/** A folder with a test's own programs. Each is the body of a shell script. */
const folderOf = async (scripts: Readonly<Record<string, string>>): Promise<string> => {
  const folder = await temporaryFolder()
  for (const [name, body] of Object.entries(scripts))
    await writeFile(join(folder, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 })
  return folder
}

/** Only these programs can be found until the test ends. */
export const onlyPrograms = async (scripts: Readonly<Record<string, string>>): Promise<void> => {
  setEnvironment({ PATH: await folderOf(scripts) })
}

/** These programs are found before any others until the test ends. */
export const firstPrograms = async (scripts: Readonly<Record<string, string>>): Promise<void> => {
  setEnvironment({ PATH: `${await folderOf(scripts)}${delimiter}${process.env['PATH'] ?? ''}` })
}

const kinds = ['virtualbox', 'libvirt'] as const

/** Every shipped lab, with either provider. */
export const both = shipped.flatMap(({ name }) => kinds.map((kind) => ({ name, kind })))

/** A call that the Vagrantfile made to Vagrant, with the calls in its block. Symbols are `:name`. */
export interface Call {
  readonly name: string
  readonly args: readonly unknown[]
  readonly options: Readonly<Record<string, unknown>>
  readonly calls: readonly Call[]
}

export interface Evaluated {
  readonly lab: unknown
  readonly netmask: unknown
  readonly machines: readonly Readonly<Record<string, unknown>>[]
  readonly calls: readonly Call[]
}

/** Records every call instead of making machines; the record is printed as JSON. */
const stub = String.raw`
require 'json'

class Recorder < BasicObject
  def initialize(calls) = @calls = calls

  def method_missing(name, *args, **options, &block)
    inner = []
    args = args.map { |arg| ::Array === arg ? arg.map { |item| ::Recorder.plain(item) } : ::Recorder.plain(arg) }
    @calls << { name: name, args: args, options: options, calls: inner }
    # A provider's block takes a second one, for what it overrides outside of itself.
    block&.call(::Recorder.new(inner), ::Recorder.new(inner))
    ::Recorder.new(inner)
  end

  def self.plain(value) = ::Symbol === value ? ":#{value}" : value
end

CALLS = []

module Vagrant
  def self.require_version(*) = nil
  def self.configure(_) = yield(Recorder.new(CALLS))
end

load 'Vagrantfile'
puts JSON.generate(lab: LAB, netmask: NETMASK, machines: MACHINES, calls: CALLS)
`

/** Runs the Vagrantfile of the folder in Ruby, with a Vagrant that only records. */
export const evaluate = async (
  folder: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Evaluated> => {
  await writeFile(join(folder, 'stub.rb'), stub)
  const { exitCode, output } = await run(folder, ['ruby', '-W0', 'stub.rb'], env)
  if (exitCode !== 0) throw new Error(`ruby failed: ${output}`)
  return JSON.parse(output) as Evaluated
}

const within = (calls: readonly Call[], name: string): readonly Call[] =>
  calls.flatMap((call) => [...(call.name === name ? [call] : []), ...within(call.calls, name)])

/** The calls made inside `config.vm.define MACHINE` and, with a provider, inside that provider's block there. */
export const callsFor = (evaluated: Evaluated, machine: string, provider?: string): readonly Call[] => {
  const block = within(evaluated.calls, 'define').find(({ args }) => args[0] === machine)
  if (!block) throw new Error(`the Vagrantfile defines no ${machine}`)
  if (provider === undefined) return block.calls.flatMap(({ calls }) => calls)
  return within(block.calls, 'provider')
    .filter(({ args }) => args[0] === `:${provider}`)
    .flatMap(({ calls }) => calls)
}

/** `cpus=` to its value, for calls that set something. */
export const settings = (calls: readonly Call[]): Readonly<Record<string, unknown>> =>
  Object.fromEntries(
    calls.filter(({ name }) => name.endsWith('=')).map(({ name, args }) => [name.slice(0, -1), args[0]]),
  )

/** The VBoxManage command lines, each as one text. */
export const customizations = (calls: readonly Call[]): readonly string[] =>
  calls.filter(({ name }) => name === 'customize').map(({ args }) => (args[0] as unknown[]).join(' '))
