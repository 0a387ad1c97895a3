/* global Terminal, FitAddon */
'use strict'

/**
 * A terminal on this page that is connected to one at a seat. It reconnects when the connection is lost; meanwhile the
 * programs at the seat keep running.
 * @param {HTMLElement} element
 * @param {string} query of the address `/terminal`
 * @param {{ message(said: object): void, state(open: boolean): void }} told
 */
globalThis.joinTerminal = (element, query, told) => {
  const terminal = new Terminal({ cursorBlink: true, fontSize: 15, scrollback: 5000, screenReaderMode: false })
  const fit = new FitAddon.FitAddon()
  terminal.loadAddon(fit)
  terminal.open(element)
  let socket
  let closed = false
  let pause = 250
  const send = (data) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(data)
  }
  /** For an observer, the size of the student's terminal; the font shrinks until that fits. */
  let size
  const resize = () => {
    if (size) {
      const { cols, rows } = fit.proposeDimensions() ?? size
      const scale = Math.min(cols / size.columns, rows / size.rows)
      terminal.options.fontSize = Math.min(15, Math.max(6, Math.floor(terminal.options.fontSize * scale)))
      terminal.resize(size.columns, size.rows)
      return
    }
    fit.fit()
    send(JSON.stringify({ columns: terminal.cols, rows: terminal.rows }))
  }
  const open = () => {
    socket = new WebSocket(`wss://${location.host}/terminal${query}`)
    socket.binaryType = 'arraybuffer'
    socket.onopen = () => {
      pause = 250
      told.state(true)
      resize()
    }
    socket.onmessage = ({ data }) => {
      if (typeof data !== 'string') {
        terminal.write(new Uint8Array(data))
        return
      }
      const said = JSON.parse(data)
      if (said.columns === undefined) told.message(said)
      else {
        size = said
        resize()
      }
    }
    socket.onclose = () => {
      if (closed) return
      told.state(false)
      setTimeout(open, pause)
      pause = Math.min(5000, pause * 2)
    }
  }
  const encoder = new TextEncoder()
  terminal.onData((data) => send(encoder.encode(data)))
  terminal.onBinary((data) => send(Uint8Array.from(data, (letter) => letter.charCodeAt(0))))
  const watching = new ResizeObserver(resize)
  watching.observe(element)
  open()
  terminal.focus()
  return {
    terminal,
    send,
    /** For programs that drive this page: the text on the terminal. */
    shownText: () => {
      const { active } = terminal.buffer
      const lines = Array.from({ length: active.length }, (_, row) => active.getLine(row))
      return lines.map((line) => line?.translateToString(true) ?? '').join('\n')
    },
    close: () => {
      closed = true
      watching.disconnect()
      socket.close()
      terminal.dispose()
    },
  }
}
