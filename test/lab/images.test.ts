import { expect, test } from 'vitest'
import { imageReference, imagesOf, optionalImages } from '../../src/lab/images.js'
import { pins } from '../../src/parts/pins.js'

test.each([
  ['nginx:1.26', 'docker.io/library/nginx:1.26'],
  ['docker.io/library/nginx:1.22', 'docker.io/library/nginx:1.22'],
  ['cassandra', 'docker.io/library/cassandra:5.0'],
  ['mysql', 'docker.io/library/mariadb:11.8'],
  ['zookeeper', 'registry.k8s.io/kubernetes-zookeeper:1.0-3.9.4'],
])('the image name %s is normalized: %s', (name, reference) => {
  expect(imageReference(name)).toBe(reference)
})

test('a name that two images share is ambiguous', () => {
  expect(() => imageReference('nginx')).toThrow('there is no image nginx')
})

test.each(pins().images.map(({ reference }) => reference))(
  'the full reference %s names that image itself',
  (reference) => {
    expect(imageReference(reference)).toBe(reference)
  },
)

test('a lab with storage gets the volume provisioner without asking for it', () => {
  expect(imagesOf({ images: ['nginx:1.26'], storage: [] })).toEqual(['docker.io/library/nginx:1.26'])
  expect(
    imagesOf({ images: ['busybox:1.37'], storage: [{ class: 'standard', kind: 'local', default: true }] }),
  ).toEqual(['docker.io/library/busybox:1.37', 'docker.io/rancher/local-path-provisioner:v0.0.30'])
  expect(optionalImages()).toContain('wordpress:6.8-apache')
})
