/** Cards for the tables: a page to print, with eight cards on a sheet of A4. */
import { encode } from 'uqr'
import { cardUrl, type ClassFile } from './class.js'
import { byNumber } from './roster.js'

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')

const texts = {
  en: {
    title: (lab: string) => `Cards of the class ${lab}`,
    seat: 'Seat',
    open: 'Open this address in a browser, or scan the code:',
    once: 'Your browser will warn you that it does not know this computer. This is expected in this room; continue.',
    fingerprint: 'SHA-256 of the certificate begins with',
  },
  ja: {
    title: (lab: string) => `${lab} クラスのカード`,
    seat: '座席',
    open: 'ブラウザで次のアドレスを開くか、コードを読み取ってください。',
    once: 'ブラウザが「このコンピュータは未知です」と警告します。この教室ではそのまま進んでください。',
    fingerprint: '証明書の SHA-256 の先頭',
  },
} as const

/** A QR code as SVG: a single path, with nothing that a content security policy would refuse. */
export const qrSvg = (text: string): string => {
  const { data, size } = encode(text, { ecc: 'M', border: 2 })
  const squares = data.flatMap((row, y) =>
    row.flatMap((dark, x) => (dark ? [`M${String(x)} ${String(y)}h1v1h-1z`] : [])),
  )
  return `<svg viewBox="0 0 ${String(size)} ${String(size)}" role="img" aria-label="${escaped(text)}" shape-rendering="crispEdges"><rect width="100%" height="100%" fill="#fff"/><path fill="#000" d="${squares.join('')}"/></svg>`
}

/** Seats with the same gateway. */
export interface CardsOf {
  readonly class: ClassFile
  /** Of the gateway's certificate, as browsers show it: `AB:CD:…`. */
  readonly fingerprint: string
}

/** @param parts one for each host */
export const cardsPage = ({ lab, language }: ClassFile, parts: readonly CardsOf[]): string => {
  const text = texts[language]
  const card = (part: ClassFile, { id, token }: ClassFile['seats'][number], fingerprint: string): string => {
    const url = cardUrl(part, token)
    const [address, words] = [url.slice(0, url.lastIndexOf('/') + 1), token]
    return `<section><div><h2>${text.seat} ${escaped(id)}</h2><p>${text.open}</p><p class="address">${escaped(address)}<wbr><b>${escaped(words)}</b></p><p class="small">${text.once} ${text.fingerprint} ${escaped(fingerprint.slice(0, 23))}</p></div>${qrSvg(url)}</section>`
  }
  return `<!doctype html>
<html lang="${language}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escaped(text.title(lab))}</title>
<style>
@page { size: A4 portrait; margin: 8mm; }
* { box-sizing: border-box; }
body { margin: 0; font: 10pt/1.35 system-ui, "Noto Sans JP", sans-serif; color: #000; background: #fff; }
main { display: grid; grid-template-columns: 1fr 1fr; width: 194mm; margin: 0 auto; }
section { display: flex; gap: 3mm; height: 70mm; padding: 5mm; border: 0.2mm dashed #888; break-inside: avoid; overflow: hidden; }
section > div { flex: 1; min-width: 0; }
section:nth-child(8n) { break-after: page; }
h2 { margin: 0 0 1mm; font-size: 20pt; }
p { margin: 0 0 2mm; }
.address { font: 10pt/1.3 ui-monospace, monospace; overflow-wrap: anywhere; }
.address b { font-size: 12pt; }
.small { font-size: 7pt; color: #333; }
svg { width: 32mm; height: 32mm; flex: none; }
</style>
</head>
<body>
<main>
${parts
  .flatMap(({ class: part, fingerprint }) =>
    part.seats.map((seat) => ({ id: seat.id, html: card(part, seat, fingerprint) })),
  )
  .sort(byNumber)
  .map(({ html }) => html)
  .join('\n')}
</main>
</body>
</html>
`
}
