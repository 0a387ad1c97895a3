/** Boxes for Vagrant: `lab box build`. */
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { exitCodes, type ExitCode, LabError } from '../error.js'
import { quote } from '../machine/sh.js'
import { boxName, boxOf, hostArchitecture, prepareBox } from '../parts/parts.js'
import { needHostPackages } from '../parts/host.js'
import { type Io, type Options, printJson } from './common.js'
import { viewFor } from './viewing.js'

/** Builds the box that machines of VirtualBox or libvirt are made of, and says how it is handed out. */
export const build = async (
  options: Options & { readonly provider: 'libvirt' | 'virtualbox'; readonly arch?: string },
  io: Io,
): Promise<ExitCode> => {
  const here = hostArchitecture()
  const wanted = options.arch ?? here
  if (wanted !== here)
    throw new LabError(
      'other-architecture',
      `a box for ${wanted ?? ''} is built on a computer with such a processor; this one is ${here ?? process.arch}`,
      {
        hint: `there: lab box build --provider ${options.provider}; then copy its two files here`,
        exitCode: exitCodes.host,
      },
    )
  const view = viewFor(io, options)
  try {
    const preparation = {
      signal: io.signal,
      notice: (text: string) => view.notice(text),
      progress: view.part.bind(view),
    }
    if (!boxOf(options.provider).built) await needHostPackages(preparation)
    const { version, box, metadata, checksum } = await prepareBox(options.provider, preparation)
    await view.close()
    const { size } = await stat(box)
    if (options.output === 'json')
      printJson(io, 'lab.box/v1', {
        name: boxName,
        version,
        provider: options.provider,
        architecture: here,
        box,
        metadata,
        bytes: size,
        sha256: checksum,
      })
    else
      io.stdout.write(
        [
          `${boxName} ${version} for ${options.provider} on ${here ?? ''}, ${(size / 1024 ** 3).toFixed(2)} GiB`,
          `  ${box}`,
          `  ${metadata}`,
          `  sha256 ${checksum}`,
          'lab up takes it by itself. On another computer, with these two files in one folder:',
          `  vagrant box add ${quote(metadata.slice(dirname(metadata).length + 1))}`,
          '',
        ].join('\n'),
      )
    return exitCodes.ok
  } finally {
    await view.close()
  }
}
