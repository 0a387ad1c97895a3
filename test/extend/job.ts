import type { ReadyCheck } from '../../src/ready/ready.js'

interface Job {
  readonly status: { readonly succeeded?: number }
}

export const job: ReadyCheck = {
  title: (what) => `${what} has succeeded`,
  judge: (object) => {
    const { succeeded = 0 } = (object as Job).status
    return { ok: succeeded > 0, saw: `${String(succeeded)} succeeded` }
  },
}
