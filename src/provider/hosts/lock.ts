/** Which lab uses a host: a file on the host itself, so that two people cannot use the same one. */
import { hostFolder } from './undo-record.js'

export const lockFile = `${hostFolder}/lock`

export interface Holder {
  /** `alice@desk`, for people. */
  readonly who: string
  /** The lab and its seat. */
  readonly lab: string
  /** The lab's public key, which no other lab has. */
  readonly key: string
  /** ISO 8601. */
  readonly since: string
}

/** Undefined: the host is free. */
export const holderIn = (text: string): Holder | undefined => {
  try {
    return JSON.parse(text) as Holder
  } catch {
    return undefined
  }
}

export const holderText = ({ who, lab, since }: Holder): string =>
  `${who} has been using it for the lab ${lab} since ${since}`
