/**
 * What the walkthrough that this began with measured by hand, on 22 April 2018 with Kubernetes 1.10: minutes
 * and seconds between two calls of `date`.
 */
export const seedFigures: Readonly<Partial<Record<string, { readonly ms: number; readonly how: string }>>> = {
  drain: { ms: 48_000, how: 'kubectl drain, from 13:43:59 to 13:44:47' },
  'power-cut': { ms: 325_000, how: 'vagrant halt, from 13:48:29 to 13:53:54' },
}
