"""For programs that multusd runs: readiness, heartbeat, status, outputs, inputs. One file, standard library only.

    import multusd

    supervised = multusd.Multusd()
    supervised.ready()
    while True:
        ...                      # a round of work
        supervised.beat()

Where the environment says nothing (the program was started by hand) everything does nothing, so that a
program needs no second way to run. An error is an OSError, or a ValueError where the environment makes no sense.

Public domain (CC0); no condition, no warranty.
"""

import collections
import ctypes
import fcntl
import mmap
import os
import socket
import struct
import time

# GPIO_V2_LINE_SET_VALUES_IOCTL of <linux/gpio.h> (Linux 5.10), and its argument: bits, mask.
_SET_VALUES = 0xC010B40F
_VALUES = struct.Struct("=QQ")

# The page of inputs: a header (magic, version, count), then records, 64 bytes each.
_HEADER = struct.Struct("=8sII")
_RECORD = struct.Struct("=IIQQQ32s")

Input = collections.namedtuple("Input", "on high edges time_ns")
Input.__doc__ = """One input as it was published last: what it means and its voltage (None: it is not read now), edges
since multusd requested it, and when the last of them was (CLOCK_MONOTONIC, as time.monotonic_ns(); 0: none)."""


class Multusd:
    """A program's side of everything that multusd and it say to each other; one thread's at a time."""

    def __init__(self, environ=None):
        environ = os.environ if environ is None else environ
        self._notify = None
        if environ.get("NOTIFY_SOCKET"):
            path = environ["NOTIFY_SOCKET"]
            self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._notify.connect("\0" + path[1:] if path.startswith("@") else path)
        micros = environ.get("MULTUSD_HEARTBEAT_USEC") or environ.get("WATCHDOG_USEC")
        #: The longest silence allowed, in seconds; None: nobody judges. A third of it is a good pace.
        self.limit = int(micros) / 1e6 if micros else None
        self._outputs = dict(_pairs(environ.get("MULTUSD_OUTPUTS", "")))
        self._inputs = None
        if environ.get("MULTUSD_INPUTS"):
            self._inputs = mmap.mmap(int(environ["MULTUSD_INPUTS"]), 0, prot=mmap.PROT_READ)
            if _HEADER.unpack_from(self._inputs)[:2] != (b"multusdI", 1):
                raise ValueError("MULTUSD_INPUTS: another version's")
        # Under another supervisor that speaks sd_notify there is only WATCHDOG_USEC.
        means = environ.get("MULTUSD_HEARTBEAT") or ("notify" if environ.get("WATCHDOG_USEC") else "")
        self._beat = self._understand(means)

    def _understand(self, means):
        kind, _, what = means.partition(":")
        if kind == "":
            return lambda: None
        if kind == "notify":
            return self._beat_by_message
        if kind == "fd":
            number = int(what)
            os.fstat(number)
            return lambda: _unless_full(os.write, number, b".")
        if kind == "counter":
            # Mapped for as long as this lives; one store of eight bytes, never two halves.
            page = ctypes.c_uint64.from_buffer(mmap.mmap(int(what), 8))

            def beat():
                page.value = time.monotonic_ns()

            return beat
        if kind == "file":
            return lambda: _touch(what)
        if kind == "tcp":
            self._link = socket.create_connection(("127.0.0.1", int(what)))
            self._link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._last = 0
            return self._beat_by_count
        raise ValueError(f"MULTUSD_HEARTBEAT={means}: not understood")

    def _beat_by_message(self):
        if self._notify:
            _unless_full(self._notify.send, b"WATCHDOG=1", socket.MSG_DONTWAIT)

    def _beat_by_count(self):
        self._last = self._last % 9 + 1
        self._link.send(bytes([self._last]))

    def beat(self):
        """It makes progress. Never waits."""
        self._beat()

    def say(self, words):
        """Anything of sd_notify(3), such as "EXTEND_TIMEOUT_USEC=5000000". Waits while the queue is full."""
        if self._notify:
            self._notify.send(words.encode())

    def ready(self):
        """It serves (`ready = notify`)."""
        self.say("READY=1")

    def status(self, text):
        """A line for people, which `multusctl status` shows."""
        self.say("STATUS=" + text.replace("\n", " "))

    def stopping(self):
        """It is about to end: it has its stop time, and its heartbeat is not judged in it."""
        self.say("STOPPING=1")

    @property
    def outputs(self):
        """The names of the program's outputs."""
        return list(self._outputs)

    def output(self, name):
        """The descriptor of one of its outputs; KeyError: it has none of this name."""
        return self._outputs[name]

    def set(self, name, on):
        """Switches an output on or off. A GPIO line that is configured `active = low` is turned around by
        the kernel; a file (an LED, a PWM, a test's) is written "1" or "0"."""
        number = self._outputs[name]
        try:
            fcntl.ioctl(number, _SET_VALUES, _VALUES.pack(1 if on else 0, 1))
        except OSError as error:
            if error.errno not in (25, 22):  # ENOTTY, EINVAL: no GPIO line
                raise
            os.pwrite(number, b"1\n" if on else b"0\n", 0)


    def input(self, name):
        """One of the machine's inputs (`inputs =`); KeyError: there is none of this name. No system call."""
        for at in range(64, 64 * (1 + _HEADER.unpack_from(self._inputs)[2]) if self._inputs else 0, 64):
            if name and _RECORD.unpack_from(self._inputs, at)[5].rstrip(b"\0") == name.encode():
                return self._read(at)
        raise KeyError(name)

    def _read(self, at):
        while True:
            sequence, flags, edges, time_ns, _, _ = _RECORD.unpack_from(self._inputs, at)
            # Odd while it is written; the same afterwards: nothing was written meanwhile.
            if sequence & 1 == 0 and _RECORD.unpack_from(self._inputs, at)[0] == sequence:
                high, on = (bool(flags & 2), bool(flags & 4)) if flags & 1 else (None, None)
                return Input(on, high, edges, time_ns)


def _pairs(text):
    for pair in filter(None, text.split(",")):
        name, _, number = pair.partition("=")
        yield name, int(number)


def _unless_full(send, *arguments):
    """A queue or a pipe that is full holds beats that were not looked at yet."""
    try:
        send(*arguments)
    except BlockingIOError:
        pass


def _touch(path):
    try:
        os.utime(path)
    except FileNotFoundError:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o644))
