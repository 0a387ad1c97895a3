/* global joinTerminal */
'use strict'

const words = {
  en: {
    seat: (id) => `Seat ${id}`,
    two: 'Second terminal',
    hand: 'Raise hand',
    raised: 'Hand is up',
    watch: 'The teacher is watching',
    join: 'The teacher is here and can type',
    away: 'The connection was cut. Nothing is lost; trying again…',
    ended: (why) => `Ended: ${why}. Starting again…`,
    left: (minutes) => `${minutes} min left`,
  },
  ja: {
    seat: (id) => `座席 ${id}`,
    two: '2 つ目の端末',
    hand: '手を挙げる',
    raised: '挙手中',
    watch: '講師が画面を見ています',
    join: '講師が操作に参加しています',
    away: '接続が切れました。作業は失われていません。再接続しています…',
    ended: (why) => `終了しました（${why}）。再開しています…`,
    left: (minutes) => `残り ${minutes} 分`,
  },
}

const element = (id) => document.getElementById(id)

const start = async () => {
  const me = await (await fetch('/me')).json()
  const say = words[me.language] ?? words.en
  document.documentElement.lang = me.language
  document.title = `${say.seat(me.who)} · ${me.lab}`
  element('seat').textContent = say.seat(me.who)
  element('lab').textContent = me.lab
  const hand = element('hand')
  let raised = me.hand
  const show = () => {
    hand.textContent = raised ? say.raised : say.hand
    hand.setAttribute('aria-pressed', String(raised))
  }
  show()
  const notice = (text) => {
    element('notice').textContent = text ?? ''
    element('notice').hidden = text === undefined
  }
  const told = {
    state: (open) => notice(open ? undefined : say.away),
    message: (said) => {
      if (said.ended !== undefined) notice(say.ended(said.ended))
      if (said.hand !== undefined) {
        raised = said.hand
        show()
      }
      if (said.guest !== undefined) {
        element('guest').hidden = said.guest === 'none'
        element('guest').textContent = say[said.guest] ?? ''
      }
    },
  }
  const joined = joinTerminal(element('terminal'), '', told)
  let second
  const two = element('two')
  two.textContent = say.two
  two.onclick = () => {
    // Programs in the second terminal keep running while it is hidden.
    const open = second === undefined
    element('second').hidden = !open
    two.setAttribute('aria-pressed', String(open))
    if (open) second = joinTerminal(element('second'), '?session=second', told)
    else {
      second.close()
      second = undefined
      joined.terminal.focus()
    }
  }
  window.shownText = (which) => (which === 'second' ? (second?.shownText() ?? '') : joined.shownText())
  hand.onclick = () => {
    joined.send(JSON.stringify({ hand: !raised }))
    joined.terminal.focus()
  }
  const clock = () => {
    element('time').textContent = say.left(Math.max(0, Math.round((Date.parse(me.until) - Date.now()) / 60000)))
  }
  clock()
  setInterval(clock, 15000)
}

void start()
