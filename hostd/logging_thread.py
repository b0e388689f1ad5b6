"""Log lines leave the brain through a thread, so that a journal that does not
read never stops the loop.

Decides that lines are dropped, and counted, rather than waited for.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Iterator
from typing import Final

LINES_MAX: Final = 10_000
"""Waiting; then lines are dropped."""
LAST_WORDS_S: Final = 1.0
"""How long the end waits for the lines that are still to be written."""


class _Lines(logging.Handler):
    """Hands each line to the thread, which gives it to the handlers that were there before."""

    def __init__(self, handlers: list[logging.Handler]) -> None:
        super().__init__()
        self._handlers = handlers
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(LINES_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        record.message = record.getMessage()  # the arguments may change before the thread looks
        record.msg, record.args = record.message, None
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        while (record := self._lines.get()) is not None:
            if self._dropped:
                record.msg = f"{record.msg} [{self._dropped} lines before this one were lost]"
                self._dropped = 0
            for handler in self._handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)

    def finish(self) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
            self._thread.join(LAST_WORDS_S)


@contextlib.contextmanager
def log_from_a_thread() -> Iterator[None]:
    """While this holds, every handler of the root logger is served by a thread."""
    root = logging.getLogger()
    before = root.handlers[:]
    lines = _Lines(before)
    root.handlers[:] = [lines]
    try:
        yield
    finally:
        root.handlers[:] = before
        lines.finish()
