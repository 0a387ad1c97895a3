import { exitCodes, type ExitCode } from '../error.js'
import { printJson } from '../command-line/json.js'
import { asJson, type Io, type Options, type Verb } from '../command-line/verb.js'

/** Reports for each provider whether it is usable, what was tried, and what would make it usable. */
const run = async (options: Options, io: Io): Promise<ExitCode> => {
  const { allProviders } = await import('../provider/load.js')
  const { hostPackages } = await import('../parts/host.js')
  const found = await Promise.all(
    (await allProviders()).map(async (provider) => ({
      provider: provider.name,
      ...(await provider.probe(io.signal)),
    })),
  )
  const host = await hostPackages()
  const chosen = found.find(({ usable }) => usable)?.provider
  if (options.output === 'json') printJson(io, 'lab.doctor/v1', { providers: found, chosen, host })
  else {
    for (const { provider, usable, evidence, remedy } of found)
      io.stdout.write(
        `${usable ? '✔' : '✖'} ${provider.padEnd(10)}  ${usable ? 'usable' : 'not usable'}: ${evidence}\n${usable || remedy === undefined ? '' : `  to make it usable:\n${remedy.replace(/^/gm, '    ')}\n`}`,
      )
    io.stdout.write(
      chosen === undefined ? 'No provider works here.\n' : `lab up uses ${chosen} unless told otherwise.\n`,
    )
    if (host.missing.length > 0)
      io.stdout.write(`Missing on this host: ${host.missing.join(', ')}: ${host.install}\n`)
  }
  return chosen === undefined ? exitCodes.host : exitCodes.ok
}

export const verb: Verb = {
  options: [asJson],
  looks: true,
  run,
}
