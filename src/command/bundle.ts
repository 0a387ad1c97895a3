import { Option } from 'commander'
import { once } from 'node:events'
import { resolve } from 'node:path'
import { damageOf } from '../bundle/check.js'
import { makeBundle, openFolder, type WantedPart } from '../bundle/make.js'
import { addProgram } from '../bundle/program.js'
import { ownMaker, trustMaker } from '../bundle/makers.js'
import { storedBytes } from '../bundle/manifest.js'
import { bundleServer } from '../bundle/serve.js'
import { openBundle, sourceOf } from '../bundle/source.js'
import { exitCodes, type ExitCode, LabError } from '../error.js'
import { quote } from '../machine/sh.js'
import { chooseProvider } from '../provider/load.js'
import { prepareParts } from '../lifecycle/parts.js'
import { printJson } from '../command-line/json.js'
import { loadLab } from '../lifecycle/load-lab.js'
import { listenAddress, listenAt, reachableAt } from '../listen.js'
import {
  asJson,
  type Io,
  line,
  type Options,
  type Verb,
  type VerbLine,
  withEvents,
} from '../command-line/verb.js'
import { preparationOf, viewFor } from '../command-line/with-lab.js'

const mebibytes = (bytes: number): string => `${(bytes / 1024 ** 2).toFixed(0)} MiB`

const make = async (
  names: readonly string[],
  options: Options & { readonly into: string },
  io: Io,
): Promise<ExitCode> => {
  const started = Date.now()
  const into = resolve(options.into)
  const view = viewFor(io, options)
  try {
    // Before the parts, which may take long.
    await openFolder(into)
    const maker = await ownMaker()
    const parts = new Map<string, WantedPart>()
    const labs: string[] = []
    for (const name of names) {
      const lab = await loadLab(name)
      const provider = await chooseProvider('uml', lab, io.signal)
      await prepareParts(lab, provider, { ...options, ask: io.ask }, preparationOf(io, view))
      for (const part of (await provider.machines?.parts?.(lab)) ?? []) parts.set(part.key, part)
      labs.push(lab.name)
    }
    let saying = ''
    const { manifest, bytes } = await makeBundle(into, {
      labs,
      parts: [...parts.values()],
      maker,
      addProgram,
      signal: io.signal,
      tell: (title) => {
        if (title !== saying) view.notice(title)
        saying = title
      },
    })
    await view.close()
    const seconds = (Date.now() - started) / 1000
    if (options.output === 'json')
      printJson(io, 'lab.bundle-made/v1', {
        folder: into,
        maker: maker.fingerprint,
        labs,
        parts: manifest.parts.map(({ key }) => key),
        bytes,
        seconds,
      })
    else
      io.stdout.write(
        [
          `${into} has everything that ${labs.join(', ')} ${labs.length === 1 ? 'is' : 'are'} made of: ${mebibytes(bytes)}, made in ${seconds.toFixed(0)} s`,
          ...manifest.parts.map((part) => `  ${part.title}, ${mebibytes(storedBytes([part]))}`),
          `  lab ${manifest.version} and its npm packages, ${mebibytes(manifest.program.reduce((sum, { size }) => sum + size, 0))}`,
          `  maker ${maker.fingerprint}`,
          'Give the maker’s line to the people who take the bundle: they compare it once. In the room:',
          `  lab bundle serve ${quote(into)} --listen 0.0.0.0:8080`,
          'or copy the folder to a USB stick, and there:',
          `  lab up ${labs[0] ?? ''} --from FOLDER`,
          'On a computer that has Node but no lab yet:',
          '  sh FOLDER/lab/install.sh',
          '',
        ].join('\n'),
      )
    return exitCodes.ok
  } finally {
    await view.close()
  }
}

const serve = async (
  folder: string,
  options: Options & { readonly listen: string },
  io: Io,
): Promise<ExitCode> => {
  const source = await sourceOf(folder)
  if (source.remote)
    throw new LabError('bad-source', `${folder}: a bundle is served from a folder`, {
      exitCode: exitCodes.usage,
    })
  const { manifest, fingerprint } = await openBundle(source, io.signal)
  const { host, port } = listenAddress(options.listen)
  const server = bundleServer(source.name, manifest, (told) => io.stderr.write(`${told}\n`))
  const open = await listenAt(
    server,
    { host, port },
    'lab bundle serve FOLDER --listen 127.0.0.1:0 takes any port that is free',
  )
  const at = reachableAt(host).map(
    (name) => `http://${name.includes(':') ? `[${name}]` : name}:${String(open)}`,
  )
  io.stdout.write(
    [
      `Serving ${source.name} at ${options.listen.includes(':') ? host : '127.0.0.1'}, port ${String(open)}, until Ctrl-C`,
      ...at.map((url) => `  lab up ${manifest.labs[0] ?? 'LAB'} --from ${url}`),
      `  maker ${fingerprint}`,
      '',
    ].join('\n'),
  )
  if (!io.signal.aborted) await once(io.signal, 'abort')
  server.close()
  server.closeAllConnections()
  return exitCodes.ok
}

const check = async (where: string, options: Options, io: Io): Promise<ExitCode> => {
  const source = await sourceOf(where)
  const { manifest, fingerprint } = await openBundle(source, io.signal)
  await trustMaker(fingerprint, source.name, { given: options.maker, ask: io.ask })
  const damage = await damageOf(source, manifest, io.signal)
  const bytes = storedBytes(manifest.parts)
  if (options.output === 'json')
    printJson(io, 'lab.bundle-check/v1', {
      source: source.name,
      maker: fingerprint,
      version: manifest.version,
      made: manifest.made,
      labs: manifest.labs,
      parts: manifest.parts.map(({ key, title }) => ({ key, title })),
      bytes,
      damage,
    })
  else
    io.stdout.write(
      [
        `${source.name}: ${manifest.labs.join(', ')}, by lab ${manifest.version} on ${manifest.made}, maker ${fingerprint}`,
        ...manifest.parts.map((part) => `  ${part.title} (${part.key}), ${mebibytes(storedBytes([part]))}`),
        ...damage,
        damage.length === 0
          ? `All of its ${mebibytes(bytes)} are intact.`
          : `${String(damage.length)} of its files are damaged or missing.`,
        '',
      ].join('\n'),
    )
  return damage.length === 0 ? exitCodes.ok : exitCodes.failed
}

const bundleMeaning = 'the folder of a bundle'

export const verbs: readonly VerbLine[] = [
  line('make [options] <labs...>', 'put everything that labs are made of into a folder, and sign it', () =>
    Promise.resolve({
      verb: {
        words: { labs: 'shipped names (lab list), or paths of lab files' },
        options: [
          new Option('--into <folder>', 'where the bundle is made').makeOptionMandatory(),
          asJson,
          withEvents,
        ],
        run: make,
      } satisfies Verb,
    }),
  ),
  line('serve [options] <bundle>', 'offer a bundle to other computers, until Ctrl-C', () =>
    Promise.resolve({
      verb: {
        words: { bundle: bundleMeaning },
        options: [
          new Option('--listen <address:port>', '0.0.0.0:8080: everybody in the network').default(
            '127.0.0.1:8080',
          ),
        ],
        run: serve,
      } satisfies Verb,
    }),
  ),
  line('check [options] <bundle>', 'check that a bundle is complete, and show who made it', () =>
    Promise.resolve({
      verb: {
        words: { bundle: 'the folder or URL of a bundle' },
        options: [
          asJson,
          new Option('--maker <fingerprint>', 'the maker of the bundle, as lab bundle make printed it'),
        ],
        looks: true,
        run: check,
      } satisfies Verb,
    }),
  ),
]
