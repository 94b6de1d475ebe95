"""A program that multusd runs, in Python: ready, a status, an output switched on, beats; an input, where it is asked."""

import signal
import sys
import time

import multusd

ENDING = []
signal.signal(signal.SIGTERM, lambda *_: ENDING.append(True))
supervised = multusd.Multusd()
if len(sys.argv) > 1:
    seen = supervised.input(sys.argv[1])
    print(int(seen.high is not None), int(bool(seen.high)), int(bool(seen.on)), seen.edges, seen.time_ns)
    sys.exit()
if "lamp" in supervised.outputs:
    supervised.set("lamp", True)
supervised.ready()
supervised.status("speaks Python")
while not ENDING:
    supervised.beat()
    time.sleep(0.05)
supervised.stopping()
