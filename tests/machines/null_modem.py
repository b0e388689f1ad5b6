"""The serial cable between the second ports of two emulated machines.

Decides how fast bytes pass: QEMU's 16550 does not pace its output by the baud
rate, so the cable does, ten bit times a byte.  A socket carries no modem
lines: DCD, DSR and CTS always read 1, whatever happens to the other end.
"""

import contextlib
import socket
import threading
import time
from pathlib import Path

CHUNK = 64
"""Bytes that pass at once: a 16550 holds 16, and a thread in Python sleeps no shorter than a millisecond."""

QUEUE = 4_096
"""What may wait for a machine that does not read; the kernel doubles it and counts its own bookkeeping."""


class NullModem:
    """Both ends are unix sockets on which the machines' QEMU connect, again after each start."""

    def __init__(self, folder: Path, *, baud: int = 115_200) -> None:
        self.baud = baud
        self.is_plugged = True
        self.passed = [0, 0]
        """Bytes that have passed, by the end that they came from."""
        self._paths = (folder / "cable-0", folder / "cable-1")
        self._listeners: list[socket.socket] = []
        self._ends: list[socket.socket | None] = [None, None]
        self._ended = False
        for end, path in enumerate(self._paths):
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            listener.bind(str(path))
            listener.listen(1)
            self._listeners.append(listener)
            threading.Thread(target=self._serve, args=(end,), name=f"cable end {end}", daemon=True).start()

    def path(self, end: int) -> Path:
        return self._paths[end]

    def unplug(self) -> None:
        """What is sent from now on is lost."""
        self.is_plugged = False

    def plug(self) -> None:
        self.is_plugged = True

    def close(self) -> None:
        self._ended = True
        for opened in (*self._listeners, *self._ends):
            if opened:
                with contextlib.suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)
                opened.close()

    def _serve(self, end: int) -> None:
        while not self._ended:
            try:
                connection, _ = self._listeners[end].accept()
            except OSError:
                return  # closed
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUE)
            self._ends[end] = connection
            with contextlib.suppress(OSError):  # the machine lost its power
                self._pump(end, connection)
            self._ends[end] = None
            connection.close()

    def _pump(self, end: int, connection: socket.socket) -> None:
        free_at = time.monotonic()
        while data := connection.recv(CHUNK):
            now = time.monotonic()
            free_at = max(now, free_at) + len(data) * 10 / self.baud
            time.sleep(max(0.0, free_at - now))
            other = self._ends[1 - end]
            if self.is_plugged and other is not None:
                self.passed[end] += len(data)
                with contextlib.suppress(OSError):
                    other.send(data, socket.MSG_DONTWAIT)  # a full one: overrun, as on a real line
