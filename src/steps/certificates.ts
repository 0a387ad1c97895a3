/**
 * Certificates: how long they are valid, and their renewal. All but the authorities' are valid for a year; a running
 * kubelet renews its own, and nothing renews the others. In a lab that was off for a year, all have expired.
 */
import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { Lab, MachineSpec } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Check, Context } from '../context.js'
import type { Verdict } from '../plan/step.js'
import { pathsOf } from '../state.js'
import { eventually } from './checks.js'

/** Days of remaining validity that a certificate needs to count as good. */
export const certificateMargin = 30

const day = 86_400_000

/** A certificate and its file. */
interface Kept {
  readonly file: string
  readonly certificate: X509Certificate
}

/** Parses `== FILE` followed by its certificates, as `show` prints them. */
const keptIn = (output: string): readonly Kept[] =>
  output.split(/^== /m).flatMap((part) => {
    const [file = '', ...lines] = part.split('\n')
    const blocks = lines.join('\n').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
    return blocks.map((text) => ({ file, certificate: new X509Certificate(text) }))
  })

const daysLeft = ({ certificate }: Kept, now: number): number =>
  Math.floor((new Date(certificate.validTo).getTime() - now) / day)

const subjectOf = ({ certificate }: Kept): string => certificate.subject.split('\n').at(-1) ?? ''

/**
 * @param wanted the least number of certificates
 * @param now milliseconds since 1970
 */
export const judgeCertificates = (output: string, wanted: number, now = Date.now()): Verdict => {
  const all = [...keptIn(output)].sort((a, b) => daysLeft(a, now) - daysLeft(b, now))
  const [first] = all
  if (!first || all.length < wanted)
    return { ok: false, saw: `${String(all.length)} certificates; there should be ${String(wanted)}` }
  const days = daysLeft(first, now)
  const ends = `${subjectOf(first)} of ${first.file} ${days < 0 ? `expired ${String(-days)} days ago` : `expires in ${String(days)} days`}`
  const ok = days >= certificateMargin
  return {
    ok,
    saw: `${String(all.length)} certificates; first to expire: ${ends}`,
    // Everything an authority signed expires with it: nothing is left to sign a renewal.
    ...(!ok && first.certificate.ca ? { final: true } : {}),
  }
}

/** Prints the certificates in files and kubeconfigs, without any key. */
const show = (files: readonly string[]) =>
  shell`for file in ${files}; do for one in $file; do test -e "$one" || continue; echo "== $one"; sed -n '/BEGIN CERTIFICATE/,/END CERTIFICATE/p' "$one"; sed -n 's/ *client-certificate-data: //p' "$one" | base64 -d; done; done`

const authorities = '/etc/kubernetes/pki'
const kubeconfigs = ['admin', 'super-admin', 'controller-manager', 'scheduler'].map(
  (name) => `/etc/kubernetes/${name}.conf`,
)
const kubeletCertificate = '/var/lib/kubelet/pki/kubelet-client-current.pem'
const kubeletFiles = ['/var/lib/kubelet/pki/kubelet.crt', kubeletCertificate, '/etc/kubernetes/kubelet.conf']

const look = async (context: Context, machine: string, files: readonly string[]): Promise<string> =>
  context.machine(machine).run(show(files), { signal: context.signal, timeout: 30 })

/**
 * All but the kubelets': what kubeadm makes for a control plane, 7 certificates, three authorities, and 4 kubeconfigs.
 * Of several control planes only the one that was first has super-admin.conf.
 */
const controlPlaneGood = async (context: Context, machine: string): Promise<Verdict> =>
  judgeCertificates(
    await look(context, machine, [`${authorities}/*.crt`, `${authorities}/etcd/*.crt`, ...kubeconfigs]),
    context.lab.kubernetes?.endpoint === undefined ? 14 : 13,
  )

const kubeletGood = async (context: Context, machine: string): Promise<Verdict> => {
  const output = await look(context, machine, kubeletFiles)
  if (keptIn(output).some(({ file }) => file.endsWith('kubelet.conf')))
    return { ok: false, saw: 'kubelet.conf contains a certificate that its kubelet does not renew' }
  return judgeCertificates(output, 2)
}

const hostGood = async (lab: Lab): Promise<Verdict> => {
  const file = pathsOf(lab).kubeconfig
  const [, data = ''] = /client-certificate-data: (\S+)/.exec(await readFile(file, 'utf8')) ?? []
  return judgeCertificates(`== ${file}\n${Buffer.from(data, 'base64').toString()}`, 1)
}

const good = `valid for at least ${String(certificateMargin)} days`

/** @param id of the check */
export const controlPlaneCertificates = (lab: Lab, { name }: MachineSpec, id = 'certificates'): Check => ({
  id,
  title: `every certificate of the control plane ${id === 'certificates' ? '' : `${name} `}is ${good}`,
  machine: name,
  within: 20,
  hint: `lab up ${lab.name}`,
  probe: (context) => controlPlaneGood(context, name),
})

export const kubeconfigCertificate = (lab: Lab): Check => ({
  id: 'kubeconfig-certificate',
  title: `this host's kubeconfig is ${good}`,
  within: 20,
  hint: `lab up ${lab.name}`,
  probe: () => hostGood(lab),
})

export const kubeletCertificates = (lab: Lab, { name }: MachineSpec): Check => ({
  id: `${name}-kubelet-certificates`,
  title: `the certificates of ${name}'s kubelet are ${good}`,
  machine: name,
  within: 30,
  hint: `lab up ${lab.name}`,
  probe: (context) => kubeletGood(context, name),
})

/**
 * Renews the certificates of a control plane with its authorities. Its components read theirs when they start, so
 * they are ended, and the kubelet starts them again.
 * @returns whether anything was renewed
 */
export const renewControlPlane = async (context: Context, machine: string): Promise<boolean> => {
  if ((await controlPlaneGood(context, machine)).ok) return false
  await context
    .machine(machine)
    .run(
      shell`kubeadm certs renew all --config /etc/lab/kubeadm.yaml && { pkill -x 'etcd|kube-apiserver|kube-controller|kube-scheduler' || true; }`,
      { signal: context.signal, timeout: 120 },
    )
  return true
}

/**
 * Gives a node's kubelet a certificate signed by the control plane's authority: with an expired one, it is refused
 * everywhere and does not even start. This certificate is valid for a year, but the kubelet requests its own at once:
 * `keepRenewed` must follow. The file has the form that the documentation of kubeadm gives for this case.
 * @returns whether the kubelet needed one
 */
export const admitKubelet = async (
  context: Context,
  controlPlane: string,
  machine: string,
): Promise<boolean> => {
  if ((await kubeletGood(context, machine)).ok) return false
  const { signal } = context
  const content = await context
    .machine(controlPlane)
    .run(
      shell`kubeadm kubeconfig user --config /etc/lab/kubeadm.yaml --org system:nodes --client-name ${`system:node:${machine}`} 2>/dev/null`,
      { signal, timeout: 60 },
    )
  const there = context.machine(machine)
  await there.write('/etc/kubernetes/kubelet.conf', { content: `${content}\n`, mode: 0o600 }, { signal })
  // Without these files it renews its serving certificate, which clients of its logs see.
  await there.run(
    shell`rm -f /var/lib/kubelet/pki/kubelet-client* /var/lib/kubelet/pki/kubelet.crt /var/lib/kubelet/pki/kubelet.key; systemctl restart kubelet`,
    { signal, timeout: 60 },
  )
  return true
}

/** Seconds for a kubelet to request its own certificate, and for the controller manager to issue it. */
const askDeadline = 180

/** Makes a kubelet start with the certificate that it renews by itself, once it has one. */
export const keepRenewed = async (context: Context, machine: string): Promise<void> => {
  await eventually(context, askDeadline, () =>
    context
      .machine(machine)
      .run(
        shell`test -e ${kubeletCertificate} && sed -i ${`s|client-certificate-data: .*|client-certificate: ${kubeletCertificate}|; s|client-key-data: .*|client-key: ${kubeletCertificate}|`} /etc/kubernetes/kubelet.conf`,
        { signal: context.signal, timeout: 30 },
      ),
  )
}
