/**
 * Certificates: for how long they are good, and new ones in time. All but the authorities' are good for a year; a
 * kubelet renews its own while it runs, and nobody the others. After a year in a drawer all of them are out of date.
 */
import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { Lab, MachineSpec } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Check, Context } from '../context.js'
import type { Verdict } from '../plan/step.js'
import { pathsOf } from '../state.js'
import { eventually } from './checks.js'

/** Days before it runs out that a certificate counts as good. */
export const certificateMargin = 30

const day = 86_400_000

/** A certificate, and the file that it is in. */
interface Kept {
  readonly file: string
  readonly certificate: X509Certificate
}

/** Reads `== FILE` and the certificates behind it, as `show` prints them. */
const keptIn = (output: string): readonly Kept[] =>
  output.split(/^== /m).flatMap((part) => {
    const [file = '', ...lines] = part.split('\n')
    const blocks = lines.join('\n').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
    return blocks.map((text) => ({ file, certificate: new X509Certificate(text) }))
  })

const daysLeft = ({ certificate }: Kept, now: number): number =>
  Math.floor((new Date(certificate.validTo).getTime() - now) / day)

const subjectOf = ({ certificate }: Kept): string => certificate.subject.split('\n').at(-1) ?? ''

/** @param wanted how many there must be at least @param now milliseconds since 1970 */
export const judgeCertificates = (output: string, wanted: number, now = Date.now()): Verdict => {
  const all = [...keptIn(output)].sort((a, b) => daysLeft(a, now) - daysLeft(b, now))
  const [first] = all
  if (!first || all.length < wanted)
    return { ok: false, saw: `${String(all.length)} certificates, wanted ${String(wanted)}` }
  const days = daysLeft(first, now)
  const ends = `${subjectOf(first)} of ${first.file} ${days < 0 ? `ended ${String(-days)} days ago` : `in ${String(days)} days`}`
  const ok = days >= certificateMargin
  return {
    ok,
    saw: `${String(all.length)} certificates; first to end: ${ends}`,
    // What it signed ends with an authority: there is nobody to sign anew.
    ...(!ok && first.certificate.ca ? { final: true } : {}),
  }
}

/** Prints the certificates of files and kubeconfigs, and no key. */
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

/** All but the kubelets': what kubeadm makes for a control plane, 10 and three authorities, and 4 kubeconfigs. */
const controlPlaneGood = async (context: Context, machine: string): Promise<Verdict> =>
  judgeCertificates(
    await look(context, machine, [`${authorities}/*.crt`, `${authorities}/etcd/*.crt`, ...kubeconfigs]),
    14,
  )

const kubeletGood = async (context: Context, machine: string): Promise<Verdict> => {
  const output = await look(context, machine, kubeletFiles)
  if (keptIn(output).some(({ file }) => file.endsWith('kubelet.conf')))
    return { ok: false, saw: 'kubelet.conf has a certificate in it, which its kubelet does not renew' }
  return judgeCertificates(output, 2)
}

const hostGood = async (lab: Lab): Promise<Verdict> => {
  const file = pathsOf(lab).kubeconfig
  const [, data = ''] = /client-certificate-data: (\S+)/.exec(await readFile(file, 'utf8')) ?? []
  return judgeCertificates(`== ${file}\n${Buffer.from(data, 'base64').toString()}`, 1)
}

const good = `good for ${String(certificateMargin)} days and more`

export const controlPlaneCertificates = (lab: Lab, { name }: MachineSpec): readonly Check[] => [
  {
    id: 'certificates',
    title: `every certificate of the control plane is ${good}`,
    machine: name,
    within: 20,
    hint: `lab up ${lab.name}`,
    probe: (context) => controlPlaneGood(context, name),
  },
  {
    id: 'kubeconfig-certificate',
    title: `this host's kubeconfig is ${good}`,
    within: 20,
    hint: `lab up ${lab.name}`,
    probe: () => hostGood(lab),
  },
]

export const kubeletCertificates = (lab: Lab, { name }: MachineSpec): Check => ({
  id: `${name}-kubelet-certificates`,
  title: `the certificates of ${name}'s kubelet are ${good}`,
  machine: name,
  within: 30,
  hint: `lab up ${lab.name}`,
  probe: (context) => kubeletGood(context, name),
})

/**
 * New ones for a control plane, signed by the authorities that it has. Its parts read theirs when they start, so
 * they are ended, and its kubelet starts them again.
 * @returns whether there was anything to renew
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
 * A certificate for a node's kubelet, as the control plane's authority gives it: a kubelet whose own has run out is
 * let in by nobody, and does not even start. What it is given is good for a year, but it asks for one of its own at
 * once: `keepRenewed` must follow. The file is as the documentation of kubeadm has it for such a kubelet.
 * @returns whether it needed one
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
  // Without them it makes its own certificate anew, by which it is known where logs are asked for.
  await there.run(
    shell`rm -f /var/lib/kubelet/pki/kubelet-client* /var/lib/kubelet/pki/kubelet.crt /var/lib/kubelet/pki/kubelet.key; systemctl restart kubelet`,
    { signal, timeout: 60 },
  )
  return true
}

/** Seconds for a kubelet to ask for a certificate of its own, and for the controller manager to give it one. */
const askDeadline = 180

/** Once a kubelet has a certificate that it renews by itself, that is the one to start with. */
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
