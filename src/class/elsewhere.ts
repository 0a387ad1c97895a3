/** The part of a class that another host keeps: `lab class` there does the work, and this is how it is asked. */
import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import { exitCodes, LabError, messageOf } from '../error.js'
import { version } from '../package.js'
import { type ClassFile, classPaths } from './class.js'
import { reasonIn } from './keeper.js'

export interface OtherHost {
  /** Its name in hosts.yaml. */
  readonly name: string
  /** Its address, which is also on the cards of its seats. */
  readonly address: string
  /**
   * Runs `lab` there as root.
   * @param input its standard input, for what others must not see
   * @param timeout seconds
   */
  readonly lab: (
    words: readonly string[],
    more: { readonly input?: string; readonly timeout: number; readonly signal: AbortSignal },
  ) => Promise<{ readonly exitCode: number; readonly stdout: string; readonly stderr: string }>
}

/** The exit code if there is no `lab`. The shell's own, 127, may come from a `lab` without Node, too. */
export const noSuchCommand = 69

/** Seconds for an answer, and for a command that makes or ends seats, or that builds parts before. */
const toAnswer = 60
const toWork = 900
const toBuild = 3600

const ask = async (
  { name, address, lab }: OtherHost,
  words: readonly string[],
  more: { readonly input?: string; readonly timeout: number; readonly signal: AbortSignal },
): Promise<string> => {
  const { exitCode, stdout, stderr } = await lab(['class', ...words], more).catch((error: unknown) => {
    more.signal.throwIfAborted()
    throw new LabError('no-answer', `${name}: ${messageOf(error)}`, {
      hint:
        (error instanceof LabError ? error.hint : undefined) ??
        'lab hosts check FILE tries each login of the file',
      exitCode: exitCodes.host,
      cause: error,
    })
  })
  if (exitCode === 0) return stdout
  if (exitCode === noSuchCommand)
    throw new LabError('no-lab-there', `${name} (${address}): there is no command lab`, {
      hint: `on ${name}, install lab ${version} with install.sh of a bundle, and: ln -s ~/lab/dist/cli.js /usr/local/bin/lab`,
      exitCode: exitCodes.host,
    })
  const hint = /^ {2}Hint: (.*)$/m.exec(stderr)?.[1]
  throw new LabError(
    'other-host',
    `${name} (${address}): lab class ${words[0] ?? ''}: ${reasonIn(stderr) || reasonIn(stdout)}`,
    {
      hint: `on ${name}: ${hint ?? 'lab class status'}`,
      exitCode: exitCodes.host,
    },
  )
}

const room = z.looseObject({ fits: z.int().min(0), version: z.string(), place: z.string() })
const joined = z.looseObject({ certificate: z.string() })

/** Where classes of a lab are kept, which is different on every host: so a host with two names is noticed. */
export const placeHere = async (lab: string): Promise<string> =>
  `${(await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()}:${classPaths(lab).root}`

/** What a host prints that is asked for its room. */
export const roomAnswer = (fits: number, place: string): string =>
  `${JSON.stringify({ version, fits, place })}\n`

/** What a host prints that has joined. */
export const joinedAnswer = (certificate: string): string => `${JSON.stringify({ certificate })}\n`

const read = <T>({ name, address }: OtherHost, schema: z.ZodType<T>, text: string): T => {
  try {
    return schema.parse(JSON.parse(text))
  } catch (error) {
    throw new LabError(
      'other-host',
      `${name} (${address}): its lab gave an answer that this one cannot read`,
      {
        hint: `on ${name}: lab --version; here it is ${version}`,
        exitCode: exitCodes.host,
        cause: error,
      },
    )
  }
}

/**
 * How many more seats fit there, and what tells that host from all others.
 * @param part the part that the host has already
 * @throws LabError `other-version`; `other-host`, also if there is another class of this lab
 */
export const roomAt = async (
  host: OtherHost,
  { from, size }: ClassFile,
  part: ClassFile | undefined,
  signal: AbortSignal,
): Promise<{ readonly fits: number; readonly place: string }> => {
  const answer = await ask(host, ['room', from, '--size', size], {
    input: part?.secret ?? '',
    timeout: toAnswer,
    signal,
  })
  const there = read(host, room, answer)
  if (there.version !== version)
    throw new LabError(
      'other-version',
      `${host.name} (${host.address}) has lab ${there.version}, and this is ${version}`,
      { hint: `install lab ${version} on ${host.name}: docs/workshop.md`, exitCode: exitCodes.host },
    )
  return { fits: there.fits, place: there.place }
}

/**
 * Makes the part of the class there, or changes it to this. Its seats come up afterwards.
 * @param source options of `lab` that say where parts come from
 * @returns the certificate of the gateway there
 */
export const joinAt = async (
  host: OtherHost,
  part: ClassFile,
  source: readonly string[],
  signal: AbortSignal,
): Promise<string> => {
  // Tokens are not arguments, which everybody there could see.
  const input = JSON.stringify(part)
  return read(host, joined, await ask(host, ['join', ...source], { input, timeout: toBuild, signal }))
    .certificate
}

/** Rebuilds the lab of a seat there, and waits for it. @returns what to tell */
export const resetAt = (
  host: OtherHost,
  { lab }: ClassFile,
  id: string,
  signal: AbortSignal,
): Promise<string> => ask(host, ['reset', id, '--lab', lab], { timeout: toWork, signal })

/** Ends the part of the class there, if there is one, and verifies that nothing is left. */
export const leaveAt = async (
  host: OtherHost,
  { lab, secret }: ClassFile,
  signal: AbortSignal,
): Promise<void> => {
  await ask(host, ['leave', '--lab', lab], { input: secret, timeout: toWork, signal })
}
