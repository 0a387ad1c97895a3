/* global joinTerminal */
'use strict'

const element = (id) => document.getElementById(id)
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

/** The row of a seat. Each row is made once and then kept, so that a pressed button or selected text does not vanish. */
const rowOf = (id) => {
  const found = document.querySelector(`tr[data-seat="${id}"]`)
  if (found) return found
  const row = document.createElement('tr')
  row.dataset.seat = id
  for (let count = 0; count < 10; count++) row.append(document.createElement('td'))
  row.lastChild.append(visitButton(id, 'watch', 'Watch'), visitButton(id, 'join', 'Join'))
  element('seats').append(row)
  return row
}
const update = (row, seat, now) => {
  const { progress } = seat
  const working = progress && !progress.finished
  const step = progress && (progress.finished ? ': finished' : progress.step ? `: ${progress.step}` : '')
  const cells = [
    [seat.id],
    [seat.hand ? 'up' : ''],
    [`${seat.status}: ${seat.detail}`, seat.status],
    [progress ? `${progress.exercise}${step}` : ''],
    [working ? minutesSince(progress.since, now) : '', 'number'],
    [progress ? String(progress.done) : '', 'number'],
    [progress ? String(progress.hints) : '', 'number'],
    [working ? (progress.saw ?? '') : ''],
    [seat.seen ? `${minutesSince(seat.seen, now)} min ago` : ''],
  ]
  row.className = seat.hand ? 'hand' : ''
  for (const [index, [text, name = '']] of cells.entries()) {
    const cell = row.children[index]
    if (cell.textContent !== text) cell.textContent = text
    cell.className = name
  }
}

const show = (board) => {
  document.title = `Board · ${board.lab}`
  element('lab').textContent = board.lab
  const ready = board.seats.filter(({ status }) => status === 'ready').length
  const hands = board.seats.filter(({ hand }) => hand).length
  element('count').textContent = `${ready} of ${board.seats.length} seats ready, ${hands} ${hands === 1 ? 'hand' : 'hands'} up`
  element('host').textContent =
    `load ${board.load.toFixed(1)}, ${(board.memoryFree / 2 ** 30).toFixed(1)} of ${(board.memory / 2 ** 30).toFixed(1)} GiB free`
  element('time').textContent = `until ${new Date(board.until).toLocaleTimeString()}`
  const problems = (board.problems ?? []).join('\n')
  element('problems').hidden = problems === ''
  if (element('problems').textContent !== problems) element('problems').textContent = problems
  for (const seat of board.seats) update(rowOf(seat.id), seat, board.now)
  element('commands').textContent = [
    `lab class verify --lab ${board.lab}        checks every seat, entering it as a student does`,
    `lab class reset 01 --lab ${board.lab}      makes a seat's lab again; its home folder is kept`,
    `lab class extend 30 --lab ${board.lab}     adds 30 minutes`,
    `lab class results --lab ${board.lab}       prints what was done, as CSV or JUnit`,
    `lab class down --lab ${board.lab}          ends the class and checks that nothing is left`,
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
