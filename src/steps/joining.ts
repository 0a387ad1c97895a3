/** What a machine needs to join a cluster, as a worker or as a control plane: a token, and the cluster's authority. */
import { apiAddressOf } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import { render } from '../render.js'
import { pathsOf, secretsOf } from '../state.js'
import { apply } from './checks.js'

/** Milliseconds for which a bootstrap token is valid. */
const tokenLife = 3_600_000

/** The Secret of a bootstrap token, which lets a machine join until it expires. @param token `ID.SECRET` */
export const bootstrapTokenManifest = (token: string, now = Date.now()): string => {
  const [id = '', secret = ''] = token.split('.')
  return render('manifests/bootstrap-token.yaml', {
    id,
    secret,
    expiration: new Date(now + tokenLife).toISOString(),
  })
}

/**
 * Prepares a machine for kubeadm join: renews the bootstrap token, which expires so that nobody can join with it for
 * ever, undoes what an interrupted run left, and brings the cluster's authority.
 * @param via a control plane
 */
export const prepareJoin = async (context: Context, name: string, via: string): Promise<void> => {
  const { lab, signal } = context
  const there = context.machine(name)
  await apply(context, bootstrapTokenManifest((await secretsOf(pathsOf(lab))).bootstrapToken))
  await there.run(shell`test ! -e /etc/kubernetes/kubelet.conf || kubeadm reset --force`, {
    timeout: 120,
    signal,
  })
  const authority = await context.machine(via).run(shell`base64 -w0 /etc/kubernetes/pki/ca.crt`)
  const clusterInfo = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name: '',
        cluster: {
          server: `https://${apiAddressOf(lab)}:6443`,
          'certificate-authority-data': authority,
        },
      },
    ],
  }
  await there.write('/etc/lab/cluster-info.yaml', { content: JSON.stringify(clusterInfo), mode: 0o600 })
}
