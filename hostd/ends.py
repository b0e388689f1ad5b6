"""The brain's ends of the socketpairs to host and heart.

Decides how a message waits when the other side is slow: in order and without
loss, except that of some kinds only the newest matters.  Refuses to know what
a message says.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from hostd import messages
from hostd.messages import AnyMessage

WAITING_MAX: Final = 20_000
"""Messages; far more than the actions of any plan.  Beyond it the other side hangs for good."""


class End:
    """One connected socket, used from one asyncio loop.

    ``on_ready`` is called in the loop whenever something can be received;
    it must call :meth:`received`.
    """

    def __init__(self, end: socket.socket, on_ready: Callable[[], None]) -> None:
        self._end: socket.socket | None = end
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[AnyMessage] = deque()
        self._loop.add_reader(end.fileno(), on_ready)

    @property
    def is_open(self) -> bool:
        return self._end is not None

    def send(self, message: AnyMessage, *, latest: bool = False) -> None:
        """Send now or as soon as the other side reads.  ``latest``: it replaces
        a waiting one of its kind.  Dropped if the other side is gone."""
        if self._end is None:
            return
        if not self._waiting and messages.send(self._end, message):
            return
        if latest:
            self._waiting = deque(m for m in self._waiting if type(m) is not type(message))
        assert len(self._waiting) < WAITING_MAX, "the other process does not read"
        self._waiting.append(message)
        self._loop.add_writer(self._end.fileno(), self._flush)

    def _flush(self) -> None:
        assert self._end is not None
        while self._waiting and messages.send(self._end, self._waiting[0]):
            self._waiting.popleft()
        if not self._waiting:
            self._loop.remove_writer(self._end.fileno())

    @property
    def has_sent_all(self) -> bool:
        return not self._waiting

    def received(self) -> list[tuple[AnyMessage, list[int]]]:
        """All that has arrived, with the open files beside it.  At the end of
        file the end closes itself: see :attr:`is_open` afterwards."""
        arrived: list[tuple[AnyMessage, list[int]]] = []
        while self._end is not None:
            try:
                message = messages.receive(self._end)
            except BlockingIOError:
                break
            if message is None:
                self.close()
            else:
                arrived.append(message)
        return arrived

    def close(self) -> None:
        if self._end is not None:
            self._loop.remove_reader(self._end.fileno())
            self._loop.remove_writer(self._end.fileno())
            self._end.close()
            self._end = None
            self._waiting.clear()


def adopt(fds: list[int]) -> socket.socket | None:
    """The socket handed over beside a message; anything beyond the first is closed."""
    for surplus in fds[1:]:
        os.close(surplus)
    if not fds:
        return None
    end = socket.socket(fileno=fds[0])
    end.setblocking(False)
    return end
