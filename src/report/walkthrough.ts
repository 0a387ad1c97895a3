type Figures = Readonly<Partial<Record<string, { readonly ms: number; readonly how: string }>>>

/**
 * The measurements of the original walkthrough, made by hand on 22 April 2018 with Kubernetes 1.10: minutes and
 * seconds between two calls of `date`.
 */
const onLun: Figures = {
  drain: { ms: 48_000, how: 'kubectl drain, from 13:43:59 to 13:44:47' },
  'power-cut': { ms: 325_000, how: 'vagrant halt, from 13:48:29 to 13:53:54' },
}

/**
 * The measurements of the text about high availability, with the data on EFS, which is NFS: between two calls of
 * `date`.
 */
const onShare: Figures = {
  'power-cut': { ms: 124_000, how: 'a node stopped on EC2, from 11:49:08 to 11:51:12' },
}

/** The measurement of a walkthrough for a fault, with the data on such a volume. */
export const walkthroughFigure = (volume: 'lun' | 'claim' | undefined, fault: string) =>
  volume === undefined ? undefined : { lun: onLun, claim: onShare }[volume][fault]
