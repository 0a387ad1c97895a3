/* global joinTerminal */
'use strict'

const element = (id) => document.getElementById(id)
const cell = (row, text, name) => {
  const made = document.createElement('td')
  made.textContent = text
  if (name) made.className = name
  row.append(made)
  return made
}
const minutesSince = (at, now) => (at ? String(Math.max(0, Math.floor((Date.parse(now) - Date.parse(at)) / 60000))) : '')

let guest
const leave = () => {
  guest?.close()
  guest = undefined
  element('terminal').replaceChildren()
}
const visit = (seat, mode, session = 'desk') => {
  leave()
  const which = session === 'desk' ? 'first' : 'second'
  element('guest-title').textContent =
    mode === 'join'
      ? `Seat ${seat}, ${which} terminal: you can type, and the student sees that`
      : `Seat ${seat}, ${which} terminal: you watch, and the student sees that`
  if (!element('guest').open) element('guest').showModal()
  guest = joinTerminal(element('terminal'), `?seat=${seat}&mode=${mode}&session=${session}`, {
    state: () => undefined,
    message: () => undefined,
  })
  element('guest-other').onclick = () => visit(seat, mode, session === 'desk' ? 'second' : 'desk')
  window.shownText = guest.shownText
}
element('guest').addEventListener('close', leave)
element('guest-close').onclick = () => element('guest').close()

const visitButton = (seat, mode, text) => {
  const made = document.createElement('button')
  made.type = 'button'
  made.textContent = text
  made.onclick = () => visit(seat, mode)
  return made
}

const show = (board) => {
  document.title = `Board · ${board.lab}`
  element('lab').textContent = board.lab
  const ready = board.seats.filter(({ status }) => status === 'ready').length
  const hands = board.seats.filter(({ hand }) => hand).length
  element('count').textContent = `${ready} of ${board.seats.length} seats ready, ${hands} hands up`
  element('host').textContent =
    `load ${board.load.toFixed(1)}, ${(board.memoryFree / 2 ** 30).toFixed(1)} of ${(board.memory / 2 ** 30).toFixed(1)} GiB free`
  element('time').textContent = `until ${new Date(board.until).toLocaleTimeString()}`
  const rows = board.seats.map((seat) => {
    const row = document.createElement('tr')
    row.dataset.seat = seat.id
    if (seat.hand) row.className = 'hand'
    const { progress } = seat
    cell(row, seat.id)
    cell(row, seat.hand ? '✋' : '')
    cell(row, `${seat.status}: ${seat.detail}`, seat.status)
    cell(row, progress ? `${progress.exercise}${progress.finished ? ': finished' : progress.step ? `: ${progress.step}` : ''}` : '')
    cell(row, progress && !progress.finished ? minutesSince(progress.since, board.now) : '', 'number')
    cell(row, progress ? String(progress.done) : '', 'number')
    cell(row, progress ? String(progress.hints) : '', 'number')
    cell(row, progress?.saw ?? '')
    cell(row, seat.seen ? `${minutesSince(seat.seen, board.now)} min ago` : '')
    cell(row, '').append(visitButton(seat.id, 'watch', 'Watch'), visitButton(seat.id, 'join', 'Join'))
    return row
  })
  element('seats').replaceChildren(...rows)
  element('commands').textContent = [
    `lab class verify --lab ${board.lab}        every seat, as a student comes in`,
    `lab class reset 01 --lab ${board.lab}      a seat's lab, made anew; its home folder stays`,
    `lab class extend 30 --lab ${board.lab}     30 more minutes`,
    `lab class results --lab ${board.lab}       what was done, as CSV or JUnit`,
    `lab class down --lab ${board.lab}          end, and see that nothing is left`,
  ].join('\n')
}

const stream = new EventSource('/board/events')
stream.onmessage = ({ data }) => {
  element('notice').hidden = true
  show(JSON.parse(data))
}
stream.onerror = () => {
  element('notice').textContent = 'The gateway does not answer; trying again…'
  element('notice').hidden = false
}
