import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { expect, test } from 'vitest'
import { catalog, foreignCatalog } from '../../src/parts/catalog.js'
import { hashesOf } from '../../src/parts/graph.js'
import { digestOf } from '../../src/parts/image-archive.js'
import { architectures } from '../../src/parts/architecture.js'
import { imagePart, partsFolder, pins, type Pins } from '../../src/parts/pins.js'
import { releasedFiles } from '../../src/parts/upstream.js'

const requirement = (folder: string, module: string): string | undefined =>
  new RegExp(`^(?:require)?\\s*${module.replaceAll('.', '\\.')} (\\S+)`, 'm').exec(
    readFileSync(join(partsFolder, folder, 'go.mod'), 'utf8'),
  )?.[1]

test.each(Object.entries(pins().modules))(
  'the pinned version of %s is the one that go.mod requires',
  (folder, { module, version }) => {
    expect(requirement(folder, module)).toBe(version)
  },
)

test('the pinned images are those that the pinned kubeadm asks for', () => {
  const { images, modules } = pins()
  const version = modules['kubernetes']?.version ?? ''
  const referenceOf = (name: string): string => images.find((image) => image.name === name)?.reference ?? ''
  for (const name of ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kube-proxy'])
    expect(referenceOf(name)).toBe(`registry.k8s.io/${name}:${version}`)
  expect(referenceOf('etcd')).toMatch(`registry.k8s.io/etcd:${modules['etcd']?.version.slice(1) ?? ''}-`)
  expect(referenceOf('coredns')).toBe(`registry.k8s.io/coredns/coredns:${modules['coredns']?.version ?? ''}`)
})

test('an image with nft contains the protocol names, since kube-proxy reads only names', () => {
  const withNft = pins().images.filter(
    (image) => image.kind === 'files' && image.programs.includes('/usr/sbin/nft'),
  )
  expect(withNft.map(({ name }) => name)).toEqual(['kube-proxy'])
  expect(withNft).toMatchObject([{ reads: ['/etc/protocols'] }])
})

test.each(pins().kernel.patches)(
  'the digest of the patch $file is the pinned one',
  async ({ file, sha256 }) => {
    expect(await digestOf(join(partsFolder, 'kernel', file))).toBe(sha256)
  },
)

test('every part has an expected duration', () => {
  for (const { reference } of catalog(pins(), '/cache')) expect(reference.seconds).toBeGreaterThan(0)
})

test('every script is executable', () => {
  for (const script of ['builder/enter.sh', 'base-disk/build.sh', 'kernel/build.sh', 'upstream/programs.sh'])
    expect(statSync(join(partsFolder, script)).mode & 0o111).toBe(0o111)
})

const rebuiltBy = (change: (copy: Pins) => void): string[] => {
  const before = hashesOf(catalog(pins(), '/cache'))
  const copy = structuredClone(pins())
  change(copy)
  const after = hashesOf(catalog(copy, '/cache'))
  return [...after].filter(([id, hash]) => before.get(id) !== hash).map(([id]) => id)
}

/** Every part that is made without an explicit request, except these. */
const idsBut = (...left: readonly string[]): string[] =>
  catalog(pins(), '/cache')
    .map(({ id }) => id)
    .filter((id) => !left.includes(id))

/** What is made from the base disk's parts in addition to the base disk. */
const boxes = ['box-disk', 'box-libvirt', 'box-virtualbox']

test.each<{ change: string; edit: (copy: Pins) => void; rebuilt: readonly string[] }>([
  {
    change: 'masking a unit',
    edit: ({ baseDisk }) => baseDisk.masked.push('x.service'),
    rebuilt: ['base-disk', ...boxes],
  },
  {
    change: 'another CoreDNS',
    edit: ({ modules }) => (modules['coredns'] = { module: 'github.com/coredns/coredns', version: 'v9.9.9' }),
    rebuilt: ['coredns', 'image-coredns', 'base-disk', ...boxes],
  },
  {
    change: 'another package in the database image',
    edit: ({ images }) =>
      images
        .filter((image) => image.kind === 'debian' && image.name === 'mariadb')
        .forEach((image) => image.kind === 'debian' && image.packages.push('x')),
    rebuilt: ['image-mariadb', 'base-disk', ...boxes],
  },
  {
    change: 'one more package in the system, from which kube-proxy takes its programs,',
    edit: ({ system }) => system.packages.push('x'),
    rebuilt: ['system', 'image-kube-proxy', 'base-disk', 'box-system', ...boxes],
  },
  {
    change: 'another patch of the kernel',
    edit: ({ kernel }) => kernel.patches.push({ file: 'x.patch', sha256: '0'.repeat(64) }),
    rebuilt: ['kernel'],
  },
  {
    change: 'another Kubernetes, from whose module pause is made,',
    edit: ({ modules }) => (modules['kubernetes'] = { module: 'k8s.io/kubernetes', version: 'v9.9.9' }),
    rebuilt: [
      'kubernetes',
      'pause',
      'image-kube-apiserver',
      'image-kube-controller-manager',
      'image-kube-scheduler',
      'image-kube-proxy',
      'image-pause',
      'base-disk',
      ...boxes,
    ],
  },
  {
    change: 'another containerd',
    edit: ({ modules }) =>
      (modules['containerd'] = { module: 'github.com/containerd/containerd/v2', version: 'v9.9.9' }),
    rebuilt: ['containerd', 'base-disk', ...boxes],
  },
  {
    change: 'another etcd',
    edit: ({ modules }) => (modules['etcd'] = { module: 'go.etcd.io/etcd/server/v3', version: 'v9.9.9' }),
    rebuilt: ['etcd', 'image-etcd', 'base-disk', ...boxes],
  },
  {
    change: 'other CNI plugins',
    edit: ({ modules }) =>
      (modules['cni-plugins'] = { module: 'github.com/containernetworking/plugins', version: 'v9.9.9' }),
    rebuilt: ['cni-plugins', 'base-disk', ...boxes],
  },
  {
    change: 'an image by another name',
    edit: ({ images }) =>
      images.filter(({ name }) => name === 'etcd').forEach((image) => (image.reference += '-x')),
    rebuilt: ['image-etcd', 'base-disk', ...boxes],
  },
  {
    change: 'a larger base disk',
    edit: ({ baseDisk }) => (baseDisk.size = '9G'),
    rebuilt: ['base-disk', ...boxes],
  },
  {
    change: 'one more compiler',
    edit: ({ builder }) => builder.packages.push('x'),
    rebuilt: idsBut('registry-client', 'system', 'image-mariadb', 'image-debian', 'box-tools', 'box-system'),
  },
  {
    change: 'another pinned kernel source, which the hash of the compilers includes,',
    edit: ({ kernel }) => (kernel.source.sha256 = '0'.repeat(64)),
    rebuilt: idsBut('registry-client', 'system', 'image-mariadb', 'image-debian', 'box-tools', 'box-system'),
  },
  {
    change: 'another Debian release',
    edit: ({ debian }) => (debian.suite = 'forky'),
    rebuilt: idsBut(),
  },
  {
    change: 'another mirror',
    edit: ({ debian }) => (debian.mirror = 'http://mirror.example/debian'),
    rebuilt: [],
  },
  {
    change: 'a duration that was measured again',
    edit: ({ reference }) => (reference['kernel'] = { seconds: 1, lines: 1, kept: 1, scratch: 1 }),
    rebuilt: [],
  },
])('$change rebuilds $rebuilt', ({ edit, rebuilt }) => {
  expect(rebuiltBy(edit)).toEqual(rebuilt)
})

test('a substitute for the pinned kernel source changes the kernel and nothing else', () => {
  const taken = { package: 'linux-source-7.2', version: '7.2.13-1', archive: '/x', deb: '0', suite: 'sid' }
  const before = hashesOf(catalog(pins(), '/cache'))
  const after = hashesOf(catalog(pins(), '/cache', [], { kernel: taken }))
  expect([...after].filter(([id, hash]) => before.get(id) !== hash).map(([id]) => id)).toEqual(['kernel'])
})

test('everything that is fetched has a digest, except Debian packages and Go modules', () => {
  for (const recipe of ['cassandra', 'kubernetes-zookeeper'])
    for (const line of readFileSync(join(partsFolder, 'images', recipe, 'jars.sha256'), 'utf8').split('\n'))
      expect(line).toMatch(/^(#.*|[0-9a-f]{64} {2}\S+\.jar|)$/)
  const requirements = readFileSync(join(partsFolder, 'images', 'cassandra', 'requirements.txt'), 'utf8')
  for (const line of requirements.split('\n'))
    expect(line).toMatch(/^(#.*|\S+==\S+ --hash=sha256:[0-9a-f]{64}|)$/)
  expect(readFileSync(join(partsFolder, 'fetcher', 'python.sh'), 'utf8')).toContain('--require-hashes')
})

test('every digest belongs to something that is pinned', () => {
  const { digests, images, releases, modules } = pins()
  const addresses = Object.keys(releases).flatMap((id) =>
    architectures.flatMap((architecture) =>
      (releasedFiles(pins(), { id, version: modules[id]?.version ?? '', architecture })?.files ?? []).map(
        ({ address }) => address,
      ),
    ),
  )
  const known = new Set([...addresses, ...images.map(({ reference }) => reference)])
  expect(Object.keys(digests).filter((of) => !known.has(of))).toEqual([])
})

const root = join(partsFolder, '..')
const filesBelow = (folder: string): string[] =>
  readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => relative(root, join(parentPath, name)))

/** The parts that an edit of this file rebuilds directly; the parts that need them follow. */
const rebuiltByFile = (file: string, images: readonly string[] = []): string[] =>
  catalog(pins(), '/cache', images)
    .filter(({ files }) => files.some((input) => `${join(root, file)}/`.startsWith(`${input}/`)))
    .map(({ id }) => id)

test.each([
  { file: 'parts/kernel/uml.config', rebuilt: ['kernel'] },
  { file: 'parts/coredns/go.sum', rebuilt: ['coredns'] },
  { file: 'parts/kubernetes/go.mod', rebuilt: ['kubernetes', 'pause'] },
  { file: 'parts/pause/build.sh', rebuilt: ['pause'] },
  { file: 'parts/builder/go.sh', rebuilt: ['kubernetes', 'containerd', 'coredns', 'etcd', 'cni-plugins'] },
  {
    file: 'parts/builder/enter.sh',
    rebuilt: ['kernel', 'kubernetes', 'containerd', 'coredns', 'etcd', 'cni-plugins', 'pause', ...boxes],
  },
  { file: 'parts/base-disk/build.sh', rebuilt: ['base-disk', 'box-disk'] },
  { file: 'templates/box/etc/sudoers.d/vagrant', rebuilt: ['box-system'] },
  { file: 'templates/box-provider/libvirt/Vagrantfile.hbs', rebuilt: ['box-libvirt', 'box-virtualbox'] },
  { file: 'templates/base/usr/local/sbin/lab-init', rebuilt: ['base-disk', 'box-disk'] },
])('an edit of $file rebuilds $rebuilt', ({ file, rebuilt }) => {
  expect(rebuiltByFile(file)).toEqual(rebuilt)
})

test('every file under parts is an input of a part', () => {
  // The origin of a part does not make it another part.
  const files = [...filesBelow('parts'), ...filesBelow('templates/base')].filter(
    (file) => file !== 'parts/parts.yaml' && !file.startsWith('parts/upstream/'),
  )
  expect(files.length).toBeGreaterThan(30)
  const foreign = foreignCatalog(pins(), '/cache', 'arm64').flatMap((part) => part.files)
  expect(
    files.filter(
      (file) => rebuiltByFile(file, everyImage).length === 0 && !foreign.includes(join(root, file)),
    ),
  ).toEqual([])
})

const everyImage = pins()
  .images.filter(({ optional }) => optional)
  .map(({ reference }) => reference)

test.each([
  { file: 'parts/images/nginx/nginx.conf', rebuilt: ['image-nginx-122', 'image-nginx-126'] },
  { file: 'parts/images/cassandra/jars.sha256', rebuilt: ['jars-cassandra', 'image-cassandra'] },
  { file: 'parts/images/cassandra/requirements.txt', rebuilt: ['python-cassandra', 'image-cassandra'] },
  { file: 'parts/local-path-provisioner/go.sum', rebuilt: ['local-path-provisioner'] },
])('an edit of $file rebuilds only what some labs need: $rebuilt', ({ file, rebuilt }) => {
  expect(rebuiltByFile(file, everyImage)).toEqual(rebuilt)
})

test('the inputs of an image are built only for labs that ask for the image', () => {
  const extra = (images: readonly string[]): string[] => {
    const usual = catalog(pins(), '/cache').map(({ id }) => id)
    return catalog(pins(), '/cache', images)
      .map(({ id }) => id)
      .filter((id) => !usual.includes(id))
  }
  expect(extra(['docker.io/library/busybox:1.37'])).toEqual(['image-busybox'])
  expect(extra(['registry.k8s.io/kubernetes-zookeeper:1.0-3.9.4'])).toEqual([
    'jars-kubernetes-zookeeper',
    'image-kubernetes-zookeeper',
  ])
})

test('an optional image is only in the base disk of labs that ask for it', () => {
  const copy = structuredClone(pins())
  copy.images.push({
    name: 'extra',
    reference: 'x/extra:1',
    kind: 'debian',
    packages: [],
    optional: true,
    bare: false,
    with: [],
    aliases: [],
  })
  const ids = (extra: readonly string[]): string[] => catalog(copy, '/cache', extra).map(({ id }) => id)
  expect(ids([])).not.toContain(imagePart('extra'))
  expect(ids(['x/extra:1'])).toContain(imagePart('extra'))
  expect(hashesOf(catalog(copy, '/cache')).get('base-disk')).toBe(
    hashesOf(catalog(pins(), '/cache')).get('base-disk'),
  )
  expect(() => ids(['nonsense'])).toThrow('there is no image nonsense')
})
