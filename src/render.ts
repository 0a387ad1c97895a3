import { readFileSync } from 'node:fs'
import Handlebars from 'handlebars'
import { stringify } from 'yaml'
import { quote } from './machine/sh.js'
import { projectRoot } from './package.js'

const handlebars = Handlebars.create()

/** A Ruby single-quoted string: nothing in it is evaluated. */
const ruby = (value: unknown): string => `'${String(value).replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`

handlebars.registerHelper({
  /** JSON, which is also YAML: a value as one quoted scalar, or a whole structure. */
  json: (value: unknown) => JSON.stringify(value),
  yaml: (value: unknown) => stringify(value).trimEnd(),
  /** One word for a POSIX shell. */
  sh: (value: unknown) => quote(String(value)),
  ruby,
  mebibytes: (bytes: number) => String(Math.ceil(bytes / 1024 ** 2)),
  concat: (...words: unknown[]) => words.slice(0, -1).join(''),
  eq: (a: unknown, b: unknown) => a === b,
})

const compiled = new Map<string, Handlebars.TemplateDelegate>()

/**
 * Renders `templates/<name>.hbs`, or `Vagrantfile.hbs` at the top. A name that the data lacks is an error. Templates
 * of HTML and XML escape every value; the others escape only through the helpers above.
 */
export const render = (name: string, data: object): string => {
  let template = compiled.get(name)
  if (!template) {
    const path =
      name === 'Vagrantfile' ? `${projectRoot}/Vagrantfile.hbs` : `${projectRoot}/templates/${name}.hbs`
    template = handlebars.compile(readFileSync(path, 'utf8'), {
      strict: true,
      noEscape: !/\.(?:html|xml)$/.test(name),
    })
    compiled.set(name, template)
  }
  return template(data)
}

/**
 * Renders a file of the user's, such as a manifest. A name that the data lacks is an error, and values are escaped
 * only through helpers.
 * @param helpers of this file, in addition to those that every template has
 */
export const renderFile = (
  path: string,
  data: object,
  helpers: Readonly<Record<string, (...words: string[]) => string>> = {},
): string =>
  handlebars.compile(readFileSync(path, 'utf8'), { strict: true, noEscape: true })(data, {
    helpers: Object.fromEntries(
      Object.entries(helpers).map(([name, helper]) => [
        name,
        // The last argument is Handlebars' own.
        (...words: unknown[]) => helper(...words.slice(0, -1).map(String)),
      ]),
    ),
  })
