/** Secrets of a hosts.yaml, which only says where they come from, and the power switches of its hosts. */
import { z } from 'zod'
import { shown } from './suggest.js'

/** Where a password comes from: typed at the terminal, or in an environment variable. */
export type PasswordSource =
  { readonly from: 'terminal' } | { readonly from: 'variable'; readonly name: string }

export const passwordPattern = /^(?:ask|\$[A-Za-z_][A-Za-z0-9_]*)$/

export const sourceOf = (written: string | undefined): PasswordSource | undefined =>
  written === undefined
    ? undefined
    : written === 'ask'
      ? { from: 'terminal' }
      : { from: 'variable', name: written.slice(1) }

/** The power switch of a machine: one of Debian's fence-agents, with its options by the names of its manual page. */
export interface PowerSpec {
  /** `fence_redfish` */
  readonly agent: string
  readonly options: Readonly<Record<string, string>>
  /** Options whose values are secret. */
  readonly secrets: Readonly<Record<string, PasswordSource>>
}

/** Options of fence-agents whose values are secret: `password`, `snmp-priv-passwd`. */
const isSecretOption = (name: string): boolean => /pass(?:wd|word)|secret|token/.test(name)

export const power = z
  .record(
    z.string(),
    z.union([z.string(), z.number(), z.boolean()], { error: 'a word, a number, true or false' }),
    {
      error: 'a mapping: agent, and its options',
    },
  )
  .check((context) => {
    const problem = (name: string, message: string): void => {
      context.issues.push({ code: 'custom', message, path: [name], input: context.value })
    }
    const { agent } = context.value
    if (typeof agent !== 'string' || !/^fence_[a-z0-9_]+$/.test(agent))
      problem(
        'agent',
        `${shown(String(agent ?? ''))}: expected one of Debian's fence-agents, such as fence_redfish`,
      )
    for (const [name, value] of Object.entries(context.value))
      if (name === 'action') problem(name, 'is set by lab itself; remove it')
      else if (!/^[a-z][a-z0-9_-]*$/.test(name) || /[\n=]/.test(name) || String(value).includes('\n'))
        problem(name, `${shown(name)}: expected an option of the agent, such as ip`)
      else if (isSecretOption(name) && !passwordPattern.test(String(value)))
        problem(
          name,
          'a password does not belong in this file; write `ask`, or the name of an environment variable with a leading `$`, such as $BMC_PASSWORD',
        )
  })
  .meta({
    description:
      "The power switch: `agent` is one of Debian's fence-agents, such as fence_redfish; all other fields are its options.",
  })

export const powerOf = (
  written: Readonly<Record<string, string | number | boolean>> | undefined,
): PowerSpec | undefined => {
  if (!written) return undefined
  const { agent, ...options } = written
  const secret = ([name]: readonly [string, unknown]): boolean => isSecretOption(name)
  const all = Object.entries(options).map(([name, value]) => [name, String(value)] as const)
  return {
    agent: String(agent),
    options: Object.fromEntries(all.filter((option) => !secret(option))),
    secrets: Object.fromEntries(
      all.filter(secret).flatMap(([name, value]) => {
        const source = sourceOf(value)
        return source ? [[name, source] as const] : []
      }),
    ),
  }
}
