import { Option } from 'commander'
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { exitCodes, type ExitCode } from '../error.js'
import { quote } from '../machine/sh.js'
import { type Architecture, boxName, boxOf, hostArchitecture, prepareBox } from '../parts/parts.js'
import { needHostPackages } from '../parts/host.js'
import { viewFor } from '../command-line/with-lab.js'
import { printJson } from '../command-line/json.js'
import {
  line,
  type VerbLine,
  asJson,
  type Io,
  type Options,
  type Verb,
  withEvents,
} from '../command-line/verb.js'

/** Builds the box for VirtualBox or libvirt machines, and says how to distribute it. */
const run = async (
  options: Options & { readonly provider: 'libvirt' | 'virtualbox'; readonly arch?: Architecture },
  io: Io,
): Promise<ExitCode> => {
  const view = viewFor(io, options)
  try {
    const preparation = {
      signal: io.signal,
      notice: (text: string) => view.notice(text),
      progress: view.part.bind(view),
    }
    const { architecture, built } = boxOf(options.provider, options.arch)
    if (!built) await needHostPackages(preparation)
    const { version, box, metadata, checksum } = await prepareBox(options.provider, preparation, architecture)
    await view.close()
    const { size } = await stat(box)
    if (options.output === 'json')
      printJson(io, 'lab.box/v1', {
        name: boxName,
        version,
        provider: options.provider,
        architecture,
        box,
        metadata,
        bytes: size,
        sha256: checksum,
      })
    else
      io.stdout.write(
        [
          `${boxName} ${version} for ${options.provider} on ${architecture}, ${(size / 1024 ** 3).toFixed(2)} GiB`,
          `  ${box}`,
          `  ${metadata}`,
          `  sha256 ${checksum}`,
          architecture === hostArchitecture()
            ? 'lab up uses it automatically. On another computer, with both files in one folder:'
            : `It runs on a computer with an ${architecture} processor. There, with both files in one folder:`,
          `  vagrant box add ${quote(metadata.slice(dirname(metadata).length + 1))}`,
          '',
        ].join('\n'),
      )
    return exitCodes.ok
  } finally {
    await view.close()
  }
}

const verb: Verb = {
  options: [
    new Option('--arch <name>', "the machines' processor; default: this host's").choices(['amd64', 'arm64']),
    new Option('--provider <name>', 'the provider of the machines')
      .choices(['libvirt', 'virtualbox'])
      .default('libvirt'),
    asJson,
    withEvents,
  ],
  run,
}

export const verbs: readonly VerbLine[] = [
  line('build [options]', 'build the box for VirtualBox or libvirt machines', () =>
    Promise.resolve({ verb }),
  ),
]
