/** Boxes for Vagrant: `lab box build`. */
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { exitCodes, type ExitCode } from '../error.js'
import { quote } from '../machine/sh.js'
import { type Architecture, boxName, boxOf, hostArchitecture, prepareBox } from '../parts/parts.js'
import { needHostPackages } from '../parts/host.js'
import { type Io, type Options, printJson } from './common.js'
import { viewFor } from './viewing.js'

/** Builds the box that machines of VirtualBox or libvirt are made of, and says how it is handed out. */
export const build = async (
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
            ? 'lab up takes it by itself. On another computer, with these two files in one folder:'
            : `It is of use on a computer with a processor of ${architecture}. There, with these two files in one folder:`,
          `  vagrant box add ${quote(metadata.slice(dirname(metadata).length + 1))}`,
          '',
        ].join('\n'),
      )
    return exitCodes.ok
  } finally {
    await view.close()
  }
}
