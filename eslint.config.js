// Beside the usual rules, this file keeps what docs/design/imports.md says true.
import js from '@eslint/js'
import { defineConfig, globalIgnores } from 'eslint/config'
import tseslint from 'typescript-eslint'

/**
 * What of src, and which npm packages, each folder of src may import, types included. Files directly in src are not
 * listed: they are few, and read.
 */
const layers = {
  ready: { src: ['plan/step'], packages: [] },
  lab: {
    src: ['error', 'identity', 'machine/sh', 'package', 'providers', 'ready', 'render'],
    packages: ['yaml', 'zod', 'fastest-levenshtein'],
  },
  machine: {
    src: ['concurrent', 'error', 'identity', 'lab', 'render', 'state'],
    packages: ['execa', 'node-ssh', 'ssh2', 'tar-stream'],
  },
  parts: {
    src: ['error', 'machine', 'mounts', 'package', 'state', 'trust'],
    packages: ['execa', 'handlebars', 'proper-lockfile', 'tar-stream', 'yaml', 'zod'],
  },
  provider: {
    src: [
      'error',
      'identity',
      'lab',
      'machine',
      'mounts',
      'parts',
      'processes',
      'providers',
      'render',
      'state',
    ],
    packages: ['execa'],
  },
  plan: { src: ['concurrent', 'error'], packages: [] },
  fencing: {
    src: ['context', 'error', 'identity', 'journal', 'lab', 'lock', 'machine', 'provider/provider', 'state'],
    packages: ['zod'],
  },
  steps: {
    src: [
      'context',
      'error',
      'identity',
      'fencing',
      'lab',
      'machine',
      'package',
      'plan',
      'provider/provider',
      'ready',
      'render',
      'state',
    ],
    packages: ['mysql2/promise'],
  },
  fault: {
    src: [
      'context',
      'error',
      'fencing',
      'journal',
      'lab',
      'machine',
      'plan',
      'provider/provider',
      'state',
      'steps',
    ],
    packages: ['zod'],
  },
  trial: {
    src: [
      'context',
      'error',
      'identity',
      'fault',
      'fencing',
      'journal',
      'lab',
      'machine',
      'plan',
      'provider/provider',
      'state',
      'steps',
    ],
    packages: ['mysql2/promise', 'yaml', 'zod'],
  },
  snapshot: {
    src: ['context', 'error', 'fault', 'identity', 'journal', 'lab', 'machine', 'provider/provider', 'state'],
    packages: [],
  },
  course: {
    src: ['error', 'fault', 'lab', 'plan', 'trial'],
    packages: ['cassandra-driver', 'node-zookeeper-client', 'zod'],
  },
  learn: {
    src: [
      'context',
      'error',
      'identity',
      'journal',
      'lab',
      'machine',
      'plan',
      'package',
      'state',
      'trial',
      'view/canvas',
    ],
    packages: ['zod'],
  },
  report: {
    src: ['error', 'fault', 'lab', 'package', 'plan', 'render', 'state', 'trial'],
    packages: ['zod'],
  },
  view: { src: ['error', 'parts/preparation', 'plan/step', 'trial/trial-event'], packages: ['listr2'] },
  bundle: {
    src: ['concurrent', 'error', 'package', 'parts', 'state', 'trust'],
    packages: ['execa', 'zod'],
  },
  class: {
    src: [
      'concurrent',
      'error',
      'lab',
      'listen',
      'lock',
      'mounts',
      'package',
      'parts',
      'plan',
      'processes',
      'provider/uml',
      'render',
      'state',
      'trust',
    ],
    packages: ['execa', 'fastify', 'uqr', 'ws', 'yaml', 'zod'],
  },
  lifecycle: {
    src: [
      'bundle',
      'context',
      'error',
      'fencing',
      'identity',
      'journal',
      'lab',
      'machine',
      'package',
      'parts',
      'plan',
      'provider',
      'providers',
      'registry',
      'report',
      'session',
      'snapshot',
      'state',
      'steps',
      'trial',
      'trust',
      'up',

      'view',
    ],
    packages: [],
  },
  'command-line': {
    src: [
      'error',
      'identity',
      'lab',
      'lock',
      'parts',
      'plan',
      'provider',
      'providers',
      'session',
      'state',
      'view',
    ],
    packages: ['commander'],
  },
  command: {
    src: [
      'command-line',
      'concurrent',
      'bundle',
      'class',
      'context',
      'course',
      'error',
      'identity',
      'fault',
      'fencing',
      'journal',
      'learn',
      'lab',
      'lifecycle',
      'listen',
      'lock',
      'machine',
      'parts',
      'plan',
      'provider',
      'providers',
      'registry',
      'report',
      'session',
      'snapshot',
      'state',
      'steps',
      'trial',
      'trust',
      'up',

      'view',
    ],
    packages: ['commander'],
  },
}

const importRules = Object.entries(layers).map(([folder, { src, packages }]) => ({
  files: [`src/${folder}/**/*.ts`],
  rules: {
    '@typescript-eslint/no-restricted-imports': [
      'error',
      {
        patterns: [
          {
            regex: `^(?:\\.\\./)+(?!\\.\\./|(?:${[folder, ...src].join('|')})(?:/|\\.js$))`,
            message: `Who may import whom is in docs/design/imports.md; src/${folder} may not import this.`,
          },
          {
            regex: `^(?!\\.|node:${packages.map((name) => `|${name}$`).join('')})`,
            message: `Every package has its place; for this one it is not src/${folder}.`,
          },
        ],
      },
    ],
  },
}))

/** What belongs to whoever started the process: src/cli.ts and the two programs of their own. */
const processRules = ['argv', 'exit', 'exitCode', 'on', 'once', 'stdin', 'stdout', 'stderr'].map(
  (property) => ({
    object: 'process',
    property,
    message: 'Only src/cli.ts touches the process; a verb gets an Io.',
  }),
)

export default defineConfig(
  globalIgnores(['dist/', 'coverage/']),
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  ...tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      eqeqeq: 'error',
      // To take a field out of an object, it has to be named.
      '@typescript-eslint/no-unused-vars': ['error', { ignoreRestSiblings: true }],
      '@typescript-eslint/consistent-type-exports': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { disallowTypeAnnotations: false }],
      // env['LAB_STATE']: brackets say that it may well be missing.
      '@typescript-eslint/dot-notation': ['error', { allowIndexSignaturePropertyAccess: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-floating-promises': ['error', { ignoreVoid: false }],
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
    },
  },
  {
    files: ['src/**/*.ts'],
    rules: { 'no-console': 'error', 'no-restricted-properties': ['error', ...processRules] },
  },
  {
    files: ['src/cli.ts', 'src/provider/uml/supervisor.ts', 'src/provider/uml/dial.ts'],
    rules: { 'no-restricted-properties': 'off' },
  },
  ...importRules,
  {
    files: ['test/**/*.ts', '*.config.ts'],
    rules: {
      // What a program printed is any until it is looked at, and looking at it is what a test does.
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/no-floating-promises': ['error', { ignoreVoid: true }],
      // A missing value fails the test, on the very line.
      '@typescript-eslint/no-non-null-assertion': 'off',
      // Stand-ins have the shape of what they stand for, and often nothing to do.
      '@typescript-eslint/no-empty-function': 'off',
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
    },
  },
  // tsconfig.json does not know them, so neither types nor the names of Node's globals are known.
  { files: ['**/*.{js,mjs}'], extends: [tseslint.configs.disableTypeChecked], rules: { 'no-undef': 'off' } },
)
