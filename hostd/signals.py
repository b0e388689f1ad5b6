"""Signals as something to read, between two turns of the host's loop.

Decides which signals are the host's to answer, and that none interrupts
anything: each arrives as a byte on a socket.  Refuses to know what they mean.
"""

import selectors
import signal
import socket
from collections.abc import Callable
from typing import Final

OURS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Of one process, which has one thread.  ``arrived`` is called from the selector, once for each."""

    def __init__(self, selector: selectors.BaseSelector, arrived: Callable[[int], None]) -> None:
        self._selector, self._arrived = selector, arrived
        self._wakeup, self._wakeup_write = socket.socketpair()

    def listen(self) -> None:
        """From now on."""
        self._wakeup.setblocking(False)
        self._wakeup_write.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_write.fileno())
        for number in OURS:
            signal.signal(number, lambda *_: None)  # the byte in the wakeup socket is what counts
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._read)

    def close(self) -> None:
        """In a child, which answers signals in its own way."""
        self._wakeup.close()
        self._wakeup_write.close()

    def _read(self) -> None:
        for number in self._wakeup.recv(64):
            if number in OURS:
                self._arrived(number)
