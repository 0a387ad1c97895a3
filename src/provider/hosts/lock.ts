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

/** Undefined: the text names nobody, because there is no lock or because it is damaged. */
export const holderIn = (text: string): Holder | undefined => {
  try {
    const holder = JSON.parse(text) as Partial<Record<keyof Holder, unknown>> | null
    const fields = [holder?.who, holder?.lab, holder?.key, holder?.since]
    return fields.every((field) => typeof field === 'string') ? (holder as Holder) : undefined
  } catch {
    return undefined
  }
}

export const holderText = ({ who, lab, since }: Holder): string =>
  `${who} has been using it for the lab ${lab} since ${since}`
