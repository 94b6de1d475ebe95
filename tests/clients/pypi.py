"""The scene of tests/notify_clients.rs, by the sdnotify of PyPI."""

import os
import subprocess
import sys
import time

import sdnotify

notifier = sdnotify.SystemdNotifier()
here = sys.argv[1]


def is_asked(name):
    return os.path.exists(f"{here}/{name}")


notifier.notify("READY=1\nSTATUS=at work")
child = None
is_quiet = False
while True:
    if is_asked("main") and child is None:
        child = subprocess.Popen(["sleep", "1000"])
        with open(f"{here}/child", "w", encoding="ascii") as file:
            file.write(f"{child.pid}\n")
        notifier.notify(f"MAINPID={child.pid}")
    if is_asked("stop"):
        notifier.notify("STOPPING=1")
        time.sleep(1000)
    if is_asked("quiet") and not is_quiet:
        notifier.notify("EXTEND_TIMEOUT_USEC=8000000")
    is_quiet = is_asked("quiet")
    if not is_quiet:
        notifier.notify("WATCHDOG=1")
    time.sleep(0.1)
