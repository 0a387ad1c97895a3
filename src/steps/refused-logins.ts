/** What a target must refuse: discovery and logins with wrong credentials, or with none. */
import {
  accessTo,
  type Chap,
  discoveryChapOf,
  initiatorsOf,
  type Lab,
  portalOf,
  type TargetSpec,
} from '../lab/lab.js'
import { sha256 } from '../machine/digest.js'
import type { Command } from '../machine/sh.js'
import type { Check, Step } from '../context.js'
import { discover, refusedByInitiator, refusedByTarget, tryLogin } from './open-iscsi.js'
import { shortName } from './target.js'

const phase = 'iscsi'

/** A password that differs from the given one. */
const otherThan = (password: string): string => `not-${sha256(`other than ${password}`).slice(0, 12)}`

/** The right name with a wrong password, so that the password is what the target refuses. */
const guessing = ({ username, password }: Chap): Chap => ({ username, password: otherThan(password) })

/** The right name and password, for an initiator that expects another password from the target. */
const doubting = (chap: Chap): Chap => ({
  ...chap,
  mutual: {
    username: chap.mutual?.username ?? '',
    password: otherThan(chap.mutual?.password ?? chap.password),
  },
})

interface Attempt {
  /** The last part of the check's id: `wrong-password`. */
  readonly name: string
  /** The check's title after the target's name: `refuses a wrong password`. */
  readonly fact: string
  readonly said: { readonly command: Command; readonly input: string }
  readonly exitCode: number
}

/** The attempts that must fail: with wrong credentials, or with none. */
const attempts = (lab: Lab, target: TargetSpec, mayLogIn: boolean): readonly Attempt[] => {
  const portal = portalOf(lab, target)
  const { iqn, chap } = target
  const discovery = discoveryChapOf(lab, target.machine)
  const login = (face: string, as: Chap | undefined): Attempt['said'] => tryLogin(iqn, portal, face, as)
  return [
    {
      name: 'discovery-with-wrong-password',
      fact: 'does not answer discovery with a wrong password',
      said: discover(portal, guessing(discovery)),
      exitCode: refusedByTarget,
    },
    {
      name: 'discovery-with-no-password',
      fact: 'does not answer discovery without CHAP',
      said: discover(portal, undefined),
      exitCode: refusedByTarget,
    },
    ...(discovery.mutual
      ? [
          {
            name: 'wrong-mutual-discovery',
            fact: 'is rejected at discovery by an initiator that expects another password from it',
            said: discover(portal, doubting(discovery)),
            exitCode: refusedByInitiator,
          },
        ]
      : []),
    ...(mayLogIn
      ? [
          {
            name: 'wrong-password',
            fact: 'refuses a wrong password',
            said: login('lab-wrong', guessing(chap)),
            exitCode: refusedByTarget,
          },
          {
            name: 'no-password',
            fact: 'refuses a login without CHAP',
            said: login('lab-open', undefined),
            exitCode: refusedByTarget,
          },
          ...(chap.mutual
            ? [
                {
                  name: 'wrong-mutual-password',
                  fact: 'is rejected by an initiator that expects another password from it',
                  said: login('lab-mutual', doubting(chap)),
                  exitCode: refusedByInitiator,
                },
              ]
            : []),
        ]
      : []),
  ]
}

const refuses = (lab: Lab, target: TargetSpec, initiator: string, attempt: Attempt): Check => ({
  id: `${shortName(lab, target)}-refuses-${attempt.name}`,
  title: `${target.iqn} ${attempt.fact}`,
  machine: initiator,
  within: 20,
  hint: `lab exec ${lab.name} ${target.machine} -- dmesg`,
  probe: async (context) => {
    const { command, input } = attempt.said
    const result = await context.machine(initiator).try(command, { input, signal: context.signal })
    const said = result.stdout.trim().split('\n').at(-1) ?? ''
    return {
      ok: result.exitCode === attempt.exitCode,
      saw: `iscsiadm exit code ${String(result.exitCode)}: ${said}`,
    }
  },
})

/** A step without apply: its checks try what the target must refuse. It needs an initiator that tries. */
export const proveRefusal = (lab: Lab, target: TargetSpec): Step | undefined => {
  const allowed = accessTo(lab, target)[0]?.initiator
  const initiator = allowed ?? initiatorsOf(lab)[0]
  const name = shortName(lab, target)
  if (!initiator) return undefined
  const [first, ...others] = attempts(lab, target, allowed !== undefined).map((attempt) =>
    refuses(lab, target, initiator.name, attempt),
  )
  return (
    first && {
      id: `prove-refusal-${name}`,
      title: `Check that ${target.iqn} refuses strangers`,
      phase,
      machine: initiator.name,
      needs: [`serve-${name}`, `prepare-initiator-${initiator.name}`],
      checks: [first, ...others],
    }
  )
}
