/** The sections of a lab file that describe machines, iSCSI, the cluster and the database. */
import { z } from 'zod'
import {
  defaults,
  lastNodePort,
  text,
  whole,
  list,
  mapping,
  size,
  labelPattern,
  labelProblem,
  iqn,
  chapText,
  chapProblem,
  chapNameProblem,
  passwordText,
  ipv4,
  subnet,
  domainProblem,
  systemDatabases,
  identifierProblem,
  identifierPattern,
  version,
  flags,
} from './fields.js'
import { roles } from './roles.js'
import { anyOf, shown } from './suggest.js'

export const machine = mapping(
  {
    name: text(
      'a machine name, such as worker1',
      (value) =>
        value === 'all'
          ? 'all means every machine in commands such as lab exec; choose another name'
          : labelProblem(value, 32),
      {
        description:
          'Host name of the machine, and its name in every command: an RFC 1123 label, at most 32 characters.',
        pattern: labelPattern,
        maxLength: 32,
      },
    ),
    role: z.enum(roles, { error: anyOf(roles) }).meta({
      description:
        'control-plane and worker are Kubernetes nodes, target serves LUNs, initiator logs in to targets outside Kubernetes, nfs serves a file system to all nodes.',
    }),
    address: ipv4('192.168.56.11', 'IPv4 address of the machine in the lab subnet.'),
    cpus: whole('a whole number of processors from 1 to 64', 1, 64, {
      description: 'Number of virtual processors.',
    }).default(1),
    memory: size('a size of memory', 'Memory of the machine.'),
    iqn: iqn(
      'Initiator name. Default: the naming authority of the first target, then the machine name.',
    ).optional(),
  },
  'a machine: name, role, address, memory',
)

const lun = mapping(
  {
    lun: whole('a logical unit number from 0 to 255', 0, 255, { description: 'Logical unit number.' }),
    size: size('a size of a disk', 'Size of the disk that is served. It may grow later, but never shrink.'),
    initiators: list(
      z
        .string({ error: 'the name of a machine with the role initiator or worker' })
        .meta({ description: 'Name of a machine with the role initiator or worker.' }),
      'a list of machines',
    )
      .min(1, 'at least one machine; without the field, every machine that uses the LUN sees it')
      .max(64, 'at most 64 machines')
      .optional()
      .meta({
        description:
          "The machines that see the LUN. Default: for the database's LUN, all workers; for a LUN with a file system, the machine that mounts it; for any other LUN, all workers, or every initiator in a lab without workers.",
      }),
  },
  'a LUN: lun, size',
)

/** The expected values of a target's `machine` and `machines`. */
export const wantedServer = 'the name of a machine with the role target'

export const target = mapping(
  {
    machine: z.string({ error: wantedServer }).optional().meta({
      description: 'Name of the machine that serves it; its role is target. Either this or machines.',
    }),
    machines: z
      .tuple([z.string({ error: wantedServer }), z.string({ error: wantedServer })], {
        error: 'two machines with the role target, such as [target1, target2]',
      })
      .optional()
      .meta({
        description:
          'Two machines that each have a copy of the disks. One of them serves, and the other takes over when it is lost. Either this or machine.',
        examples: [['target1', 'target2']],
      }),
    address: ipv4(
      '192.168.56.70',
      "Address in the lab's subnet at which the target is found, whichever of its two machines serves it. Only with machines.",
    ).optional(),
    quorum: z.string({ error: 'the name of a third machine' }).optional().meta({
      description:
        'Machine whose vote decides which of the two continues when they cannot reach each other. Only with machines. Default: the first other machine, a control plane if there is one.',
    }),
    iqn: iqn('Name of the target.'),
    port: whole('a TCP port from 1 to 65535', 1, 65535, { description: 'TCP port of the portal.' }).default(
      defaults.port,
    ),
    chap: mapping(
      {
        username: chapText('User name that initiators log in with.', chapNameProblem),
        password: chapText('Password that initiators log in with.', chapProblem, { writeOnly: true }),
        mutual: mapping(
          {
            username: chapText('User name that the target answers with.'),
            password: chapText(
              'Password that the target answers with; it must differ from the one that initiators log in with.',
              chapProblem,
              {
                writeOnly: true,
              },
            ),
          },
          'a mapping: username, password',
        )
          .optional()
          .meta({
            description:
              'Mutual CHAP: the name and password with which the target proves itself to initiators.',
          }),
      },
      'a mapping: username, password',
    ).meta({
      description:
        'CHAP: the name and password that initiators need to log in, for discovery as well as for use. If a machine has several targets, they are discovered with the CHAP of the first.',
    }),
    luns: list(lun, 'a list of LUNs')
      .min(1, 'at least one LUN')
      .max(256, 'at most 256 LUNs')
      .meta({ description: 'The disks that the target serves.' }),
  },
  'a target: machine or machines, iqn, chap, luns',
)

export const filesystem = mapping(
  {
    initiator: z
      .string({ error: 'the name of a machine with the role initiator' })
      .meta({ description: 'Name of the machine that logs in and mounts it; its role is initiator.' }),
    target: iqn('Name of the target; not needed if the lab has only one.').optional(),
    lun: whole('a logical unit number from 0 to 255', 0, 255, {
      description: 'The LUN that holds the file system.',
    }),
    type: z.literal('ext4', { error: 'ext4' }).default('ext4').meta({ description: 'Kind of file system.' }),
    directory: text(
      'the name of a directory, such as mysql-data',
      (value) =>
        /^[A-Za-z0-9_.-]{1,64}$/.test(value) && !/^[.-]/.test(value)
          ? undefined
          : `${shown(value)}: expected the name of one directory: letters, digits, "_", "-" and ".", at most 64`,
      {
        description: 'Name of a directory that is created at the top of the file system.',
        examples: ['mysql-data'],
      },
    ),
    mode: text(
      'four octal digits in quotes, such as "0777"',
      (value) =>
        /^[0-7]{4}$/.test(value)
          ? undefined
          : `${shown(value)}: expected four octal digits in quotes, such as "0777"`,
      {
        description: 'Mode of the directory: four octal digits, in quotes.',
        pattern: '^[0-7]{4}$',
        examples: ['0777'],
      },
    ),
  },
  'a file system: initiator, lun, directory, mode',
)

export const kubernetes = mapping(
  {
    version,
    endpoint: ipv4(
      '192.168.56.10',
      "Address in the lab's subnet at which the API server answers, whichever control plane serves it. Default: the address of the only control plane; with several, a free address.",
    ).optional(),
    podSubnet: subnet('a subnet such as 10.244.0.0/16', 8, 24, {
      description: 'Subnet of the pods. The node with host number n gets its n-th /24.',
    }).default(defaults.podSubnet),
    // The API server refuses a service subnet larger than /12; kubeadm needs at least ten addresses.
    serviceSubnet: subnet('a subnet such as 10.96.0.0/12', 12, 28, {
      description: 'Subnet of the cluster IPs of Services.',
    }).default(defaults.serviceSubnet),
    dnsDomain: text('a domain such as cluster.local', domainProblem, {
      description: 'DNS domain of the Services.',
    }).default(defaults.dnsDomain),
    kubelet: z
      .record(z.string(), z.unknown(), { error: 'a mapping of fields of KubeletConfiguration' })
      .check((context) => {
        for (const key of ['apiVersion', 'kind'].filter((name) => name in context.value)) {
          context.issues.push({
            code: 'custom',
            message: 'is set by lab; remove it',
            path: [key],
            input: context.value,
          })
        }
      })
      .default({})
      .meta({ description: 'Fields of KubeletConfiguration, for the kubelet of every node.' }),
    apiServer: flags('kube-apiserver'),
    controllerManager: flags('kube-controller-manager'),
    scheduler: flags('kube-scheduler'),
    etcd: flags('etcd'),
  },
  'a mapping with at least a version',
)

export const database = mapping(
  {
    name: text(
      'a Service name, such as mysql',
      (value) =>
        /^[0-9]/.test(value)
          ? `${shown(value)}: a Service name begins with a letter`
          : value === 'kubernetes'
            ? 'kubernetes is the Service of the API server, which the database would take over; choose another name'
            : labelProblem(value, 40),
      {
        description: 'Name of the Service, and first part of the name of the Deployment.',
        pattern: '^[a-z]([a-z0-9-]*[a-z0-9])?$',
        maxLength: 40,
      },
    ).default('mysql'),
    target: iqn('Name of the target; not needed if the lab has only one.').optional(),
    lun: whole('a logical unit number from 0 to 255', 0, 255, {
      description: 'The LUN that holds the data. Either this or storage.',
    }).optional(),
    storage: text('a class of storage, such as shared', (value) => labelProblem(value, 40), {
      description: 'The storage class, of the kind nfs, whose volume holds the data. Either this or lun.',
      pattern: labelPattern,
      maxLength: 40,
    }).optional(),
    nodePort: whole('a port from 30000 to 32767', 30000, lastNodePort, {
      description: 'Port on every node at which the database answers.',
    }).default(defaults.nodePort),
    ledgerPort: whole('a port from 30000 to 32767', 30000, lastNodePort, {
      description:
        'Port on every node at which scenarios write a plain file on the same volume. Default: the one after nodePort.',
    }).optional(),
    database: text(
      'the name of a database, such as test',
      (value) =>
        identifierProblem(value) ??
        (systemDatabases.has(value.toLowerCase())
          ? `${shown(value)} is a database that MariaDB keeps for itself; choose another name`
          : undefined),
      { description: 'Name of the database that is created.', pattern: identifierPattern },
    ),
    user: text(
      'the name of a user, such as dev',
      (value) =>
        identifierProblem(value) ??
        (value.toLowerCase() === 'root'
          ? 'root exists already, with rootPassword; choose another user'
          : undefined),
      { description: 'User who owns that database.', pattern: identifierPattern },
    ),
    password: passwordText('Password of that user.'),
    rootPassword: passwordText('Password of root.'),
  },
  'a mapping: lun or storage, database, user, password, rootPassword',
)
