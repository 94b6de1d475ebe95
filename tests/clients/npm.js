// The scene of tests/notify_clients.rs, by the sd-notify of npm.
'use strict'

const fs = require('fs')
const { spawn } = require('child_process')
const notify = require('sd-notify')

const here = process.argv[2]
const isAsked = (name) => fs.existsSync(`${here}/${name}`)
let child = null
let isQuiet = false
let isStopping = false

notify.ready()
notify.sendStatus('at work')
setInterval(() => {
  if (isAsked('main') && child === null) {
    child = spawn('sleep', ['1000'], { stdio: 'ignore' })
    fs.writeFileSync(`${here}/child`, `${child.pid}\n`)
    notify.sendState(`MAINPID=${child.pid}`)
  }
  if (isStopping) return
  if (isAsked('stop')) {
    isStopping = true
    notify.stopping(process.pid)
    return
  }
  if (isAsked('quiet') && !isQuiet) notify.sendState('EXTEND_TIMEOUT_USEC=8000000')
  isQuiet = isAsked('quiet')
  if (!isQuiet) notify.watchdog()
}, 100)
