/** Text 004: WordPress and its database, each with a volume, set up and used as by a person. */
import { randomBytes } from 'node:crypto'
import { request } from 'node:http'
import { machinesWith } from '../lab/lab.js'
import type { Verdict } from '../plan/step.js'
import type { ExperimentContext, Experiment } from '../trial/experiment-context.js'
import type { PodSeen } from '../trial/history.js'
import { boundClaims, sameVolumes, volumeClaims } from './volumes.js'

export interface Page {
  readonly status: number
  readonly body: string
  /** The target of a redirect. */
  readonly location: string | undefined
}

interface Question {
  readonly path: string
  /** Fields of a form to post; without them the request is a `GET`. */
  readonly form?: Readonly<Record<string, string>>
  /** A file to upload. */
  readonly file?: { readonly type: string; readonly content: string }
  readonly headers?: Readonly<Record<string, string>>
}

/** Seconds for one page. */
const pageDeadline = 30

/** A browser with cookies outside the cluster, which connects to a node port. */
export class Browser {
  readonly #context: ExperimentContext
  readonly #host: string
  readonly #port: number
  readonly #cookies = new Map<string, string>()

  constructor(context: ExperimentContext, host: string, port: number) {
    this.#context = context
    this.#host = host
    this.#port = port
  }

  async ask({ path, form, file, headers = {} }: Question): Promise<Page> {
    const socket = await this.#context.dial(this.#host, this.#port)
    const sent = form === undefined ? file?.content : new URLSearchParams(form).toString()
    return new Promise<Page>((resolve, reject) => {
      const asked = request(
        {
          createConnection: () => socket,
          method: sent === undefined ? 'GET' : 'POST',
          path,
          signal: AbortSignal.any([this.#context.signal, AbortSignal.timeout(pageDeadline * 1000)]),
          headers: {
            host: `${this.#host}:${String(this.#port)}`,
            cookie: [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; '),
            connection: 'close',
            ...(sent === undefined
              ? {}
              : {
                  'content-type': file?.type ?? 'application/x-www-form-urlencoded',
                  'content-length': String(Buffer.byteLength(sent)),
                }),
            ...headers,
          },
        },
        (answer) => {
          for (const cookie of answer.headers['set-cookie'] ?? []) {
            const [pair = ''] = cookie.split(';')
            this.#cookies.set(pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1))
          }
          const chunks: Buffer[] = []
          answer.on('data', (chunk: Buffer) => chunks.push(chunk))
          answer.on('error', reject)
          answer.on('end', () => {
            resolve({
              status: answer.statusCode ?? 0,
              body: Buffer.concat(chunks).toString('utf8'),
              location: answer.headers.location,
            })
          })
        },
      )
      asked.on('error', reject)
      asked.end(sent)
    })
  }
}

/** The title of a page, as evidence. */
export const titleOf = ({ status, body, location }: Page): string =>
  location === undefined
    ? `${String(status)}, ${
        /<title>([^<]*)<\/title>/
          .exec(body)?.[1]
          ?.replaceAll(/&[a-z0-9#]+;/g, ' ')
          .replaceAll(/\s+/g, ' ')
          .trim() ?? 'no title'
      }`
    : `${String(status)} to ${location}`

/** The address within the site of a file that the site's API accepted. */
export const uploadedTo = ({ status, body }: Page): string | undefined => {
  const url = status === 201 ? /"source_url":\s*("(?:[^"\\]|\\.)*")/.exec(body)?.[1] : undefined
  return url === undefined ? undefined : new URL(JSON.parse(url) as string).pathname
}

/** Whether a page is exactly the uploaded file, rather than an error page or another file. */
export const isFile = ({ status, body, location }: Page, content: string): Verdict => ({
  ok: status === 200 && body === content,
  saw:
    status === 200
      ? body === content
        ? `the same ${String(content.length)} bytes`
        : `other content: ${body.slice(0, 60)}`
      : titleOf({ status, body, location }),
})

const tier = (context: ExperimentContext, name: string): PodSeen | undefined =>
  context.history.pods.find(({ labels, terminating }) => labels['tier'] === name && !terminating)

const bothReady = (context: ExperimentContext) => {
  const pods = [tier(context, 'mysql'), tier(context, 'frontend')]
  return {
    ok: context.history.pods.length === 2 && pods.every((pod) => pod?.ready === true),
    saw: context.history.pods
      .map(({ name, ready, phase }) => `${name} ${ready ? 'ready' : phase}`)
      .join(', '),
  }
}

/** Deploys the site. @returns its port on every node, and its volumes */
const deploy = async (context: ExperimentContext) => {
  const from = await context.act('kubectl apply -k', () => context.applyFolder('site'))
  const took = await context.until('WordPress and MySQL are ready', 240, () => bothReady(context), from)
  context.figure('from kubectl apply -k to two ready pods', took, {
    ms: 77_000,
    how: 'text 004: at most, for the volumes only: they were 77 s old when they were listed as bound',
  })
  const secrets = await context.kubectl(['get', 'secrets', '-o', 'name'])
  context.claim('kustomize has made the Secret, with a hash in its name', {
    ok: /^secret\/mysql-pass-[a-z0-9]{10}$/m.test(secrets),
    saw: secrets.trim().replaceAll('\n', ', '),
  })
  const volumes = await volumeClaims(context)
  context.claim('each has a volume of its own', boundClaims(volumes, ['mysql-pv-claim', 'wp-pv-claim']))
  const service = await context.get<{
    spec: { type: string; ports: { nodePort?: number }[] }
    status: { loadBalancer: { ingress?: unknown[] } }
  }>('service', 'wordpress')
  const port = service.spec.ports[0]?.nodePort ?? 0
  context.claim('the Service waits for a load balancer, and is reached by a port of the nodes', {
    ok: service.spec.type === 'LoadBalancer' && !service.status.loadBalancer.ingress?.length && port > 0,
    saw: `${service.spec.type}, external address pending, node port ${String(port)}`,
  })
  return { port, volumes }
}

/** Sets the site up as a person does. */
const setUp = async (context: ExperimentContext, browser: Browser, password: string): Promise<void> => {
  await context.until('the first page leads to the set-up', 90, async () => {
    const page = await browser.ask({ path: '/' })
    return {
      ok: page.status === 302 && (page.location ?? '').includes('/wp-admin/install.php'),
      saw: titleOf(page),
    }
  })
  await context.act('install the site through it', async () => {
    const page = await browser.ask({
      path: '/wp-admin/install.php?step=2',
      form: {
        weblog_title: 'A lab',
        user_name: 'admin',
        admin_password: password,
        admin_password2: password,
        pw_weak: 'on',
        admin_email: 'admin@example.com',
        blog_public: '0',
      },
    })
    context.claim('the set-up says that it succeeded', {
      ok: page.status === 200 && page.body.includes('wp-login.php') && !page.body.includes('class="message"'),
      saw: titleOf(page),
    })
  })
}

/** What is published at the site. */
interface Published {
  /** The post's title, and all it says. */
  readonly words: string
  /** The content of the uploaded file. */
  readonly content: string
}

/** Writes a post and uploads a file. @returns the file's address within the site */
const publish = async (
  context: ExperimentContext,
  browser: Browser,
  password: string,
  { words, content }: Published,
): Promise<string> => {
  let upload = ''
  await context.act('log in, write a post, and upload a file', async () => {
    await browser.ask({ path: '/wp-login.php' })
    const login = await browser.ask({
      path: '/wp-login.php',
      form: { log: 'admin', pwd: password, testcookie: '1' },
    })
    context.claim('the user logs in', { ok: login.status === 302, saw: titleOf(login) })
    const nonce = (await browser.ask({ path: '/wp-admin/admin-ajax.php?action=rest-nonce' })).body.trim()
    const post = await browser.ask({
      path: '/?rest_route=/wp/v2/posts',
      form: { title: words, content: words, status: 'publish' },
      headers: { 'x-wp-nonce': nonce },
    })
    context.claim('the post is taken', { ok: post.status === 201, saw: String(post.status) })
    const taken = await browser.ask({
      path: '/?rest_route=/wp/v2/media',
      file: { type: 'text/plain', content },
      headers: { 'x-wp-nonce': nonce, 'content-disposition': 'attachment; filename="lab.txt"' },
    })
    upload = uploadedTo(taken) ?? ''
    context.claim('the file is taken, into a folder of uploads', {
      ok: upload.startsWith('/wp-content/uploads/'),
      saw: upload || `not taken: ${String(taken.status)} ${taken.body.slice(0, 100)}`,
    })
  })
  return upload
}

/** Deletes both pods, and waits for others. @returns when they were deleted */
const replaceBoth = async (context: ExperimentContext): Promise<number> => {
  const before = context.history.pods
  const deleted = await context.act('delete both pods', () =>
    context.kubectl(['delete', 'pod', '--selector', 'app=wordpress', '--wait=false']),
  )
  await context.until(
    'two other pods are ready',
    240,
    () => {
      const now = bothReady(context)
      const fresh = context.history.pods.every(({ uid }) => before.every((old) => old.uid !== uid))
      return { ok: now.ok && fresh, saw: now.saw }
    },
    deleted,
  )
  return deleted
}

export const sitePersists: Experiment = {
  name: 'site-persists',
  description:
    'WordPress is set up with a post and an uploaded file, which are still there after both pods were deleted',
  workers: 1,
  run: async (context) => {
    const { port, volumes } = await deploy(context)
    const worker = machinesWith(context.lab, 'worker')[0]?.address ?? ''
    const browser = new Browser(context, worker, port)
    const password = randomBytes(12).toString('hex')
    await setUp(context, browser, password)
    const published: Published = {
      words: `Written by lab ${context.lab.name} at ${new Date().toISOString()}`,
      content: `Uploaded to lab ${context.lab.name}: ${randomBytes(24).toString('hex')}\n`,
    }
    const upload = await publish(context, browser, password, published)
    const front = async () => {
      const page = await browser.ask({ path: '/' })
      return { ok: page.status === 200 && page.body.includes(published.words), saw: titleOf(page) }
    }
    const file = async () => isFile(await browser.ask({ path: upload }), published.content)
    await context.until('the front page shows it', 60, front)
    await context.until('the site serves the file', 60, file)

    const deleted = await replaceBoth(context)
    const back = await context.until('the front page shows the post again', 90, front, deleted)
    context.figure('from the deletion of both pods until the post is read again', back)
    // The database knows of the file, and missing program files are restored from the image: only the file itself
    // proves that the site has its volume.
    await context.until('the site serves the file again: its volume is kept, too', 60, file)
    context.claim('both have the volumes that they had', sameVolumes(volumes, await volumeClaims(context)))
  },
}
