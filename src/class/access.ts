/** Who may enter: a token logs in, a cookie keeps the login, and wrong guesses are limited. */
import { createHmac, timingSafeEqual } from 'node:crypto'
import type { ClassFile } from './class.js'
import { tokenOf } from './tokens.js'

/** A seat's number, or the teacher. */
export type Who = { readonly seat: string } | 'teacher'

const equal = (a: string, b: string): boolean => {
  const [left, right] = [Buffer.from(a), Buffer.from(b)]
  return left.length === right.length && timingSafeEqual(left, right)
}

const isOver = ({ until }: ClassFile, now: number): boolean => now > Date.parse(until)

/** The owner of this token; undefined if there is none, or the class is over. */
export const holderOfToken = (wanted: ClassFile, typed: string, now = Date.now()): Who | undefined => {
  const token = tokenOf(typed)
  if (isOver(wanted, now)) return undefined
  let found: Who | undefined
  // All are compared, so that the time it takes reveals nothing.
  for (const { id, token: own } of wanted.seats) if (equal(token, own)) found = { seat: id }
  if (equal(token, wanted.teacher)) found = 'teacher'
  return found
}

const nameOf = (who: Who): string => (who === 'teacher' ? 'teacher' : who.seat)

const tokenFor = (wanted: ClassFile, name: string): string | undefined =>
  name === 'teacher' ? wanted.teacher : wanted.seats.find(({ id }) => id === name)?.token

/** It depends on the token, so a new token invalidates cookies made with the old one. */
const macOf = (wanted: ClassFile, name: string): string =>
  createHmac('sha256', wanted.secret)
    .update(`${name} ${tokenFor(wanted, name) ?? ''}`)
    .digest('base64url')

export const cookieName = '__Host-seat'

/** The cookie in a browser, valid across restarts of the gateway, until the class is over. */
export const cookieFor = (wanted: ClassFile, who: Who): string =>
  `${nameOf(who)}.${macOf(wanted, nameOf(who))}`

/** @param header the request's Cookie */
export const holderOfCookie = (
  wanted: ClassFile,
  header: string | undefined,
  now = Date.now(),
): Who | undefined => {
  const value = (header ?? '')
    .split(';')
    .map((pair) => pair.trim())
    .find((pair) => pair.startsWith(`${cookieName}=`))
    ?.slice(cookieName.length + 1)
  const [name = '', mac = ''] = value?.split('.') ?? []
  if (isOver(wanted, now) || tokenFor(wanted, name) === undefined || !equal(mac, macOf(wanted, name)))
    return undefined
  return name === 'teacher' ? 'teacher' : { seat: name }
}

/**
 * Limits of wrong tokens: from one address, and from all together, because addresses are cheap. At 32 bits per token
 * and 100 attempts per minute, thirty seats are safe for years.
 */
export class Guesses {
  readonly #wrong = new Map<string, number[]>()
  #all: number[] = []
  readonly perAddress = 10
  readonly altogether = 100
  /** Milliseconds. */
  readonly within = 60_000

  /** Whether this address may make an attempt now. */
  may(address: string, now = Date.now()): boolean {
    const recent = (this.#wrong.get(address) ?? []).filter((at) => now - at < this.within)
    this.#all = this.#all.filter((at) => now - at < this.within)
    if (recent.length === 0) this.#wrong.delete(address)
    else this.#wrong.set(address, recent)
    return recent.length < this.perAddress && this.#all.length < this.altogether
  }

  wrong(address: string, now = Date.now()): void {
    this.#wrong.set(address, [...(this.#wrong.get(address) ?? []), now])
    this.#all.push(now)
  }
}
