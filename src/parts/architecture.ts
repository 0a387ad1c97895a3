/** The processor architectures that parts are built for, by their Debian names. */
export const architectures = ['amd64', 'arm64'] as const
export type Architecture = (typeof architectures)[number]

/** This host's architecture; undefined if it is neither, and then no boxes can be built. */
export const hostArchitecture = (): Architecture | undefined =>
  (({ x64: 'amd64', arm64: 'arm64' }) as const)[process.arch as 'x64' | 'arm64']

/** Whether one of them differs from this host's own. */
export const isForeign = (architectures: readonly Architecture[]): boolean =>
  architectures.some((architecture) => architecture !== (hostArchitecture() ?? 'amd64'))
